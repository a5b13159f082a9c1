"""Tells WFE and YIELD from undefined instructions: the engine ends a run by all of them in one and the same way.

What it was is in the engine's CPU while a hook is told of it. Where, is found out at first use, and tried; what does
not prove to be what it should be is a `binding.EngineError`.
"""

from __future__ import annotations

import functools
import mmap
import struct

from unicorn import unicorn_const as uc

from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine.aarch32 import coprocessor
from kvmvfio_emu.guest.machine.aarch32 import cpu as c

#: The engine's number of both hints, where those of exceptions are.
_HINT = 0x10004
_WORD = struct.Struct("<i")
_WFE, _YIELD, _UNDEFINED = 0xE320F002, 0xE320F001, 0xE7F000F1
_SIGNATURE = "int(void *, void *)"


def watch(cpu: c.Cpu) -> None:
    """Have ``cpu`` say by `hinted` that a run ended by one of them."""
    hint, exception = cpu.hint, b.ffi.cast("int32_t *", coprocessor.address_of(cpu) + _place())

    def ended(_: object, __: object) -> int:
        hint[0] = exception[0] == _HINT
        return 0

    cpu.hook(uc.UC_HOOK_INSN_INVALID, _SIGNATURE, ended)


@functools.cache
def _place() -> int:
    """In the engine's CPU: the number of the exception."""
    seen = [_what_is_told_of(word) for word in (_WFE, _YIELD, _UNDEFINED)]
    found = [
        at
        for at in range(0, len(seen[0]), _WORD.size)
        if [_WORD.unpack_from(cpu, at)[0] for cpu in seen] == [_HINT, _HINT, b.UNDEFINED]
    ]
    if len(found) != 1:
        raise b.EngineError("this version of unicorn keeps the number of an exception elsewhere")
    return found[0]


def _what_is_told_of(word: int) -> bytes:
    """The engine's CPU while it is told of the instruction ``word``."""
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory[:4] = struct.pack("<I", word)
    seen: list[bytes] = []
    cpu = c.Cpu(lambda _: None)
    cpu.map(0, mmap.PAGESIZE, int(b.ffi.cast("uintptr_t", b.ffi.from_buffer(memory))), write=True)

    def told(_: object, __: object) -> int:
        seen.append(coprocessor.copy_of(cpu))
        return 0

    cpu.hook(uc.UC_HOOK_INSN_INVALID, _SIGNATURE, told)
    cpu.run()
    cpu.close()
    if len(seen) != 1:
        raise b.EngineError("this version of unicorn does not tell of an undefined instruction")
    return seen[0]
