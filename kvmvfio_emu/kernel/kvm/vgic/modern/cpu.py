"""The VGIC's part of one vCPU (struct vgic_cpu, include/kvm/arm_vgic.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE
from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu


class VgicCpu:
    """Private interrupts, and the list of interrupts that are active or pending for the vCPU."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.index = vcpu.index
        self.number = vcpu.number
        self.private = [Irq(intid, self) for intid in range(PRIVATE)]
        #: In the order in which they came, unless the list registers do not suffice.
        self.ap_list: list[Irq] = []
        self.used_lrs = 0

    @property
    def affinity(self) -> int:
        """Aff0 (bits 0 to 7), Aff1 (8 to 15), Aff2 (16 to 23) of the vCPU's MPIDR."""
        return self.vcpu.mpidr & 0xFFFFFF
