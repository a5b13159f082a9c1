"""One virtual interrupt (struct vgic_irq, include/kvm/arm_vgic.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE, SGIS

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.cpu import VgicCpu


class Irq:
    """What the VGIC knows of interrupt ``intid``: of one vCPU when it is private (below 32).

    An interrupt is pending by its line (``line_level``, level-sensitive only) or by its latch (``pending_latch``: an
    edge was seen, or software set it pending).
    """

    __slots__ = (
        "active",
        "active_source",
        "edge",
        "enabled",
        "group",
        "intid",
        "line_level",
        "mpidr",
        "pending_latch",
        "priority",
        "source",
        "target",
        "targets",
        "vcpu",
    )

    def __init__(self, intid: int, target: VgicCpu | None) -> None:
        self.intid = intid
        #: On whose list of active and pending interrupts it is, or nobody's.
        self.vcpu: VgicCpu | None = None
        #: The vCPU that takes it next.
        self.target = target
        self.line_level = False
        self.pending_latch = False
        self.active = False
        self.enabled = intid < SGIS
        #: The configuration; SPIs are edge-triggered at reset, PPIs level-sensitive for ever.
        self.edge = not SGIS <= intid < PRIVATE
        self.priority = 0  #: 0 (highest) to 0xF8
        self.group = 0
        self.source = 0  #: GICv2 SGI: requesting CPUs, one bit each
        self.active_source = 0  #: GICv2 SGI: the requesting CPU of the one that is active
        self.targets = 0  #: GICv2: the GICD_ITARGETSR byte
        self.mpidr = 0  #: GICv3: the affinity of GICD_IROUTER

    @property
    def pending(self) -> bool:
        """Models irq_is_pending."""
        return self.pending_latch or (self.line_level and not self.edge)

    @property
    def is_sgi(self) -> bool:
        """Whether it is a software generated interrupt."""
        return self.intid < SGIS

    def __repr__(self) -> str:
        return f"<interrupt {self.intid}>"
