"""`--real kvm`: the host's KVM serves the program, our VFIO its devices; what the two have to say to each other.

Interrupts need nothing: a real irqfd and our VFIO meet at real eventfds. Only the KVM-VFIO device has to be told of
VFIO groups, and the real one cannot know ours, so its ADD and DEL of them are answered here.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.doors.supervisor.reply import CONTINUE, Reply, Value
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.vfio import external

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.target import TargetTask
    from kvmvfio_emu.kernel.file import File

#: The only request to a real KVM file that is looked at; the filter lets all others pass.
REQUESTS = (uapi.KVM_SET_DEVICE_ATTR,)


class RealKvm:
    """The groups of ours that programs have made known to their real KVM-VFIO devices.

    Which device it was is not told apart: one a process, as one a virtual machine.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], tuple[File, external.VfioGroup]] = {}

    def ioctl(self, task: TargetTask, request: int, argument: int) -> Reply:
        """An ioctl on a file that is not ours. EEXIST, ENOENT, EINVAL as the KVM-VFIO device."""
        if request not in REQUESTS:
            return CONTINUE
        raw = task.copy_from_user(argument, uapi.sizeof("struct kvm_device_attr"))
        attr = uapi.view("struct kvm_device_attr", raw)
        if attr.group != uapi.KVM_DEV_VFIO_GROUP:
            return CONTINUE
        try:
            fd = int.from_bytes(task.copy_from_user(attr.addr, 4), "little", signed=True)
            file = task.fget(fd)
        except KernelError:
            return CONTINUE  # some other device's group 1, or a mistake that the real one will name
        if file is None or not external.file_is_group(file):
            return CONTINUE
        key = (task.tgid, id(file))
        if attr.attr == uapi.KVM_DEV_VFIO_GROUP_ADD:
            self._add(key, file)
        elif attr.attr == uapi.KVM_DEV_VFIO_GROUP_DEL:
            self._delete(key)
        else:
            raise KernelError(errno.ENXIO, f"KVM-VFIO has no attribute {attr.attr} in its group")
        return Value(0)

    def _add(self, key: tuple[int, int], file: File) -> None:
        if key in self._groups:
            raise KernelError(errno.EEXIST, "the group was added already")
        self._groups[key] = (file, external.group_get_external_user(file))

    def _delete(self, key: tuple[int, int]) -> None:
        if key not in self._groups:
            raise KernelError(errno.ENOENT, "the group was not added")
        external.group_put_external_user(self._groups.pop(key)[1])

    def release(self) -> None:
        """All programs are gone, and their KVM-VFIO devices with them."""
        for _, group in self._groups.values():
            external.group_put_external_user(group)
        self._groups.clear()
