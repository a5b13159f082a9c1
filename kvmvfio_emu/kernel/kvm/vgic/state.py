"""What the virtual distributor remembers of each interrupt and of each vCPU (struct vgic_dist, vgic_cpu)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

SGIS = 16
PRIVATE = 32


class VirtualIrq:
    """One interrupt of the virtual distributor: of one vCPU when ``number`` is below 32, else shared."""

    __slots__ = (
        "active",
        "edge",
        "enabled",
        "level",
        "number",
        "pending",
        "priority",
        "queued",
        "soft_pending",
        "sources",
        "targets",
    )

    def __init__(self, number: int, *, edge: bool, enabled: bool, targets: int) -> None:
        self.number = number
        self.edge = edge  #: configured edge-triggered (GICD_ICFGR)
        self.enabled = enabled
        self.level = False  #: the external line
        self.pending = False
        self.soft_pending = False  #: the guest wrote GICD_ISPENDR for a level interrupt
        self.queued = False  #: a level interrupt sits in a list register
        self.active = False  #: active, but in no list register
        self.priority = 0
        self.targets = targets  #: GICD_ITARGETSR byte
        self.sources = 0  #: requesting CPUs of an SGI, one bit each


class VgicCpu:
    """The VGIC's part of one vCPU."""

    __slots__ = ("index", "lr_of", "private", "selected", "vcpu")

    def __init__(self, vcpu: Vcpu, index: int) -> None:
        self.vcpu = vcpu
        self.index = index
        #: SGIs are edge and always enabled; PPIs are treated as edge too.
        self.private = [
            VirtualIrq(number, edge=True, enabled=number < SGIS, targets=1 << index) for number in range(PRIVATE)
        ]
        #: Interrupts to be queued at the next entry (pending_percpu and pending_shared).
        self.selected: set[VirtualIrq] = set()
        #: (interrupt, requesting CPU) -> the list register in use for it (vgic_irq_lr_map, lr_used).
        self.lr_of: dict[tuple[int, int], int] = {}
