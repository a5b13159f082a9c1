"""Resetting PCI devices, one function or a whole bus; models the reset part of drivers/vfio/pci/vfio_pci_core.c.

A bus behind a bridge can be reset as a whole if the caller holds every group on it; a root bus cannot.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import pci as regs
from kvmvfio_emu.hw.devices.pci import PciDevice
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.task import UserPtr
from kvmvfio_emu.kernel.vfio.bus import BusDevice
from kvmvfio_emu.kernel.vfio.group import GroupFile

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.pci import VfioPciDevice

_HEADER = 12  #: argsz, flags, count
_DEVICE = struct.Struct("=IHBB")  #: group, segment, bus, device and function
_FD = 4
_OWNED, _NOT_OWNED = uapi.VFIO_PCI_DEVID_OWNED, uapi.VFIO_PCI_DEVID_NOT_OWNED


def reset_function(hw: PciDevice) -> None:
    """Reset it alone, its configuration kept; models pci_try_reset_function."""
    function = hw.function
    function.wake()
    saved = function.save()
    function.command = regs.COMMAND_INTX_DISABLE
    hw.reset()
    function.restore(saved)


def hot_reset_info(device: VfioPciDevice, info: Any, arg: UserPtr) -> int:
    """Fill in which devices a bus reset takes along. ENODEV, ENOSPC (with the count)."""
    affected = _on_bus(device)
    task = device.host.current
    flags, numbers = 0, [member.spec.group for member in affected]
    if uses_own_node(device):
        owners = [_owner_number(device, member) for member in affected]
        flags = uapi.VFIO_PCI_HOT_RESET_FLAG_DEV_ID
        if _NOT_OWNED not in owners:
            flags |= uapi.VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED
        numbers = [owner & 0xFFFFFFFF for owner in owners]
    room = info.argsz >= _HEADER + _DEVICE.size * len(affected)
    task.copy_to_user(arg, struct.pack("=III", info.argsz, flags, len(affected)))
    if not room:
        raise KernelError(errno.ENOSPC, f"{len(affected)} devices do not fit argsz {info.argsz}")
    entries = (_DEVICE.pack(number, *_address(member.name)) for number, member in zip(numbers, affected, strict=True))
    task.copy_to_user(arg, b"".join(entries), _HEADER)
    return 0


def uses_own_node(device: VfioPciDevice) -> bool:
    """Whether it was opened through its own node, so that numbers in its iommufd stand for groups."""
    return device.iommufd.bound is not None and device.group.node_users > 0


def _owner_number(device: VfioPciDevice, member: BusDevice) -> int:
    """``member`` as the iommufd of ``device`` knows it: a number, owned by its group, or not owned.

    Models vfio_iommufd_get_dev_id.
    """
    iommufd = device.iommufd.file
    assert iommufd is not None
    for found in device.vfio.registered.values():
        if found.device is member and found.iommufd.bound is not None and found.iommufd.file is iommufd:
            return found.iommufd.bound.id
    return _OWNED if iommufd.device_of_group(member.spec.group) else _NOT_OWNED


def hot_reset(device: VfioPciDevice, request: Any, arg: UserPtr) -> int:
    """Reset the bus; the caller proves with group descriptors that all of it is its own. EINVAL, ENODEV, EBADF."""
    if request.flags:
        raise KernelError(errno.EINVAL, f"flags {request.flags:#x}")
    if device.host.profile.vfio_device_cdev and bool(request.count) == uses_own_node(device):
        raise KernelError(errno.EINVAL, f"{request.count} groups: none through a device's own node, some otherwise")
    affected = _on_bus(device)
    if uses_own_node(device):
        if any(_owner_number(device, member) == _NOT_OWNED for member in affected):
            raise KernelError(errno.EINVAL, "the iommufd does not have all of the bus")
        _reset_all(affected)
        return 0
    if not 0 < request.count <= len(affected):
        raise KernelError(errno.EINVAL, f"{request.count} groups for {len(affected)} devices")
    task = device.host.current
    groups: set[int] = set()
    for (fd,) in struct.iter_unpack("=i", task.copy_from_user(arg, _FD * request.count, _HEADER)):
        file = task.fget(fd)
        if not isinstance(file, GroupFile):
            raise KernelError(errno.EINVAL, f"descriptor {fd} is no VFIO group")
        groups.add(file.group.number)
    for member in affected:
        if member.spec.group not in groups:
            raise KernelError(errno.EINVAL, f"{member.name} is in a group that was not given")
    _reset_all(affected)
    return 0


def _reset_all(affected: list[BusDevice]) -> None:
    for member in affected:
        assert isinstance(member.hw, PciDevice)
        reset_function(member.hw)


def _on_bus(device: VfioPciDevice) -> list[BusDevice]:
    """The devices that share its bus. ENODEV on a root bus, which nothing above can reset."""
    segment, bus, _ = _address(device.name)
    if not bus:
        raise KernelError(errno.ENODEV, f"{device.name} is on a root bus")
    others = device.vfio.devices.values()
    return [other for other in others if other.bus == "pci" and _address(other.name)[:2] == (segment, bus)]


def _address(name: str) -> tuple[int, int, int]:
    """Segment, bus, and device with function, of a name like 0000:01:00.0."""
    segment, bus, slot = name.split(":")
    number, _, function = slot.partition(".")
    return int(segment, 16), int(bus, 16), int(number, 16) << 3 | int(function)
