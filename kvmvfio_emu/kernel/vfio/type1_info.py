"""VFIO_IOMMU_GET_INFO and its capability chain; models vfio_iommu_type1_get_info in vfio_iommu_type1.c."""

from __future__ import annotations

import struct
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.task import UserPtr
from kvmvfio_emu.kernel.vfio.dirty import MAX_BITMAP
from kvmvfio_emu.kernel.vfio.type1 import Type1

_HEADER = struct.Struct("<HHI")
_CAP_OFFSET = 16  #: of the field in struct vfio_iommu_type1_info
_MIN = 16


def fill(iommu: Type1, info: Any, arg: UserPtr) -> None:
    """Answer into ``info`` (its first 16 bytes go back to the caller) and, where there is room, behind it."""
    info.iova_pgsizes = iommu.page_sizes
    info.flags = 0
    profile = iommu.host.profile
    if not profile.iommu_info_caps:
        return
    info.flags = uapi.VFIO_IOMMU_INFO_PGSIZES | uapi.VFIO_IOMMU_INFO_CAPS
    start = uapi.sizeof("struct vfio_iommu_type1_info")
    chain = _chain(iommu, start, profile.info_cap_align)
    task = iommu.host.current
    offset = 0
    if info.argsz < start + len(chain):
        room, info.argsz = info.argsz, start + len(chain)
    else:
        room = info.argsz
        task.copy_to_user(arg, chain, start)
        offset = start
    if room >= _CAP_OFFSET + 4:
        task.copy_to_user(arg, struct.pack("<I", offset), _CAP_OFFSET)


def _chain(iommu: Type1, start: int, align: int) -> bytes:
    """The capabilities one after the other, as they stand ``start`` bytes into the caller's buffer."""
    bodies = [
        (
            uapi.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
            struct.pack("<IIQQ", 0, 0, iommu.page, MAX_BITMAP),
        ),
        (
            uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
            struct.pack("<I", iommu.host.profile.type1_dma_limit - len(iommu.mappings())),
        ),
        (
            uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
            struct.pack("<II", len(iommu.iova_ranges()), 0)
            + b"".join(struct.pack("<QQ", first, last) for first, last in iommu.iova_ranges()),
        ),
    ]
    chain = bytearray()
    for position, (identifier, body) in enumerate(bodies):
        size = -(-(_HEADER.size + len(body)) // align) * align
        last = position == len(bodies) - 1
        following = 0 if last else start + len(chain) + size
        version = 1
        chain += (_HEADER.pack(identifier, version, following) + body).ljust(size, b"\0")
    return bytes(chain)
