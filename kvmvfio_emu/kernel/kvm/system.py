"""The /dev/kvm file; models kvm_dev_ioctl of virt/kvm/kvm_main.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.kvm.vcpu import run_size
from kvmvfio_emu.kernel.kvm.vm import Vm
from kvmvfio_emu.kernel.kvm.vmfile import VmFile
from kvmvfio_emu.kernel.task import UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.module import Kvm

API_VERSION = 12
_XSTATE = 0b111  #: bits of XCR0


def _no_argument(arg: UserPtr) -> None:
    if arg != 0:
        raise KernelError(errno.EINVAL, "this ioctl takes no argument")


class KvmFile(File):
    """What open("/dev/kvm") gives."""

    kind = "kvm"
    link = "/dev/kvm"
    unknown_errno = errno.EINVAL
    seekable = True

    def __init__(self, kvm: Kvm) -> None:
        super().__init__(kvm.host)
        self.kvm = kvm
        self._capabilities, self._own_capabilities = kvm.capabilities, kvm.arch.own_capabilities

    @ioctl(uapi.KVM_GET_API_VERSION)
    def get_api_version(self, arg: UserPtr) -> int:
        """12. A non-zero argument is EINVAL."""
        _no_argument(arg)
        return API_VERSION

    @ioctl(uapi.KVM_CHECK_EXTENSION, value=True)
    def check_extension(self, arg: int) -> int:
        """The answer of the profile; 0 for what it does not know."""
        if arg in self._own_capabilities:
            return self.kvm.arch.capability(self.kvm, arg, None)
        return self._capabilities.get(arg, 0)

    @ioctl(uapi.KVM_GET_VCPU_MMAP_SIZE)
    def get_vcpu_mmap_size(self, arg: UserPtr) -> int:
        """Bytes of the run page and what follows it. A non-zero argument is EINVAL."""
        _no_argument(arg)
        return run_size(self.host.profile)

    @ioctl(uapi.KVM_CREATE_VM, value=True)
    def create_vm(self, machine_type: int) -> int:
        """A descriptor of a new virtual machine. EINVAL a machine type that there is not; see `Arch.phys_bits`."""
        vm = Vm(self.kvm, self.host.current.mm, machine_type)
        return self.host.current.install(VmFile(vm))

    @ioctl(uapi.KVM_HAS_DEVICE_ATTR, "struct kvm_device_attr", when="KVM_CAP_SYS_ATTRIBUTES")
    def has_device_attr(self, attr: Any) -> int:
        """Attributes of the module: what of the CPU's state a guest can have. EFAULT, ENXIO."""
        if attr.group or attr.attr:
            raise KernelError(errno.ENXIO, f"KVM has no attribute {attr.attr:#x} in group {attr.group}")
        return 0

    @ioctl(uapi.KVM_GET_DEVICE_ATTR, "struct kvm_device_attr", when="KVM_CAP_SYS_ATTRIBUTES")
    def get_device_attr(self, attr: Any) -> int:
        """As above, its value: x87, SSE and AVX state."""
        self.has_device_attr(attr)
        self.host.current.copy_to_user(attr.addr, _XSTATE.to_bytes(8, "little"))
        return 0
