"""KVM_DEV_TYPE_ARM_VGIC_V2 and the older API for the same (vgic-kvm-device.c, vgic_v2_attr_regs_access)."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.vgic.modern import mmio_v2
from kvmvfio_emu.kernel.kvm.vgic.modern.device import COMMON, FrameAddress, VgicDevice
from kvmvfio_emu.kernel.kvm.vgic.modern.v2 import CPU_SIZE, DIST_SIZE, VgicV2

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.cpu import VgicCpu
    from kvmvfio_emu.kernel.kvm.vm import Vm

_FRAMES = {
    uapi.KVM_VGIC_V2_ADDR_TYPE_DIST: FrameAddress("dist_base", 0x1000, DIST_SIZE),
    uapi.KVM_VGIC_V2_ADDR_TYPE_CPU: FrameAddress("cpu_base", 0x1000, CPU_SIZE),
}
_REGISTERS = {
    uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS: mmio_v2.DIST,
    uapi.KVM_DEV_ARM_VGIC_GRP_CPU_REGS: mmio_v2.CPU,
}
_DEVICE_SHIFT, _FIELD_MASK = 16, 0xFFFF
#: What DIST_REGS and CPU_REGS have in common.
_REGISTER = AttrGroup(
    "",
    payload="uint32_t",
    gettable=True,
    what="A register: bits 0 to 31 of the attribute are its offset in the frame, bits 32 to 39 the vCPU. Initialises.",
    errors=("EINVAL no such vCPU, or a value that the register refuses", "EBUSY a vCPU is running"),
)


class VgicV2Device(VgicDevice):
    """DIST_REGS and CPU_REGS: 32 bits at an offset (bits 0 to 31), of a vCPU (bits 32 to 39)."""

    name = "kvm-arm-vgic-v2"
    type_name = "KVM_DEV_TYPE_ARM_VGIC_V2"
    when = "vgic_modern arch!=x86_64"
    host_gic = 2
    attributes = (
        AttrGroup(
            "KVM_DEV_ARM_VGIC_GRP_ADDR",
            ("KVM_VGIC_V2_ADDR_TYPE_DIST", "KVM_VGIC_V2_ADDR_TYPE_CPU"),
            payload="uint64_t",
            gettable=True,
            what="The guest physical address of a frame: 4 KiB for the distributor, 8 KiB for the CPU interface. Unset "
            "it reads as all ones; that the two overlap shows at KVM_RUN.",
            errors=("EEXIST set already", "EINVAL not 4 KiB aligned, or wrapping", "E2BIG beyond the guest's space"),
        ),
        replace(_REGISTER, group="KVM_DEV_ARM_VGIC_GRP_DIST_REGS", encodes="distributor register of a vCPU"),
        replace(_REGISTER, group="KVM_DEV_ARM_VGIC_GRP_CPU_REGS", encodes="CPU interface register of a vCPU"),
        *COMMON,
    )
    core_class = VgicV2
    frames = _FRAMES

    def has_encoded(self, row: AttrGroup, attr: Any) -> bool:
        """DIST_REGS and CPU_REGS: a register at the offset. EINVAL no such vCPU."""
        frame = _REGISTERS.get(row.number)
        if frame is None:
            return True
        self._cpu(attr)
        return frame.has(self.core, attr.attr & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK)

    def _set_own(self, attr: Any) -> bool:
        frame = _REGISTERS.get(attr.group)
        if frame is None:
            return False
        cpu = self._cpu(attr)
        value = int.from_bytes(self.host.current.copy_from_user(attr.addr, 4), "little")
        self.stopped()
        self.core.init()
        frame.user_write(self.core, cpu, attr.attr & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK, value)
        return True

    def _get_own(self, attr: Any) -> bool:
        frame = _REGISTERS.get(attr.group)
        if frame is None:
            return False
        cpu = self._cpu(attr)
        self.stopped()
        self.core.init()
        value = frame.user_read(self.core, cpu, attr.attr & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK)
        self.host.current.copy_to_user(attr.addr, value.to_bytes(4, "little"))
        return True

    def _cpu(self, attr: Any) -> VgicCpu:
        number = int(attr.attr & uapi.KVM_DEV_ARM_VGIC_CPUID_MASK) >> uapi.KVM_DEV_ARM_VGIC_CPUID_SHIFT
        cpu = self.core.cpu_by_id(number)
        if cpu is None:
            raise KernelError(errno.EINVAL, f"no vCPU {number}")
        return cpu


def set_legacy_address(vm: Vm, identifier: int, address: int) -> None:
    """KVM_ARM_SET_DEVICE_ADDR. ENODEV unknown device or frame, or no VGICv2; then as the ADDR group."""
    if identifier >> _DEVICE_SHIFT & _FIELD_MASK != uapi.KVM_ARM_DEVICE_VGIC_V2:
        raise KernelError(errno.ENODEV, f"no device {identifier >> _DEVICE_SHIFT & _FIELD_MASK:#x} with an address")
    frame = _FRAMES.get(identifier & _FIELD_MASK)
    if frame is None or not isinstance(vm.vgic, VgicV2):
        raise KernelError(errno.ENODEV, f"the virtual machine has no frame {identifier & _FIELD_MASK} of a VGICv2")
    VgicDevice.place(vm.vgic, frame, address)
