"""What the distributor's registers mean for one interrupt, in both versions of the GIC (vgic-mmio.c).

Functions with ``user`` in their name are userspace's variants: it saves and restores state, and its accesses find no
vCPU running. ``cpu`` is the vCPU that accesses, or that userspace names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.core import VgicCore
    from kvmvfio_emu.kernel.kvm.vgic.modern.cpu import VgicCpu
    from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq

#: How many bits of a priority a list register holds (VGIC_PRI_BITS); the lower ones are RAZ/WI.
_PRIORITY_MASK = 0xF8


# -- group and enable -------------------------------------------------------------------------------------------------


def get_group(core: VgicCore, cpu: VgicCpu, irq: Irq) -> int:
    """GICD_IGROUPR."""
    return irq.group


def put_group(core: VgicCore, cpu: VgicCpu, irq: Irq, value: int) -> None:
    """GICD_IGROUPR."""
    irq.group = value
    core.queue(irq)


def get_enable(core: VgicCore, cpu: VgicCpu, irq: Irq) -> int:
    """GICD_ISENABLER and GICD_ICENABLER."""
    return irq.enabled


def set_enable(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """GICD_ISENABLER, of SGIs too."""
    irq.enabled = True
    core.queue(irq)


def clear_enable(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """GICD_ICENABLER: it leaves the vCPU's list at the next exit."""
    irq.enabled = False


# -- pending ----------------------------------------------------------------------------------------------------------


def get_pending(core: VgicCore, cpu: VgicCpu, irq: Irq) -> int:
    """GICD_ISPENDR and GICD_ICPENDR: latch or line."""
    return irq.pending


def user_get_pending(core: VgicCore, cpu: VgicCpu, irq: Irq) -> int:
    """What there is to save: with GICv3 the latch alone, as the line has its own group there (LEVEL_INFO)."""
    return irq.pending_latch if core.line_apart else irq.pending


def set_pending(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """GICD_ISPENDR; a GICv2's SGIs have GICD_SPENDSGIR instead."""
    if not (irq.is_sgi and core.sgi_sources):
        irq.pending_latch = True
        core.queue(irq)


def user_set_pending(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """As the guest's; a GICv2's SGI, whose source is not known, comes from the vCPU itself."""
    if irq.is_sgi and core.sgi_sources:
        irq.source |= 1 << cpu.number
    irq.pending_latch = True
    core.queue(irq)


def clear_pending(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """GICD_ICPENDR: the latch; a high line still makes a level-sensitive interrupt pending."""
    if not (irq.is_sgi and core.sgi_sources):
        irq.pending_latch = False


def user_clear_pending(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """As the guest's; a GICv2's SGI loses all of its sources."""
    if irq.is_sgi and core.sgi_sources:
        irq.source = 0
    irq.pending_latch = False


# -- active -----------------------------------------------------------------------------------------------------------


def _halt(core: VgicCore, irq: Irq) -> None:
    """What list registers of running vCPUs know must be known here first (vgic_access_active_prepare)."""
    if irq.intid >= PRIVATE or core.line_apart:
        core.halt_guests()


def get_active(core: VgicCore, cpu: VgicCpu, irq: Irq) -> int:
    """GICD_ISACTIVER and GICD_ICACTIVER, by a guest."""
    _halt(core, irq)
    return irq.active


def user_get_active(core: VgicCore, cpu: VgicCpu, irq: Irq) -> int:
    """The same by userspace."""
    return irq.active


def set_active(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """GICD_ISACTIVER, by a guest: the requester of a GICv2's SGI is taken to be the accessing vCPU."""
    _halt(core, irq)
    _change_active(core, irq, True, cpu.number)


def user_set_active(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """The same by userspace: the requester of an SGI is taken to be CPU 0."""
    _change_active(core, irq, True, 0)


def clear_active(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """GICD_ICACTIVER, by a guest."""
    _halt(core, irq)
    _change_active(core, irq, False, cpu.number)


def user_clear_active(core: VgicCore, cpu: VgicCpu, irq: Irq) -> None:
    """The same by userspace."""
    _change_active(core, irq, False, 0)


def _change_active(core: VgicCore, irq: Irq, active: bool, source: int) -> None:
    irq.active = active
    if active:
        if irq.is_sgi and core.sgi_sources:
            irq.active_source = source
        core.queue(irq)


# -- priority and configuration ---------------------------------------------------------------------------------------


def get_priority(core: VgicCore, cpu: VgicCpu, irq: Irq) -> int:
    """GICD_IPRIORITYR."""
    return irq.priority


def put_priority(core: VgicCore, cpu: VgicCpu, irq: Irq, value: int) -> None:
    """GICD_IPRIORITYR."""
    irq.priority = value & _PRIORITY_MASK


def get_config(core: VgicCore, cpu: VgicCpu, irq: Irq) -> int:
    """GICD_ICFGR."""
    return 2 if irq.edge else 0


def put_config(core: VgicCore, cpu: VgicCpu, irq: Irq, value: int) -> None:
    """GICD_ICFGR: fixed for private interrupts; what is pending by line or latch stays as it was."""
    if irq.intid >= PRIVATE:
        irq.edge = bool(value & 2)
