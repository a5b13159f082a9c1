"""The ioctls of a vCPU's descriptor (kvm_vcpu_ioctl, kvm_arch_vcpu_ioctl)."""

from __future__ import annotations

import errno
from os import close  # bound here: not what `Kernel.installed` may put in its place
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.kvm.arch.arm_vcpu import vcpu_init
from kvmvfio_emu.kernel.kvm.run import RunCall
from kvmvfio_emu.kernel.kvm.stats import VcpuStatsFile
from kvmvfio_emu.kernel.kvm.vcpu import Vcpu, run_size
from kvmvfio_emu.kernel.kvm.vcpuattr import VcpuAttributes
from kvmvfio_emu.kernel.task import UserPtr

_SIGSET_SIZE = 8
_ARM, _X86 = "arch!=x86_64", "arch=x86_64"


class VcpuFile(File):
    """What KVM_CREATE_VCPU gives. It holds the virtual machine."""

    kind = "vcpu"
    attributes = VcpuAttributes.groups
    unknown_errno = errno.EINVAL
    seekable = True

    def __init__(self, vcpu: Vcpu) -> None:
        super().__init__(vcpu.host)
        self.vcpu = vcpu
        self.map_size = run_size(vcpu.host.profile)
        self.link = f"anon_inode:kvm-vcpu:{vcpu.number}"
        self.detail = str(vcpu.number)
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

    def _require_init(self) -> None:
        if not self.vcpu.initialized:
            raise KernelError(errno.ENOEXEC, "KVM_ARM_VCPU_INIT was not called")

    # -- running ----------------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_RUN)
    def run(self, arg: UserPtr) -> RunCall:
        """Run the guest. EINVAL an argument, ENOEXEC before KVM_ARM_VCPU_INIT, ENXIO the VGIC's frames have no
        address, EINTR a signal or immediate_exit. The result is a call in progress, which the door drives."""
        vcpu = self.vcpu
        if arg != 0:
            raise KernelError(errno.EINVAL, "KVM_RUN takes no argument")
        self._require_init()
        if vcpu.vm.vgic is not None and not vcpu.has_run:
            vcpu.vm.vgic.map_resources()
        return RunCall(vcpu, self.host.current, self)

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

    @ioctl(uapi.KVM_GET_MP_STATE, "struct kvm_mp_state", when="KVM_CAP_MP_STATE")
    def get_mp_state(self, state: Any) -> int:
        """Whether it runs: KVM_MP_STATE_*. Also before KVM_ARM_VCPU_INIT."""
        state.mp_state = self.vcpu.vm.arch.mp_state(self.vcpu)
        return 0

    @ioctl(uapi.KVM_SET_MP_STATE, "struct kvm_mp_state", when="KVM_CAP_MP_STATE")
    def set_mp_state(self, state: Any) -> int:
        """EFAULT; EINVAL a state that the architecture has not."""
        self.vcpu.vm.arch.set_mp_state(self.vcpu, state.mp_state)
        return 0

    @ioctl(uapi.KVM_SET_GUEST_DEBUG, "struct kvm_guest_debug", when="arch!=x86_64 KVM_CAP_SET_GUEST_DEBUG")
    def set_guest_debug(self, debug: Any) -> int:
        """Debug the guest. EFAULT, EINVAL unknown flags. Kept, but what executes here has no breakpoints."""
        unknown = debug.control & ~self.host.profile.capability("KVM_CAP_SET_GUEST_DEBUG2")
        if unknown:
            raise KernelError(errno.EINVAL, f"debug flags {unknown:#x}")
        self.vcpu.guest_debug = debug.control if debug.control & uapi.KVM_GUESTDBG_ENABLE else 0
        return 0

    @ioctl(uapi.KVM_GET_STATS_FD, when="KVM_CAP_BINARY_STATS_FD")
    def get_stats_fd(self, arg: UserPtr) -> int:
        """A descriptor to read the vCPU's statistics from."""
        return self.host.current.install(VcpuStatsFile(self.vcpu))

    @ioctl(uapi.KVM_ENABLE_CAP, "struct kvm_enable_cap", when=_X86)
    def enable_cap(self, cap: Any) -> int:
        """EFAULT; EINVAL flags, or none that a vCPU can enable. (Not known to ARM's vCPUs.)"""
        if cap.flags or cap.cap != uapi.KVM_CAP_ENFORCE_PV_FEATURE_CPUID:
            raise KernelError(errno.EINVAL, f"capability {cap.cap} of a vCPU cannot be enabled")
        return 0

    # -- ARM --------------------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_ARM_VCPU_INIT, "struct kvm_vcpu_init", when=_ARM)
    def arm_vcpu_init(self, init: Any) -> int:
        """Choose the target CPU and reset; see `arm_vcpu.vcpu_init`."""
        vcpu_init(self.vcpu, init)
        return 0

    @ioctl(uapi.KVM_ARM_VCPU_FINALIZE, when="arch=arm64 one_reg")
    def arm_vcpu_finalize(self, arg: UserPtr) -> int:
        """ENOEXEC, EFAULT; EINVAL: no feature of this CPU needs finalizing."""
        self._require_init()
        feature = int.from_bytes(self.host.current.copy_from_user(arg, 4), "little")
        raise KernelError(errno.EINVAL, f"feature {feature} cannot be finalized")

    @ioctl(uapi.KVM_GET_VCPU_EVENTS, when="arch!=x86_64 KVM_CAP_VCPU_EVENTS")
    def get_vcpu_events(self, arg: UserPtr) -> int:
        """Whether an SError waits for the guest. ENOEXEC where the profile says so, EFAULT."""
        if self.host.profile.vcpu_events_need_init:
            self._require_init()
        events = bytearray(uapi.sizeof("struct kvm_vcpu_events"))
        uapi.view("struct kvm_vcpu_events", events).exception.serror_pending = self.vcpu.serror_pending
        self.host.current.copy_to_user(arg, events)
        return 0

    @ioctl(uapi.KVM_SET_VCPU_EVENTS, when="arch!=x86_64 KVM_CAP_VCPU_EVENTS")
    def set_vcpu_events(self, arg: UserPtr) -> int:
        """Let an SError wait, or abort the last access. ENOEXEC, EFAULT; EINVAL with a syndrome, which needs RAS."""
        if self.host.profile.vcpu_events_need_init:
            self._require_init()
        raw = self.host.current.copy_from_user(arg, uapi.sizeof("struct kvm_vcpu_events"))
        exception = uapi.view("struct kvm_vcpu_events", raw).exception
        if exception.serror_pending and exception.serror_has_esr:
            raise KernelError(errno.EINVAL, "the CPU has no RAS extension, so an SError has no syndrome")
        self.vcpu.serror_pending |= bool(exception.serror_pending)
        self.vcpu.abort_pending |= bool(exception.ext_dabt_pending)
        return 0

    # -- attributes -------------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_SET_DEVICE_ATTR, "struct kvm_device_attr", when="KVM_CAP_VCPU_ATTRIBUTES")
    def set_device_attr(self, attr: Any) -> int:
        """Set an attribute of the vCPU; see `vcpuattr.VcpuAttributes`."""
        return self.vcpu.attributes.set(attr)

    @ioctl(uapi.KVM_GET_DEVICE_ATTR, "struct kvm_device_attr", when="KVM_CAP_VCPU_ATTRIBUTES")
    def get_device_attr(self, attr: Any) -> int:
        """Get an attribute of the vCPU."""
        return self.vcpu.attributes.get(attr)

    @ioctl(uapi.KVM_HAS_DEVICE_ATTR, "struct kvm_device_attr", when="KVM_CAP_VCPU_ATTRIBUTES")
    def has_device_attr(self, attr: Any) -> int:
        """0 when the vCPU has the attribute, ENXIO when not."""
        return self.vcpu.attributes.has(attr)

    # -- registers --------------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_GET_ONE_REG, when=_ARM)
    def get_one_reg(self, arg: UserPtr) -> int:
        """A register's value. ENOEXEC before KVM_ARM_VCPU_INIT, EFAULT; ENOENT, EINVAL as `RegisterFile.get`."""
        one = self._one_reg(arg)
        if self.vcpu.registers is None or not self.host.profile.one_reg:
            raise KernelError(errno.ENOENT, "this profile models no registers")
        self.host.current.copy_to_user(one.addr, self.vcpu.registers.get(one.id))
        return 0

    @ioctl(uapi.KVM_SET_ONE_REG, when=_ARM)
    def set_one_reg(self, arg: UserPtr) -> int:
        """Set a register. As KVM_GET_ONE_REG; EINVAL, EBUSY as `RegisterFile.set`."""
        one = self._one_reg(arg)
        registers = self.vcpu.registers
        if registers is None or not self.host.profile.one_reg:
            raise KernelError(errno.ENOENT, "this profile models no registers")
        registers.set(one.id, self.host.current.copy_from_user(one.addr, registers.size_to_set(one.id)))
        return 0

    def _one_reg(self, arg: UserPtr) -> Any:
        self._require_init()
        raw = self.host.current.copy_from_user(arg, uapi.sizeof("struct kvm_one_reg"))
        return uapi.view("struct kvm_one_reg", raw)

    @ioctl(uapi.KVM_GET_REG_LIST, when=_ARM)
    def get_reg_list(self, arg: UserPtr) -> int:
        """The numbers of all registers. ENOEXEC, EFAULT; E2BIG when there is no room, having said how many."""
        self._require_init()
        task = self.host.current
        room = int.from_bytes(task.copy_from_user(arg, 8), "little")
        shown = self.vcpu.registers if self.host.profile.one_reg else None
        numbers = [] if shown is None else list(shown.ids())
        task.copy_to_user(arg, len(numbers).to_bytes(8, "little"))
        if room < len(numbers):
            raise KernelError(errno.E2BIG, f"room for {room} of {len(numbers)} registers")
        task.copy_to_user(arg, b"".join(number.to_bytes(8, "little") for number in numbers), 8)
        return 0
