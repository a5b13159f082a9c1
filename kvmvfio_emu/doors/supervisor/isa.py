"""What the supervisor has to know of an instruction set to perform an access to a register in a program's place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Protocol


class Words(Protocol):
    """The general registers as the kernel gives them (NT_PRSTATUS), one 64-bit word each."""

    def __getitem__(self, number: int, /) -> int: ...

    def __setitem__(self, number: int, value: int, /) -> None: ...


class Move(NamedTuple):
    """A plain load into general register ``register`` or (``load`` false) store of ``value``.

    ``size`` bytes of memory, done by ``length`` bytes of code. A load is sign-extended to ``signed`` bytes if that is
    not 0, and leaves the bits ``keep`` of the register as they are; ``shift``: how far above bit 0 it goes.
    ``register`` None: the value is thrown away. ``base``, ``step``: a register that the access moves on.
    """

    load: bool
    size: int
    length: int
    register: int | None = None
    value: int = 0
    keep: int = 0
    signed: int = 0
    shift: int = 0
    base: int | None = None
    step: int = 0


class Operand(NamedTuple):
    """One operand in memory of any other instruction: where, how many bytes, whether it reads or writes them."""

    address: int
    size: int
    reads: bool
    writes: bool


class InstructionSet(ABC):
    """One instruction set. ``registers`` words of general registers; code is at most ``longest`` bytes a piece.

    ``counter``: which of the words is the program counter.
    """

    registers: ClassVar[int]
    longest: ClassVar[int]
    counter: ClassVar[int]
    #: The numbers of the register sets with everything else that a load may change.
    vectors: ClassVar[tuple[int, ...]]

    @abstractmethod
    def decode(self, code: bytes, words: Words, address: int) -> Move | list[Operand] | None:
        """What the instruction ``code`` wants, which faulted at ``address``; None: it has to be tried out."""

    def finish(self, move: Move, words: Words, value: int = 0) -> None:
        """Do all of a move that is not the access: ``value`` is what a load found."""
        if move.load and move.register is not None:
            if move.signed and value >> 8 * move.size - 1 & 1:
                value |= (1 << 8 * move.signed) - (1 << 8 * move.size)
            words[move.register] = words[move.register] & move.keep | value << move.shift
        if move.base is not None:
            words[move.base] = words[move.base] + move.step & (1 << 64) - 1
        words[self.counter] += move.length
