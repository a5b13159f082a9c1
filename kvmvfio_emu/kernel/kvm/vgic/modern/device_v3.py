"""KVM_DEV_TYPE_ARM_VGIC_V3: its attributes (vgic-kvm-device.c, vgic_v3_attr_regs_access)."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.vgic.api import SGIS, UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.modern import mmio_v3, sysregs
from kvmvfio_emu.kernel.kvm.vgic.modern.device import COMMON, FrameAddress, VgicDevice
from kvmvfio_emu.kernel.kvm.vgic.modern.redist import DIST_SIZE
from kvmvfio_emu.kernel.kvm.vgic.modern.v3 import VgicCpuV3, VgicV3

_REDIST, _REGION = uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST, uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION
_DIST_REGS = uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS
_REGISTERS = {_DIST_REGS: mmio_v3.DIST, uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS: mmio_v3.REDIST}
_SYSREGS, _LEVEL = uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, uapi.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO
_GROUPS = (*_REGISTERS, _SYSREGS, _LEVEL)

# A redistributor region in 64 bits: index 0-11, flags 12-15, base 16-51 in place, count 52-63.
_INDEX_MASK, _COUNT_SHIFT = 0xFFF, 52
_FLAGS_SHIFT, _FLAGS_MASK = 12, 0xF
_BASE_MASK = (1 << 52) - (1 << 16)
#: What the register groups have in common.
_REGISTER = AttrGroup(
    "",
    payload="uint32_t",
    gettable=True,
    what="A register: bits 0 to 31 of the attribute are its offset, bits 32 to 63 the vCPU's affinity.",
    errors=(
        "EINVAL no such vCPU, or a value that the register refuses",
        "EBUSY a vCPU is running, or the VGIC is not initialised",
    ),
)


class VgicV3Device(VgicDevice):
    """DIST_REGS, REDIST_REGS: 32 bits at an offset (bits 0 to 31), CPU_SYSREGS: 64 bits, LEVEL_INFO: 32 lines.

    Bits 32 to 63 are the affinity of the vCPU; DIST_REGS ignores them and takes the first one.
    """

    name = "kvm-arm-vgic-v3"
    type_name = "KVM_DEV_TYPE_ARM_VGIC_V3"
    when = "vgic_modern arch!=x86_64"
    host_gic = 3
    attributes = (
        AttrGroup(
            "KVM_DEV_ARM_VGIC_GRP_ADDR",
            (
                "KVM_VGIC_V3_ADDR_TYPE_DIST",
                "KVM_VGIC_V3_ADDR_TYPE_REDIST",
                "KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION",
            ),
            payload="uint64_t",
            gettable=True,
            what="The guest physical address of the distributor (64 KiB), of all redistributors (128 KiB for each "
            "vCPU), or of a region of them: index in bits 0 to 11, base in 16 to 51, count in 52 to 63. Getting a "
            "region takes its index from the payload.",
            errors=(
                "EEXIST set already",
                "EINVAL not 64 KiB aligned, or wrapping; a region: without count, with flags, out of order, "
                "overlapping, or of the other style than those there are",
                "E2BIG beyond the guest's space",
                "ENOENT getting a region that is not there",
            ),
        ),
        replace(
            _REGISTER,
            group="KVM_DEV_ARM_VGIC_GRP_DIST_REGS",
            encodes="distributor register",
            what="A register: bits 0 to 31 of the attribute are its offset.",
        ),
        replace(_REGISTER, group="KVM_DEV_ARM_VGIC_GRP_REDIST_REGS", encodes="redistributor register of a vCPU"),
        replace(
            _REGISTER,
            group="KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS",
            encodes="system register of a vCPU",
            payload="uint64_t",
            what="A register of the CPU interface: bits 0 to 15 of the attribute are its encoding (op0, op1, CRn, CRm, "
            "op2), bits 32 to 63 the vCPU's affinity.",
            errors=(*_REGISTER.errors, "ENOENT no such register in the CPU interface"),
        ),
        replace(
            _REGISTER,
            group="KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO",
            encodes="kind of line state, and first interrupt",
            what="The lines of 32 interrupts: bits 0 to 9 of the attribute are the first, bits 10 to 31 the kind "
            "(VGIC_LEVEL_INFO_LINE_LEVEL), bits 32 to 63 the vCPU's affinity.",
            errors=("EINVAL no such vCPU, another kind, or the first is no multiple of 32", _REGISTER.errors[1]),
        ),
        AttrGroup(
            "KVM_DEV_ARM_VGIC_GRP_CTRL",
            ("KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES",),
            what="Write the pending state of LPIs into guest memory.",
            errors=("EBUSY a vCPU is running", "ENXIO not initialised"),
        ),
        *COMMON,
    )
    core_class = VgicV3
    frames = {uapi.KVM_VGIC_V3_ADDR_TYPE_DIST: FrameAddress("dist_base", 0x10000, DIST_SIZE)}

    @property
    def core(self) -> VgicV3:
        """The state behind it."""
        core = super().core
        assert isinstance(core, VgicV3)
        return core

    # -- redistributors -----------------------------------------------------------------------------------------------

    def _set_address(self, kind: int, address: int) -> bool:
        if kind == _REDIST:
            self.core.redistributors.set_base(0, address, 0)
        elif kind == _REGION:
            count = address >> _COUNT_SHIFT
            if not count or address >> _FLAGS_SHIFT & _FLAGS_MASK:
                raise KernelError(errno.EINVAL, f"a redistributor region {address:#x}: no count, or with flags")
            # The index field has 12 bits, of which the kernel keeps 8.
            self.core.redistributors.set_base(address & _INDEX_MASK & 0xFF, address & _BASE_MASK, count)
        else:
            return super()._set_address(kind, address)
        return True

    def _get_address(self, kind: int, attr: Any) -> int | None:
        regions = self.core.redistributors.regions
        if kind == _REDIST:
            return regions[0].base if regions else UNDEFINED_ADDRESS
        if kind != _REGION:
            return super()._get_address(kind, attr)
        wanted = int.from_bytes(self.host.current.copy_from_user(attr.addr, 8), "little") & _INDEX_MASK & 0xFF
        region = self.core.redistributors.region(wanted)
        if region is None:
            raise KernelError(errno.ENOENT, f"no redistributor region {wanted}")
        return wanted | region.base | region.count << _COUNT_SHIFT

    def _control(self, attribute: int) -> bool:
        if attribute != uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES:
            return super()._control(attribute)
        self.stopped()
        if not self.core.ready:
            raise KernelError(errno.ENXIO, "the VGIC is not initialised")
        self.vm.lpis.save_pending()
        return True

    # -- registers ----------------------------------------------------------------------------------------------------

    def has_encoded(self, row: AttrGroup, attr: Any) -> bool:
        """A register at the offset or of that encoding, or a known kind of line state. EINVAL no such vCPU."""
        if row.number == _LEVEL:
            return _level_info(attr) == uapi.VGIC_LEVEL_INFO_LINE_LEVEL
        if row.number not in _GROUPS:
            return True
        self._cpu(attr)
        if row.number == _SYSREGS:
            return attr.attr & uapi.KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK in sysregs.REGISTERS
        return _REGISTERS[row.number].has(self.core, attr.attr & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK)

    def _set_own(self, attr: Any) -> bool:
        if attr.group not in _GROUPS:
            return False
        cpu = self._cpu(attr)
        if attr.group == _SYSREGS:
            self._ready()
            value = int.from_bytes(self.host.current.copy_from_user(attr.addr, 8), "little")
            self._sysreg(attr).put(cpu, value)
            return True
        value = int.from_bytes(self.host.current.copy_from_user(attr.addr, 4), "little")
        self._ready()
        if attr.group == _LEVEL:
            self._set_lines(cpu, self._first_line(attr), value)
        else:
            offset = attr.attr & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK
            _REGISTERS[attr.group].user_write(self.core, cpu, offset, value)
        return True

    def _get_own(self, attr: Any) -> bool:
        if attr.group not in _GROUPS:
            return False
        cpu, size = self._cpu(attr), 4
        self._ready()
        if attr.group == _SYSREGS:
            value, size = self._sysreg(attr).get(cpu), 8
        elif attr.group == _LEVEL:
            value = self._lines(cpu, self._first_line(attr))
        else:
            offset = attr.attr & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK
            value = _REGISTERS[attr.group].user_read(self.core, cpu, offset)
        self.host.current.copy_to_user(attr.addr, value.to_bytes(size, "little"))
        return True

    def _cpu(self, attr: Any) -> VgicCpuV3:
        affinity = int(attr.attr) >> uapi.KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT
        cpus = self.core.cpus
        cpu = (cpus[0] if cpus else None) if attr.group == _DIST_REGS else self.core.cpu_by_affinity(affinity)
        if cpu is None:
            raise KernelError(errno.EINVAL, f"no vCPU with affinity {affinity:#x}")
        assert isinstance(cpu, VgicCpuV3)
        return cpu

    def _ready(self) -> None:
        self.stopped()
        if not self.core.ready:
            raise KernelError(errno.EBUSY, "the VGIC is not initialised")

    @staticmethod
    def _sysreg(attr: Any) -> sysregs.SystemRegister:
        encoding = int(attr.attr) & uapi.KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK
        register = sysregs.REGISTERS.get(encoding)
        if register is None:
            raise KernelError(errno.ENOENT, f"no system register {encoding:#x} in the CPU interface")
        return register

    # -- lines --------------------------------------------------------------------------------------------------------

    @staticmethod
    def _first_line(attr: Any) -> int:
        first = int(attr.attr) & uapi.KVM_DEV_ARM_VGIC_LINE_LEVEL_INTID_MASK
        if _level_info(attr) != uapi.VGIC_LEVEL_INFO_LINE_LEVEL or first % 32:
            raise KernelError(errno.EINVAL, f"LEVEL_INFO {_level_info(attr)} of interrupts from {first}")
        return first

    def _lines(self, cpu: VgicCpuV3, first: int) -> int:
        """The lines of level-sensitive interrupts; models vgic_read_irq_line_level_info."""
        value = 0
        for bit in range(32):
            irq = self.core.irq(cpu, first + bit) if SGIS <= first + bit < self.core.nr_irqs else None
            if irq is not None and not irq.edge and irq.line_level:
                value |= 1 << bit
        return value

    def _set_lines(self, cpu: VgicCpuV3, first: int, value: int) -> None:
        """Whatever the configuration, which may be restored later; models vgic_write_irq_line_level_info."""
        for bit in range(32):
            irq = self.core.irq(cpu, first + bit) if SGIS <= first + bit < self.core.nr_irqs else None
            if irq is not None:
                irq.line_level = bool(value >> bit & 1)
                if irq.line_level:
                    self.core.queue(irq)


def _level_info(attr: Any) -> int:
    mask = uapi.KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_MASK
    return (int(attr.attr) & mask) >> uapi.KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT
