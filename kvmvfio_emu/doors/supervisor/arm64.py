"""Loads and stores in A64 machine code (Arm Architecture Reference Manual, C4.1 "Loads and Stores").

Single general registers are understood in full: LDR, STR, LDUR, STUR, their signed and their narrow forms, in all
addressing modes, and LDAR, STLR. Pairs, vectors and atomics have to be tried out.
"""

from __future__ import annotations

from typing import ClassVar

from kvmvfio_emu.doors.supervisor.isa import InstructionSet, Move, Words

_SP, _PC = 31, 32  # in struct user_pt_regs, after x0 to x30
_LENGTH = 4
_AARCH32_MODE = 1 << 4
_PSTATE = 33


class Arm64(InstructionSet):
    """A64 code; of 32-bit code everything has to be tried out."""

    registers = 34
    longest = _LENGTH
    counter = _PC
    vectors: ClassVar[tuple[int, ...]] = (2,)  # NT_PRFPREG: all of V0 to V31

    def decode(self, code: bytes, words: Words, address: int) -> Move | None:
        """As `InstructionSet`."""
        if words[_PSTATE] & _AARCH32_MODE:
            return None
        word = int.from_bytes(code[:_LENGTH], "little")
        size = 1 << (word >> 30)
        transfer = word & 31
        if word >> 24 & 0x3F == 0b111001:  # unsigned offset
            return self._move(word >> 22 & 3, size, transfer, words)
        if word >> 24 & 0x3F == 0b111000:
            if word >> 21 & 1:
                return self._move(word >> 22 & 3, size, transfer, words) if word >> 10 & 3 == 0b10 else None
            if word >> 10 & 3 == 0b10:  # LDTR, STTR: as an unprivileged program has it, LDUR and STUR
                return self._move(word >> 22 & 3, size, transfer, words)
            step = (word >> 12 & 0x1FF ^ 0x100) - 0x100
            moved = self._move(word >> 22 & 3, size, transfer, words)
            if moved is None or not word >> 10 & 1:
                return moved
            return moved._replace(base=word >> 5 & 31, step=step)
        if word & 0x3FFF_FC00 in (0x08DF_FC00, 0x089F_FC00):  # LDAR, STLR
            return self._move(word >> 22 & 1, size, transfer, words)
        return None

    @staticmethod
    def _move(operation: int, size: int, transfer: int, words: Words) -> Move | None:
        """``operation``: 0 store, 1 load, 2 load and sign-extend to 8 bytes (of size 8: prefetch), 3 to 4 bytes."""
        zero = transfer == 31
        if operation == 0:
            return Move(False, size, _LENGTH, value=0 if zero else words[transfer] & (1 << 8 * size) - 1)
        if operation == 2 and size == 8:
            return None
        signed = {1: 0, 2: 8, 3: 4}[operation]
        return Move(True, size, _LENGTH, None if zero else transfer, signed=signed)
