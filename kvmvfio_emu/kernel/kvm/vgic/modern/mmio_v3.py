"""The registers of a virtual GICv3's distributor and redistributors (arch/arm64/kvm/vgic/vgic-mmio-v3.c).

The distributor has the shared interrupts only: the bits of private ones read as zero there, they are in the SGI_base
frame of each vCPU's redistributor. ITARGETSR and IGRPMODR read as zero: affinity routing is always on, security off.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmvfio_emu.hw import gicv3 as g
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE
from kvmvfio_emu.kernel.kvm.vgic.modern import mmio_irq as m
from kvmvfio_emu.kernel.kvm.vgic.modern.baser import PENDBASER, PROPBASER, extract, update
from kvmvfio_emu.kernel.kvm.vgic.modern.mmio import (
    W8,
    W32,
    W64,
    Frame,
    Read,
    Region,
    Write,
    each,
    fields,
    ones,
    raz,
    wi,
)

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq
    from kvmvfio_emu.kernel.kvm.vgic.modern.v3 import VgicCpuV3, VgicV3

#: The product that KVM's virtual interrupt controllers say they are.
PRODUCT_KVM = 0x4B
_PIDR2 = g.PIDR2_GICV3 | 0xB
_ID_BITS_SPIS, _ID_BITS_LPIS = 10, 16
#: The revision of GICD_IIDR from which on GICR_CTLR says that LPIs can be disabled and invalidated by registers.
_REVISION_LPI_REGISTERS = 3


def rao(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int) -> int:
    """Read as one."""
    return (1 << 8 * size) - 1


# -- distributor ------------------------------------------------------------------------------------------------------


def _get_misc(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int) -> int:
    if offset == g.GICD_CTLR:
        return g.GICD_CTLR_ARE | g.GICD_CTLR_DS | (g.GICD_CTLR_ENABLE_G1 if core.enabled else 0)
    if offset == g.GICD_TYPER:
        lpis = core.has_its
        bits = _ID_BITS_LPIS if lpis else _ID_BITS_SPIS
        return core.nr_irqs // 32 - 1 | bits - 1 << g.GICD_TYPER_ID_BITS_SHIFT | (g.GICD_TYPER_LPIS if lpis else 0)
    if offset == g.GICD_IIDR:
        revision = core.implementation_rev << g.IIDR_REVISION_SHIFT
        return PRODUCT_KVM << g.IIDR_PRODUCT_SHIFT | revision | g.IMPLEMENTER_ARM
    return 0  # GICD_TYPER2: no SGIs of GICv4.1


def _put_misc(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int, value: int) -> None:
    if offset == g.GICD_CTLR:
        was, core.enabled = core.enabled, bool(value & g.GICD_CTLR_ENABLE_G1)
        if core.enabled and not was:
            core.kick_all()


def _user_put_misc(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int, value: int) -> None:
    now = _get_misc(core, cpu, offset, size)
    if offset == g.GICD_CTLR:
        core.enabled = bool(value & g.GICD_CTLR_ENABLE_G1)
    elif offset == g.GICD_TYPER2 and value != now:
        raise KernelError(errno.EINVAL, "GICD_TYPER2 is another one than the user has")
    elif offset == g.GICD_IIDR and (now ^ value) & ~g.IIDR_REVISION_MASK:
        # The kernel then takes the revision from the register, not from the value: no write changes it.
        raise KernelError(errno.EINVAL, "GICD_IIDR is another one than the user has")


def _get_router(core: VgicV3, cpu: VgicCpuV3, irq: Irq) -> int:
    return irq.mpidr


def _put_router(core: VgicV3, cpu: VgicCpuV3, irq: Irq, value: int) -> None:
    irq.mpidr = value & 0xFFFFFF
    irq.target = core.cpu_by_affinity(irq.mpidr)


_GET_ROUTER, _PUT_ROUTER = each(64, _get_router), fields(64, _put_router)


def _read_router(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int) -> int:
    # The upper word, with Aff3, reads as zero and ignores writes.
    return 0 if offset & 4 else _GET_ROUTER(core, cpu, offset, 8) & (1 << 8 * size) - 1


def _write_router(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int, value: int) -> None:
    if not offset & 4:
        _PUT_ROUTER(core, cpu, offset, 8, value)


def _user_put_pending(core: VgicV3, cpu: VgicCpuV3, irq: Irq, value: int) -> None:
    """Zeroes count, too: userspace restores all latches with one register."""
    irq.pending_latch = bool(value)
    if value:
        core.queue(irq)


def _read_ids(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int) -> int:
    return _PIDR2 if offset == g.GICD_PIDR2 else 0


_WIDE, _BYTES = W32 | W64, W8 | W32


@dataclass(frozen=True, slots=True)
class _PerIrq:
    """A register array that the distributor has for SPIs and the redistributor for SGIs and PPIs."""

    name: str
    bits: int
    read: Read
    write: Write
    user_read: Read | None = None
    user_write: Write | None = None

    @property
    def _widths(self) -> frozenset[int]:
        return {8: _BYTES, 64: _WIDE}.get(self.bits, W32)

    def shared(self) -> tuple[Region, Region]:
        """In the distributor: the private part is there and reads as zero."""
        offset, length = getattr(g, f"GICD_{self.name}"), self.bits * PRIVATE // 8
        return (
            Region(f"GICD_{self.name}", offset, raz, wi, length=length, bits=self.bits, access=self._widths),
            self._region(f"GICD_{self.name}", offset + length, self.bits * (1024 - PRIVATE) // 8),
        )

    def private(self) -> Region:
        """In the SGI_base frame."""
        name = f"GICR_{self.name}0"
        return self._region(name, getattr(g, name), self.bits * PRIVATE // 8)

    def _region(self, name: str, offset: int, length: int) -> Region:
        return Region(
            name,
            offset,
            self.read,
            self.write,
            length=length,
            bits=self.bits,
            access=self._widths,
            user_read=self.user_read,
            user_write=self.user_write,
        )


_ACTIVE = each(1, m.get_active)
_USER_ACTIVE = each(1, m.user_get_active)
_PENDING = each(1, m.get_pending)
_USER_PENDING = each(1, m.user_get_pending)
_BOTH = (
    _PerIrq("IGROUPR", 1, each(1, m.get_group), fields(1, m.put_group)),
    _PerIrq("ISENABLER", 1, each(1, m.get_enable), ones(m.set_enable)),
    _PerIrq("ICENABLER", 1, each(1, m.get_enable), ones(m.clear_enable)),
    _PerIrq("ISPENDR", 1, _PENDING, ones(m.set_pending), _USER_PENDING, fields(1, _user_put_pending)),
    _PerIrq("ICPENDR", 1, _PENDING, ones(m.clear_pending), raz, wi),
    _PerIrq("ISACTIVER", 1, _ACTIVE, ones(m.set_active), _USER_ACTIVE, ones(m.user_set_active)),
    _PerIrq("ICACTIVER", 1, _ACTIVE, ones(m.clear_active), _USER_ACTIVE, ones(m.user_clear_active)),
    _PerIrq("IPRIORITYR", 8, each(8, m.get_priority), fields(8, m.put_priority)),
    _PerIrq("ICFGR", 2, each(2, m.get_config), fields(2, m.put_config)),
    _PerIrq("IGRPMODR", 1, raz, wi),
)
_SHARED_ONLY = (
    _PerIrq("ITARGETSR", 8, raz, wi),
    _PerIrq("IROUTER", 64, _read_router, _write_router),
)

DIST = Frame(
    (
        Region("GICD_CTLR", g.GICD_CTLR, _get_misc, _put_misc, length=16, user_write=_user_put_misc),
        Region("GICD_STATUSR", g.GICD_STATUSR, rao, wi, length=4),
        *(region for array in (*_BOTH, *_SHARED_ONLY) for region in array.shared()),
        Region("GICD_IDREGS", g.GICD_IDREGS, _read_ids, wi, length=48),
    )
)


# -- redistributor ----------------------------------------------------------------------------------------------------


def _get_control(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int) -> int:
    by_registers = core.implementation_rev >= _REVISION_LPI_REGISTERS
    control = g.GICR_CTLR_CES | g.GICR_CTLR_IR if by_registers else 0
    return control | (g.GICR_CTLR_ENABLE_LPIS if cpu.lpis_enabled else 0)


def _put_control(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int, value: int) -> None:
    enable = bool(value & g.GICR_CTLR_ENABLE_LPIS)
    if not core.has_its or enable == cpu.lpis_enabled:
        return
    cpu.lpis_enabled = enable
    if enable:
        core.vm.lpis.enable(cpu)
    else:
        core.vm.lpis.disable(cpu)


def _get_typer(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int) -> int:
    value = cpu.affinity << g.GICR_TYPER_AFFINITY_SHIFT | (cpu.number & 0xFFFF) << g.GICR_TYPER_NUMBER_SHIFT
    value |= g.GICR_TYPER_PLPIS if core.has_its else 0
    value |= g.GICR_TYPER_LAST if core.redistributors.is_last(cpu) else 0
    return extract(value, offset & 7, size)


def _get_iidr(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int) -> int:
    return PRODUCT_KVM << g.IIDR_PRODUCT_SHIFT | g.IMPLEMENTER_ARM


def _get_propbaser(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int) -> int:
    return extract(core.vm.lpis.propbaser, offset & 7, size)


def _put_propbaser(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int, value: int) -> None:
    if not cpu.lpis_enabled:
        lpis = core.vm.lpis
        lpis.propbaser = PROPBASER.sanitise(update(lpis.propbaser, offset, size, value))


def _get_pendbaser(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int) -> int:
    return extract(cpu.pendbaser & ~g.GICR_PENDBASER_PTZ, offset & 7, size)


def _put_pendbaser(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int, value: int) -> None:
    if not cpu.lpis_enabled:
        cpu.pendbaser = PENDBASER.sanitise(update(cpu.pendbaser, offset, size, value))


def _invalidate(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int, value: int) -> None:
    # The upper word is for virtual CPUs of a GICv4, which is not here.
    if not offset & 4 and cpu.lpis_enabled:
        core.vm.lpis.invalidate(value & 0xFFFFFFFF)


def _invalidate_all(core: VgicV3, cpu: VgicCpuV3, offset: int, size: int, value: int) -> None:
    if not offset & 4 and cpu.lpis_enabled:
        core.vm.lpis.invalidate_all(cpu)


REDIST = Frame(
    (
        Region("GICR_CTLR", g.GICR_CTLR, _get_control, _put_control, length=4),
        Region("GICR_IIDR", g.GICR_IIDR, _get_iidr, wi, length=4),
        Region("GICR_TYPER", g.GICR_TYPER, _get_typer, wi, length=8, access=_WIDE),
        Region("GICR_STATUSR", g.GICR_STATUSR, raz, wi, length=4),
        Region("GICR_WAKER", g.GICR_WAKER, raz, wi, length=4),
        Region("GICR_PROPBASER", g.GICR_PROPBASER, _get_propbaser, _put_propbaser, length=8, access=_WIDE),
        Region("GICR_PENDBASER", g.GICR_PENDBASER, _get_pendbaser, _put_pendbaser, length=8, access=_WIDE),
        Region("GICR_INVLPIR", g.GICR_INVLPIR, raz, _invalidate, length=8, access=_WIDE),
        Region("GICR_INVALLR", g.GICR_INVALLR, raz, _invalidate_all, length=8, access=_WIDE),
        Region("GICR_SYNCR", g.GICR_SYNCR, raz, wi, length=4),
        Region("GICR_IDREGS", g.GICR_IDREGS, _read_ids, wi, length=48),
        *(array.private() for array in _BOTH),
        Region("GICR_NSACR", g.GICR_NSACR, raz, wi, length=4),
    )
)
