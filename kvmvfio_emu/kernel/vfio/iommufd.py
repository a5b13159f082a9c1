"""A VFIO device and the iommufd that has its DMA; models drivers/vfio/iommufd.c, its part for physical devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.iommufd.device import BoundDevice
    from kvmvfio_emu.kernel.iommufd.file import IommufdFile
    from kvmvfio_emu.kernel.vfio.device import VfioDevice


class IommufdBinding:
    """``vdev->iommufd_device`` and whether it is attached."""

    def __init__(self, device: VfioDevice) -> None:
        self.bound: BoundDevice | None = None
        self.attached = False
        self._device = device

    @property
    def file(self) -> IommufdFile | None:
        """The iommufd that it is bound to."""
        return None if self.bound is None else self.bound.file

    def bind(self, file: IommufdFile) -> None:
        """Bind it. EINVAL, EPERM."""
        from kvmvfio_emu.kernel.iommufd.device import BoundDevice  # here: kernels without iommufd do not load it

        self.bound = BoundDevice.bind(file, self._device.group.iommu)

    def unbind(self) -> None:
        """Detach and unbind it; harmless when it is not bound."""
        self.detach()
        bound, self.bound = self.bound, None
        if bound is not None:
            bound.unbind()

    def attach(self, number: int) -> int:
        """Put it behind an IOAS or a page table; the number of the page table. ENOENT, EINVAL, EADDRINUSE, EFAULT."""
        assert self.bound is not None
        number = self.bound.replace(number) if self.attached else self.bound.attach(number)
        self.attached = True
        return number

    def attach_compat(self, file: IommufdFile) -> None:
        """Put it behind the IOAS that VFIO's container ioctls mean. ENODEV, and as `attach`."""
        from kvmvfio_emu.kernel.iommufd.compat import compat_ioas

        self.attach(compat_ioas(file).id)

    def detach(self) -> None:
        """Block its DMA; harmless when it is not attached."""
        if self.attached:
            assert self.bound is not None
            self.bound.detach()
            self.attached = False
