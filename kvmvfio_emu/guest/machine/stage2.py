"""The second stage of translation: which guest physical pages the engine may touch, as KVM tells its hardware.

What is not mapped there, or not for writing, is an exception to EL2 with the architecture's syndrome, exactly at its
instruction. The tables map each page to itself (Arm DDI 0487, VMSAv8-64 and the long descriptors
of VMSAv8-32, which are alike: 4 KiB granules).
"""

from __future__ import annotations

import mmap
from typing import Any, NamedTuple

from kvmvfio_emu import uapi


class Format(NamedTuple):
    """How the tables are laid out."""

    level: int  #: where a walk begins
    roots: int  #: concatenated tables there
    tables: int  #: their guest physical address: all that lies below can be memory
    control: int  #: what VTCR or VTCR_EL2 says of them; all are shareable and cached as usual


_ATTRIBUTES = 1 << 8 | 1 << 10 | 3 << 12 | 1 << 31
#: For VTCR_EL2: 43 bits of input, 44 of output. The tables lie right above them.
FROM_LEVEL_0 = Format(0, 1, 1 << 43, _ATTRIBUTES | 64 - 43 | 2 << 6 | 4 << 16)
#: For the VTCR of a 32-bit hypervisor: 40 bits, T0SZ being negative. The tables are at their end.
FROM_LEVEL_1 = Format(1, 2, (1 << 40) - (1 << 26), _ATTRIBUTES | 32 - 40 & 0xF | 1 << 4 | 1 << 6)
#: Room for tables. It costs nothing until they are used.
SIZE = 1 << 26

_PAGE, _ENTRIES, _LAST = 4096, 512, 3
_VALID, _TABLE_OR_PAGE, _READABLE, _WRITABLE = 1, 2, 1 << 6, 1 << 7
_NORMAL, _SHAREABLE, _ACCESSED = 0xF << 2, 3 << 8, 1 << 10
_ADDRESS = (1 << 48) - _PAGE


class Stage2:
    """The tables of one engine."""

    def __init__(self, form: Format) -> None:
        self._form, self.tables = form, form.tables
        self.memory = mmap.mmap(-1, SIZE)
        self._words: Any = uapi.ffi.cast("uint64_t *", uapi.ffi.from_buffer(self.memory))
        self._used = form.roots  #: tables; the first ones are the root
        self._free: list[int] = []

    def allow(self, start: int, size: int, *, write: bool) -> None:
        """The guest may read and execute, and perhaps write, ``size`` bytes at ``start``. MemoryError."""
        leaf = _VALID | _NORMAL | _SHAREABLE | _ACCESSED | _READABLE | (_WRITABLE if write else 0)
        self._fill(0, self._form.level, 0, start, start + size, leaf)

    def forbid(self, start: int, size: int) -> None:
        """It may not; the engine's TLB has to be flushed then."""
        self._fill(0, self._form.level, 0, start, start + size, 0)

    def _fill(self, table: int, level: int, base: int, start: int, end: int, leaf: int) -> None:
        words, span = self._words, _PAGE << 9 * (_LAST - level)
        entries = _ENTRIES * self._form.roots if level == self._form.level else _ENTRIES
        first, last = max(start - base, 0) // span, min((end - base - 1) // span, entries - 1)
        for index in range(first, last + 1):
            at, place = base + index * span, table * _ENTRIES + index
            if level and start <= at and at + span <= end:
                self._drop(int(words[place]), level)
                words[place] = leaf and (leaf | at | (_TABLE_OR_PAGE if level == _LAST else 0))
            elif leaf or words[place]:
                below = self._below(place, level, at)
                self._fill(below, level + 1, at, start, end, leaf)

    def _below(self, place: int, level: int, at: int) -> int:
        """The table that entry ``place`` leads to, made if it does not: of what was one block there."""
        entry = int(self._words[place])
        if self._is_table(entry, level):
            return (entry & _ADDRESS) - self.tables >> 12
        table = self._new()
        span = _PAGE << 9 * (_LAST - level - 1)
        kind = _TABLE_OR_PAGE if level + 1 == _LAST else 0
        for index in range(_ENTRIES):
            self._words[table * _ENTRIES + index] = entry and (entry & ~_ADDRESS | at + index * span | kind)
        self._words[place] = self.tables + table * _PAGE | _TABLE_OR_PAGE | _VALID
        return table

    def _new(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used == SIZE // _PAGE:
            raise MemoryError("the guest's memory is in too many pieces")
        self._used += 1
        return self._used - 1

    def _drop(self, entry: int, level: int) -> None:
        """An entry is overwritten: the tables that it leads to can be used again."""
        if self._is_table(entry, level):
            table = (entry & _ADDRESS) - self.tables >> 12
            if level + 1 < _LAST:
                for index in range(_ENTRIES):
                    self._drop(int(self._words[table * _ENTRIES + index]), level + 1)
            self._free.append(table)

    @staticmethod
    def _is_table(entry: int, level: int) -> bool:
        return level < _LAST and entry & 3 == _TABLE_OR_PAGE | _VALID
