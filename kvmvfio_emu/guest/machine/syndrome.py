"""What a hypervisor is told of an exception, by ESR_EL2 or HSR, which are alike; and the access that it means."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

#: The masks of PSTATE, and of CPSR, which are in the same place; also the kinds of an interrupt.
FIQ, IRQ, SERROR = 1 << 6, 1 << 7, 1 << 8

# The exception class and its neighbours.
EC = 26
INSTRUCTION_LENGTH = 1 << 25
EC_PREFETCH_ABORT, EC_DATA_ABORT = 0x20, 0x24  #: from a lower exception level
_VALID = 1 << 24
WRITE_NOT_READ, TABLE_WALK, FAULT_STATUS = 1 << 6, 1 << 7, 0x3F
#: Faults that KVM makes.
EXTERNAL, ALIGNMENT = 0x10, 0x21

#: The register of an access that is none.
ZERO = 31


class Access(NamedTuple):
    """A load or store of ``size`` bytes."""

    store: bool
    size: int
    register: int
    signed: bool = False
    wide: bool = True  #: a sign goes into all 64 bits of the register
    length: int = 4  #: of the instruction
    swapped: bool = False  #: big-endian

    def loaded(self, value: int) -> int:
        """What the register holds after ``value`` was loaded."""
        value = self.stored(value)
        if self.signed and value >> 8 * self.size - 1:
            value |= -1 << 8 * self.size
        return value & (0xFFFFFFFFFFFFFFFF if self.wide else 0xFFFFFFFF)

    def stored(self, value: int) -> int:
        """What is on the bus when the register holds ``value``."""
        value &= (1 << 8 * self.size) - 1
        if self.swapped:
            value = int.from_bytes(value.to_bytes(self.size, "little"), "big")
        return value


@lru_cache
def decode(esr: int) -> Access | None:
    """The access that the syndrome of a data abort tells of, None when it is not valid."""
    if not esr & _VALID:
        return None
    return Access(
        store=bool(esr & WRITE_NOT_READ),
        size=1 << (esr >> 22 & 3),
        register=esr >> 16 & 31,
        signed=bool(esr & 1 << 21),
        wide=bool(esr & 1 << 15),
        length=4 if esr & INSTRUCTION_LENGTH else 2,
    )
