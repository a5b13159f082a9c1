"""Takes system registers away from the engine, which has no hooks for MRC and MCR: then they are undefined there.

The engine keeps each in a struct of a hash table of its CPU. Where those are is found out at first use, with reads that
cannot fault, and tried; what does not prove to be what it should be is a `binding.EngineError`.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine.aarch32 import cpu as c

_HANDLE_SIZE, _CPU_SIZE = 0x1000, 0x14000  #: as much of the engine's structs as is looked through
_POINTER = struct.Struct("<Q")
#: A hash table: its size, something, the size less one, entries twice; then the address of its nodes.
_TABLE = struct.Struct("<5i4xQ")
_NODE = struct.Struct("<QQI4x")  #: key, register, hash
#: A register: name, coprocessor, CRn, CRm, opc0, opc1, opc2; state, type; who may access it.
_REGISTER = struct.Struct("<Q6B2x2iI")
_ACCESS = 24
_EVERYBODY, _WIDE = 0xFF, 1 << 2
_FEWEST, _MOST = 100, 1 << 16
#: A register that surely is there, and open to everybody: CNTV_CTL.
_KNOWN = c.Coprocessor(0, 14, 3, 1)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_copy = ctypes.CDLL(None, use_errno=True).process_vm_readv


class _Path(NamedTuple):
    """Offsets of pointers: in the engine to its CPU, there to the hash table."""

    cpu: int
    table: int


def undefine(cpu: c.Cpu, registers: Iterable[c.Coprocessor]) -> None:
    """The engine takes an access to any of them for an undefined instruction, at whatever privilege."""
    wanted = frozenset(registers)
    for found, place in _registers(_table(cpu, _path())):
        if found in wanted:
            ctypes.c_uint32.from_address(place + _ACCESS).value = 0


def address_of(cpu: c.Cpu) -> int:
    """Where the engine's own CPU is in our memory."""
    return _pointer(int(b.ffi.cast("uintptr_t", cpu.handle)) + _path().cpu)


def copy_of(cpu: c.Cpu) -> bytes:
    """What is there now."""
    return _read(address_of(cpu), _CPU_SIZE) or b""


@functools.cache
def _path() -> _Path:
    return find_path()


def find_path() -> _Path:
    """Of this build of the engine. `binding.EngineError`: there is none that works."""
    cpu = c.Cpu(lambda _: None)
    cpu.read(c.CPSR)
    start = int(b.ffi.cast("uintptr_t", cpu.handle))
    # Memory that an engine has given back may still look like its registers, so the first one found may be wrong.
    path = next((path for path, table in _candidates(start) if _is_it(table) and _works(path)), None)
    cpu.close()
    if path is None:
        raise b.EngineError("this version of unicorn keeps system registers elsewhere")
    return path


def _candidates(start: int) -> Iterator[tuple[_Path, int]]:
    """Paths, and what each leads to."""
    seen = set()
    for at, pointer in _pointers(start, _HANDLE_SIZE):
        if pointer not in seen:
            seen.add(pointer)
            yield from ((_Path(at, inside), found) for inside, found in _pointers(pointer, _CPU_SIZE))


def _is_it(table: int) -> bool:
    return any(
        found == _KNOWN and _pointer(place + _ACCESS) & _EVERYBODY == _EVERYBODY for found, place in _registers(table)
    )


def _works(path: _Path) -> bool:
    """Whether a read of the known register ends a run once it is taken away, and does not before."""
    pair = [c.Cpu(lambda _: None) for _ in range(2)]
    for cpu in pair:
        cpu.read(c.CPSR)
    tables = {_table(cpu, path) for cpu in pair}
    each_has_its_own = len(tables) == len(pair) and all(map(_is_it, tables))
    for cpu in pair:
        cpu.close()
    return each_has_its_own and [_refused(None), _refused(path)] == [False, True]


def _table(cpu: c.Cpu, path: _Path) -> int:
    return _pointer(_pointer(int(b.ffi.cast("uintptr_t", cpu.handle)) + path.cpu) + path.table)


def _refused(path: _Path | None) -> bool:
    told: list[int] = []
    cpu = c.Cpu(told.append)
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory[:8] = struct.pack("<2I", 0xEE1E0F33, 0xE320F003)  # mrc p15, 0, r0, c14, c3, 1; wfi
    cpu.map(0, mmap.PAGESIZE, int(b.ffi.cast("uintptr_t", b.ffi.from_buffer(memory))), write=True)
    if path is not None:
        for found, place in _registers(_table(cpu, path)):
            if found == _KNOWN:
                ctypes.c_uint32.from_address(place + _ACCESS).value = 0
    cpu.run()
    cpu.close()
    return told == [b.UNDEFINED]


def _registers(table: int) -> Iterator[tuple[c.Coprocessor, int]]:
    """Those of a hash table, and where they are; nothing, if it is none."""
    raw = _read(table, _TABLE.size)
    if raw is None:
        return
    size, _, mask, entries, occupied, nodes = _TABLE.unpack(raw)
    if mask != size - 1 or size & mask or not _FEWEST < entries <= occupied <= size <= _MOST:
        return
    for _, place, _ in _NODE.iter_unpack(_read(nodes, size * _NODE.size) or b""):
        found = _read(place, _REGISTER.size) if place else None
        if found is not None:
            _, number, crn, crm, _, opc1, opc2, _, kind, _ = _REGISTER.unpack(found)
            if number == 15:
                yield c.Coprocessor(opc1, crn, crm, opc2, wide=bool(kind & _WIDE)), place


def _pointers(start: int, size: int) -> Iterator[tuple[int, int]]:
    """What may be one in ``size`` bytes at ``start``: its offset and itself."""
    for at, (value,) in enumerate(_POINTER.iter_unpack(_read(start, size) or b"")):
        if value > 1 << 16 and not value % 8 and not value >> 47:
            yield 8 * at, value


def _pointer(place: int) -> int:
    raw = _read(place, 8)
    return 0 if raw is None else int(_POINTER.unpack(raw)[0])


def _read(place: int, size: int) -> bytes | None:
    """Bytes of our own memory; None where there is none."""
    buffer = ctypes.create_string_buffer(size)
    ours, theirs = _Iovec(ctypes.addressof(buffer), size), _Iovec(place, size)
    got = _copy(os.getpid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    return buffer.raw if got == size else None
