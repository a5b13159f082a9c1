"""Dirty page bitmaps of type1 (Linux 5.8 on); models the dirty tracking part of vfio_iommu_type1.c.

A device with an IOMMU can write to every page that is mapped for it, and nothing tells which ones it did: so each
mapped page is reported dirty, always, as Linux does for devices that do not pin pages themselves.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.task import Task, UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.iopgtable import IoMapping
    from kvmvfio_emu.kernel.vfio.type1 import Type1

#: A bitmap may cover 2^31 pages.
MAX_BITMAP = 256 << 20
_U64 = 1 << 64
_TASK_SIZE = 1 << 48
_HEADER = 8
_CHUNK = 1 << 20
_START = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_START
_STOP = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP
_GET = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP


def dirty_pages(iommu: Type1, arg: UserPtr) -> None:
    """VFIO_IOMMU_DIRTY_PAGES: start, stop, or read. EACCES (v1), EINVAL, EFAULT."""
    if not iommu.v2:
        raise KernelError(errno.EACCES, "dirty tracking needs type1 version 2")
    task = iommu.host.current
    argsz, flags = _struct(task, "uint32_t[2]", arg, 0)
    if argsz < _HEADER or flags not in (_START, _STOP, _GET):
        raise KernelError(errno.EINVAL, f"argsz {argsz} is below {_HEADER}, or {flags:#x} is not one flag")
    if flags != _GET:
        iommu.dirty_tracking = flags == _START
        return
    if not iommu.dirty_tracking or argsz - _HEADER < uapi.sizeof("struct vfio_iommu_type1_dirty_bitmap_get"):
        raise KernelError(errno.EINVAL, f"dirty tracking is off, or argsz {argsz} leaves no room for the range")
    wanted = _struct(task, "struct vfio_iommu_type1_dirty_bitmap_get *", arg, _HEADER)
    iova, size = wanted.iova, wanted.size
    if iova + size >= _U64:
        raise KernelError(errno.EINVAL, "the range wraps")
    check_bitmap(iommu, wanted.bitmap, size)
    if iova % iommu.page or size % iommu.page:
        raise KernelError(errno.EINVAL, f"iova and size must be multiples of {iommu.page:#x}")
    found = iommu.overlapping(iova, size)
    if found and (found[0].iova < iova or found[-1].end > iova + size):
        raise KernelError(errno.EINVAL, "the range cuts through a mapping")
    report(iommu, found, iova, wanted.bitmap)


def bitmap_of_unmap(iommu: Type1, request: Any, arg: UserPtr) -> Any:
    """The ``struct vfio_bitmap`` behind an UNMAP_DMA request, judged. EINVAL, EFAULT."""
    start = uapi.sizeof("struct vfio_iommu_type1_dma_unmap")
    if request.argsz < start + uapi.sizeof("struct vfio_bitmap"):
        raise KernelError(errno.EINVAL, f"argsz {request.argsz} leaves no room for the bitmap's description")
    bitmap = _struct(iommu.host.current, "struct vfio_bitmap *", arg, start)
    check_bitmap(iommu, bitmap, request.size)
    if not iommu.dirty_tracking:
        raise KernelError(errno.EINVAL, "dirty tracking is off")
    return bitmap


def check_bitmap(iommu: Type1, bitmap: Any, size: int) -> None:
    """Judge where the bits of ``size`` bytes are to go. EINVAL."""
    if bitmap.pgsize != iommu.page:
        raise KernelError(errno.EINVAL, f"the bitmap's page is {bitmap.pgsize:#x}, not {iommu.page:#x}")
    pages = size // iommu.page
    if not pages or not _bytes(pages) <= bitmap.size <= MAX_BITMAP:
        raise KernelError(errno.EINVAL, f"{bitmap.size} bytes of bitmap for {pages} pages")
    if int(uapi.ffi.cast("uintptr_t", bitmap.data)) + bitmap.size > _TASK_SIZE:
        raise KernelError(errno.EINVAL, "the bitmap is not at a user address")


def report(iommu: Type1, mappings: Iterable[IoMapping], iova: int, bitmap: Any) -> None:
    """Set the bits of ``mappings`` in the caller's bitmap, which begins with the page at ``iova``. EFAULT."""
    task, base = iommu.host.current, int(uapi.ffi.cast("uintptr_t", bitmap.data))
    for mapping in mappings:
        first = (mapping.iova - iova) // iommu.page
        shift, word = first % 64, first // 64 * 8
        bits = mapping.size // iommu.page + shift
        # Words of 64 bits are stored whole: ours are zero behind the last page, and keep what lies before the first.
        head = ((1 << min(bits, 64)) - (1 << shift)).to_bytes(8, "little")
        if shift:
            before = task.copy_from_user(base, 8, word)
            head = bytes(mine | theirs for mine, theirs in zip(head, before, strict=True))
        task.copy_to_user(base, head, word)
        for done in range(8, _bytes(bits), _CHUNK):
            part = min(_CHUNK, _bytes(bits) - done)
            ones = max(0, min(bits - done * 8, part * 8))
            task.copy_to_user(base, ((1 << ones) - 1).to_bytes(part, "little"), word + done)


def _bytes(pages: int) -> int:
    return -(-pages // 64) * 8


def _struct(task: Task, ctype: str, arg: UserPtr, offset: int) -> Any:
    """One C object copied from the caller."""
    size = uapi.ffi.sizeof(ctype.removesuffix(" *"))
    return uapi.ffi.from_buffer(ctype, task.copy_from_user(arg, size, offset))
