"""The seccomp filter: which system calls come to the supervisor, and which stay native at full speed.

Classic BPF over ``struct seccomp_data``: the number at 0, the architecture at 4, the arguments from 16, 8 bytes each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from kvmvfio_emu.doors.supervisor.syscalls import Architecture

_LD_ABS, _JEQ, _JGE, _JGT, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x25, 0x45, 0x54, 0x06
_NUMBER, _ARCH = 0, 4
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_X32_BIT = 0x40000000

#: The byte of a request that holds its type; KVM's; and the terminal's and socket's, which every program uses often.
_TYPE_MASK, _KVM_TYPE, _TERMINAL_TYPE = 0xFF00, 0xAE00, 0x5400
_AT_EMPTY_PATH = 0x1000
_F_GETFL = 3
_SEEK_CUR = 1
_NO_FD = 0xFFFFFFFF
#: Mappings that are none of a file of ours: anonymous ones, and (MAP_DENYWRITE) the dynamic linker's.
_OTHER_MAPPINGS = 0x20 | 0x800
#: pread and pwrite of more than this below `_REGION` stay native: bulk file I/O, never a register access.
_REGISTER_BYTES = 4096
#: The first file offset beyond region 0 of a VFIO device, as the high word of the argument: 1 << 40.
_REGION_HIGH = 1 << 8

_EVENTFD_BYTES = 8
_ACCESS = ("pread64", "pwrite64")


class _Program:
    """Instructions with symbolic targets; jumps only lead forward."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str | int, str | int, int]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def load(self, offset: int) -> None:
        self._code.append((_LD_ABS, 0, 0, offset))

    def low(self, argument: int) -> None:
        self.load(16 + 8 * argument)

    def high(self, argument: int) -> None:
        self.load(20 + 8 * argument)

    def mask(self, value: int) -> None:
        self._code.append((_AND, 0, 0, value))

    def jump(self, test: int, value: int, yes: str | int, no: str | int = 0) -> None:
        self._code.append((test, yes, no, value))

    def give(self, action: int) -> None:
        self._code.append((_RET, 0, 0, action))

    def assemble(self) -> bytes:
        def offset(target: str | int, position: int) -> int:
            return target if isinstance(target, int) else self._labels[target] - position - 1

        return b"".join(
            struct.pack("<HBBI", code, offset(yes, at), offset(no, at), value)
            for at, (code, yes, no, value) in enumerate(self._code)
        )


def build(machine: Architecture, trapped: Iterable[str], kvm_requests: Iterable[int] | None = None) -> bytes:
    """The filter that notifies of the calls ``trapped`` (by name; what the machine has not is left out).

    ioctl but for the terminal's (of KVM's only ``kvm_requests``, if they are given), newfstatat only of a path, pread
    and pwrite only where a register may be, fcntl only F_GETFL, lseek unless it only asks for the position, mmap only
    of files, read only where an eventfd would answer. Calls of a foreign architecture (32-bit, x32) stay native.
    """
    wanted = [name for name in trapped if name in machine.numbers]
    program = _Program()
    program.load(_ARCH)
    program.jump(_JEQ, machine.audit, 0, "allow")
    program.load(_NUMBER)
    program.jump(_JGE, _X32_BIT, "allow")
    special = {name: name for name in ("ioctl", "newfstatat", "fcntl", "lseek", "mmap", "read")}
    special.update(dict.fromkeys(_ACCESS, "access"))
    for name in wanted:
        program.jump(_JEQ, machine.numbers[name], special.get(name, "notify"))
    program.give(_ALLOW)

    program.label("ioctl")
    program.low(1)
    for request in kvm_requests or ():
        program.jump(_JEQ, request, "notify")
    program.mask(_TYPE_MASK)
    if kvm_requests is not None:
        program.jump(_JEQ, _KVM_TYPE, "allow")
    program.jump(_JEQ, _TERMINAL_TYPE, "allow", "notify")

    program.label("newfstatat")
    program.low(3)
    program.mask(_AT_EMPTY_PATH)
    program.jump(_JEQ, _AT_EMPTY_PATH, "allow", "notify")

    program.label("fcntl")
    program.low(1)
    program.jump(_JEQ, _F_GETFL, "notify", "allow")

    program.label("lseek")
    program.low(2)
    program.jump(_JEQ, _SEEK_CUR, 0, "notify")
    program.low(1)
    program.jump(_JEQ, 0, 0, "notify")
    program.high(1)
    program.jump(_JEQ, 0, "allow", "notify")

    program.label("read")
    program.low(2)
    program.jump(_JGE, _EVENTFD_BYTES, "notify", "allow")

    program.label("mmap")
    program.low(4)
    program.jump(_JEQ, _NO_FD, "allow")
    program.low(3)
    program.jump(_JSET, _OTHER_MAPPINGS, "allow", "notify")

    program.label("access")
    program.high(3)
    program.jump(_JGE, _REGION_HIGH, "notify")
    program.high(2)
    program.jump(_JGT, 0, "allow")
    program.low(2)
    program.jump(_JGT, _REGISTER_BYTES, "allow", "notify")

    program.label("allow")
    program.give(_ALLOW)
    program.label("notify")
    program.give(_NOTIFY)
    return program.assemble()
