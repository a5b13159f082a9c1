"""The idioms of a driver on a machine with a GICv3, for guest scripts: what `script.Cpu` is for a GICv2."""

from __future__ import annotations

from typing import NamedTuple

from kvmvfio_emu.guest.script import Read, ReadSystem, Routine, Write, WriteSystem
from kvmvfio_emu.hw import gicv3 as g


class CpuV3(NamedTuple):
    """Where distributor and the vCPU's own redistributor are, and which vCPU it is (by affinity)."""

    distributor: int
    redistributor: int
    affinity: int = 0

    def enable_gic(self) -> Routine:
        """Turn on distributor and CPU interface, let all priorities pass."""
        yield Write(self.distributor + g.GICD_CTLR, g.GICD_CTLR_ARE | g.GICD_CTLR_ENABLE_G1)
        yield WriteSystem(g.ICC_SRE_EL1, g.ICC_SRE_SRE)
        yield WriteSystem(g.ICC_PMR_EL1, 0xFF)
        yield WriteSystem(g.ICC_IGRPEN1_EL1, 1)

    def enable_irq(self, irq: int, *, edge: bool = False) -> Routine:
        """Configure interrupt ``irq``, route it here if it is shared, enable it."""
        if irq < 32:
            yield Write(self.redistributor + g.GICR_ISENABLER0, 1 << irq)
            return
        config = self.distributor + g.GICD_ICFGR + irq // 16 * 4
        field = 2 << irq % 16 * 2
        value = yield Read(config)
        yield Write(config, value | field if edge else value & ~field)
        yield Write(self.distributor + g.GICD_IROUTER + irq * 8, self.affinity, 8)
        yield Write(self.distributor + g.GICD_ISENABLER + irq // 32 * 4, 1 << irq % 32)

    def acknowledge(self) -> ReadSystem:
        """ICC_IAR1_EL1; 1023 when there is nothing."""
        return ReadSystem(g.ICC_IAR1_EL1)

    def end_of_interrupt(self, irq: int) -> WriteSystem:
        """ICC_EOIR1_EL1."""
        return WriteSystem(g.ICC_EOIR1_EL1, irq)

    def deactivate(self, irq: int) -> WriteSystem:
        """ICC_DIR_EL1, for a guest with EOImode 1."""
        return WriteSystem(g.ICC_DIR_EL1, irq)
