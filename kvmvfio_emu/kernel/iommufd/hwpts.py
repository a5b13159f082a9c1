"""What the ioctls on page tables and on a device's IOMMU do; models hw_pagetable.c and iommufd_get_hw_info.

An IOMMU without nesting, dirty tracking and self-description leaves little more than the order of the refusals.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.iommufd.device import BoundDevice
from kvmvfio_emu.kernel.iommufd.hwpt import Hwpt, Ioas, new_hwpt
from kvmvfio_emu.kernel.iommufd.objects import IommufdObject
from kvmvfio_emu.kernel.iommufd.pagetable import ULONG_MAX
from kvmvfio_emu.kernel.task import UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.iommufd.file import IommufdFile

_CHUNK = 1 << 16


def alloc(file: IommufdFile, command: Any, arg: UserPtr) -> None:
    """IOMMU_HWPT_ALLOC."""
    if command.__reserved:
        raise KernelError(errno.EOPNOTSUPP, "a reserved field is set")
    if (command.data_type == uapi.IOMMU_HWPT_DATA_NONE) != (command.data_len == 0):
        raise KernelError(errno.EINVAL, "data of no type, or a type without data")
    device = file.objects.get(command.dev_id, BoundDevice)
    try:
        source = file.objects.get(command.pt_id, IommufdObject)
    except KernelError:
        raise KernelError(errno.EINVAL, f"no object {command.pt_id}") from None
    if isinstance(source, Hwpt):
        if command.flags & ~uapi.IOMMU_HWPT_FAULT_ID_VALID or not command.data_len:
            raise KernelError(errno.EOPNOTSUPP, "nesting needs data, and has no such flag")
        raise KernelError(errno.EINVAL, f"page table {source.id} was not made to be a parent")
    if not isinstance(source, Ioas):
        raise KernelError(errno.EINVAL, f"object {source.id} is no address space")
    if command.data_len:
        raise KernelError(errno.EOPNOTSUPP, "the IOMMU driver takes no data")
    hwpt = new_hwpt(source, device, command.flags)
    file.objects.add(hwpt)
    command.out_hwpt_id = hwpt.id
    try:
        file.respond(arg, command)
    except KernelError:
        file.objects.remove(hwpt.id)
        raise


def hw_info(file: IommufdFile, command: Any, arg: UserPtr) -> None:
    """IOMMU_GET_HW_INFO: the driver has nothing to tell, so the caller's buffer is cleared."""
    if command.flags or command.__reserved:
        raise KernelError(errno.EOPNOTSUPP, f"flags {command.flags:#x}, or a reserved field is set")
    file.objects.get(command.dev_id, BoundDevice)
    for done in range(0, command.data_len, _CHUNK):
        part = min(_CHUNK, command.data_len - done)
        file.host.current.copy_to_user(int(command.data_uptr), bytes(part), done)
    command.data_len = 0
    command.out_data_type = uapi.IOMMU_HW_INFO_TYPE_NONE
    command.out_capabilities = 0
    file.respond(arg, command)


def set_dirty_tracking(file: IommufdFile, command: Any) -> None:
    """IOMMU_HWPT_SET_DIRTY_TRACKING."""
    if not command.flags & ~uapi.IOMMU_HWPT_DIRTY_TRACKING_ENABLE:
        file.objects.get(command.hwpt_id, Hwpt)
    raise KernelError(errno.EOPNOTSUPP, "unknown flags, or an IOMMU without dirty tracking")


def get_dirty_bitmap(file: IommufdFile, command: Any) -> None:
    """IOMMU_HWPT_GET_DIRTY_BITMAP."""
    if command.flags & ~uapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR or command.__reserved:
        raise KernelError(errno.EOPNOTSUPP, f"unknown flags in {command.flags:#x}, or a reserved field is set")
    alignment = file.objects.get(command.hwpt_id, Hwpt).ioas.space.alignment
    end = command.iova + command.length
    if not command.length or end - 1 > ULONG_MAX:
        raise KernelError(errno.EOVERFLOW, f"{command.iova:#x} + {command.length:#x} is no range")
    for unit in (alignment, int(command.page_size)):
        if not unit or command.iova % unit or end % unit:
            raise KernelError(errno.EINVAL, f"the range is not aligned to {unit:#x}")
    raise KernelError(errno.EOPNOTSUPP, "the IOMMU has no dirty tracking")


def invalidate(file: IommufdFile, command: Any, arg: UserPtr) -> None:
    """IOMMU_HWPT_INVALIDATE; how many entries were done is told in any case."""
    entries, command_number = int(command.entry_num), int(command.hwpt_id)
    reserved, incomplete = command.__reserved, entries and not (command.data_uptr and command.entry_len)
    command.entry_num = 0
    file.respond(arg, command)
    if reserved:
        raise KernelError(errno.EOPNOTSUPP, "a reserved field is set")
    if incomplete:
        raise KernelError(errno.EINVAL, f"{entries} entries without place or size")
    raise KernelError(errno.ENOENT, f"{command_number} is no nested page table")
