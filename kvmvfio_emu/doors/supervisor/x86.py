"""Loads and stores in x86-64 machine code (Intel's manual, volume 2: 2.1 instruction format, appendix A opcode maps).

Plain moves between memory and a general register or a constant are understood in full, so that they need not be
executed. Of other instructions on general registers the memory operand's width and direction are told; vector
instructions have to be tried out.
"""

from __future__ import annotations

from typing import ClassVar

from kvmvfio_emu.doors.supervisor.isa import InstructionSet, Move, Operand, Words

_RAX, _RSI, _RDI, _RIP, _CS, _EFLAGS = 10, 13, 14, 16, 17, 18  # in struct user_regs_struct
#: Where ``struct user_regs_struct`` has the general registers, in the processor's order: rax, rcx, rdx, rbx, ...
_PLACES = (10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0)
_CODE_64 = 0x33  # the code segment of 64-bit programs
_RESUME_FLAG = 1 << 16
_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_OPERAND_SIZE, _ADDRESS_SIZE = 0x66, 0x67
_TWO_BYTES = 0x0F00

_TO_MEMORY, _TO_REGISTER, _CONSTANT, _FROM_ABSOLUTE, _TO_ABSOLUTE = (
    (0x88, 0x89),
    (0x8A, 0x8B),
    (0xC6, 0xC7),
    (0xA0, 0xA1),
    (0xA2, 0xA3),
)
#: Loads that widen: opcode -> (bytes in memory, signed).
_WIDENING = {0x63: (4, True), 0x0FB6: (1, False), 0x0FB7: (2, False), 0x0FBE: (1, True), 0x0FBF: (2, True)}

_BIT_TEST = 0x0FBA
_READ, _WRITE, _BOTH = (True, False), (False, True), (True, True)
#: Width by the opcode's lowest bit (0: a byte): opcode -> (reads, writes).
_BY_BIT: dict[int, tuple[bool, bool]] = {
    **{
        group | form: (_READ if form & 2 or group == 0x38 else _BOTH)
        for group in range(0x00, 0x40, 8)
        for form in range(4)
    },
    **dict.fromkeys((0x84, 0x85, 0xAC, 0xAD, 0xAE, 0xAF), _READ),
    **dict.fromkeys((0xAA, 0xAB), _WRITE),
    **dict.fromkeys((0x86, 0x87, 0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3, 0x0FB0, 0x0FB1, 0x0FC0, 0x0FC1), _BOTH),
}
#: Width of the operand size, whatever the lowest bit is.
_FULL: dict[int, tuple[bool, bool]] = {
    **dict.fromkeys((0x69, 0x6B, 0x0FA3, 0x0FAF, *range(0x0F40, 0x0F50)), _READ),
    **dict.fromkeys((0x0FAB, 0x0FB3, 0x0FBB), _BOTH),
    0x0FC3: _WRITE,
}
#: Instructions with two places in memory: what they do to the second.
_TWO_STRINGS = {0xA4: _WRITE, 0xA5: _WRITE, 0xA6: _READ, 0xA7: _READ}
#: Groups whose ModR/M register field is a part of the opcode: what each of the eight does.
_GROUPS: dict[int, tuple[tuple[bool, bool] | None, ...]] = {
    **dict.fromkeys((0x80, 0x81, 0x83), (*(_BOTH,) * 7, _READ)),
    **dict.fromkeys((0xF6, 0xF7), (_READ, _READ, _BOTH, _BOTH, *(_READ,) * 4)),
    0xFE: (_BOTH, _BOTH, *(None,) * 6),
    0xFF: (_BOTH, _BOTH, _READ, None, _READ, None, _READ, None),
    _BIT_TEST: (*(None,) * 4, _READ, _BOTH, _BOTH, _BOTH),
    0x8F: (_WRITE, *(None,) * 7),
}
_ALWAYS_8 = {0x8F: (0,), 0xFF: (2, 4, 6)}  # calls, jumps, push and pop know no smaller size
_SET_CONDITION = range(0x0F90, 0x0FA0)


class _Code:
    """Takes an instruction apart, piece by piece. IndexError when it is cut short."""

    def __init__(self, code: bytes) -> None:
        self._code = code
        self.at = 0
        while code[self.at] in _PREFIXES:
            self.at += 1
        said = code[: self.at]
        self.rex = 0
        if code[self.at] & 0xF0 == 0x40:
            self.rex = code[self.at]
            self.at += 1
        self.width = 8 if self.rex & 8 else 2 if _OPERAND_SIZE in said else 4
        self.address_width = 4 if _ADDRESS_SIZE in said else 8
        self.opcode = self._byte()
        if self.opcode == _TWO_BYTES >> 8:
            self.opcode = _TWO_BYTES | self._byte()

    def _byte(self) -> int:
        value = self._code[self.at]
        self.at += 1
        return value

    def modrm(self) -> int:
        """The register field, with REX.R; the address is skipped."""
        value = self._byte()
        mod, base = value >> 6, value & 7
        if base == 4 and mod != 3:
            base = self._byte() & 7
        if mod == 1:
            self.at += 1
        elif mod == 2 or (mod == 0 and base == 5):
            self.at += 4
        return value >> 3 & 7 | (self.rex & 4) << 1

    def constant(self, size: int) -> int:
        """A constant of ``size`` bytes; one of 8 is written with 4 and sign-extended."""
        written = min(size, 4)
        part = self._code[self.at : self.at + written]
        if len(part) < written:
            raise IndexError
        self.at += written
        return int.from_bytes(part, "little", signed=True) & (1 << 8 * size) - 1


class X86(InstructionSet):
    """64-bit code; of 32-bit code everything has to be tried out."""

    registers = 27
    longest = 15
    counter = _RIP
    vectors: ClassVar[tuple[int, ...]] = (0x202,)  # NT_X86_XSTATE

    def decode(self, code: bytes, words: Words, address: int) -> Move | list[Operand] | None:
        """As `InstructionSet`."""
        if words[_CS] != _CODE_64:
            return None
        try:
            return self._decode(_Code(code), words, address)
        except IndexError:
            return None

    def finish(self, move: Move, words: Words, value: int = 0) -> None:
        """As `InstructionSet`; a completed instruction clears the resume flag."""
        super().finish(move, words, value)
        words[_EFLAGS] &= ~_RESUME_FLAG

    def _decode(self, code: _Code, words: Words, address: int) -> Move | list[Operand] | None:
        opcode = code.opcode
        size = code.width if opcode & 1 else 1
        if opcode in _TO_MEMORY:
            register, shift = self._place(code, code.modrm(), size)
            return Move(False, size, code.at, value=words[register] >> shift & (1 << 8 * size) - 1)
        if opcode in _TO_REGISTER:
            register, shift = self._place(code, code.modrm(), size)
            return Move(True, size, code.at, register, keep=_kept(size, shift), shift=shift)
        if opcode in _WIDENING:
            (size, signed), register = _WIDENING[opcode], _PLACES[code.modrm()]
            keep, signed_to = _kept(code.width, 0), code.width if signed else 0
            return Move(True, size, code.at, register, keep=keep, signed=signed_to)
        if opcode in _CONSTANT and code.modrm() & 7 == 0:
            value = code.constant(size)
            return Move(False, size, code.at, value=value)
        if opcode in _FROM_ABSOLUTE:
            return Move(True, size, code.at + code.address_width, _RAX, keep=_kept(size, 0))
        if opcode in _TO_ABSOLUTE:
            return Move(False, size, code.at + code.address_width, value=words[_RAX] & (1 << 8 * size) - 1)
        if opcode in _TWO_STRINGS:
            reach = (1 << 8 * code.address_width) - 1
            source, target = words[_RSI] & reach, words[_RDI] & reach
            if address != target:
                source = address  # a segment's base may have been added
            return [Operand(source, size, *_READ), Operand(target, size, *_TWO_STRINGS[opcode])]
        operand = self._operand(code, size)
        return None if operand is None else [Operand(address, operand[0], *operand[1])]

    @staticmethod
    def _operand(code: _Code, size: int) -> tuple[int, tuple[bool, bool]] | None:
        opcode = code.opcode
        if opcode in _SET_CONDITION:
            return 1, _WRITE
        if opcode in _BY_BIT:
            return size, _BY_BIT[opcode]
        if opcode in _FULL:
            return code.width, _FULL[opcode]
        if opcode in _GROUPS:
            member = code.modrm() & 7
            does = _GROUPS[opcode][member]
            if does is None:
                return None
            if opcode == _BIT_TEST:
                size = code.width
            return 8 if member in _ALWAYS_8.get(opcode, ()) else size, does
        return None

    @staticmethod
    def _place(code: _Code, register: int, size: int) -> tuple[int, int]:
        """(word, shift) of a register operand: without REX, byte registers 4 to 7 are ah, ch, dh, bh."""
        if size == 1 and not code.rex and register >= 4:
            return _PLACES[register - 4], 8
        return _PLACES[register], 0


def _kept(size: int, shift: int) -> int:
    """What a write of ``size`` bytes to a register leaves of it: one of 4 bytes clears the upper half."""
    if size >= 4:
        return 0
    return (1 << 64) - 1 & ~((1 << 8 * size) - 1 << shift)
