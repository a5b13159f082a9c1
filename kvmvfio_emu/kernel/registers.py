"""Accesses of any width to registers that somebody has mapped, cut into those that a bus makes of them.

A bus moves 1, 2, 4 or 8 naturally aligned bytes at a time; whoever asks for more, or across a border, gets several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.host import Host

_WIDEST = 8
_PAGE = 4096


def load(file: File, offset: int, size: int) -> bytes:
    """What the device answers to a load through a mapping of ``file``."""
    return b"".join(
        file.mapped_read(offset + at, width).to_bytes(width, "little") for at, width in _accesses(offset, size)
    )


def store(file: File, offset: int, data: bytes) -> None:
    """A store through a mapping of ``file``."""
    for at, width in _accesses(offset, len(data)):
        file.mapped_write(offset + at, width, int.from_bytes(data[at : at + width], "little"))


def bus_read(host: Host, mm: UserMemory, address: int, size: int) -> bytes:
    """What a device reads at a user address: memory, or registers that are mapped there. EFAULT."""
    try:
        return bytes(mm.read(address, size))
    except KernelError:
        parts = []
        for at, part in _pages(address, size):
            device = host.mapped_device(mm, at)
            parts.append(bytes(mm.read(at, part)) if device is None else load(*device, part))
        return b"".join(parts)


def bus_write(host: Host, mm: UserMemory, address: int, data: bytes) -> None:
    """The same for a write. EFAULT; what lies before the fault is written."""
    try:
        mm.write(address, data)
    except KernelError:
        for at, part in _pages(address, len(data)):
            device, piece = host.mapped_device(mm, at), data[at - address : at - address + part]
            if device is None:
                mm.write(at, piece)
            else:
                store(*device, piece)


def _pages(address: int, size: int) -> list[tuple[int, int]]:
    """(address, bytes) of a range by pages."""
    ends = [*range(address - address % _PAGE + _PAGE, address + size, _PAGE), address + size]
    return [(start, end - start) for start, end in zip([address, *ends], ends, strict=False)]


def _accesses(offset: int, size: int) -> list[tuple[int, int]]:
    """(distance from ``offset``, bytes) of the naturally aligned pieces of an access."""
    if size in (4, 2, 1, 8) and not offset % size:
        return [(0, size)]
    pieces, at = [], 0
    while at < size:
        width = _WIDEST
        while (offset + at) % width or at + width > size:
            width //= 2
        pieces.append((at, width))
        at += width
    return pieces
