"""In what kernels differ in the interrupt controllers, virtual and physical."""

from __future__ import annotations

from dataclasses import dataclass

from kvmvfio_emu.profiles.difference import differs


@dataclass(frozen=True, kw_only=True)
class VgicDifferences:
    """See each field's first argument after its default: what the value means."""

    vgic_modern: bool = differs(
        False,
        "The VGIC is the rewritten one: one state per interrupt, latch and line apart, SPIs edge-triggered at reset "
        "(else the bitmaps of 2012 to 2016).",
        since="4.7",
    )
    vgic_ctrl: bool = differs(
        False,
        "The VGIC has the CTRL attribute group (explicit initialisation).",
        since="4.0",
    )
    vgic_active_registers: bool = differs(
        False,
        "GICD_I[SC]ACTIVER act (else read as zero, writes ignored).",
        since="4.0",
    )
    gic_lazy_disable: bool = differs(
        True,
        "The GIC driver has no irq_disable hook: disable_irq takes effect at the next interrupt.",
    )
