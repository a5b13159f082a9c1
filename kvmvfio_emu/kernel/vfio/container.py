"""Containers, /dev/vfio/vfio: an IOMMU context that groups share; models drivers/vfio/vfio.c.

The container outlives its file while groups are in it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, ClassVar

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.task import UserPtr
from kvmvfio_emu.kernel.vfio import dirty, type1_info
from kvmvfio_emu.kernel.vfio.type1 import Type1, available_extension

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.group import VfioGroup
    from kvmvfio_emu.kernel.vfio.module import Vfio


class Container:
    """``struct vfio_container``. Referenced by its file and by each group in it."""

    def __init__(self, vfio: Vfio) -> None:
        self.vfio = vfio
        self.refs = 1
        self.groups: list[VfioGroup] = []
        self.iommu: Type1 | None = None

    def put(self) -> None:
        """One holder less."""
        assert self.refs > 0, "container put once too often"
        self.refs -= 1
        assert self.refs or not self.groups, "a container dies with groups in it"

    def attach(self, group: VfioGroup) -> None:
        """Take ``group`` in; with an IOMMU chosen already its devices come behind it at once."""
        if self.iommu is not None:
            self.iommu.attach(group, allow_unsafe_interrupts=self.vfio.allow_unsafe_interrupts)
        self.groups.append(group)
        self.refs += 1

    def detach(self, group: VfioGroup) -> None:
        """``group`` leaves. With the last one the IOMMU goes, and with it every mapping."""
        self.groups.remove(group)
        if self.iommu is not None:
            self.iommu.detach(group)
            if not self.groups:
                self.iommu = None
        self.put()

    def set_iommu(self, kind: int) -> None:
        """Choose the IOMMU driver for all groups. EINVAL, ENODEV, EPERM."""
        if not self.groups or self.iommu is not None:
            raise KernelError(errno.EINVAL, "the container has no group, or an IOMMU already")
        if available_extension(self.vfio.host, kind, chosen=False) <= 0:
            raise KernelError(errno.ENODEV, f"no IOMMU driver does type {kind}")
        iommu = Type1(self.vfio.host, kind)
        try:
            for group in self.groups:
                iommu.attach(group, allow_unsafe_interrupts=self.vfio.allow_unsafe_interrupts)
        except KernelError:
            for group in tuple(iommu.groups):
                iommu.detach(group)
            raise
        self.iommu = iommu

    def check_extension(self, number: int) -> int:
        """CHECK_EXTENSION: the chosen driver's answer, or the best of all before one is chosen."""
        if self.iommu is not None:
            return self.iommu.check_extension(number)
        return available_extension(self.vfio.host, number, chosen=False)


class ContainerFile(File):
    """An open /dev/vfio/vfio."""

    kind = "container"
    link = "/dev/vfio/vfio"

    _own: ClassVar[frozenset[int]] = frozenset(
        {uapi.VFIO_GET_API_VERSION, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_SET_IOMMU}
    )

    def __init__(self, vfio: Vfio) -> None:
        super().__init__(vfio.host)
        self.container = Container(vfio)

    @property
    def _iommu(self) -> Type1:
        assert self.container.iommu is not None
        return self.container.iommu

    @ioctl(uapi.VFIO_GET_API_VERSION)
    def get_api_version(self, _arg: UserPtr) -> int:
        """Always 0."""
        return int(uapi.VFIO_API_VERSION)

    @ioctl(uapi.VFIO_CHECK_EXTENSION, value=True)
    def check_extension(self, number: int) -> int:
        """1 when the extension is there, else 0."""
        return self.container.check_extension(number)

    @ioctl(uapi.VFIO_SET_IOMMU, value=True)
    def set_iommu(self, kind: int) -> int:
        """Choose the IOMMU driver. EINVAL, ENODEV, EPERM."""
        self.container.set_iommu(kind)
        return 0

    @ioctl(uapi.VFIO_IOMMU_GET_INFO, "struct vfio_iommu_type1_info", minsz=16, argsz=True, out=True, tail=True)
    def iommu_get_info(self, info: Any, arg: UserPtr) -> int:
        """Page sizes, and on newer kernels a chain of capabilities. EINVAL, EFAULT."""
        type1_info.fill(self._iommu, info, arg)
        return 0

    @ioctl(uapi.VFIO_IOMMU_MAP_DMA, "struct vfio_iommu_type1_dma_map", argsz=True)
    def iommu_map_dma(self, request: Any) -> int:
        """Give the devices client memory at an IOVA. EINVAL, EEXIST, EFAULT, ERANGE, ENOSPC, ENOENT."""
        self._iommu.map(request)
        return 0

    @ioctl(uapi.VFIO_IOMMU_UNMAP_DMA, "struct vfio_iommu_type1_dma_unmap", argsz=True, out=True, tail=True)
    def iommu_unmap_dma(self, request: Any, arg: UserPtr) -> int:
        """Take mappings back; ``size`` tells how much that was. EINVAL, EFAULT."""
        self._iommu.unmap(request, arg)
        return 0

    @ioctl(uapi.VFIO_IOMMU_DIRTY_PAGES, when="type1_dirty")
    def iommu_dirty_pages(self, arg: UserPtr) -> int:
        """Which pages devices may have written. EACCES, EINVAL, EFAULT."""
        dirty.dirty_pages(self._iommu, arg)
        return 0

    # Last in the class, since it hides the decorator of the same name.
    def ioctl(self, request: int, arg: UserPtr) -> Any:
        """What is not the container's own goes to the IOMMU driver; without one it is EINVAL, unread."""
        if self.container.iommu is None and request not in self._own:
            raise KernelError(errno.EINVAL, f"no IOMMU is set to take ioctl {request:#010x}")
        return super().ioctl(request, arg)

    def release(self) -> None:
        """The groups in it keep the container."""
        self.container.put()
