"""The trapped calls on descriptors: ioctl, pread, pwrite. Those on paths are in `paths`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.supervisor.reply import CONTINUE, Reply, Value
from kvmvfio_emu.kernel.kvm.run import RunCall

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.hybrid import RealKvm
    from kvmvfio_emu.doors.supervisor.target import TargetTask

#: More than any region access; a longer one is done in part, as read and write may.
_MAX_TRANSFER = 1 << 20
_UINT = 0xFFFFFFFF

Handler = Callable[["TargetTask", tuple[int, ...]], Reply | RunCall]


class DescriptorCalls:
    """The handlers, by the name of their system call. Descriptors that are not ours go on to the real kernel.

    ``real_kvm``: what is ours of calls to the real KVM, where that serves the program.
    """

    def __init__(self, real_kvm: RealKvm | None = None) -> None:
        self._real_kvm = real_kvm
        self.handlers: dict[str, Handler] = {"ioctl": self._ioctl, "pread64": self._pread, "pwrite64": self._pwrite}

    def _ioctl(self, task: TargetTask, arguments: tuple[int, ...]) -> Reply | RunCall:
        file = task.fget(arguments[0] & _UINT)
        if file is None:
            if self._real_kvm is not None:
                return self._real_kvm.ioctl(task, arguments[1] & _UINT, arguments[2])
            return CONTINUE
        result = file.ioctl(arguments[1] & _UINT, arguments[2])
        return result if isinstance(result, RunCall) else Value(result)

    @staticmethod
    def _pread(task: TargetTask, arguments: tuple[int, ...]) -> Reply:
        file = task.fget(arguments[0] & _UINT)
        if file is None:
            return CONTINUE
        data = file.read(min(arguments[2], _MAX_TRANSFER), arguments[3])
        task.mm.write(arguments[1], data)
        return Value(len(data))

    @staticmethod
    def _pwrite(task: TargetTask, arguments: tuple[int, ...]) -> Reply:
        file = task.fget(arguments[0] & _UINT)
        if file is None:
            return CONTINUE
        data = bytes(task.mm.read(arguments[1], min(arguments[2], _MAX_TRANSFER)))
        return Value(file.write(data, arguments[3]))
