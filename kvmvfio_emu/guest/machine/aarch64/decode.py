"""Loads and stores as the hypervisor sees them, by ESR_EL2's syndrome, and instructions it reads (Arm DDI 0487).

The syndrome is valid for single general registers without writeback; pairs, writeback, SIMD and exclusives give none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvmvfio_emu.guest.machine.syndrome import ZERO, Access, decode
from kvmvfio_emu.kernel.kvm.sysregs import Encoding

_MASK = (1 << 64) - 1


def access(esr: int, word: int) -> Access | None:
    """The access of a data abort by instruction ``word``, None when its syndrome is not valid.

    The engine calls one with writeback valid, too, which the architecture does not.
    """
    return None if word & 0x3F200400 == 0x38000400 else decode(esr)


def target(word: int, pc: int, register: Callable[[int], int]) -> int:
    """The virtual address of an access whose syndrome is valid; ``register`` reads one, 31 being SP."""
    if word & 0x3F000000 == 0x18000000:
        return pc + 4 * _signed(word >> 5, 19) & _MASK
    base, size = register(word >> 5 & 31), word >> 30
    if word & 0x3F000000 == 0x39000000:
        base += (word >> 10 & 0xFFF) << size
    elif word & 0x3F200400 == 0x38000000:
        base += _signed(word >> 12, 9)
    elif word & 0x3F200C00 == 0x38200800:
        number, extend = word >> 16 & 31, word >> 13 & 7
        index = 0 if number == ZERO else register(number)
        if extend & 3 == 2:  # of 32 bits
            index = _signed(index, 32) if extend & 4 else index & 0xFFFFFFFF
        base += index << (size if word & 1 << 12 else 0)
    return base & _MASK


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


class SystemAccess(NamedTuple):
    """MRS or MSR of a system register."""

    read: bool
    encoding: Encoding
    register: int


def decode_system(word: int) -> SystemAccess | None:
    """The MRS or MSR (register) that instruction ``word`` is."""
    if word & 0xFFD00000 != 0xD5100000:
        return None
    encoding = (word >> 19 & 3, word >> 16 & 7, word >> 12 & 15, word >> 8 & 15, word >> 5 & 7)
    return SystemAccess(bool(word & 1 << 21), encoding, word & 31)


def is_cache_maintenance(word: int) -> bool:
    """DC by address: SYS with CRn 7; but not DC ZVA, which stores."""
    return word & 0xFFF8F000 == 0xD5087000 and word & 0xFFFFFFE0 != 0xD50B7420
