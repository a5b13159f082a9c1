"""What an IOMMU translates with: IOVA mappings of user memory, and the devices' way through them.

Models what type1 and iommufd have in common: a tree of mappings (``dma_list``, ``area_itree``) and the io-pgtable of a
domain (drivers/iommu) that is filled from it. Nothing is pinned: a mapping names memory, and whoever walks it looks.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from kvmvfio_emu.hw.devices.base import DmaFault
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.usercopy import UserMemory

#: Where the Arm SMMU drivers put the doorbell of message signalled interrupts: no client memory there.
MSI_WINDOW = range(0x8000000, 0x8100000)


class IoMapping:
    """``size`` bytes at ``iova`` are ``vaddr`` of the address space ``mm``. Devices may do ``read``, ``write``."""

    __slots__ = ("iova", "mm", "read", "size", "vaddr", "vaddr_valid", "write")

    def __init__(self, iova: int, size: int, vaddr: int, mm: UserMemory, *, read: bool, write: bool) -> None:
        self.iova = iova
        self.size = size
        self.vaddr = vaddr
        self.vaddr_valid = True
        self.mm = mm
        self.read = read
        self.write = write

    @property
    def end(self) -> int:
        """The first IOVA behind it."""
        return self.iova + self.size


_M = TypeVar("_M", bound=IoMapping)


class IoPageTable(Generic[_M]):
    """Mappings that do not overlap, in IOVA order; a `Dma` for the devices behind it."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._maps: dict[int, _M] = {}

    # -- the mappings ----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._starts)

    def overlapping(self, iova: int, size: int) -> list[_M]:
        """The mappings that share bytes with the range, in IOVA order."""
        return list(self._overlapping(iova, size))

    def first_overlapping(self, iova: int, size: int) -> _M | None:
        """The first of them."""
        return next(self._overlapping(iova, size), None)

    def mappings(self) -> list[_M]:
        """All mappings in IOVA order."""
        return [self._maps[start] for start in self._starts]

    def insert(self, mapping: _M) -> None:
        """Add a mapping; the caller has seen that its place is free."""
        insort(self._starts, mapping.iova)
        self._maps[mapping.iova] = mapping

    def remove(self, mappings: Sequence[_M]) -> None:
        """Take out mappings that follow each other in IOVA order."""
        if not mappings:
            return
        first = bisect_right(self._starts, mappings[0].iova) - 1
        del self._starts[first : first + len(mappings)]
        for mapping in mappings:
            del self._maps[mapping.iova]

    def _overlapping(self, iova: int, size: int) -> Iterator[_M]:
        """As `overlapping`; nothing may change while it runs."""
        index = bisect_right(self._starts, iova)
        if index and self._maps[self._starts[index - 1]].end > iova:
            index -= 1
        while index < len(self._starts) and self._starts[index] < iova + size:
            yield self._maps[self._starts[index]]
            index += 1

    # -- Dma, for the devices --------------------------------------------------------------------------------

    def read(self, iova: int, size: int) -> bytes:
        """A device reads memory. DmaFault."""
        data = bytearray()
        for mapping, offset, part in self._pieces(iova, size):
            if not mapping.read:
                raise DmaFault(mapping.iova + offset, "the mapping is not readable")
            try:
                data += self._load(mapping.mm, mapping.vaddr + offset, part)
            except KernelError as error:
                raise DmaFault(mapping.iova + offset, error.reason) from error
        return bytes(data)

    def write(self, iova: int, data: bytes) -> None:
        """A device writes memory. DmaFault; what lies before the fault is written."""
        done = 0
        for mapping, offset, part in self._pieces(iova, len(data)):
            if not mapping.write:
                raise DmaFault(mapping.iova + offset, "the mapping is not writable")
            try:
                self._store(mapping.mm, mapping.vaddr + offset, data[done : done + part])
            except KernelError as error:
                raise DmaFault(mapping.iova + offset, error.reason) from error
            done += part

    def _load(self, mm: UserMemory, address: int, size: int) -> bytes | bytearray:
        """What a device finds at a user address. EFAULT."""
        return mm.read(address, size)

    def _store(self, mm: UserMemory, address: int, data: bytes) -> None:
        """Let a device write there. EFAULT."""
        mm.write(address, data)

    def _pieces(self, iova: int, size: int) -> Iterator[tuple[_M, int, int]]:
        """The mappings that make up the range: (mapping, offset in it, bytes); `DmaFault` at the first gap."""
        while size > 0:
            mapping = self.first_overlapping(iova, 1)
            if mapping is None:
                raise DmaFault(iova, "nothing is mapped there")
            if not mapping.vaddr_valid:
                raise DmaFault(iova, "the mapping waits for its new vaddr")
            part = min(size, mapping.end - iova)
            yield mapping, iova - mapping.iova, part
            iova += part
            size -= part

    def check_order(self) -> None:
        """Raise AssertionError when mappings overlap, or are not in order."""
        assert self._starts == sorted(self._maps), "the order of the mappings is lost"
        end = 0
        for mapping in self.mappings():
            assert mapping.iova >= end, f"mappings overlap at {mapping.iova:#x}"
            end = mapping.end
