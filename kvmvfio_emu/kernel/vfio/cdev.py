"""A VFIO device's own node, /dev/vfio/devices/vfioN: used with an iommufd, without group and container.

Models drivers/vfio/device_cdev.c.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.iommufd.file import IommufdFile
from kvmvfio_emu.kernel.task import UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.device import VfioDeviceFile


def bind(file: VfioDeviceFile, request: Any, arg: UserPtr) -> None:
    """BIND_IOMMUFD: once, while the group is closed. The number of the device goes back."""
    device = file.device
    if request.flags or request.iommufd < 0:
        raise KernelError(errno.EINVAL, f"flags {request.flags:#x}, descriptor {request.iommufd}")
    if file.by_group:
        raise KernelError(errno.EINVAL, "opened through its group")
    device.group.block()
    try:
        if file.granted:
            raise KernelError(errno.EINVAL, f"{device.name} is bound already")
        iommufd = file.host.current.fget(request.iommufd)
        if not isinstance(iommufd, IommufdFile):
            raise KernelError(errno.EBADFD, f"descriptor {request.iommufd} is no iommufd")
        if device.open_count:
            raise KernelError(errno.EINVAL, f"{device.name} is in use through another file")
        device.start(iommufd)
        assert device.iommufd.bound is not None
        try:
            _answer(file, arg, "struct vfio_device_bind_iommufd", "out_devid", device.iommufd.bound.id)
        except KernelError:
            device.stop()
            raise
    except KernelError:
        device.group.unblock()
        raise
    file.granted = True


def attach(file: VfioDeviceFile, request: Any, arg: UserPtr) -> None:
    """ATTACH_IOMMUFD_PT: behind an IOAS or a page table, whose number goes back."""
    if request.flags:
        raise KernelError(errno.EINVAL, f"flags {request.flags:#x}")
    binding = file.device.iommufd
    number = binding.attach(request.pt_id)
    try:
        _answer(file, arg, "struct vfio_device_attach_iommufd_pt", "pt_id", number)
    except KernelError:
        binding.detach()
        raise


def detach(file: VfioDeviceFile, request: Any) -> None:
    """DETACH_IOMMUFD_PT: harmless when it is not attached."""
    if request.flags:
        raise KernelError(errno.EINVAL, f"flags {request.flags:#x}")
    file.device.iommufd.detach()


def _answer(file: VfioDeviceFile, arg: UserPtr, struct: str, field: str, value: int) -> None:
    offset = uapi.ffi.offsetof(struct, field)
    file.host.current.copy_to_user(arg, value.to_bytes(4, "little"), offset)
