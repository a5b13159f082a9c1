"""What KVM may use of VFIO: the external user API of drivers/vfio/vfio.c, as the RFC extends it.

An external user of a group keeps it in its container; one of a device only keeps the device object alive.
Closing the device's files still shuts the driver down, and unbinding the driver waits for the external user.
"""

from __future__ import annotations

import errno

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File
from kvmvfio_emu.kernel.vfio.bus import BusDevice
from kvmvfio_emu.kernel.vfio.device import VfioDevice, VfioDeviceFile
from kvmvfio_emu.kernel.vfio.group import GroupFile, VfioGroup

__all__ = [
    "BusDevice",
    "VfioDevice",
    "VfioGroup",
    "device_get_external_user",
    "device_put_external_user",
    "external_base_device",
    "external_check_extension",
    "external_user_iommu_id",
    "file_is_device",
    "file_is_group",
    "file_is_valid",
    "file_set_kvm",
    "group_get_external_user",
    "group_put_external_user",
]


def file_is_group(file: File | None) -> bool:
    """Whether ``file`` is an open /dev/vfio/N."""
    return isinstance(file, GroupFile)


def file_is_device(file: File | None) -> bool:
    """Whether ``file`` is an open VFIO device."""
    return isinstance(file, VfioDeviceFile)


def file_is_valid(file: File | None) -> bool:
    """Whether KVM may be told of ``file``: a group, and on newer kernels a device, however it was opened."""
    return file_is_group(file) or (isinstance(file, VfioDeviceFile) and file.host.profile.vfio_device_file_valid)


def file_set_kvm(file: File, kvm: object) -> None:
    """``kvm`` uses the group or device of ``file``, None: no more. The caller holds the file (`File.get`) meanwhile.

    Models vfio_file_set_kvm; a bound device learns nothing later, as in Linux.
    """
    if isinstance(file, GroupFile):
        file.group.kvm = kvm
    elif isinstance(file, VfioDeviceFile):
        file.kvm = kvm


def group_get_external_user(file: File | None) -> VfioGroup:
    """The group of ``file``, held for the caller. EINVAL.

    With the profile's ``group_add_needs_iommu`` the group must be viable and in a container with an IOMMU, and
    stays there; without it (newer kernels) the open file is held instead, whatever state the group is in.
    """
    if not isinstance(file, GroupFile):
        raise KernelError(errno.EINVAL, "not a VFIO group")
    group = file.group
    if file.host.profile.group_add_needs_iommu:
        if not group.container_users:
            raise KernelError(errno.EINVAL, f"{group.path} is in no container")
        if not group.has_iommu or not group.viable:
            raise KernelError(errno.EINVAL, f"{group.path} has no IOMMU, or is not viable")
        group.container_users += 1
        group.get()
    else:
        file.get()
    group.external_users += 1
    return group


def group_put_external_user(group: VfioGroup) -> None:
    """Give back what `group_get_external_user` gave."""
    assert group.external_users > 0, f"{group}: external user put once too often"
    group.external_users -= 1
    if group.vfio.host.profile.group_add_needs_iommu:
        group.leave_user()
        group.put()
    else:
        assert group.file is not None
        group.file.put()


def external_user_iommu_id(group: VfioGroup) -> int:
    """The number of the IOMMU group."""
    return group.number


def external_check_extension(group: VfioGroup, extension: int) -> int:
    """CHECK_EXTENSION on the group's container; 0 when it has none."""
    return group.container.check_extension(extension) if group.container is not None else 0


def device_get_external_user(file: File | None) -> VfioDevice:
    """The device of ``file``, held for the caller. EINVAL."""
    if not isinstance(file, VfioDeviceFile):
        raise KernelError(errno.EINVAL, "not a VFIO device")
    file.device.get()
    file.device.external_users += 1
    return file.device


def device_put_external_user(device: VfioDevice) -> None:
    """Give back what `device_get_external_user` gave."""
    assert device.external_users > 0, f"{device}: external user put once too often"
    device.external_users -= 1
    device.put()


def external_base_device(device: VfioDevice) -> BusDevice:
    """The device below: its ``bus``, and its interrupts by index."""
    return device.device
