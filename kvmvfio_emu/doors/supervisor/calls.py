"""The trapped calls on descriptors: ioctl, pread, pwrite. Those on paths are in `paths`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.supervisor.reply import CONTINUE, Reply, Value
from kvmvfio_emu.kernel.kvm.run import RunCall

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.target import TargetTask

#: More than any region access; a longer one is done in part, as read and write may.
_MAX_TRANSFER = 1 << 20
_UINT = 0xFFFFFFFF

Handler = Callable[["TargetTask", tuple[int, ...]], Reply | RunCall]


def ioctl(task: TargetTask, arguments: tuple[int, ...]) -> Reply | RunCall:
    """An ioctl with a type byte of ours: dispatched if the descriptor is one of ours, too."""
    file = task.fget(arguments[0] & _UINT)
    if file is None:
        return CONTINUE
    result = file.ioctl(arguments[1] & _UINT, arguments[2])
    return result if isinstance(result, RunCall) else Value(result)


def pread64(task: TargetTask, arguments: tuple[int, ...]) -> Reply:
    """A read at an offset: registers, if it is a device of ours."""
    file = task.fget(arguments[0] & _UINT)
    if file is None:
        return CONTINUE
    data = file.read(min(arguments[2], _MAX_TRANSFER), arguments[3])
    task.mm.write(arguments[1], data)
    return Value(len(data))


def pwrite64(task: TargetTask, arguments: tuple[int, ...]) -> Reply:
    """A write at an offset."""
    file = task.fget(arguments[0] & _UINT)
    if file is None:
        return CONTINUE
    return Value(file.write(bytes(task.mm.read(arguments[1], min(arguments[2], _MAX_TRANSFER))), arguments[3]))


HANDLERS: dict[str, Handler] = {"ioctl": ioctl, "pread64": pread64, "pwrite64": pwrite64}
