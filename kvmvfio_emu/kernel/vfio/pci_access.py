"""read, write and mmap of a PCI device's BARs; models drivers/vfio/pci/vfio_pci_rdwr.c and vfio_pci_core_mmap.

The MSI-X table is the kernel's: inside it reads give ones and writes are dropped.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.vfio.mapping import PAGE

if TYPE_CHECKING:
    from kvmvfio_emu.hw.board import BarSpec
    from kvmvfio_emu.kernel.vfio.pci import VfioPciDevice


def find_bar(device: VfioPciDevice, index: int) -> BarSpec:
    """BAR ``index``. EINVAL when the function has none there."""
    bar = device.function.bars.get(index)
    if bar is None:
        raise KernelError(errno.EINVAL, f"{device.name} has nothing in region {index}")
    return bar


def msix_table(device: VfioPciDevice, index: int) -> range:
    """The bytes of BAR ``index`` that are the MSI-X table."""
    msix = device.function.messages.msix
    if msix is None or msix.bar != index:
        return range(0)
    return range(msix.table, msix.table + msix.table_size)


def mappable(device: VfioPciDevice, index: int) -> bool:
    """Whether userspace may map BAR ``index``."""
    bar = device.function.bars.get(index)
    if bar is None or bar.kind == "io":
        return False
    return bar.size >= PAGE or device.host.profile.pci_small_bar_mappable


def read_bar(device: VfioPciDevice, index: int, offset: int, size: int) -> bytes:
    """Up to ``size`` bytes, fewer at the end. EINVAL beyond it, EIO."""
    found = bytearray()
    for at, width, hole in _pieces(device, index, offset, size):
        found += b"\xff" * width if hole else device.hw.read(index, at, width).to_bytes(width, "little")
    return bytes(found)


def write_bar(device: VfioPciDevice, index: int, offset: int, data: bytes) -> int:
    """As `read_bar`; the bytes taken."""
    done = 0
    for at, width, hole in _pieces(device, index, offset, len(data)):
        if not hole:
            device.hw.write(index, at, width, int.from_bytes(data[done : done + width], "little"))
        done += width
    return done


def _pieces(device: VfioPciDevice, index: int, offset: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """(offset, bytes, whether it is in the MSI-X table): the largest aligned accesses of up to 4 bytes."""
    bar = find_bar(device, index)
    if offset >= bar.size:
        raise KernelError(errno.EINVAL, f"offset {offset:#x} is behind the end of BAR {index}, {bar.size:#x}")
    if bar.kind != "io" and device.host.profile.pci_memory_checked and not device.config.memory_enabled:
        raise KernelError(errno.EIO, "memory decoding is off in the command register")
    end, hole = min(offset + size, bar.size), msix_table(device, index)
    while offset < end:
        if offset in hole:
            width = min(end, hole.stop) - offset
            yield offset, width, True
        else:
            room = min(end, hole.start if offset < hole.start else end) - offset
            width = next(width for width in (4, 2, 1) if width <= room and not offset % width)
            yield offset, width, False
        offset += width


def check_mmap(device: VfioPciDevice, index: int, offset: int, length: int, *, shared: bool) -> int:
    """Judge a mapping; its length in whole pages. EINVAL."""
    if not shared:
        raise KernelError(errno.EINVAL, "device registers cannot be mapped privately")
    if not mappable(device, index):
        raise KernelError(errno.EINVAL, f"region {index} of {device.name} cannot be mapped")
    length, size = (-(-amount // PAGE) * PAGE for amount in (length, find_bar(device, index).size))
    if offset % PAGE or offset + length > size:
        raise KernelError(errno.EINVAL, f"{offset:#x} + {length:#x} is not inside BAR {index}")
    table = msix_table(device, index)
    if not device.host.profile.pci_msix_mappable and offset < table.stop and table.start < offset + length:
        raise KernelError(errno.EINVAL, "the mapping overlaps the MSI-X table")
    return length
