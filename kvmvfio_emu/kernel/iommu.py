"""IOMMU groups as the IOMMU core keeps them: who owns their DMA, and what their devices translate with.

Models iommu_device_claim_dma_owner and iommu_attach_group of drivers/iommu/iommu.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from kvmvfio_emu.hw.devices.base import Device, Dma, NoDma
from kvmvfio_emu.kernel.errors import KernelError


class IommuGroup:
    """Devices that the IOMMU cannot tell apart. ``harmless``: no host driver does DMA with any of them."""

    def __init__(self, number: int, devices: Sequence[Device], harmless: Callable[[], bool]) -> None:
        self.number = number
        self.devices = devices
        self.owner: object = None
        self.owner_count = 0
        self._harmless = harmless

    def claim(self, owner: object) -> None:
        """``owner`` has the DMA of all of it, which is blocked at first. EPERM: another owner, or a host driver."""
        if self.owner_count:
            if self.owner is not owner:
                raise KernelError(errno.EPERM, f"IOMMU group {self.number} belongs to another user")
        elif not self._harmless():
            raise KernelError(errno.EPERM, f"a host driver uses a device of IOMMU group {self.number}")
        self.owner = owner
        self.owner_count += 1

    def release(self) -> None:
        """One claim less; the last gives the group back to the host."""
        assert self.owner_count > 0, f"IOMMU group {self.number} released once too often"
        self.owner_count -= 1
        if not self.owner_count:
            self.owner = None

    def attach(self, dma: Dma) -> None:
        """All its devices translate with ``dma`` from now on."""
        for device in self.devices:
            device.dma = dma

    def detach(self) -> None:
        """All its devices are blocked."""
        self.attach(NoDma())
