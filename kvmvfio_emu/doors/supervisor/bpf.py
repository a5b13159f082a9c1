"""The seccomp filter: which system calls come to the supervisor, and which stay native at full speed.

Classic BPF over ``struct seccomp_data``: the number at 0, the architecture at 4, the arguments from 16, 8 bytes each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from kvmvfio_emu.doors.supervisor.syscalls import Architecture

_LD_ABS, _JEQ, _JGE, _JGT, _AND, _RET = 0x20, 0x15, 0x35, 0x25, 0x54, 0x06
_NUMBER, _ARCH = 0, 4
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_X32_BIT = 0x40000000

#: The type bytes of KVM's and VFIO's ioctls (iommufd shares VFIO's), and the byte that holds them.
_KVM_TYPE = 0xAE00
_TYPES, _TYPE_MASK = (_KVM_TYPE, 0x3B00), 0xFF00
_AT_EMPTY_PATH = 0x1000
#: pread and pwrite of more than this below `_REGION` stay native: bulk file I/O, never a register access.
_REGISTER_BYTES = 4096
#: The first file offset beyond region 0 of a VFIO device, as the high word of the argument: 1 << 40.
_REGION_HIGH = 1 << 8

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

    ioctl only with a type byte of KVM or VFIO (of KVM only ``kvm_requests``, if they are given), newfstatat only of a
    path, pread and pwrite only where a register may be. Calls of a foreign architecture (32-bit, x32) stay native.
    """
    wanted = [name for name in trapped if name in machine.numbers]
    program = _Program()
    program.load(_ARCH)
    program.jump(_JEQ, machine.audit, 0, "allow")
    program.load(_NUMBER)
    program.jump(_JGE, _X32_BIT, "allow")
    special = {"ioctl": "ioctl", "newfstatat": "newfstatat", **dict.fromkeys(_ACCESS, "access")}
    for name in wanted:
        program.jump(_JEQ, machine.numbers[name], special.get(name, "notify"))
    program.give(_ALLOW)

    program.label("ioctl")
    program.low(1)
    types: tuple[int, ...] = _TYPES
    if kvm_requests is not None:
        types = tuple(number for number in _TYPES if number != _KVM_TYPE)
        for request in kvm_requests:
            program.jump(_JEQ, request, "notify")
    program.mask(_TYPE_MASK)
    for number in types:
        program.jump(_JEQ, number, "notify")
    program.give(_ALLOW)

    program.label("newfstatat")
    program.low(3)
    program.mask(_AT_EMPTY_PATH)
    program.jump(_JEQ, _AT_EMPTY_PATH, "allow", "notify")

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
