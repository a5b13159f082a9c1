"""In what kernels differ in the interrupt controllers, virtual and physical."""

from __future__ import annotations

from dataclasses import dataclass

from kvmvfio_emu.profiles.difference import differs


@dataclass(frozen=True, kw_only=True)
class VgicDifferences:
    """See each field's first argument after its default: what the value means."""

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
