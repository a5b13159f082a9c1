"""Address spaces and the hardware page tables that are filled from them; models hw_pagetable.c and ioas.c of iommufd.

The emulated IOMMU has neither nested translation nor dirty tracking, as QEMU's SMMUv3 under Linux 6.12.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu.hw.board import IommuSpec
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.iommufd.objects import IommufdObject, Objects
from kvmvfio_emu.kernel.iommufd.pagetable import IovaSpace

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.iommufd.device import BoundDevice


class Ioas(IommufdObject):
    """An I/O address space. ``hwpts``: the page tables that show it."""

    def __init__(self) -> None:
        super().__init__()
        self.space = IovaSpace()
        self.hwpts: list[Hwpt] = []

    def destroy(self) -> None:
        """All mappings go."""
        self.space.unmap_all()


class Hwpt(IommufdObject):
    """``struct iommufd_hwpt_paging``: a domain. ``auto``: made by attaching to an IOAS, gone with its last device."""

    def __init__(self, ioas: Ioas, spec: IommuSpec, *, auto: bool) -> None:
        super().__init__()
        self.ioas = ioas
        self.auto = auto
        ioas.users += 1
        self._spec = spec

    def fill(self) -> None:
        """Show the IOAS from now on. EINVAL, EADDRINUSE, EFAULT."""
        self.ioas.space.add_domain(self, min(self._spec.page_sizes), 1 << self._spec.address_bits)
        self.ioas.hwpts.append(self)

    def destroy(self) -> None:
        """Stop showing it."""
        if self in self.ioas.hwpts:
            self.ioas.hwpts.remove(self)
            self.ioas.space.remove_domain(self)
        self.ioas.users -= 1

    def put(self, objects: Objects) -> None:
        """A device left it."""
        self.users -= 1
        if self.auto and not self.users:
            objects.remove(self.id)


def new_hwpt(ioas: Ioas, device: BoundDevice, flags: int = 0, *, auto: bool = False, attach: bool = False) -> Hwpt:
    """A domain for ``device`` that shows ``ioas``, not in the table yet; ``attach`` puts the device behind it.

    EOPNOTSUPP: any flag; EINVAL, EADDRINUSE, EFAULT. Models iommufd_hwpt_paging_alloc.
    """
    if flags:
        raise KernelError(errno.EOPNOTSUPP, f"the IOMMU driver does none of flags {flags:#x}")
    hwpt = Hwpt(ioas, device.iommu, auto=auto)
    try:
        if attach:
            device.attach_to(hwpt)
        try:
            hwpt.fill()
        except KernelError:
            if attach:
                device.detach_from_hwpt().users -= 1
            raise
    except KernelError:
        hwpt.destroy()
        raise
    return hwpt
