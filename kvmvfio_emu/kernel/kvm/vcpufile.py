"""The ioctls of a vCPU's descriptor (kvm_vcpu_ioctl, arch/arm/kvm/arm.c)."""

from __future__ import annotations

import errno
from os import close  # bound here: not what `Kernel.installed` may put in its place
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.kvm.run import RunCall
from kvmvfio_emu.kernel.kvm.vcpu import RUN_SIZE, Vcpu
from kvmvfio_emu.kernel.task import UserPtr

_PAGE = 4096
_SIGSET_SIZE = 8


class VcpuFile(File):
    """What KVM_CREATE_VCPU gives. It holds the virtual machine."""

    kind = "vcpu"
    unknown_errno = errno.EINVAL
    seekable = True
    map_size = RUN_SIZE

    def __init__(self, vcpu: Vcpu) -> None:
        super().__init__(vcpu.host)
        self.vcpu = vcpu
        self.link = f"anon_inode:kvm-vcpu:{vcpu.number}"
        self.owner = vcpu.vm.mm
        self.backing: int | None = None
        vcpu.vm.get(self)

    def attach_backing(self, fd: int) -> None:
        """The run page and what follows it."""
        self.backing = fd
        self.vcpu.attach_run_page(fd)

    def mmap(self, offset: int, length: int, *, write: bool, shared: bool) -> None:
        """Any range; what lies beyond the shared pages faults when touched."""

    def release(self) -> None:
        """The vCPU itself stays until its virtual machine goes."""
        self.abandon()
        self.vcpu.vm.put(self)

    def abandon(self) -> None:
        """The run page's memory."""
        if self.backing is not None:
            close(self.backing)
            self.backing = None

    @ioctl(uapi.KVM_RUN)
    def run(self, arg: UserPtr) -> RunCall:
        """Run the guest. EINVAL an argument, ENOEXEC before KVM_ARM_VCPU_INIT, ENXIO the VGIC's frames have no
        address, EINTR a signal or immediate_exit. The result is a call in progress, which the door drives."""
        vcpu = self.vcpu
        if arg != 0:
            raise KernelError(errno.EINVAL, "KVM_RUN takes no argument")
        if not vcpu.initialized:
            raise KernelError(errno.ENOEXEC, "KVM_ARM_VCPU_INIT was not called")
        if vcpu.vm.vgic is not None and not vcpu.has_run:
            vcpu.vm.vgic.map_resources()
        return RunCall(vcpu, self.host.current, self)

    @ioctl(uapi.KVM_ARM_VCPU_INIT, "struct kvm_vcpu_init")
    def arm_vcpu_init(self, init: Any) -> int:
        """Choose the target CPU and reset. EINVAL another target than the host's, or ENOENT an unknown feature."""
        from kvmvfio_emu.kernel.kvm.vmfile import preferred_target

        if init.target != preferred_target(self.host.profile.arch):
            raise KernelError(errno.EINVAL, f"target {init.target} is not the host's CPU")
        features = sum(word << 32 * index for index, word in enumerate(init.features))
        known = 1 << uapi.KVM_ARM_VCPU_POWER_OFF | 1 << uapi.KVM_ARM_VCPU_PSCI_0_2
        if features & ~known:
            raise KernelError(errno.ENOENT, f"unknown vCPU features {features & ~known:#x}")
        self.vcpu.powered_off = bool(features >> uapi.KVM_ARM_VCPU_POWER_OFF & 1)
        self.vcpu.initialized = True
        return 0

    @ioctl(uapi.KVM_SET_SIGNAL_MASK)
    def set_signal_mask(self, arg: UserPtr) -> int:
        """The signals blocked while in KVM_RUN (``struct kvm_signal_mask``); NULL: as outside. EFAULT, EINVAL unless
        the set has the kernel's 8 bytes."""
        if arg == 0:
            self.vcpu.signal_mask = None
            return 0
        task = self.host.current
        length = int.from_bytes(task.copy_from_user(arg, 4), "little")
        if length != _SIGSET_SIZE:
            raise KernelError(errno.EINVAL, f"a signal set of {length} bytes")
        self.vcpu.signal_mask = int.from_bytes(task.copy_from_user(arg, _SIGSET_SIZE, 4), "little")
        return 0

    @ioctl(uapi.KVM_GET_ONE_REG)
    def get_one_reg(self, arg: UserPtr) -> int:
        """The model's scripted vCPU has no registers: ENOEXEC before KVM_ARM_VCPU_INIT, then EFAULT, ENOENT."""
        return self._no_register(arg)

    @ioctl(uapi.KVM_SET_ONE_REG)
    def set_one_reg(self, arg: UserPtr) -> int:
        """As KVM_GET_ONE_REG."""
        return self._no_register(arg)

    @ioctl(uapi.KVM_GET_REG_LIST)
    def get_reg_list(self, arg: UserPtr) -> int:
        """The empty list. ENOEXEC before KVM_ARM_VCPU_INIT, EFAULT."""
        if not self.vcpu.initialized:
            raise KernelError(errno.ENOEXEC, "KVM_ARM_VCPU_INIT was not called")
        self.host.current.copy_from_user(arg, 8)
        self.host.current.copy_to_user(arg, bytes(8))
        return 0

    def _no_register(self, arg: UserPtr) -> int:
        if not self.vcpu.initialized:
            raise KernelError(errno.ENOEXEC, "KVM_ARM_VCPU_INIT was not called")
        self.host.current.copy_from_user(arg, uapi.sizeof("struct kvm_one_reg"))
        raise KernelError(errno.ENOENT, "a scripted vCPU has no registers")
