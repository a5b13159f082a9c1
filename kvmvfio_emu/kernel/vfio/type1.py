"""The type1 IOMMU driver: IOVA mappings of client memory; models drivers/vfio/vfio_iommu_type1.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.iopgtable import MSI_WINDOW, IoMapping, IoPageTable
from kvmvfio_emu.kernel.registers import bus_read, bus_write
from kvmvfio_emu.kernel.task import UserPtr
from kvmvfio_emu.kernel.usercopy import UserMemory
from kvmvfio_emu.kernel.vfio import dirty

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.group import VfioGroup

_U64 = 1 << 64


class Type1(IoPageTable[IoMapping]):
    """The mappings of one container, and the devices that see memory through them (it is their `Dma`).

    ``v2`` forbids unmapping parts of a mapping. Groups are attached and detached by the container.
    """

    def __init__(self, host: Host, kind: int) -> None:
        super().__init__()
        extensions = host.profile.type1_extensions
        if kind not in extensions or kind not in (
            uapi.VFIO_TYPE1_IOMMU,
            uapi.VFIO_TYPE1v2_IOMMU,
            uapi.VFIO_TYPE1_NESTING_IOMMU,
        ):
            raise KernelError(errno.EINVAL, f"type1 does not do IOMMU type {kind}")
        self.host = host
        self.kind = kind
        self.v2 = kind != uapi.VFIO_TYPE1_IOMMU
        self.groups: list[VfioGroup] = []
        self.dirty_tracking = False
        spec = host.machine.board.iommu
        self.page_sizes = sum(size for size in spec.page_sizes if size >= 0x1000)
        self.page = min(size for size in spec.page_sizes if size >= 0x1000)
        self.aperture = 1 << spec.address_bits

    # -- groups ------------------------------------------------------------------------------------

    def attach(self, group: VfioGroup, *, allow_unsafe_interrupts: bool) -> None:
        """Put the devices of ``group`` behind these mappings. EINVAL, EPERM."""
        if group in self.groups:
            raise KernelError(errno.EINVAL, f"{group} is attached already")
        if self.kind == uapi.VFIO_TYPE1_NESTING_IOMMU and not self.host.profile.type1_nesting:
            raise KernelError(errno.EPERM, "the IOMMU driver refuses nesting for a domain that is in use")
        if not self.host.machine.board.iommu.interrupt_remapping and not allow_unsafe_interrupts:
            raise KernelError(errno.EPERM, "no interrupt remapping: a device could forge interrupts")
        self.groups.append(group)
        group.iommu.attach(self)

    def detach(self, group: VfioGroup) -> None:
        """Take the devices of ``group`` out."""
        self.groups.remove(group)
        group.iommu.detach()

    # -- what userspace asks -----------------------------------------------------------------------

    def check_extension(self, number: int) -> int:
        """CHECK_EXTENSION once this driver is chosen."""
        if number == uapi.VFIO_DMA_CC_IOMMU:
            return int(self.host.machine.board.iommu.coherent)
        return available_extension(self.host, number, chosen=True)

    def map(self, request: Any) -> None:
        """VFIO_IOMMU_MAP_DMA, header checked. EINVAL, EEXIST, ENOENT, ENOSPC, EFAULT, ERANGE."""
        read = bool(request.flags & uapi.VFIO_DMA_MAP_FLAG_READ)
        write = bool(request.flags & uapi.VFIO_DMA_MAP_FLAG_WRITE)
        known = uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE
        update = False
        if self._has(uapi.VFIO_UPDATE_VADDR):
            known |= uapi.VFIO_DMA_MAP_FLAG_VADDR
            update = bool(request.flags & uapi.VFIO_DMA_MAP_FLAG_VADDR)
        if request.flags & ~known:
            raise KernelError(errno.EINVAL, f"unknown MAP_DMA flags in {request.flags:#x}")
        if (read or write) == update:
            raise KernelError(errno.EINVAL, "a mapping must be readable or writable, a new vaddr neither")
        iova, size, vaddr = request.iova, request.size, request.vaddr
        if not size or (iova | size | vaddr) % self.page:
            raise KernelError(errno.EINVAL, f"iova, vaddr and size (not 0) must be multiples of {self.page:#x}")
        if iova + size > _U64 or vaddr + size > _U64:
            raise KernelError(errno.EINVAL, "the range wraps")
        present = self.first_overlapping(iova, size)
        if update:
            self._update_vaddr(present, iova, size, vaddr)
            return
        if present is not None:
            raise KernelError(errno.EEXIST, f"overlaps the mapping at {present.iova:#x}")
        self._check_room(iova, size)
        mm = self.host.current.mm
        if not mm.covers(vaddr, size, write=write):
            raise KernelError(errno.EFAULT, f"cannot pin user memory {vaddr:#x} + {size:#x}")
        if iova + size > self.aperture:
            raise KernelError(errno.ERANGE, f"the IOMMU takes addresses below {self.aperture:#x}")
        self.insert(IoMapping(iova, size, vaddr, mm, read=read, write=write))

    def unmap(self, request: Any, arg: UserPtr) -> None:
        """VFIO_IOMMU_UNMAP_DMA, header checked; ``request.size`` becomes the bytes removed. EINVAL, EFAULT."""
        everything, invalidate, bitmap = self._unmap_flags(request, arg)
        iova, size = request.iova, request.size
        if iova % self.page:
            raise KernelError(errno.EINVAL, f"iova must be a multiple of {self.page:#x}")
        if everything:
            if iova or size:
                raise KernelError(errno.EINVAL, "with ALL, iova and size must be 0")
            size = _U64
        elif not size or size % self.page or iova + size > _U64:
            raise KernelError(errno.EINVAL, f"size {size:#x} is zero, no multiple of the page, or wraps")
        found = self.overlapping(iova, size)
        if self.v2 and not everything:
            if found and (found[0].iova < iova or found[-1].end > iova + size):
                raise KernelError(errno.EINVAL, "the range cuts through a mapping")
        elif found and found[0].iova < iova:
            found = []  # v1: a range that starts inside a mapping removes nothing
        if bitmap is not None:
            dirty.report(self, found, iova, bitmap)
        if invalidate:
            if not all(mapping.vaddr_valid for mapping in found):
                raise KernelError(errno.EINVAL, "a vaddr in the range is invalid already")
            for mapping in found:
                mapping.vaddr_valid = False
        else:
            self.remove(found)
        request.size = sum(mapping.size for mapping in found)

    def iova_ranges(self) -> list[tuple[int, int]]:
        """The IOVA that may be mapped, as (first, last)."""
        return [(0, MSI_WINDOW.start - 1), (MSI_WINDOW.stop, self.aperture - 1)]

    # -- Dma: unlike iommufd, type1 also maps the registers of other devices --------------------------

    def _load(self, mm: UserMemory, address: int, size: int) -> bytes:
        return bus_read(self.host, mm, address, size)

    def _store(self, mm: UserMemory, address: int, data: bytes) -> None:
        bus_write(self.host, mm, address, data)

    # -- inside ------------------------------------------------------------------------------------

    def _check_room(self, iova: int, size: int) -> None:
        profile = self.host.profile
        if profile.type1_dma_limit and len(self) >= profile.type1_dma_limit:
            raise KernelError(errno.ENOSPC, f"{profile.type1_dma_limit} mappings exist already")
        if profile.type1_iova_ranges and not any(
            first <= iova and iova + size - 1 <= last for first, last in self.iova_ranges()
        ):
            raise KernelError(errno.EINVAL, f"iova {iova:#x} + {size:#x} is outside the valid ranges")

    def _update_vaddr(self, mapping: IoMapping | None, iova: int, size: int, vaddr: int) -> None:
        if mapping is None:
            raise KernelError(errno.ENOENT, "no mapping whose vaddr could be replaced")
        if mapping.vaddr_valid or (mapping.iova, mapping.size) != (iova, size):
            raise KernelError(errno.EINVAL, "only the whole of an invalidated mapping gets a new vaddr")
        mapping.vaddr, mapping.vaddr_valid, mapping.mm = vaddr, True, self.host.current.mm

    def _unmap_flags(self, request: Any, arg: UserPtr) -> tuple[bool, bool, Any]:
        """What the flags ask for: (all, invalidate vaddr, bitmap or None). EINVAL, EFAULT."""
        flags, known = request.flags, 0
        if self._has(uapi.VFIO_UNMAP_ALL):
            known |= uapi.VFIO_DMA_UNMAP_FLAG_ALL
        if self._has(uapi.VFIO_UPDATE_VADDR):
            known |= uapi.VFIO_DMA_UNMAP_FLAG_VADDR
        get_dirty = uapi.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP if self.host.profile.type1_dirty else 0
        if flags & ~(known | get_dirty) or (flags & get_dirty and flags & known):
            raise KernelError(errno.EINVAL, f"unknown or contradicting UNMAP_DMA flags in {flags:#x}")
        bitmap = dirty.bitmap_of_unmap(self, request, arg) if flags & get_dirty else None
        return bool(flags & uapi.VFIO_DMA_UNMAP_FLAG_ALL), bool(flags & uapi.VFIO_DMA_UNMAP_FLAG_VADDR), bitmap

    def _has(self, extension: int) -> bool:
        return extension in self.host.profile.type1_extensions

    def check(self) -> None:
        """Raise AssertionError when mappings overlap or a device is not where its group is."""
        self.check_order()
        for group in self.groups:
            for device in group.members:
                assert device.hw.dma is self, f"{device} of {group} is not behind its container's IOMMU"


def available_extension(host: Host, number: int, *, chosen: bool) -> int:
    """What type1 answers to CHECK_EXTENSION: 1 or 0. ``chosen``: a container uses it already."""
    if number == uapi.VFIO_UPDATE_VADDR and not chosen:
        return 0
    return int(number in host.profile.type1_extensions)
