"""Which access an instruction makes, by its encoding and the registers before it: what an MMIO exit has to say.

Only those that the architecture gives a valid syndrome: of one general register, without writeback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

_ALL = (1 << 64) - 1
_LOW = (1 << 32) - 1
_THUMB, _BIG_ENDIAN, _USER, _FIQ = 1 << 5, 1 << 9, 0x10, 0x11
#: Modes of CPSR -> where KVM has their SP and LR.
_BANKS = {0x12: (17, 16), 0x13: (19, 18), 0x17: (21, 20), 0x1B: (23, 22), 0x11: (29, 30)}


class Unpredictable(Exception):
    """The architecture does not say what the instruction does."""


class Expected(NamedTuple):
    """An access of ``size`` bytes; the register is a number of KVM's, None for the zero register."""

    address: int
    size: int
    write: bool
    register: int | None
    signed: bool
    bits: int  #: of the register, that a load fills
    length: int  #: of the instruction
    swapped: bool

    def on_bus(self, value: int) -> int:
        """What a store of ``value`` shows."""
        return self._turned(value & (1 << 8 * self.size) - 1)

    def loaded(self, answer: int) -> int:
        """What the register has when the device said ``answer``."""
        value = self._turned(answer & (1 << 8 * self.size) - 1)
        if self.signed and value >> 8 * self.size - 1:
            value -= 1 << 8 * self.size
        return value & (1 << self.bits) - 1

    def _turned(self, value: int) -> int:
        return int.from_bytes(value.to_bytes(self.size, "big"), "little") if self.swapped else value


def signed(value: int, bits: int) -> int:
    """The lowest ``bits`` as a number with a sign."""
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


def a64(word: int, pc: int, x: Sequence[int], stack: int, *, swapped: bool) -> Expected | None:
    """The access of an A64 instruction."""
    rt, rn, opc, size = word & 31, word >> 5 & 31, word >> 22 & 3, word >> 30
    base = stack if rn == 31 else x[rn]
    if word & 0x3B000000 == 0x18000000:
        address, opc, size = pc + 4 * signed(word >> 5, 19), (1, 1, 2, 4)[word >> 30], (2, 3, 2, 4)[word >> 30]
    elif word & 0x3B000000 == 0x39000000:
        address = base + ((word >> 10 & 0xFFF) << size)
    elif word & 0x3B200400 == 0x38000000:
        address = base + signed(word >> 12, 9)
    elif word & 0x3B200C00 == 0x38200800:
        number, option = word >> 16 & 31, word >> 13 & 7
        index = 0 if number == 31 else x[number]
        index = {2: index & _LOW, 6: signed(index, 32)}.get(option, index)
        address = base + (index << (size if word >> 12 & 1 else 0))
    elif word & 0x3FA08000 == 0x08808000:
        address, opc = base, word >> 22 & 1
    else:
        return None
    if word >> 26 & 1 or size > 3 or (size == 3 and opc > 1) or (size == 2 and opc > 2):
        return None
    bits = 64 if opc == 2 or size == 3 else 32
    register = None if rt == 31 else rt
    return Expected(address & _ALL, 1 << size, opc == 0, register, opc > 1, bits, 4, swapped)


def arm(word: int, pc: int, x: Sequence[int], state: int) -> Expected | None:
    """The access of an A32 or T32 instruction; ``word``: the four bytes at PC, little-endian. Unpredictable."""

    def number(register: int) -> int:
        mode = state & 0x1F
        if mode == _FIQ and 8 <= register <= 12:
            return register + 16
        if register in (13, 14) and mode in _BANKS:
            return _BANKS[mode][register - 13]
        return register

    def value(register: int) -> int:
        if register == 15:
            raise Unpredictable
        return x[number(register)]

    if not state & _THUMB:
        found = _a32(word, pc, value)
    else:
        first, second = word & 0xFFFF, word >> 16
        found = _t32(first, second, pc, value) if first >> 11 > 28 else _t16(first, pc, value)
    if found is None:
        return None
    address, size, write, register, sign, length = found
    if register == 15:
        return None
    swapped = bool(state & _BIG_ENDIAN)
    return Expected(address & _LOW, size, write, number(register), sign, 32, length, swapped)


_Found = tuple[int, int, bool, int, bool, int]
_Value = Callable[[int], int]


def _a32(word: int, pc: int, value: _Value) -> _Found | None:
    rn, rt, load = word >> 16 & 15, word >> 12 & 15, bool(word >> 20 & 1)
    if not word >> 24 & 1 or word >> 21 & 1 or word >> 28 == 15:  # post-indexed, writeback
        return None
    base = pc + 8 & ~3 if rn == 15 else value(rn)
    if word >> 25 & 7 == 0 and word >> 4 & 9 == 9 and word >> 5 & 3:
        kind = word >> 5 & 3
        if not load and kind != 1:
            return None  # LDRD, STRD
        offset = (word >> 4 & 0xF0 | word & 15) if word >> 22 & 1 else value(word & 15)
        size, sign = (2, kind == 3) if kind != 2 else (1, True)
    elif word >> 26 & 3 == 1:
        if word >> 25 & 1:
            if word >> 4 & 1:
                return None
            offset = _shifted(value(word & 15), word >> 5 & 3, word >> 7 & 31)
        else:
            offset = word & 0xFFF
        size, sign = 1 if word >> 22 & 1 else 4, False
    else:
        return None
    return base + (offset if word >> 23 & 1 else -offset), size, not load, rt, sign, 4


def _shifted(value: int, kind: int, amount: int) -> int:
    if kind == 0:
        return value << amount
    if kind == 3:
        doubled = value | value << 32
        return doubled >> (amount or 1) & _LOW
    return (value if kind == 1 else signed(value, 32)) >> (amount or 32)


def _t16(half: int, pc: int, value: _Value) -> _Found | None:
    rt, rn, five = half & 7, half >> 3 & 7, half >> 6 & 31
    top = half >> 12
    if half >> 11 == 9:
        return (pc + 4 & ~3) + 4 * (half & 0xFF), 4, False, half >> 8 & 7, False, 2
    if top == 5:
        size, write, sign = (
            *((4, True, False), (2, True, False), (1, True, False), (1, False, True)),
            *((4, False, False), (2, False, False), (1, False, False), (2, False, True)),
        )[half >> 9 & 7]
        return value(rn) + value(half >> 6 & 7), size, write, rt, sign, 2
    if top in (6, 7, 8):
        size = {6: 4, 7: 1, 8: 2}[top]
        return value(rn) + size * five, size, not half >> 11 & 1, rt, False, 2
    if top == 9:
        return value(13) + 4 * (half & 0xFF), 4, not half >> 11 & 1, half >> 8 & 7, False, 2
    return None


def _t32(first: int, second: int, pc: int, value: _Value) -> _Found | None:
    if first >> 9 != 0b1111100 or first >> 5 & 3 == 3:
        return None
    rn, rt, load, sign = first & 15, second >> 12, bool(first >> 4 & 1), bool(first >> 8 & 1)
    size = 1 << (first >> 5 & 3)
    if rn == 15:
        if not load:
            raise Unpredictable  # undefined to the architecture, a store to the engine
        base, offset = pc + 4 & ~3, second & 0xFFF
        return base + (offset if first >> 7 & 1 else -offset), size, False, rt, sign, 4
    base = value(rn)
    if first >> 7 & 1:
        offset = second & 0xFFF
    elif not second & 0xFC0:
        offset = value(second & 15) << (second >> 4 & 3)
    elif second >> 8 & 15 == 12:
        offset = -(second & 0xFF)
    elif second >> 8 & 15 == 14:
        offset = second & 0xFF
    else:
        return None
    return base + offset, size, not load, rt, sign, 4
