"""The virtual distributor's registers (GICD_*), as the guest and KVM_DEV_ARM_VGIC_GRP_DIST_REGS reach them.

Each range is declared once: where it is, how many bits an interrupt has in it, and what reading and writing mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kvmvfio_emu.kernel.kvm.vgic import lists
from kvmvfio_emu.kernel.kvm.vgic.state import PRIVATE, SGIS, VirtualIrq

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.dist import Vgic

DIST_SIZE = 0x1000
#: Implementer 0x43B (Arm), product 0x4B: what KVM's virtual distributor says of itself.
GICD_IIDR = 0x4B << 24 | 0x43B

_Read = Callable[["Vgic", int, VirtualIrq], int]
_Write = Callable[["Vgic", int, VirtualIrq, int], None]


class Range(NamedTuple):
    """``length`` bytes from ``base`` with ``bits`` bits for each interrupt.

    ``read`` and ``write`` act on one interrupt as vCPU (index) sees it; without them the range is RAZ or WI.
    ``ones_only``: a zero written means nothing (the set- and clear-registers).
    """

    base: int
    length: int
    bits: int
    read: _Read | None = None
    write: _Write | None = None
    ones_only: bool = False


def _enable(vgic: Vgic, cpu: int, irq: VirtualIrq, value: int) -> None:
    irq.enabled = True


def _disable(vgic: Vgic, cpu: int, irq: VirtualIrq, value: int) -> None:
    if irq.number >= SGIS:  # SGIs are always enabled
        irq.enabled = False
        lists.retire(vgic, vgic.target(irq, cpu), irq)


def _read_pending(vgic: Vgic, cpu: int, irq: VirtualIrq) -> int:
    return int(irq.pending)


def _set_pending(vgic: Vgic, cpu: int, irq: VirtualIrq, value: int) -> None:
    if irq.number < SGIS:
        return  # pending SGIs are the business of GICD_SPENDSGIR
    irq.pending = True
    irq.soft_pending = not irq.edge


def _clear_pending(vgic: Vgic, cpu: int, irq: VirtualIrq, value: int) -> None:
    if irq.number >= SGIS:
        irq.soft_pending = False
        irq.pending = irq.level and not irq.edge


def _read_active(vgic: Vgic, cpu: int, irq: VirtualIrq) -> int:
    return int(irq.active or lists.is_active(vgic.target(irq, cpu), irq))


def _set_active(vgic: Vgic, cpu: int, irq: VirtualIrq, value: int) -> None:
    irq.active = not lists.is_active(vgic.target(irq, cpu), irq)


def _clear_active(vgic: Vgic, cpu: int, irq: VirtualIrq, value: int) -> None:
    irq.active = False
    lists.deactivate(vgic.target(irq, cpu), irq)


def _write_priority(vgic: Vgic, cpu: int, irq: VirtualIrq, value: int) -> None:
    irq.priority = value  # the whole byte, though a list register holds five bits of it


def _write_target(vgic: Vgic, cpu: int, irq: VirtualIrq, value: int) -> None:
    if irq.number >= PRIVATE:  # those of private interrupts read as the own CPU and ignore writes
        irq.targets = value & -value or 1  # one vCPU: the lowest, the first when none is named


def _write_config(vgic: Vgic, cpu: int, irq: VirtualIrq, value: int) -> None:
    if irq.number >= PRIVATE:
        irq.edge = bool(value & 2)


_PLAIN = [
    Range(0x080, 0x80, 1),  # IGROUPR
    Range(0x100, 0x80, 1, lambda v, c, irq: int(irq.enabled), _enable, ones_only=True),
    Range(0x180, 0x80, 1, lambda v, c, irq: int(irq.enabled), _disable, ones_only=True),
    Range(0x200, 0x80, 1, _read_pending, _set_pending, ones_only=True),
    Range(0x280, 0x80, 1, _read_pending, _clear_pending, ones_only=True),
    Range(0x400, 0x400, 8, lambda v, c, irq: irq.priority, _write_priority),
    Range(0x800, 0x400, 8, lambda v, c, irq: irq.targets, _write_target),
    Range(0xC00, 0x100, 2, lambda v, c, irq: 2 if irq.edge else 0, _write_config),
]
#: (offset, length) of what is not per interrupt: GICD_CTLR to IIDR, SGIR, CPENDSGIR, SPENDSGIR.
_SPECIAL = [(0x000, 0xC), (0xF00, 4), (0xF10, 0x10), (0xF20, 0x10)]
#: GICD_ISACTIVER, GICD_ICACTIVER: without a meaning until 3.20.
_ACTIVE_IGNORED = [Range(0x300, 0x80, 1), Range(0x380, 0x80, 1)]
_ACTIVE = [
    Range(0x300, 0x80, 1, _read_active, _set_active, ones_only=True),
    Range(0x380, 0x80, 1, _read_active, _clear_active, ones_only=True),
]


class Distributor:
    """GICD_* of one VGIC. Offsets and words as in the architecture; accesses of 1, 2 or 4 bytes inside a word."""

    def __init__(self, vgic: Vgic, *, active_registers: bool) -> None:
        self._vgic = vgic
        self._ranges = _PLAIN + (_ACTIVE if active_registers else _ACTIVE_IGNORED)

    def known(self, offset: int) -> bool:
        """Whether 32 bits at ``offset``, aligned or not, lie in one range of registers."""
        ranges = [*_SPECIAL, *((one.base, one.length) for one in self._ranges)]
        return any(base <= offset and offset + 4 <= base + length for base, length in ranges)

    def read(self, cpu: int, offset: int) -> int:
        """The 32-bit word at ``offset``, as vCPU ``cpu`` (index) reads it; 0 where nothing is."""
        vgic = self._vgic
        if offset == 0x000:
            return int(vgic.enabled)
        if offset == 0x004:
            return (len(vgic.cpus) - 1) << 5 | (vgic.irqs or 0) // 32 - 1
        if offset == 0x008:
            return GICD_IIDR
        if 0xF10 <= offset < 0xF30:
            first = (offset & 0xF) // 1
            return sum(vgic.cpus[cpu].private[first + n].sources << 8 * n for n in range(4))
        found = self._range(offset)
        if found is None or found.read is None:
            return 0
        read, bits = found.read, found.bits
        return sum(read(vgic, cpu, irq) << position for position, irq in self._irqs(found, cpu, offset) if bits)

    def write(self, cpu: int, offset: int, value: int, mask: int = 0xFFFFFFFF) -> None:
        """Write the bits of ``mask`` of the word at ``offset``; ignored where nothing is."""
        vgic = self._vgic
        if offset == 0x000:
            if mask & 1:
                vgic.enabled = bool(value & 1)
        elif offset == 0xF00:
            self._software_interrupt(cpu, value)
            return
        elif 0xF10 <= offset < 0xF30:
            self._sgi_pending(cpu, offset, value & mask)
        else:
            found = self._range(offset)
            if found is None or found.write is None:
                return
            field = (1 << found.bits) - 1
            for position, irq in self._irqs(found, cpu, offset):
                part = value >> position & field
                if mask >> position & field and (part or not found.ones_only):
                    found.write(vgic, cpu, irq, part)
        vgic.update()

    def _range(self, offset: int) -> Range | None:
        return next((one for one in self._ranges if one.base <= offset < one.base + one.length), None)

    def _irqs(self, found: Range, cpu: int, offset: int) -> list[tuple[int, VirtualIrq]]:
        """(bit position, interrupt) of each interrupt in that word that this VGIC has."""
        first = (offset - found.base) * 8 // found.bits
        count = 32 // found.bits
        last = min(first + count, self._vgic.irqs or 0)
        return [((number - first) * found.bits, self._vgic.irq(cpu, number)) for number in range(first, last)]

    def _software_interrupt(self, cpu: int, value: int) -> None:
        everyone = (1 << len(self._vgic.cpus)) - 1
        targets = {0: value >> 16 & 0xFF, 1: everyone & ~(1 << cpu), 2: 1 << cpu}.get(value >> 24 & 3, 0)
        self._vgic.send_sgi(cpu, targets, value & 0xF)

    def _sgi_pending(self, cpu: int, offset: int, value: int) -> None:
        for n in range(4):
            irq = self._vgic.cpus[cpu].private[(offset & 0xF) + n]
            sources = value >> 8 * n & 0xFF
            irq.sources = irq.sources | sources if offset >= 0xF20 else irq.sources & ~sources
            irq.pending = bool(irq.sources)
