"""Devices that a driver bound to an iommufd, and what they are attached to; models drivers/iommu/iommufd/device.c."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu.hw.board import IommuSpec
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.iommu import IommuGroup
from kvmvfio_emu.kernel.iommufd.hwpt import Hwpt, Ioas, new_hwpt
from kvmvfio_emu.kernel.iommufd.objects import IommufdObject
from kvmvfio_emu.kernel.iopgtable import MSI_WINDOW

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.iommufd.file import IommufdFile

#: Puts a device behind a page table; what it left, for the caller to drop, or None.
_Attach = Callable[["BoundDevice", Hwpt], Hwpt | None]


class BoundGroup:
    """``struct iommufd_group``: an IOMMU group within one iommufd. All its attached devices share ``hwpt``."""

    def __init__(self, group: IommuGroup) -> None:
        self.group = group
        self.hwpt: Hwpt | None = None
        self.attached: list[BoundDevice] = []
        self.bound = 0


class BoundDevice(IommufdObject):
    """``struct iommufd_device``. Made by `bind`; its driver is a user until `unbind`."""

    def __init__(self, file: IommufdFile, group: BoundGroup) -> None:
        super().__init__()
        self.file = file
        self.group = group
        self.iommu: IommuSpec = file.host.machine.board.iommu
        self.users = 1

    # -- binding ---------------------------------------------------------------------------------------------

    @classmethod
    def bind(cls, file: IommufdFile, group: IommuGroup) -> BoundDevice:
        """Bind a device of ``group``. EINVAL: DMA is not coherent; EPERM: forged interrupts, or another owner."""
        iommu = file.host.machine.board.iommu
        if not iommu.coherent:
            raise KernelError(errno.EINVAL, "the IOMMU does not keep DMA coherent")
        if not iommu.interrupt_remapping and not file.module.allow_unsafe_interrupts:
            raise KernelError(errno.EPERM, "no interrupt remapping: a device could forge interrupts")
        group.claim(file)
        group.detach()
        bound = file.groups.setdefault(group.number, BoundGroup(group))
        bound.bound += 1
        device = cls(file, bound)
        file.get()
        file.objects.add(device)
        return device

    def unbind(self) -> None:
        """The driver lets go; the device is the host's again."""
        assert self not in self.group.attached, "unbound while attached"
        self.users -= 1
        self.file.objects.remove(self.id)

    def destroy(self) -> None:
        """It is out of the table."""
        self.group.group.release()
        self.group.bound -= 1
        if not self.group.bound:
            del self.file.groups[self.group.group.number]
        self.file.put()

    # -- attaching -------------------------------------------------------------------------------------------

    def attach(self, number: int) -> int:
        """Put it behind an IOAS or a page table; the number of the page table. ENOENT, EINVAL, EADDRINUSE, EFAULT."""
        chosen = self._change(number, _do_attach)
        self.users += 1
        return chosen

    def replace(self, number: int) -> int:
        """As `attach`, from the one that it is behind now, without a gap; all devices of the group move."""
        return self._change(number, _do_replace)

    def detach(self) -> None:
        """Its DMA is blocked, unless others of the group are still attached."""
        self.detach_from_hwpt().put(self.file.objects)
        self.users -= 1

    def attach_to(self, hwpt: Hwpt) -> None:
        """Put it behind ``hwpt``. EINVAL: its group is behind another; EADDRINUSE. iommufd_hw_pagetable_attach."""
        group = self.group
        if group.hwpt not in (None, hwpt):
            raise KernelError(errno.EINVAL, "the device's group is attached to another page table")
        self._reserve(hwpt)
        if not group.attached:
            group.group.attach(hwpt.ioas.space)
            group.hwpt = hwpt
        hwpt.users += 1
        group.attached.append(self)

    def detach_from_hwpt(self) -> Hwpt:
        """Take it away from its page table, which the caller drops."""
        group, hwpt = self.group, self.group.hwpt
        assert hwpt is not None
        group.attached.remove(self)
        if not group.attached:
            group.group.detach()
            group.hwpt = None
        hwpt.ioas.space.unreserve(self)
        return hwpt

    def _reserve(self, hwpt: Hwpt) -> None:
        hwpt.ioas.space.reserve(MSI_WINDOW.start, MSI_WINDOW.stop - 1, self)

    def _change(self, number: int, attach: _Attach) -> int:
        objects = self.file.objects
        target = objects.get(number, IommufdObject)
        if isinstance(target, Hwpt):
            left = attach(self, target)
        elif isinstance(target, Ioas):
            number, left = self._auto_attach(target, attach)
        else:
            raise KernelError(errno.EINVAL, f"object {number} is nothing to attach to")
        if left is not None:
            left.put(objects)
        return number

    def _auto_attach(self, ioas: Ioas, attach: _Attach) -> tuple[int, Hwpt | None]:
        """Into a page table that an earlier attach made, or a new one. Models iommufd_device_auto_get_domain."""
        for hwpt in ioas.hwpts:
            if hwpt.auto:
                try:
                    return hwpt.id, attach(self, hwpt)
                except KernelError as error:
                    if error.errno != errno.EINVAL:
                        raise
        left: Hwpt | None = None
        hwpt = new_hwpt(ioas, self, auto=True, attach=attach is _do_attach)
        if attach is not _do_attach:
            try:
                left = attach(self, hwpt)
            except KernelError:
                hwpt.destroy()
                raise
        self.file.objects.add(hwpt)
        return hwpt.id, left


def _do_attach(device: BoundDevice, hwpt: Hwpt) -> None:
    device.attach_to(hwpt)


def _do_replace(device: BoundDevice, hwpt: Hwpt) -> Hwpt | None:
    """Move the whole group. EINVAL: the device is not attached."""
    group, old = device.group, device.group.hwpt
    if old is None or device not in group.attached:
        raise KernelError(errno.EINVAL, "the device is not attached")
    if hwpt is old:
        return None
    if hwpt.ioas is not old.ioas:
        try:
            for member in group.attached:
                member._reserve(hwpt)
        except KernelError:
            for member in group.attached:
                hwpt.ioas.space.unreserve(member)
            raise
        for member in group.attached:
            old.ioas.space.unreserve(member)
    group.group.attach(hwpt.ioas.space)
    group.hwpt = hwpt
    hwpt.users += len(group.attached)
    old.users -= len(group.attached) - 1
    return old
