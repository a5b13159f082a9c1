"""The registers of a virtual GICv2's distributor, and of its CPU interface as userspace saves it (vgic-mmio-v2.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic import cpuif
from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE
from kvmvfio_emu.kernel.kvm.vgic.modern import mmio_irq as per_irq
from kvmvfio_emu.kernel.kvm.vgic.modern.mmio import W8, W32, Frame, Region, each, fields, ones, raz, wi

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.cpu import VgicCpu
    from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq
    from kvmvfio_emu.kernel.kvm.vgic.modern.v2 import VgicV2

_CTLR, _TYPER, _IIDR = 0x0, 0x4, 0x8
_ENABLE = 1
#: GICD_IIDR: product 0x4B (KVM), implementer 0x43B (Arm), and in between the revision.
_PRODUCT, _IMPLEMENTER, _REVISION_SHIFT = 0x4B << 24, 0x43B, 12
_REVISION_MASK = 0xF << _REVISION_SHIFT
#: Revisions that userspace may ask for.
_REVISIONS = (2, 3)
_FILTER_LIST, _FILTER_OTHERS, _FILTER_SELF = 0, 1, 2


# -- GICD_CTLR, GICD_TYPER, GICD_IIDR ---------------------------------------------------------------------------------


def _read_misc(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int) -> int:
    if offset == _CTLR:
        return vgic.enabled
    if offset == _TYPER:
        return (len(vgic.cpus) - 1) << 5 | vgic.nr_irqs // 32 - 1
    return _PRODUCT | vgic.implementation_rev << _REVISION_SHIFT | _IMPLEMENTER


def _write_misc(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
    if offset == _CTLR:
        was_enabled, vgic.enabled = vgic.enabled, bool(value & _ENABLE)
        if vgic.enabled and not was_enabled:
            vgic.kick_all()


def _user_write_misc(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
    if offset != _IIDR:
        _write_misc(vgic, cpu, offset, size, value)
        return
    own = _read_misc(vgic, cpu, offset, size)
    if (own ^ value) & ~_REVISION_MASK:
        raise KernelError(errno.EINVAL, f"GICD_IIDR {value:#x} is that of another implementation")
    # The kernel judges the revision that there is, not the one that is written.
    if vgic.implementation_rev not in _REVISIONS:
        raise KernelError(errno.EINVAL, f"revision {vgic.implementation_rev} of GICD_IIDR is unknown")
    vgic.groups_user_writable = True


def _user_write_group(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
    if vgic.groups_user_writable:
        _put_group(vgic, cpu, offset, size, value)


_put_group = fields(1, per_irq.put_group)


# -- targets ----------------------------------------------------------------------------------------------------------


def _get_targets(vgic: VgicV2, cpu: VgicCpu, irq: Irq) -> int:
    return irq.targets


def _put_targets(vgic: VgicV2, cpu: VgicCpu, irq: Irq, value: int) -> None:
    if irq.intid >= PRIVATE:
        irq.targets = value & (1 << len(vgic.cpus)) - 1
        # The lowest one takes it; where none is named, the first.
        irq.target = vgic.cpus[max((irq.targets & -irq.targets).bit_length() - 1, 0)]


# -- software generated interrupts -----------------------------------------------------------------------------------


def _write_sgir(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
    targets, own = value >> 16 & 0xFF, 1 << cpu.number
    mode = value >> 24 & 3
    if mode == _FILTER_OTHERS:
        targets = (1 << len(vgic.cpus)) - 1 & ~own
    elif mode == _FILTER_SELF:
        targets = own
    elif mode != _FILTER_LIST:
        return
    for target in vgic.cpus:
        if targets >> target.index & 1:
            irq = target.private[value & 0xF]
            irq.pending_latch = True
            irq.source |= own
            vgic.queue(irq)


def _read_sources(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int) -> int:
    return sum(cpu.private[(offset & 0xF) + n].source << 8 * n for n in range(size))


def _clear_sources(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
    for n in range(size):
        irq = cpu.private[(offset & 0xF) + n]
        irq.source &= ~(value >> 8 * n) & 0xFF
        if not irq.source:
            irq.pending_latch = False


def _set_sources(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
    for n in range(size):
        irq = cpu.private[(offset & 0xF) + n]
        irq.source |= value >> 8 * n & 0xFF
        if irq.source:
            irq.pending_latch = True
            vgic.queue(irq)


DIST = Frame(
    [
        Region("GICD_CTLR", 0x000, _read_misc, _write_misc, length=12, user_write=_user_write_misc),
        Region("GICD_IGROUPR", 0x080, each(1, per_irq.get_group), _put_group, bits=1, user_write=_user_write_group),
        Region("GICD_ISENABLER", 0x100, each(1, per_irq.get_enable), ones(per_irq.set_enable), bits=1),
        Region("GICD_ICENABLER", 0x180, each(1, per_irq.get_enable), ones(per_irq.clear_enable), bits=1),
        Region(
            "GICD_ISPENDR",
            0x200,
            each(1, per_irq.get_pending),
            ones(per_irq.set_pending),
            bits=1,
            user_read=each(1, per_irq.user_get_pending),
            user_write=ones(per_irq.user_set_pending),
        ),
        Region(
            "GICD_ICPENDR",
            0x280,
            each(1, per_irq.get_pending),
            ones(per_irq.clear_pending),
            bits=1,
            user_read=each(1, per_irq.user_get_pending),
            user_write=ones(per_irq.user_clear_pending),
        ),
        Region(
            "GICD_ISACTIVER",
            0x300,
            each(1, per_irq.get_active),
            ones(per_irq.set_active),
            bits=1,
            user_read=each(1, per_irq.user_get_active),
            user_write=ones(per_irq.user_set_active),
        ),
        Region(
            "GICD_ICACTIVER",
            0x380,
            each(1, per_irq.get_active),
            ones(per_irq.clear_active),
            bits=1,
            user_read=each(1, per_irq.user_get_active),
            user_write=ones(per_irq.user_clear_active),
        ),
        Region(
            "GICD_IPRIORITYR",
            0x400,
            each(8, per_irq.get_priority),
            fields(8, per_irq.put_priority),
            bits=8,
            access=W8 | W32,
        ),
        Region("GICD_ITARGETSR", 0x800, each(8, _get_targets), fields(8, _put_targets), bits=8, access=W8 | W32),
        Region("GICD_ICFGR", 0xC00, each(2, per_irq.get_config), fields(2, per_irq.put_config), bits=2),
        Region("GICD_SGIR", 0xF00, raz, _write_sgir, length=4),
        Region("GICD_CPENDSGIR", 0xF10, _read_sources, _clear_sources, length=16, access=W8 | W32),
        Region("GICD_SPENDSGIR", 0xF20, _read_sources, _set_sources, length=16, access=W8 | W32),
    ]
)


# -- the CPU interface, as userspace saves and restores it ------------------------------------------------------------


def _read_saved(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int) -> int:
    return cpuif.read_saved(cpu.vcpu.interface, offset)


def _write_saved(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
    cpuif.write_saved(cpu.vcpu.interface, offset, value)


def _read_apr(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int) -> int:
    return cpu.vcpu.interface.apr if offset == _APR else 0


def _write_apr(vgic: VgicV2, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
    if offset == _APR:  # a GICv2 has at most 32 levels of active priorities
        cpu.vcpu.interface.apr = value


_APR = 0xD0

CPU = Frame(
    [
        Region("GICC_CTLR", 0x00, _read_saved, _write_saved, length=4),
        Region("GICC_PMR", 0x04, _read_saved, _write_saved, length=4),
        Region("GICC_BPR", 0x08, _read_saved, _write_saved, length=4),
        Region("GICC_ABPR", 0x1C, _read_saved, _write_saved, length=4),
        Region("GICC_APR", _APR, _read_apr, _write_apr, length=16),
        Region("GICC_IIDR", 0xFC, _read_saved, wi, length=4),
    ]
)
