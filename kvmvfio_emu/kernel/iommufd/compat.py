"""VFIO's container ioctls on an iommufd, with one IOAS that they all mean; models iommufd's vfio_compat.c."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.iommufd.hwpt import Ioas
from kvmvfio_emu.kernel.iommufd.pagetable import PAGE, Pages
from kvmvfio_emu.kernel.task import UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.iommufd.file import IommufdFile

_HEADER = struct.Struct("<HHI")
_INFO_MIN = 16
_AVAILABLE = 0xFFFFFFFF
_TYPES = (uapi.VFIO_TYPE1_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)


def compat_ioas(file: IommufdFile) -> Ioas:
    """The IOAS that VFIO's container ioctls mean. ENODEV."""
    if file.vfio_ioas is None:
        raise KernelError(errno.ENODEV, "the iommufd has no IOAS for VFIO's container ioctls")
    return file.vfio_ioas


def choose_ioas(file: IommufdFile, command: Any, arg: UserPtr) -> None:
    """IOMMU_VFIO_IOAS: ask for it, set or clear it. EOPNOTSUPP, ENODEV, ENOENT, EFAULT."""
    if command.__reserved:
        raise KernelError(errno.EOPNOTSUPP, "a reserved field is set")
    if command.op == uapi.IOMMU_VFIO_IOAS_GET:
        command.ioas_id = compat_ioas(file).id
        file.respond(arg, command)
    elif command.op == uapi.IOMMU_VFIO_IOAS_SET:
        file.vfio_ioas = file.objects.get(command.ioas_id, Ioas)
    elif command.op == uapi.IOMMU_VFIO_IOAS_CLEAR:
        file.vfio_ioas = None
    else:
        raise KernelError(errno.EOPNOTSUPP, f"operation {command.op}")


def create_ioas(file: IommufdFile) -> None:
    """There is one from now on: a VFIO group uses the file as its container. Models iommufd_vfio_compat_ioas_create."""
    if file.vfio_ioas is None:
        file.vfio_ioas = Ioas()
        file.objects.add(file.vfio_ioas)


def check_extension(file: IommufdFile, number: int) -> int:
    """What a container of this kernel can do. ENODEV."""
    if number == uapi.VFIO_DMA_CC_IOMMU:
        # Arm's SMMU is coherent, but cannot enforce it against a device that asks for no snooping.
        return int(not compat_ioas(file).hwpts)
    return int(number in (*_TYPES, uapi.VFIO_UNMAP_ALL))


def set_iommu(file: IommufdFile, kind: int) -> None:
    """Choose type 1, which can cut mappings, or 1v2. EINVAL, ENODEV."""
    if kind not in _TYPES:
        raise KernelError(errno.EINVAL, f"an iommufd does not do IOMMU type {kind}")
    ioas = compat_ioas(file)
    if kind == uapi.VFIO_TYPE1_IOMMU:
        ioas.space.set_large_pages(False)


def map_dma(file: IommufdFile, request: Any) -> None:
    """VFIO_IOMMU_MAP_DMA. EINVAL, ENODEV, EEXIST, EOVERFLOW, EFAULT."""
    read = bool(request.flags & uapi.VFIO_DMA_MAP_FLAG_READ)
    write = bool(request.flags & uapi.VFIO_DMA_MAP_FLAG_WRITE)
    if request.flags & ~(uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE):
        raise KernelError(errno.EINVAL, f"unknown MAP_DMA flags in {request.flags:#x}")
    ioas = compat_ioas(file)
    if not request.size:
        raise KernelError(errno.EINVAL, "nothing to map")
    pages = Pages(file.host.current.mm, request.vaddr, request.size, write)
    ioas.space.map([pages], request.iova, read=read, write=write)


def unmap_dma(file: IommufdFile, request: Any, arg: UserPtr) -> None:
    """VFIO_IOMMU_UNMAP_DMA; ``size`` tells how much that was, also after an error. EINVAL, ENODEV, ENOENT."""
    everything = bool(request.flags & uapi.VFIO_DMA_UNMAP_FLAG_ALL)
    if request.flags & ~uapi.VFIO_DMA_UNMAP_FLAG_ALL:
        raise KernelError(errno.EINVAL, f"unknown UNMAP_DMA flags in {request.flags:#x}")
    space = compat_ioas(file).space
    if everything and (request.iova or request.size):
        raise KernelError(errno.EINVAL, "with ALL, iova and size must be 0")
    iova, size = request.iova, request.size
    if not everything and not space.large_pages:
        for last in (iova + size - 1, iova - 1) if iova else (size - 1,):
            space.cut(last & (1 << 64) - 1)
    before = sum(area.size for area in space.mappings())
    try:
        if everything:
            space.unmap_all()
        else:
            space.unmap(iova, size)
    finally:
        request.size = before - sum(area.size for area in space.mappings())
        file.host.current.copy_to_user(arg, bytes(uapi.ffi.buffer(request)))


def get_info(file: IommufdFile, info: Any, arg: UserPtr) -> None:
    """VFIO_IOMMU_GET_INFO, with how many mappings there may be, and where. ENODEV, EFAULT."""
    space = compat_ioas(file).space
    start = uapi.sizeof("struct vfio_iommu_type1_info")
    ranges = space.holes()
    bodies = (
        (uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, struct.pack("<I", _AVAILABLE)),
        (
            uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
            struct.pack("<II", len(ranges), 0) + b"".join(struct.pack("<QQ", *span) for span in ranges),
        ),
    )
    total = start + sum(_HEADER.size + len(body) for _, body in bodies)
    task, room, at = file.host.current, int(info.argsz), start
    for identifier, body in bodies:
        end = at + _HEADER.size + len(body)
        # A capability that fits is given, though the chain is only announced when all of it does.
        if room >= end:
            following = end if end < total and room >= end else 0
            task.copy_to_user(arg, _HEADER.pack(identifier, 1, following) + body, at)
        at = end
    info.flags = uapi.VFIO_IOMMU_INFO_PGSIZES | uapi.VFIO_IOMMU_INFO_CAPS
    info.iova_pgsizes = _page_sizes(file) if space.domains else -PAGE & (1 << 64) - 1
    info.cap_offset = start if room >= total else 0
    info.argsz = total
    task.copy_to_user(arg, bytes(uapi.ffi.buffer(info))[: max(_INFO_MIN, min(room, start))])


def _page_sizes(file: IommufdFile) -> int:
    return sum(size for size in file.host.machine.board.iommu.page_sizes if size >= PAGE)
