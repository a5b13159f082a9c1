"""Where in a program the registers of devices are mapped, and an access there as the device sees it."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, NamedTuple

from kvmvfio_emu.kernel.registers import load, store
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.host import Host

PAGE = mmap.PAGESIZE


class Place(NamedTuple):
    """What lies at a user address in a mapping of registers: ``offset`` in ``file``."""

    file: File
    offset: int

    def load(self, size: int) -> bytes:
        """What the device answers."""
        return load(self.file, self.offset, size)

    def store(self, data: bytes) -> None:
        """Store ``data`` there."""
        store(self.file, self.offset, data)


class Places:
    """The mappings of registers in all programs that are traced, as far as they were looked up."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[int, list[tuple[int, int, File, int]]] = {}

    def forget(self, tgid: int) -> None:
        """The process maps something else, or is gone."""
        self._known.pop(tgid, None)

    def address(self, tid: int, file: File, offset: int) -> int | None:
        """Where a thread's program has that page of ``file``."""
        for vma in UserMemory(tid).vmas():
            ours = self._host.inodes.get((vma.device, vma.inode)) is file
            if ours and vma.offset <= offset < vma.offset + vma.end - vma.start:
                return vma.start + offset - vma.offset
        return None

    def find(self, tgid: int, tid: int, address: int) -> Place | None:
        """What thread ``tid`` of process ``tgid`` has at ``address``; None when that is no register of ours."""
        known = self._known.setdefault(tgid, [])
        for start, end, file, offset in known:
            if start <= address < end:
                return Place(file, offset + address - start)
        vma = UserMemory(tid).find_vma(address)
        file_ = None if vma is None else self._host.inodes.get((vma.device, vma.inode))
        if vma is None or file_ is None or not file_.is_device_memory:
            return None
        known.append((vma.start, vma.end, file_, vma.offset))
        return Place(file_, vma.offset + address - vma.start)
