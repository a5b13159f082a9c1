"""The /dev/kvm file; models kvm_dev_ioctl of virt/kvm/kvm_main.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.kvm.vm import Vm
from kvmvfio_emu.kernel.kvm.vmfile import VmFile
from kvmvfio_emu.kernel.task import UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.module import Kvm

API_VERSION = 12


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

    @ioctl(uapi.KVM_GET_API_VERSION)
    def get_api_version(self, arg: UserPtr) -> int:
        """12. A non-zero argument is EINVAL."""
        _no_argument(arg)
        return API_VERSION

    @ioctl(uapi.KVM_CHECK_EXTENSION, value=True)
    def check_extension(self, arg: int) -> int:
        """The answer of the profile; 0 for what it does not know."""
        return self.kvm.capabilities.get(arg, 0)

    @ioctl(uapi.KVM_GET_VCPU_MMAP_SIZE)
    def get_vcpu_mmap_size(self, arg: UserPtr) -> int:
        """Bytes of the run page and what follows it. A non-zero argument is EINVAL."""
        _no_argument(arg)
        return 2 * 4096

    @ioctl(uapi.KVM_CREATE_VM, value=True)
    def create_vm(self, machine_type: int) -> int:
        """A descriptor of a new virtual machine. EINVAL for a machine type (ARM of this age has none but 0)."""
        if machine_type:
            raise KernelError(errno.EINVAL, f"no machine type {machine_type:#x}")
        vm = Vm(self.kvm, self.host.current.mm)
        return self.host.current.install(VmFile(vm))
