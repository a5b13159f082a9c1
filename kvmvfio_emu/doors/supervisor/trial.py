"""Executes one instruction with memory where the registers of a device would be.

What it reads there is what the device answered, and what it wrote goes to the device. An instruction that is not known
at all is first tried on made-up contents, to see which bytes it writes and which ones its outcome depends on.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, NamedTuple

from kvmvfio_emu.doors.supervisor import ptrace
from kvmvfio_emu.doors.supervisor.isa import Operand
from kvmvfio_emu.doors.supervisor.place import PAGE, Place

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.stepping import Performer

#: Made-up contents; neither byte is negative, so that a sign extension does not look like a wider access.
_THIS, _THAT = b"\x25", b"\x5a"
#: No load is wider (fxrstor); the width is found by doubling.
_WIDEST = 512
_NEVER = 1 << 64
BUS_ADRERR = 2
#: Raised by an instruction itself; all others wait while one is executed.
_OWN = frozenset({signal.SIGILL, signal.SIGTRAP, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV})
_OWN_MASK = sum(1 << number - 1 for number in _OWN)
_ALL_BUT_OWN = (1 << 64) - 1 & ~_OWN_MASK


class Interrupted(Exception):
    """The instruction itself raised signal ``number``: the thread stands before it, stopped with that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Outcome(NamedTuple):
    """What an execution left: the registers, and of each page that stood for device registers before and after."""

    registers: tuple[bytes, ...]
    before: dict[int, bytes]
    after: dict[int, bytes]

    def written(self) -> set[int]:
        """The addresses of the bytes that changed."""
        found: set[int] = set()
        for base, old in self.before.items():
            new = self.after[base]
            differ = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
            if differ:
                first, end = ((differ & -differ).bit_length() - 1) // 8, (differ.bit_length() + 7) // 8
                found.update(base + at for at in range(first, end) if old[at] != new[at])
        return found

    def at(self, address: int, size: int = 1) -> bytes:
        """What memory held afterwards, within one page or over the border to the next."""
        base = address - address % PAGE
        data = self.after[base][address - base : address - base + size]
        return data if len(data) == size else data + self.at(base + PAGE, size - len(data))


class Trial:
    """One instruction, while memory stands where the registers are and no signal comes between."""

    def __init__(self, performer: Performer, tid: int, address: int, place: Place) -> None:
        self._performer = performer
        self._tid = tid
        self._address = address
        self._pages: dict[int, Place] = {}
        self._mask = 0
        self._sets = (performer.general, *performer.vectors)
        self._initial = performer.general.image()
        self._images: tuple[bytes, ...] = ()
        self._first = place

    def __enter__(self) -> Trial:
        self._mask = ptrace.blocked_signals(self._tid)
        ptrace.block_signals(self._tid, self._mask & ~_OWN_MASK | _ALL_BUT_OWN)
        self._cover(self._address, self._first)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        for place in self._pages.values():
            os.ftruncate(place.file.mapped_memory, 0)
        if kind is None or not issubclass(kind, ProcessLookupError):
            ptrace.block_signals(self._tid, self._mask)

    # -- what is done ---------------------------------------------------------------------------------------------

    def reached(self, operands: list[Operand]) -> list[Operand]:
        """Those that are registers; none of them when one is so only in part."""
        found = []
        for operand in operands:
            ends = {operand.address, operand.address + operand.size - 1}
            here = [self._reach(end) for end in ends]
            if any(here) and not all(here):
                return []
            found += [operand] if all(here) else []
        return found

    def known(self, operands: list[Operand]) -> None:
        """An instruction of which it is known what it does."""
        for operand in operands:
            if operand.reads:
                self._put(operand.address, self._load(operand.address, operand.size))
        if self._step() is not None:
            raise Interrupted(signal.SIGBUS)  # nothing we know goes anywhere else
        for operand in operands:
            if operand.writes:
                self._store(operand.address, self._get(operand.address, operand.size))

    def unknown(self) -> None:
        """Any instruction: see what it does, then do that."""
        for each in self._performer.vectors:
            each.fetch(self._tid)
        self._images = tuple(each.image() for each in self._sets)
        pages = 0
        while pages != len(self._pages):  # until it goes nowhere new
            this = self._run(_NEVER)
            pages = len(self._pages)
            that = self._run(0)
        written = this.written() | that.written()
        if self._same(this, that, written):
            self._store_all(written, that)
            return
        size = self._extent(this, written)
        after = self._run(_NEVER, self._load(self._address, size))
        written |= after.written()
        if written and written <= set(range(self._address, self._address + size)):
            self._store(self._address, after.at(self._address, size))
        else:
            self._store_all(written, after)

    def _extent(self, this: _Outcome, written: set[int]) -> int:
        """How many bytes it reads: whatever lies behind them makes no difference."""
        size = 1
        while size < _WIDEST and not self._same(this, self._run(self._address + size), written):
            size *= 2
        return size

    @staticmethod
    def _same(one: _Outcome, other: _Outcome, written: set[int]) -> bool:
        return one.registers == other.registers and all(one.at(at) == other.at(at) for at in written)

    def _store_all(self, written: set[int], outcome: _Outcome) -> None:
        """Each contiguous piece of what was written, in address order."""
        rest = sorted(written)
        while rest:
            size = 1
            while size < len(rest) and rest[size] == rest[0] + size:
                size += 1
            self._store(rest[0], outcome.at(rest[0], size))
            rest = rest[size:]

    # -- execution ------------------------------------------------------------------------------------------------

    def _run(self, that_from: int, data: bytes = b"") -> _Outcome:
        """Execute it on one of the made-up contents, from an address on the other, with ``data`` where it faulted."""
        while True:
            for base in self._pages:
                cut = min(max(that_from - base, 0), PAGE)
                self._put(base, _THIS * cut + _THAT * (PAGE - cut))
            self._put(self._address, data)
            before = self._snapshot()
            for each, image in zip(self._sets, self._images, strict=True):
                each.restore(image)
                each.store(self._tid)
            if self._step() is None and not self._strayed():
                break
        for each in self._sets:
            each.fetch(self._tid)
        return _Outcome(tuple(each.image() for each in self._sets), before, self._snapshot())

    def _step(self) -> int | None:
        """Execute it on what memory holds now. The address of another register that it has to find there first."""
        while True:
            ptrace.step(self._tid)
            stop = ptrace.wait(self._tid, block=True)
            if stop is None or not stop.signal:
                raise ProcessLookupError
            if stop.event:
                self._performer.missed(self._tid, 0)
                continue
            if stop.signal == signal.SIGTRAP:
                return None
            fault = ptrace.fault(self._tid)
            if stop.signal in _OWN and fault.code > 0:
                missing = fault.address - fault.address % PAGE not in self._pages
                touched = stop.signal == signal.SIGBUS and fault.code == BUS_ADRERR
                if touched and missing and self._reach(fault.address):
                    return fault.address
                self._performer.general.restore(self._initial)
                self._performer.general.store(self._tid)
                raise Interrupted(stop.signal)
            self._performer.missed(self._tid, stop.signal)

    def _strayed(self) -> bool:
        """Whether it touched a page below one of ours, which was there, too: it is one of ours from now on."""
        known = {(place.file, place.offset) for place in self._pages.values()}
        for file, offset in known:
            at = _first_data(file.mapped_memory, 0)
            while at is not None and at < offset:
                address = None if (file, at) in known else self._performer.where(self._tid, file, at)
                if address is not None and self._reach(address):
                    return True
                at = _first_data(file.mapped_memory, at + PAGE)
        return False

    def _reach(self, address: int) -> bool:
        """Whether a register is there; then its page is covered."""
        if address - address % PAGE in self._pages:
            return True
        place = self._performer.find(self._tid, address)
        if place is None:
            return False
        self._cover(address, place)
        return True

    # -- the pages --------------------------------------------------------------------------------------------------

    def _cover(self, address: int, place: Place) -> None:
        """Let memory appear where the register page is."""
        into = address % PAGE
        page = Place(place.file, place.offset - into)
        self._pages[address - into] = page
        end = max(other.offset + PAGE for other in self._pages.values() if other.file is place.file)
        os.ftruncate(place.file.mapped_memory, end)

    def _pieces(self, address: int, size: int) -> list[tuple[Place, int]]:
        """(place, bytes) of a range, by pages."""
        pieces = []
        while size:
            into = address % PAGE
            page = self._pages[address - into]
            part = min(size, PAGE - into)
            pieces.append((Place(page.file, page.offset + into), part))
            address, size = address + part, size - part
        return pieces

    def _put(self, address: int, data: bytes) -> None:
        for place, size in self._pieces(address, len(data)):
            os.pwrite(place.file.mapped_memory, data[:size], place.offset)
            data = data[size:]

    def _get(self, address: int, size: int) -> bytes:
        return b"".join(
            os.pread(place.file.mapped_memory, part, place.offset) for place, part in self._pieces(address, size)
        )

    def _snapshot(self) -> dict[int, bytes]:
        return {base: self._get(base, PAGE) for base in self._pages}

    def _load(self, address: int, size: int) -> bytes:
        return b"".join(place.load(part) for place, part in self._pieces(address, size))

    def _store(self, address: int, data: bytes) -> None:
        for place, size in self._pieces(address, len(data)):
            place.store(data[:size])
            data = data[size:]


def _first_data(fd: int, offset: int) -> int | None:
    """The first page from ``offset`` on that memory has been given to."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
