"""Registers that declare their behaviour by name, so that a device model holds no bit fiddling.

A bank lists its registers as class attributes; each says where it is and what a write does to it::

    class Timer(RegisterBank):
        CONTROL = Register(0x00, fields=(Field(0), Field(1, action=Action.W1S)))
        STATUS = Register(0x04, Action.W1C, on_write="status_written")
        ID = Register(0x08, Action.RO, reset=0x1012)

`RegisterBank.read` and `RegisterBank.write` are the bus's side: actions, masks and hooks apply.
``bank.STATUS`` and ``bank.STATUS |= 1`` are the hardware's side: the plain stored value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from operator import itemgetter
from struct import Struct
from typing import ClassVar, NamedTuple, Self, overload


class Action(Enum):
    """What the bus can do to a bit."""

    RW = "read, write"
    RO = "read; writes ignored"
    WO = "write; reads as zero (also: self-clearing)"
    W1C = "read; writing one clears it"
    W1S = "read; writing one sets it"
    RAZ_WI = "reads as zero, writes ignored"


class Field(NamedTuple):
    """``width`` bits from bit ``lsb`` up that behave in their own way."""

    lsb: int
    width: int = 1
    action: Action = Action.RW

    @property
    def mask(self) -> int:
        """The bits that it takes."""
        return (1 << self.width) - 1 << self.lsb


class Register:
    """One register: ``width`` bits (8, 16, 32 or 64) at byte ``offset``.

    ``action`` goes for every bit, or with ``fields`` for none: bits outside them read as zero and ignore
    writes. ``mask`` limits which bits a write can change. ``on_read`` and ``on_write`` name methods of the
    bank's owner: ``on_read(value) -> value`` may change what a read returns, ``on_write(value)`` runs after a
    write has had its effect and gets what was written (zeroes in the bytes that were not). ``name`` is needed
    only inside a tuple.
    """

    __slots__ = (
        "clears",
        "name",
        "offset",
        "on_read",
        "on_write",
        "readable",
        "reset",
        "sets",
        "size",
        "stores",
    )

    def __init__(
        self,
        offset: int,
        action: Action = Action.RW,
        *,
        width: int = 32,
        reset: int = 0,
        mask: int | None = None,
        fields: tuple[Field, ...] = (),
        on_read: str = "",
        on_write: str = "",
        name: str = "",
    ) -> None:
        if width not in (8, 16, 32, 64):
            raise ValueError(f"a register has 8, 16, 32 or 64 bits, not {width}")
        every = (1 << width) - 1
        if offset < 0 or reset & ~every:
            raise ValueError(f"register at {offset:#x}: negative offset, or reset value wider than {width} bits")
        bits = dict.fromkeys(Action, 0)
        for field in fields:
            if field.mask & ~every or field.mask & sum(bits.values()):
                raise ValueError(f"register at {offset:#x}: a field at bit {field.lsb} overlaps or does not fit")
            bits[field.action] |= field.mask
        if not fields:
            bits[action] = every
        writable = every if mask is None else mask
        self.name = name
        self.offset = offset
        self.size = width // 8
        self.reset = reset
        self.on_read = on_read
        self.on_write = on_write
        self.readable = bits[Action.RW] | bits[Action.RO] | bits[Action.W1C] | bits[Action.W1S]
        self.stores = (bits[Action.RW] | bits[Action.WO]) & writable
        self.clears = bits[Action.W1C] & writable
        self.sets = bits[Action.W1S] & writable

    def __set_name__(self, owner: type[RegisterBank], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, bank: None, owner: type[RegisterBank]) -> Self: ...
    @overload
    def __get__(self, bank: RegisterBank, owner: type[RegisterBank]) -> int: ...
    def __get__(self, bank: RegisterBank | None, owner: type[RegisterBank]) -> Self | int:
        return self if bank is None else bank[self.name]

    def __set__(self, bank: RegisterBank, value: int) -> None:
        bank[self.name] = value


#: Bytes of the widest register, and how `struct` calls each width.
_WIDEST = 8
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class RegisterBank:
    """The registers of one device; subclass it and list them, singly or in tuples (arrays of registers).

    ``owner`` is the object whose methods the hooks name; by default the bank itself. Offsets that no register
    takes read as zero and ignore writes. An access of any size at any offset is split over the registers that
    it touches, low address first; each is then accessed once, with the bytes it shares.
    """

    _registers: ClassVar[dict[str, Register]] = {}
    _by_offset: ClassVar[dict[int, Register]] = {}
    _by_byte: ClassVar[dict[int, Register]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        found = dict(cls._registers)
        for value in vars(cls).values():
            for register in value if isinstance(value, tuple) else (value,):
                if isinstance(register, Register):
                    if not register.name:
                        raise ValueError(f"{cls.__name__}: the register at {register.offset:#x} has no name")
                    found[register.name] = register
        cls._registers = found
        cls._by_offset = {register.offset: register for register in found.values()}
        cls._by_byte = {}
        for register in found.values():
            for offset in range(register.offset, register.offset + register.size):
                other = cls._by_byte.setdefault(offset, register)
                if other is not register:
                    raise ValueError(f"{cls.__name__}: {register.name} and {other.name} overlap at {offset:#x}")

    def __init__(self, owner: object | None = None) -> None:
        #: Rises with every change of a value, so that a view of the registers knows when to look again.
        self.changes = 0
        target = self if owner is None else owner
        registers = self._registers.values()
        self._value: dict[str, int] = {}
        self._on_read: dict[str, Callable[[int], int]] = {
            r.name: getattr(target, r.on_read) for r in registers if r.on_read
        }
        self._on_write: dict[str, Callable[[int], None]] = {
            r.name: getattr(target, r.on_write) for r in registers if r.on_write
        }
        self.reset()

    # -- the hardware's side --------------------------------------------------------------------------------

    def reset(self) -> None:
        """Every register back to its reset value; no hook runs."""
        self._value = {register.name: register.reset for register in self._registers.values()}
        self.changes += 1

    def __getitem__(self, name: str) -> int:
        return self._value[name]

    def __setitem__(self, name: str, value: int) -> None:
        self._value[name] = int(value) & (1 << self._registers[name].size * 8) - 1
        self.changes += 1

    def __iter__(self) -> Iterator[Register]:
        return iter(sorted(self._registers.values(), key=lambda register: register.offset))

    # -- the bus's side -------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """``size`` bytes at ``offset``, little endian, with the side effects of reading."""
        register = self._by_offset.get(offset)
        if register is not None and register.size == size:
            return self._read(register)
        return self._gather(offset, size, self._read)

    def peek(self, offset: int, size: int) -> int:
        """What `read` would find stored, without side effects: no ``on_read`` hook runs. ``size`` may be a page."""
        if size <= _WIDEST:
            return self._gather(offset, size, self._peek)
        packer, shown = self._page(offset, size)
        value = self._value
        return int.from_bytes(packer.pack(*[value[name] & readable for name, readable in shown]), "little")

    @classmethod
    @cache
    def _page(cls, offset: int, size: int) -> tuple[Struct, list[tuple[str, int]]]:
        """How to pack the image of a page: its registers with their readable bits, the gaps between them."""
        layout, shown, end = "<", [], 0
        for start, register in sorted(((r.offset - offset, r) for r in cls._by_offset.values()), key=itemgetter(0)):
            if 0 <= start <= size - register.size:
                layout += f"{start - end}x{_FORMATS[register.size]}"
                shown.append((register.name, register.readable))
                end = start + register.size
        return Struct(f"{layout}{size - end}x"), shown

    def write(self, offset: int, size: int, value: int) -> None:
        """Store ``size`` bytes at ``offset`` as each register's action has it."""
        register = self._by_offset.get(offset)
        if register is not None and register.size == size:
            every = (1 << size * 8) - 1
            self._write(register, value & every, every)
            return
        for touched, shift, enabled in self._split(offset, size):
            self._write(touched, (value << shift if shift >= 0 else value >> -shift) & enabled, enabled)

    def _read(self, register: Register) -> int:
        hook = self._on_read.get(register.name)
        value = self._peek(register)
        return hook(value) if hook else value

    def _peek(self, register: Register) -> int:
        return self._value[register.name] & register.readable

    def _write(self, register: Register, value: int, enabled: int) -> None:
        old = self._value[register.name]
        stores = register.stores & enabled
        new = old & ~stores | value & stores
        self._value[register.name] = new & ~(value & register.clears) | value & register.sets
        self.changes += 1
        hook = self._on_write.get(register.name)
        if hook:
            hook(value)

    def _gather(self, offset: int, size: int, get: Callable[[Register], int]) -> int:
        result = 0
        for register, shift, enabled in self._split(offset, size):
            value = get(register) & enabled
            result |= value >> shift if shift >= 0 else value << -shift
        return result

    def _split(self, offset: int, size: int) -> Iterator[tuple[Register, int, int]]:
        """(register, by how many bits the access lies above its bit 0, its bits that are accessed), low
        first."""
        end = offset + size
        position = offset
        while position < end:
            register = self._by_byte.get(position)
            if register is None:
                position += 1
                continue
            stop = min(end, register.offset + register.size)
            enabled = (1 << (stop - position) * 8) - 1 << (position - register.offset) * 8
            yield register, (offset - register.offset) * 8, enabled
            position = stop
