"""The IOVA space of an IOAS: what is mapped, reserved and allowed; models drivers/iommu/iommufd/io_pagetable.c."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.iopgtable import IoMapping, IoPageTable
from kvmvfio_emu.kernel.usercopy import UserMemory

PAGE = 0x1000
ULONG_MAX = (1 << 64) - 1
Range = tuple[int, int]  #: first and last


class Pages(NamedTuple):
    """A piece of user memory that an area shows; ``writable`` as it was first mapped. Models iopt_pages."""

    mm: UserMemory
    vaddr: int
    size: int
    writable: bool


class Area(IoMapping):
    """``struct iopt_area``: a mapping, and whether its memory could be mapped writable."""

    __slots__ = ("writable",)

    def __init__(self, iova: int, pages: Pages, *, read: bool, write: bool) -> None:
        super().__init__(iova, pages.size, pages.vaddr, pages.mm, read=read, write=write)
        self.writable = pages.writable

    def pages(self, start: int, last: int) -> Pages:
        """The memory behind a part of it."""
        return Pages(self.mm, self.vaddr + start - self.iova, last - start + 1, self.writable)


class IovaSpace(IoPageTable[Area]):
    """``struct io_pagetable``. ``domains``: the smallest page of each domain that is filled from it, by owner."""

    def __init__(self) -> None:
        super().__init__()
        self.alignment = 1
        self.large_pages = True
        self.allowed: list[Range] = []
        self.domains: dict[object, int] = {}
        self._reserved: list[tuple[int, int, object]] = []

    # -- mapping ---------------------------------------------------------------------------------------------

    def map(self, pages: Sequence[Pages], iova: int | None, *, read: bool, write: bool) -> int:
        """Show ``pages`` at ``iova``, or where there is room (None); the IOVA. EINVAL, EOVERFLOW, ENOSPC, EEXIST,
        EPERM, EFAULT."""
        length = sum(piece.size for piece in pages)
        if not length or length % self.alignment:
            raise KernelError(errno.EINVAL, f"length {length:#x} is zero, or no multiple of {self.alignment:#x}")
        place = self._find_room(pages[0].vaddr, length) if iova is None else self._check_place(iova, length)
        for piece in pages:
            if write and not piece.writable:
                raise KernelError(errno.EPERM, "the memory was first mapped read-only")
            if piece.vaddr % PAGE % self.alignment:
                raise KernelError(errno.EINVAL, f"user memory {piece.vaddr:#x} is not aligned to {self.alignment:#x}")
        if self.domains:
            for piece in pages:
                _pin(piece)
        at = place
        for piece in pages:
            self.insert(Area(at, piece, read=read, write=write))
            at += piece.size
        return place

    def pages_at(self, iova: int, length: int) -> list[Pages]:
        """The memory behind a range without gaps. EINVAL, EOVERFLOW, ENOENT. Models iopt_get_pages."""
        last = _last(iova, length)
        found, at = [], iova
        for area in self.overlapping(iova, length):
            if area.iova > at:
                break
            until = min(last, area.end - 1)
            found.append(area.pages(at, until))
            at = until + 1
        if at != last + 1:
            raise KernelError(errno.ENOENT, f"nothing is mapped at {at:#x}")
        return found

    def unmap(self, iova: int, length: int) -> int:
        """Take out whole areas; the bytes. EINVAL, EOVERFLOW, ENOENT: none, or one that is not inside.

        What comes before an area that sticks out is gone then, as in Linux.
        """
        removed = self._unmap_range(iova, _last(iova, length))
        if not removed:
            raise KernelError(errno.ENOENT, "nothing is mapped there")
        return removed

    def unmap_all(self) -> int:
        """Take out everything; the bytes, which may be none."""
        return self._unmap_range(0, ULONG_MAX)

    def _unmap_range(self, start: int, last: int) -> int:
        removed = 0
        for area in self.overlapping(start, last - start + 1):
            if area.iova < start or area.end - 1 > last:
                raise KernelError(errno.ENOENT, f"the mapping at {area.iova:#x} is not inside the range")
            self.remove([area])
            removed += area.size
        return removed

    def cut(self, last: int) -> None:
        """Split the area around ``last``, behind it; VFIO's first type needs that. EINVAL. Models iopt_area_split."""
        area = self.first_overlapping(last, 1)
        if area is None or last in (area.iova, area.end - 1):
            return
        if (last + 1) % self.alignment or (area.vaddr + last + 1 - area.iova) % self.alignment:
            raise KernelError(errno.EINVAL, f"{last + 1:#x} is not aligned to {self.alignment:#x}")
        if self.domains and self.large_pages:
            raise KernelError(errno.EINVAL, "the IOMMU may have used a large page")
        self.remove([area])
        for start, end in ((area.iova, last), (last + 1, area.end - 1)):
            self.insert(Area(start, area.pages(start, end), read=area.read, write=area.write))

    # -- where ----------------------------------------------------------------------------------------------

    def _check_place(self, iova: int, length: int) -> int:
        if iova % self.alignment:
            raise KernelError(errno.EINVAL, f"iova {iova:#x} is not aligned to {self.alignment:#x}")
        last = _last(iova, length)
        if self._is_reserved(iova, last):
            raise KernelError(errno.EINVAL, f"iova {iova:#x} + {length:#x} touches a reserved range")
        if self.first_overlapping(iova, length) is not None:
            raise KernelError(errno.EEXIST, f"something is mapped in {iova:#x} + {length:#x}")
        return iova

    def _find_room(self, vaddr: int, length: int) -> int:
        """A free IOVA that is aligned as well as the memory is, never 0. Models iopt_alloc_iova."""
        if length >= ULONG_MAX // 2:
            raise KernelError(errno.EOVERFLOW, f"length {length:#x}")
        alignment = 1 << (length - 1).bit_length()
        if vaddr:
            alignment = min(alignment, vaddr & -vaddr)
        if alignment < self.alignment:
            raise KernelError(errno.EINVAL, f"user memory {vaddr:#x} is not aligned to {self.alignment:#x}")
        offset, first, last = vaddr % PAGE, PAGE, ULONG_MAX - PAGE
        used = [(start, end) for start, end, _ in self._reserved]
        used += [(area.iova, area.end - 1) for area in self.mappings()]
        spans = _spans(self.allowed, first, last) if self.allowed else [(first, last)]
        for span in spans:
            room = _fit(*span, length, alignment, offset)
            for hole in _holes(used, room, span[1]) if room is not None else ():
                place = _fit(*hole, length, alignment, offset)
                if place is not None:
                    return place
        raise KernelError(errno.ENOSPC, f"no room for {length:#x} bytes")

    def holes(self) -> list[Range]:
        """What may be mapped: all that is not reserved."""
        return list(_holes([(start, last) for start, last, _ in self._reserved], 0, ULONG_MAX))

    def allow(self, ranges: Iterable[Range]) -> None:
        """These must stay usable from now on, instead of those before. EADDRINUSE: one is reserved already."""
        wanted = sorted(ranges)
        for start, last in wanted:
            if self._is_reserved(start, last):
                raise KernelError(errno.EADDRINUSE, f"{start:#x}..{last:#x} is reserved")
        self.allowed = wanted

    def reserve(self, start: int, last: int, owner: object) -> None:
        """Nothing may be mapped there while ``owner`` is attached. EADDRINUSE: mapped, or allowed for ever."""
        allowed = any(first <= last and start <= end for first, end in self.allowed)
        if allowed or self.first_overlapping(start, last - start + 1) is not None:
            raise KernelError(errno.EADDRINUSE, f"{start:#x}..{last:#x} is mapped, or was promised to be usable")
        self._reserved.append((start, last, owner))

    def unreserve(self, owner: object) -> None:
        """End all reservations of ``owner``."""
        self._reserved = [item for item in self._reserved if item[2] is not owner]

    def _is_reserved(self, start: int, last: int) -> bool:
        return any(first <= last and start <= end for first, end, _ in self._reserved)

    # -- domains ---------------------------------------------------------------------------------------------

    def add_domain(self, owner: object, page: int, aperture: int) -> None:
        """A domain with pages of at least ``page`` bytes and IOVA below ``aperture`` is filled from here.

        EINVAL, EADDRINUSE: what is mapped does not fit it; EFAULT: memory that is gone.
        """
        alignment = max(page, self.alignment)
        if alignment > PAGE:
            raise KernelError(errno.EINVAL, f"the IOMMU's smallest page, {page:#x}, is larger than the kernel's")
        self._check_alignment(alignment)
        if aperture <= ULONG_MAX:
            self.reserve(aperture, ULONG_MAX, owner)
        try:
            for area in self.mappings():
                _pin(area.pages(area.iova, area.end - 1))
        except KernelError:
            self.unreserve(owner)
            raise
        self.alignment = alignment
        self.domains[owner] = page

    def remove_domain(self, owner: object) -> None:
        """The domain goes, and its limits."""
        del self.domains[owner]
        self.unreserve(owner)
        self.alignment = self._needed_alignment()

    def set_large_pages(self, enabled: bool) -> None:
        """Let the IOMMU use large pages, or not. EINVAL: it may have done so; EADDRINUSE: small mappings."""
        if not enabled and self.large_pages:
            if self.domains and len(self):
                raise KernelError(errno.EINVAL, "there are mappings, in which large pages may be used")
            self._check_alignment(PAGE)
        self.large_pages = enabled
        self.alignment = self._needed_alignment()

    def _needed_alignment(self) -> int:
        return max([*self.domains.values(), 1 if self.large_pages else PAGE])

    def _check_alignment(self, alignment: int) -> None:
        if any((area.iova | area.size | area.vaddr % PAGE) % alignment for area in self.mappings()):
            raise KernelError(errno.EADDRINUSE, f"a mapping is not aligned to {alignment:#x}")


def _pin(pages: Pages) -> None:
    start = pages.vaddr & -PAGE
    if not pages.mm.covers(start, pages.vaddr + pages.size - start, write=pages.writable):
        raise KernelError(errno.EFAULT, f"cannot pin user memory {pages.vaddr:#x} + {pages.size:#x}")


def _last(iova: int, length: int) -> int:
    if not length:
        raise KernelError(errno.EINVAL, "a range of no length")
    if iova + length - 1 > ULONG_MAX:
        raise KernelError(errno.EOVERFLOW, f"{iova:#x} + {length:#x} wraps")
    return iova + length - 1


def _spans(ranges: Iterable[Range], first: int, last: int) -> Iterator[Range]:
    """``ranges`` in order, neighbours joined, cut to ``first``..``last``."""
    start = end = None
    for low, high in sorted(ranges):
        if high < first or low > last:
            continue
        if start is not None and end is not None and low <= end + 1:
            end = max(end, min(high, last))
            continue
        if start is not None and end is not None:
            yield start, end
        start, end = max(low, first), min(high, last)
    if start is not None and end is not None:
        yield start, end


def _holes(ranges: Iterable[Range], first: int, last: int) -> Iterator[Range]:
    """What of ``first``..``last`` is in none of ``ranges``."""
    for start, end in _spans(ranges, first, last):
        if start > first:
            yield first, start - 1
        first = end + 1
    if first <= last:
        yield first, last


def _fit(start: int, last: int, length: int, alignment: int, offset: int) -> int | None:
    """The first aligned place in ``start``..``last`` with room for ``length``; with the page offset of the memory."""
    place = -(-start // alignment) * alignment | offset
    return place if place + length - 1 <= last else None
