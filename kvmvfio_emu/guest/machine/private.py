"""What the engine knows and its interface does not tell. Where it is, is found out at first use, and tried.

Its struct and its saved CPU are plain memory; whatever does not prove to be what it should be is an `EngineError`.
"""

from __future__ import annotations

import functools
import mmap
import struct
from typing import Any, NamedTuple

from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine.aarch64 import cpu as c

#: As much of the engine's struct as is looked through.
_LOOKED_AT = 0x1000
_NUMBER = 0x5A3C
_SVC = 0xD4000001 | _NUMBER << 5
_SVC_SYNDROME = 0x15 << 26 | 1 << 25 | _NUMBER


class Places(NamedTuple):
    """Offsets in bytes."""

    exception: int  #: in a saved CPU: the syndrome (4), 4 more, the address (8), the exception level (4)
    no_stop_inside: int  #: in the engine's struct: a bool, whether a translation is left only at its begin


@functools.cache
def places() -> Places:
    """Of this build of the engine."""
    return Places(_find_exception(), _find_no_stop())


def _find_exception() -> int:
    """The one place where the syndrome of an SVC with an odd number is found after it."""
    cpu, _ = _cpu(_SVC)
    cpu.run()
    saved = bytes(cpu.saved)
    cpu.close()
    syndrome = struct.pack("<I", _SVC_SYNDROME)
    if saved.count(syndrome) != 1:
        raise b.EngineError("this version of unicorn keeps exceptions elsewhere")
    return saved.find(syndrome)


def _find_no_stop() -> int:
    """The byte before the last one that the engine's initialisation sets to 1."""
    handle = b.open_engine(c.Cpu.ARCHITECTURE)
    before = bytes(b.ffi.buffer(handle, _LOOKED_AT))
    b.initialise(handle, c.PC)
    after = bytes(b.ffi.buffer(handle, _LOOKED_AT))
    b.close_engine(handle)
    found = [at for at in range(_LOOKED_AT) if (before[at], after[at]) == (0, 1)]
    place = found[-1] - 1 if found else 0
    if not place or after[place] or _stops_inside(place) or not _stops_inside(None):
        raise b.EngineError("this version of unicorn cannot be made to stop between instructions only")
    return place


def _stops_inside(place: int | None) -> bool:
    """Whether an engine that is stopped (by MRS's hook) stops at the store behind it, within a translation."""
    cpu, _ = _cpu(0xD5380000, 0xF9000022, 0x91000463, 0x14000000, stops=True)  # mrs; str; add x3; b .
    if place is not None:
        cpu.stop_between(place)
    cpu.write(c.X[1], 0x100)
    cpu.run()
    inside = cpu.read(c.X[3]) == 0
    cpu.close()
    return inside


def _cpu(*code: int, stops: bool = False) -> tuple[c.Cpu, mmap.mmap]:
    """An engine with ``code`` at address 0, and its memory, which has to live as long."""
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory[: 4 * len(code)] = struct.pack(f"<{len(code)}I", *code)

    def read(_: Any) -> int:
        if stops:
            b.stop(cpu.handle)
        return 0

    cpu = c.Cpu(lambda _: None, read, lambda *_: False)
    cpu.map(0, mmap.PAGESIZE, int(b.ffi.cast("uintptr_t", b.ffi.from_buffer(memory))), write=True)
    return cpu, memory
