"""Calls of `kvmvfio_emu.testing.player` as few bytes: what a fuzzer mutates, and back, to seed it from the strategies.

Every input is some sequence of calls. Requests stand there as numbers, so that a kept input keeps its meaning when an
ioctl is added; the short form by place in the table is for inputs without a past.
"""

from __future__ import annotations

from typing import Any

from fuzz.taken import Taken
from kvmvfio_emu import uapi
from kvmvfio_emu.strategies.arguments import GIVES
from kvmvfio_emu.strategies.fields import MEMORY, PAYLOAD
from kvmvfio_emu.testing.player import ARENA, ARENA_SIZE, NOWHERE, Call

FILES = (*uapi.KINDS, "stats")
#: What a descriptor in an argument can be of.
KINDS = (*FILES, "eventfd", *NOWHERE)
#: What a pointer in an argument can be.
POINTERS = (
    ARENA,
    ARENA + PAYLOAD,
    ARENA + MEMORY,
    ARENA + MEMORY + 4,
    ARENA + ARENA_SIZE - 4,
    ARENA + ARENA_SIZE,
    0,
    0x10,
    (1 << 64) - 8,
    1 << 63,
)
PATHS = (
    *((f"/dev/{name}", kind) for name, kind in (("kvm", "kvm"), ("iommu", "iommufd"), ("vfio/vfio", "container"))),
    *((f"/dev/vfio/{number}", "group") for number in range(8)),
    *((f"/dev/vfio/devices/vfio{number}", "vfio-device") for number in range(4)),
)
TABLE = sorted(uapi.IOCTLS)

_IOCTLS = 11  #: of 16 calls so many are ioctls
_OTHERS = ("open", "eventfd", "signal", "dup", "close")
# How an ioctl is written.
_BY_NUMBER, _ELSEWHERE, _POINTS, _VALUE, _BEHIND = 1, 2, 4, 8, 16
_PATCHES = 5  #: a shift: how many descriptors and pointers are put in


def read_call(data: Taken) -> Call:
    """The next call."""
    op = data.number() % (_IOCTLS + len(_OTHERS))
    if op < _IOCTLS:
        return _read_ioctl(data)
    choice, place = data.number(), data.number()
    name = _OTHERS[op - _IOCTLS]
    if name == "open":
        path, kind = PATHS[choice % len(PATHS)]
        return {"do": "open", "path": path, "kind": kind}
    if name == "eventfd":
        return {"do": "eventfd", "count": choice & 1}
    if name == "signal":
        return {"do": "count" if choice & 1 else "signal", "place": place}
    kinds = (*FILES, "eventfd")
    return {"do": name, "kind": kinds[choice % len(kinds)], "place": place}


def write_call(call: Call) -> bytes:
    """Bytes that `read_call` makes the same call of, or one much like it."""
    if call["do"] == "ioctl":
        return bytes([0]) + _write_ioctl(call)
    op = _IOCTLS + _OTHERS.index("signal" if call["do"] == "count" else call["do"])
    kinds = (*FILES, "eventfd")
    choice = {
        "open": lambda: PATHS.index((call["path"], call["kind"])) if (call["path"], call["kind"]) in PATHS else 0,
        "eventfd": lambda: call["count"],
        "signal": lambda: 0,
        "count": lambda: 1,
    }.get(call["do"], lambda: kinds.index(call["kind"]))()
    return bytes([op, choice, call.get("place", 0)])


def _read_ioctl(data: Taken) -> Call:
    how, place = data.number(), data.number()
    if how & _BY_NUMBER:
        kind, number = FILES[data.number() % len(FILES)], data.number(4)
    else:
        kind, number = TABLE[data.number() % len(TABLE)]
        if how & _ELSEWHERE:
            kind = FILES[data.number() % len(FILES)]
    call: Call = {"do": "ioctl", "on": [kind, place], "number": number}
    if number in GIVES and (kind, number) in uapi.IOCTLS:
        call["gives"] = GIVES[number]
    if how & _VALUE:
        return call | {"argument": data.number(8)}
    if how & _POINTS:
        return call | {"argument": POINTERS[data.number() % len(POINTERS)]}
    memory, fds = read_memory(data, how >> _PATCHES, behind=bool(how & _BEHIND))
    if number == uapi.KVM_CREATE_DEVICE:
        call |= {"gives": "device", "fd_at": uapi.ffi.offsetof("struct kvm_create_device", "fd")}
    return call | {"memory": [[at, part.hex()] for at, part in memory], "fds": fds}


def read_memory(data: Taken, patches: int, *, behind: bool) -> tuple[list[tuple[int, bytes]], list[list[Any]]]:
    """(what is put into the arena, and where; descriptors to put there)"""
    memory, fds = [(0, data.bytes(data.number()))], []
    if behind:
        memory.append((PAYLOAD, data.bytes(data.number())))
    for _ in range(patches):
        at, what = data.number(2) % (ARENA_SIZE - 8), data.number()
        if what & 0x80:
            memory.append((at, POINTERS[what % len(POINTERS)].to_bytes(8, "little")))
        else:
            fds.append([at, KINDS[(what & 0xF) % len(KINDS)], what >> 4])
    return memory, fds


def _write_ioctl(call: Call) -> bytes:
    kind, place = call["on"]
    head = bytes([place, FILES.index(kind)]) + call["number"].to_bytes(4, "little")
    if call.get("argument") is not None:
        if call["argument"] in POINTERS:
            return bytes([_BY_NUMBER | _POINTS]) + head + bytes([POINTERS.index(call["argument"])])
        return bytes([_BY_NUMBER | _VALUE]) + head + call["argument"].to_bytes(8, "little")
    patches, behind, text = write_memory(call)
    return bytes([_BY_NUMBER | (_BEHIND if behind else 0) | patches << _PATCHES]) + head + text


def write_memory(call: Call) -> tuple[int, bool, bytes]:
    """(how many descriptors, whether there is something behind, the bytes that `read_memory` wants)"""
    parts = {at: bytes.fromhex(text).rstrip(b"\0")[:255] for at, text in call.get("memory", [])}
    fds = [(at, KINDS.index(kind), place & 7) for at, kind, place in call.get("fds", [])][:7]
    blocks = [parts.get(0, b""), *([parts[PAYLOAD]] if PAYLOAD in parts else [])]
    body = b"".join(bytes([len(block)]) + block for block in blocks)
    patches = b"".join(at.to_bytes(2, "little") + bytes([which | place << 4]) for at, which, place in fds)
    return len(fds), PAYLOAD in parts, body + patches
