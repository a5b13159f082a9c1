"""The ioctls of a virtual machine's descriptor (kvm_vm_ioctl, arch/arm/kvm/arm.c)."""

from __future__ import annotations

import errno
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.kvm.device import DeviceFile
from kvmvfio_emu.kernel.kvm.irqline import drive_line
from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
from kvmvfio_emu.kernel.kvm.vcpufile import VcpuFile
from kvmvfio_emu.kernel.kvm.vgic.modern.msi import Message, send
from kvmvfio_emu.kernel.kvm.vm import Vm
from kvmvfio_emu.kernel.task import UserPtr

_TARGET_CORTEX_A15 = 0
_TARGET_GENERIC_V8 = 5


class VmFile(File):
    """What KVM_CREATE_VM gives."""

    kind = "vm"
    link = "anon_inode:kvm-vm"
    unknown_errno = errno.EINVAL

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm.host)
        self.vm = vm
        self.owner = vm.mm
        vm.get(self)

    def release(self) -> None:
        """irqfds go with the descriptor, even if vCPUs and devices keep the virtual machine; then its reference."""
        self.vm.irqfds.release()
        self.vm.put(self)

    # -- the machine ------------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_CHECK_EXTENSION, value=True)
    def check_extension(self, arg: int) -> int:
        """As on /dev/kvm (KVM_CAP_CHECK_EXTENSION_VM), or what depends on the virtual machine."""
        if arg == uapi.KVM_CAP_MSI_DEVID:
            return int(bool(self.vm.lpis.its))
        return self.vm.kvm.capabilities.get(arg, 0)

    @ioctl(uapi.KVM_CREATE_VCPU, value=True)
    def create_vcpu(self, arg: int) -> int:
        """A descriptor of vCPU ``arg``. EINVAL id too high, EBUSY the VGIC is initialised, EEXIST taken."""
        number = arg & 0xFFFFFFFF
        vgic, limit = self.vm.vgic, self.vm.kvm.max_vcpus
        if number >= self.vm.kvm.vcpu_ids:
            raise KernelError(errno.EINVAL, f"vCPU id {number}: they end at {self.vm.kvm.vcpu_ids}")
        if self.host.profile.vcpus_counted and len(self.vm.vcpus) >= limit:
            raise KernelError(errno.EINVAL, f"there are {limit} vCPUs, as many as there can be")
        if vgic is not None and vgic.ready:
            raise KernelError(errno.EBUSY, "the VGIC is initialised for the vCPUs there are")
        if number >= limit:
            raise KernelError(errno.EINVAL, f"vCPU id {number}: there can be {limit}")
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
        return fd

    @ioctl(uapi.KVM_SET_USER_MEMORY_REGION, "struct kvm_userspace_memory_region")
    def set_user_memory_region(self, region: Any) -> int:
        """Create, change or delete (size 0) a memory slot. EINVAL, EEXIST overlap, EFAULT beyond the IPA space."""
        self.vm.memory.set_region(region)
        return 0

    @ioctl(uapi.KVM_GET_DIRTY_LOG, "struct kvm_dirty_log")
    def get_dirty_log(self, log: Any) -> int:
        """The pages of a slot written since the last call. EINVAL, ENOENT no such slot or not logged, EFAULT."""
        if log.slot >= self.vm.kvm.host.profile.capability("KVM_CAP_NR_MEMSLOTS"):
            raise KernelError(errno.EINVAL, f"no slot {log.slot}")
        slot = self.vm.memory.slot(log.slot)
        if slot is None or not slot.flags & uapi.KVM_MEM_LOG_DIRTY_PAGES:
            raise KernelError(errno.ENOENT, f"slot {log.slot} does not log dirty pages")
        bitmap = self.vm.memory.take_dirty(slot)
        self.host.current.copy_to_user(int(uapi.ffi.cast("uintptr_t", log.dirty_bitmap)), bitmap)
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
        """A VGICv2 by the older API. ENXIO or ENODEV no hardware for it, EEXIST, EBUSY a vCPU ran."""
        self.vm.kvm.vgics.create_irqchip(self.vm)
        return 0

    @ioctl(uapi.KVM_ARM_SET_DEVICE_ADDR, "struct kvm_arm_device_addr")
    def arm_set_device_addr(self, address: Any) -> int:
        """A VGIC frame's address by the older API. ENODEV unknown device or frame, ENXIO no VGIC, else as ADDR."""
        self.vm.kvm.vgics.set_legacy_address(self.vm, address.id, address.addr)
        return 0

    # -- interrupts --------------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_IRQ_LINE, "struct kvm_irq_level")
    def irq_line(self, level: Any) -> int:
        """Drive an input of the guest's CPUs or interrupt controller; see `irqline.drive_line`."""
        drive_line(self.vm, level.irq, bool(level.level))
        return 0

    @ioctl(uapi.KVM_IRQ_LINE_STATUS, "struct kvm_irq_level")
    def irq_line_status(self, level: Any) -> int:
        """As KVM_IRQ_LINE; ARM reports no status."""
        drive_line(self.vm, level.irq, bool(level.level))
        return 0

    @ioctl(uapi.KVM_IRQFD, "struct kvm_irqfd")
    def irqfd(self, args: Any) -> int:
        """Tie an eventfd to a gsi, or untie it; see `irqfd.Irqfds`."""
        self.vm.irqfds.control(args)
        return 0

    @ioctl(uapi.KVM_IOEVENTFD, "struct kvm_ioeventfd", when="ioeventfd", absent=errno.ENOSYS)
    def ioeventfd(self, args: Any) -> int:
        """Let a guest write signal an eventfd; see `ioeventfd.IoBus`."""
        self.vm.bus.control(args, self.host.current)
        return 0

    @ioctl(uapi.KVM_SET_GSI_ROUTING, when="irq_routing")
    def set_gsi_routing(self, arg: UserPtr) -> int:
        """Replace the routing table; see `routing.Routing`."""
        self.vm.routing.set(arg, self.host.current)
        return 0

    @ioctl(uapi.KVM_SIGNAL_MSI, "struct kvm_msi", when="irq_routing")
    def signal_msi(self, msi: Any) -> int:
        """A message for an ITS: 1 delivered, 0 the guest has it lead nowhere. EFAULT; EINVAL; else as `msi.send`."""
        if self.vm.vgic is None or msi.flags & ~uapi.KVM_MSI_VALID_DEVID:
            raise KernelError(errno.EINVAL, "no in-kernel interrupt controller, or unknown flags")
        device = msi.devid if msi.flags & uapi.KVM_MSI_VALID_DEVID else None
        return int(send(self.vm, Message(msi.address_hi << 32 | msi.address_lo, msi.data, device)))

    # -- the processor -----------------------------------------------------------------------------------------

    @ioctl(uapi.KVM_ARM_PREFERRED_TARGET, "struct kvm_vcpu_init")
    def arm_preferred_target(self, init: Any) -> int:
        """The target for KVM_ARM_VCPU_INIT on this host."""
        init.features = [0] * len(init.features)
        init.target = preferred_target(self.host.profile.arch)
        return 0

    @ioctl(uapi.KVM_ENABLE_CAP)
    def enable_cap(self, arg: UserPtr) -> int:
        """No capability of these profiles needs enabling: EINVAL."""
        raise KernelError(errno.EINVAL, "no capability can be enabled")


def preferred_target(arch: str) -> int:
    """The vCPU target number of the emulated host: Cortex-A15 on 32-bit ARM, the generic v8 one on arm64."""
    return _TARGET_CORTEX_A15 if arch == "arm" else _TARGET_GENERIC_V8
