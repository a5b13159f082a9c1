"""A32 and T32 instructions that the hypervisor reads (Arm DDI 0406): coprocessor accesses, where an access goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvmvfio_emu.guest.machine.aarch32.cpu import Coprocessor

_MASK = (1 << 32) - 1
_PC = 15


class SystemAccess(NamedTuple):
    """MRC, MCR, MRRC or MCRR of coprocessor 15; ``high``: the second register of the latter two."""

    read: bool
    register: Coprocessor
    low: int
    high: int | None = None


def decode_system(word: int) -> SystemAccess | None:
    """What instruction ``word`` is, if it is one of them; T32's are as A32's with condition 14."""
    read, crm = bool(word & 1 << 20), word & 15
    if word & 0x0F000F10 == 0x0E000F10:
        register = Coprocessor(word >> 21 & 7, word >> 16 & 15, crm, word >> 5 & 7)
        return SystemAccess(read, register, word >> 12 & 15)
    if word & 0x0FE00F00 == 0x0C400F00:
        register = Coprocessor(word >> 4 & 15, 0, crm, 0, wide=True)
        return SystemAccess(read, register, word >> 12 & 15, word >> 16 & 15)
    return None


def is_wide(half: int) -> bool:
    """Whether the T32 instruction that begins with ``half`` has 32 bits."""
    return half >> 11 in (0b11101, 0b11110, 0b11111)


def target(word: int, pc: int, register: Callable[[int], int]) -> int:
    """The virtual address of an A32 load or store of one register without writeback."""
    base, up = word >> 16 & 15, bool(word & 1 << 23)
    if word & 0x0E000090 == 0x00000090 and word & 0x60:  # half words, and signed ones
        immediate = bool(word & 1 << 22)
        offset = word >> 4 & 0xF0 | word & 15 if immediate else register(word & 15)
    elif word & 1 << 25:
        offset = _shifted(register(word & 15), word >> 5 & 3, word >> 7 & 31)
    else:
        offset = word & 0xFFF
    start = pc + 8 & ~3 if base == _PC else register(base)
    return start + (offset if up else -offset) & _MASK


def _shifted(value: int, kind: int, amount: int) -> int:
    if kind == 0:
        return value << amount & _MASK
    if kind == 1:
        return value >> (amount or 32)
    signed = value - (value >> 31 << 32)
    if kind == 2:
        return signed >> (amount or 32) & _MASK
    amount = amount or 1  # RRX reads the carry, which no address is made with
    return (value >> amount | value << 32 - amount) & _MASK


def target_16(half: int, pc: int, register: Callable[[int], int]) -> int:
    """The same of a T32 instruction of 16 bits."""
    middle, five = half >> 3 & 7, half >> 6 & 31
    kind = half >> 12
    if half >> 11 == 0b01001:
        return (pc + 4 & ~3) + 4 * (half & 0xFF) & _MASK
    if kind == 0b0101:
        return register(middle) + register(half >> 6 & 7) & _MASK
    if kind == 0b1001:
        return register(13) + 4 * (half & 0xFF) & _MASK
    scale = 2 if kind == 0b1000 else 1 if half & 1 << 12 else 4
    return register(middle) + scale * five & _MASK


def target_32(first: int, second: int, pc: int, register: Callable[[int], int]) -> int:
    """The same of one of 32 bits."""
    base = first & 15
    if base == _PC:
        offset = second & 0xFFF
        return (pc + 4 & ~3) + (offset if first & 1 << 7 else -offset) & _MASK
    if first & 1 << 7:
        offset = second & 0xFFF
    elif second & 1 << 11:
        offset = second & 0xFF if second & 1 << 9 else -(second & 0xFF)
    else:
        offset = register(second & 15) << (second >> 4 & 3)
    return register(base) + offset & _MASK
