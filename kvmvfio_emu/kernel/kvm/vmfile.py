"""The ioctls of a virtual machine's descriptor (kvm_vm_ioctl, kvm_arch_vm_ioctl)."""

from __future__ import annotations

import errno
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.kvm.arch import ArmArch
from kvmvfio_emu.kernel.kvm.arch.arm_vcpu import preferred_target
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup, find
from kvmvfio_emu.kernel.kvm.device import DeviceFile
from kvmvfio_emu.kernel.kvm.routing import message
from kvmvfio_emu.kernel.kvm.stats import VmStatsFile
from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
from kvmvfio_emu.kernel.kvm.vcpufile import VcpuFile
from kvmvfio_emu.kernel.kvm.vm import Vm
from kvmvfio_emu.kernel.task import UserPtr

_ARM = "arch!=x86_64"
_RINGS = (uapi.KVM_CAP_DIRTY_LOG_RING, uapi.KVM_CAP_DIRTY_LOG_RING_ACQ_REL)
_REGION2_PADDING = 120  #: bytes of struct kvm_userspace_memory_region2 behind what the older struct has


class VmFile(File):
    """What KVM_CREATE_VM gives."""

    kind = "vm"
    link = "anon_inode:kvm-vm"
    unknown_errno = errno.EINVAL
    seekable = True
    attributes = (
        AttrGroup(
            "KVM_ARM_VM_SMCCC_CTRL",
            ("KVM_ARM_VM_SMCCC_FILTER",),
            payload="struct kvm_smccc_filter",
            what="What becomes of a range of the guest's firmware calls.",
            errors=(
                "EINVAL an empty range, or another action",
                "EBUSY a vCPU has run",
                "EEXIST overlaps another range",
            ),
        ),
    )

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm.host)
        self.vm = vm
        self.owner = vm.mm
        self._capabilities, self._own_capabilities = vm.kvm.capabilities, vm.arch.own_capabilities
        vm.get(self)

    def release(self) -> None:
        """irqfds go with the descriptor, even if vCPUs and devices keep the virtual machine; then its reference."""
        self.vm.irqfds.release()
        self.vm.put(self)

    def unknown_ioctl(self, request: int, arg: UserPtr) -> Any:
        """ENOTTY on x86, EINVAL on ARM."""
        reason = f"a virtual machine knows no ioctl {request:#010x}"
        raise KernelError(self.vm.arch.unknown_errno, reason)

    # -- the machine ------------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_CHECK_EXTENSION, value=True)
    def check_extension(self, arg: int) -> int:
        """As on /dev/kvm (KVM_CAP_CHECK_EXTENSION_VM), but for what depends on the virtual machine."""
        if arg in self._own_capabilities:
            return self.vm.arch.capability(self.vm.kvm, arg, self.vm)
        return self._capabilities.get(arg, 0)

    @ioctl(uapi.KVM_ENABLE_CAP, "struct kvm_enable_cap", when="KVM_CAP_ENABLE_CAP_VM")
    def enable_cap(self, cap: Any) -> int:
        """Switch a capability on. EFAULT, EINVAL flags, unknown, or an argument that it does not take; E2BIG a
        ring of dirty pages."""
        argument = int(cap.args[0])
        if cap.cap == uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
            by_hand = argument & uapi.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
            allowed = self.check_extension(cap.cap) if by_hand else 0
            if cap.flags or argument & ~allowed:
                raise KernelError(errno.EINVAL, f"flags {cap.flags:#x}, options {argument:#x} of the dirty log")
            self.vm.memory.manual_protect = bool(by_hand)
            self.vm.memory.initially_set = bool(argument & uapi.KVM_DIRTY_LOG_INITIALLY_SET)
        elif cap.cap == uapi.KVM_CAP_HALT_POLL and self.check_extension(cap.cap):
            if cap.flags or argument >> 32:
                raise KernelError(errno.EINVAL, f"flags {cap.flags:#x}, {argument} ns of polling")
        elif cap.cap in _RINGS and self.check_extension(cap.cap):
            self.vm.memory.enable_ring(
                argument & 0xFFFFFFFF, self.check_extension(cap.cap), has_vcpus=bool(self.vm.vcpus)
            )
        else:
            self.vm.arch.enable_capability(cap)
        return 0

    @ioctl(uapi.KVM_GET_STATS_FD, when="KVM_CAP_BINARY_STATS_FD")
    def get_stats_fd(self, arg: UserPtr) -> int:
        """A descriptor to read the virtual machine's statistics from."""
        return self.host.current.install(VmStatsFile(self.vm))

    @ioctl(uapi.KVM_CREATE_VCPU, value=True)
    def create_vcpu(self, arg: int) -> int:
        """A descriptor of vCPU ``arg``. EINVAL id too high or too many, EBUSY the VGIC is initialised, EEXIST taken."""
        vgic = self.vm.vgic
        number = arg & 0xFFFFFFFF if self.host.profile.vcpu_id_truncated else arg & 0xFFFFFFFFFFFFFFFF
        self.vm.arch.check_new_vcpu(number)
        if any(vcpu.number == number for vcpu in self.vm.vcpus):
            raise KernelError(errno.EEXIST, f"vCPU {number} exists")
        vcpu = Vcpu(self.vm, number)
        if vgic is not None:
            vgic.add_vcpu(vcpu)
        try:
            fd = self.host.current.install(VcpuFile(vcpu))
        except KernelError:
            if vgic is not None:
                vgic.remove_vcpu(vcpu)
            raise
        self.vm.vcpus.append(vcpu)
        self.vm.arch.vcpu_created(vcpu)
        return fd

    @ioctl(uapi.KVM_SET_USER_MEMORY_REGION, "struct kvm_userspace_memory_region")
    def set_user_memory_region(self, region: Any) -> int:
        """Create, change or delete (size 0) a memory slot. EINVAL, EEXIST overlap, EFAULT beyond the IPA space."""
        self.vm.memory.set_region(region)
        return 0

    @ioctl(uapi.KVM_SET_USER_MEMORY_REGION2, when="memory_region2")
    def set_user_memory_region2(self, arg: UserPtr) -> int:
        """As KVM_SET_USER_MEMORY_REGION, with room for a guest_memfd, whose flag is EINVAL. EFAULT."""
        size = uapi.sizeof("struct kvm_userspace_memory_region")
        raw = self.host.current.copy_from_user(arg, size + _REGION2_PADDING)
        self.vm.memory.set_region(uapi.view("struct kvm_userspace_memory_region", raw))
        return 0

    @ioctl(uapi.KVM_GET_DIRTY_LOG, "struct kvm_dirty_log")
    def get_dirty_log(self, log: Any) -> int:
        """The pages of a slot written since the last call. ENXIO they go to rings, EINVAL, ENOENT no such slot or
        not logged, EFAULT."""
        bitmap = self.vm.memory.read_log(log.slot)
        self.host.current.copy_to_user(int(uapi.ffi.cast("uintptr_t", log.dirty_bitmap)), bitmap)
        return 0

    @ioctl(uapi.KVM_CLEAR_DIRTY_LOG, "struct kvm_clear_dirty_log", out=False, when="KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2")
    def clear_dirty_log(self, log: Any) -> int:
        """Forget pages of a slot's dirty log; see `Memory.clear_log`."""
        self.vm.memory.clear_log(log, self.host.current)
        return 0

    @ioctl(uapi.KVM_REGISTER_COALESCED_MMIO, "struct kvm_coalesced_mmio_zone", when="KVM_CAP_COALESCED_MMIO")
    def register_coalesced_mmio(self, zone: Any) -> int:
        """Collect the guest's writes to a zone in the ring; see `coalesced.CoalescedMmio`."""
        self.vm.coalesced.register(zone)
        return 0

    @ioctl(uapi.KVM_UNREGISTER_COALESCED_MMIO, "struct kvm_coalesced_mmio_zone", when="KVM_CAP_COALESCED_MMIO")
    def unregister_coalesced_mmio(self, zone: Any) -> int:
        """The zones within this one exit again."""
        self.vm.coalesced.unregister(zone)
        return 0

    # -- devices ----------------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_CREATE_DEVICE, "struct kvm_create_device")
    def create_device(self, create: Any) -> int:
        """A new in-kernel device, or with TEST only whether its type exists. ENODEV unknown; else as the type says."""
        device_type = self.vm.kvm.device_types.get(create.type)
        if device_type is None:
            raise KernelError(errno.ENODEV, f"no device type {create.type}")
        if create.flags & uapi.KVM_CREATE_DEVICE_TEST:
            return 0
        device = device_type(self.vm)
        device.create()
        self.vm.devices.append(device)
        try:
            create.fd = self.host.current.install(DeviceFile(device))
        except KernelError:
            self.vm.devices.remove(device)
            device.destroy()
            raise
        return 0

    @ioctl(uapi.KVM_CREATE_IRQCHIP)
    def create_irqchip(self, arg: int) -> int:
        """The architecture's interrupt controllers; see `ArmArch` and `X86Arch`."""
        self.vm.arch.create_irqchip()
        return 0

    @ioctl(uapi.KVM_ARM_SET_DEVICE_ADDR, "struct kvm_arm_device_addr", when=_ARM)
    def arm_set_device_addr(self, address: Any) -> int:
        """A VGIC frame's address by the older API. ENODEV unknown device or frame, ENXIO no VGIC, else as ADDR."""
        self.vm.kvm.vgics.set_legacy_address(self.vm, address.id, address.addr)
        return 0

    # The descriptor's own attributes.

    @ioctl(uapi.KVM_HAS_DEVICE_ATTR, "struct kvm_device_attr", when="vm_attributes")
    def has_device_attr(self, attr: Any) -> int:
        """0 when the virtual machine has the attribute, ENXIO when not. EFAULT."""
        find(self.attributes, attr, self.host.profile, "a virtual machine")
        return 0

    @ioctl(uapi.KVM_SET_DEVICE_ATTR, "struct kvm_device_attr", when="vm_attributes")
    def set_device_attr(self, attr: Any) -> int:
        """Filter the guest's firmware calls. EFAULT, ENXIO; see `Firmware.set_filter`."""
        self.has_device_attr(attr)
        assert isinstance(self.vm.arch, ArmArch)
        raw = self.host.current.copy_from_user(attr.addr, uapi.sizeof("struct kvm_smccc_filter"))
        has_run = any(vcpu.has_run for vcpu in self.vm.vcpus)
        self.vm.arch.firmware.set_filter(uapi.view("struct kvm_smccc_filter", raw), has_run=has_run)
        return 0

    # -- interrupts --------------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_IRQ_LINE, "struct kvm_irq_level")
    def irq_line(self, level: Any) -> int:
        """Drive an input of the guest's CPUs or interrupt controller; see `irqline.drive_line`, `X86Arch.irq_line`."""
        self.vm.arch.irq_line(level)
        return 0

    @ioctl(uapi.KVM_IRQ_LINE_STATUS, "struct kvm_irq_level")
    def irq_line_status(self, level: Any) -> int:
        """As KVM_IRQ_LINE, and tells what became of it (x86; ARM reports no status)."""
        self.vm.arch.irq_line(level)
        return 0

    @ioctl(uapi.KVM_IRQFD, "struct kvm_irqfd")
    def irqfd(self, args: Any) -> int:
        """Tie an eventfd to a gsi, or untie it; see `irqfd.Irqfds`."""
        self.vm.irqfds.control(args)
        return 0

    @ioctl(uapi.KVM_IOEVENTFD, "struct kvm_ioeventfd", when="ioeventfd", absent=errno.ENOSYS)
    def ioeventfd(self, args: Any) -> int:
        """Let a guest write signal an eventfd; see `ioeventfd.IoBus`."""
        self.vm.bus.control(args, self.host.current, fast_flag=self.host.profile.ioeventfd_fast_flag)
        return 0

    @ioctl(uapi.KVM_SET_GSI_ROUTING, when="irq_routing")
    def set_gsi_routing(self, arg: UserPtr) -> int:
        """Replace the routing table; see `routing.Routing`. EINVAL also without an interrupt controller on x86."""
        self.vm.routing.set(arg, self.host.current, allowed=self.vm.arch.can_route)
        return 0

    @ioctl(uapi.KVM_SIGNAL_MSI, "struct kvm_msi", when="KVM_CAP_SIGNAL_MSI")
    def signal_msi(self, msi: Any) -> int:
        """Send a message to the interrupt controller. EFAULT; EINVAL there is none, or flags; ENODEV none that takes
        messages (ARM without an ITS), EPERM nobody there (x86)."""
        if not self.vm.arch.has_irqchip or msi.flags & ~uapi.KVM_MSI_VALID_DEVID:
            raise KernelError(errno.EINVAL, f"no interrupt controller, or flags {msi.flags:#x}")
        return self.vm.arch.send_message(message(msi, msi.flags))

    # -- the processor -----------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_ARM_PREFERRED_TARGET, "struct kvm_vcpu_init", when=_ARM)
    def arm_preferred_target(self, init: Any) -> int:
        """The target for KVM_ARM_VCPU_INIT on this host."""
        init.features = [0] * len(init.features)
        init.target = preferred_target(self.host.profile.arch)
        return 0

    @ioctl(uapi.KVM_ARM_SET_COUNTER_OFFSET, "struct kvm_arm_counter_offset", when="counter_offset")
    def arm_set_counter_offset(self, offset: Any) -> int:
        """How far the guest's counters are behind the host's, in ticks. EFAULT, EINVAL, EBUSY a vCPU runs."""
        if offset.reserved:
            raise KernelError(errno.EINVAL, "the reserved field is not zero")
        if any(vcpu.running for vcpu in self.vm.vcpus):
            raise KernelError(errno.EBUSY, "a vCPU is running")
        assert isinstance(self.vm.arch, ArmArch)
        self.vm.arch.counter_offset = offset.counter_offset
        return 0
