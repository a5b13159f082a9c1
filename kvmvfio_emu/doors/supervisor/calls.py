"""The trapped calls on descriptors: ioctl, pread, pwrite. Those on paths are in `paths`."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.supervisor.reply import CONTINUE, Reply, Value
from kvmvfio_emu.kernel.calltrace import watched_call
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.run import RunCall

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.hybrid import RealKvm
    from kvmvfio_emu.doors.supervisor.target import TargetTask
    from kvmvfio_emu.kernel.file import File

#: More than any region access; a longer one is done in part, as read and write may.
_MAX_TRANSFER = 1 << 20
_PAGE = 4096
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
        file.host.call_fd = arguments[0] & _UINT
        result = file.ioctl(arguments[1] & _UINT, arguments[2])
        return result if isinstance(result, RunCall) else Value(result)

    @staticmethod
    def _pread(task: TargetTask, arguments: tuple[int, ...]) -> Reply:
        file = task.fget(arguments[0] & _UINT)
        if file is None:
            return CONTINUE
        _check_range(arguments)
        size, offset = min(arguments[2], _MAX_TRANSFER), arguments[3]
        if file.host.trace.calls:
            data = watched_call(
                file.host,
                "pread",
                lambda: file.read(size, offset),
                file=file,
                fd=arguments[0] & _UINT,
                size=size,
                offset=offset,
            )
        else:
            data = file.read(size, offset)
        task.mm.write(arguments[1], data)
        return Value(len(data))

    @staticmethod
    def _pwrite(task: TargetTask, arguments: tuple[int, ...]) -> Reply:
        file = task.fget(arguments[0] & _UINT)
        if file is None:
            return CONTINUE
        _check_range(arguments)
        wanted = min(arguments[2], _MAX_TRANSFER)
        data = _readable(task, arguments[1], wanted)
        if file.host.trace.calls:
            taken = watched_call(
                file.host,
                "pwrite",
                lambda: file.write(data, arguments[3]),
                file=file,
                fd=arguments[0] & _UINT,
                data=data,
                offset=arguments[3],
            )
        else:
            taken = file.write(data, arguments[3])
        if taken == len(data) < wanted and _goes_on(file, arguments[3] + taken):
            raise KernelError(errno.EFAULT, f"only {taken} of {wanted} bytes can be read")
        return Value(taken)


def _goes_on(file: File, offset: int) -> bool:
    """Whether there is something to write at ``offset``, or is the region's end there."""
    try:
        file.write(b"", offset)
    except KernelError as error:
        return error.errno != errno.EINVAL
    return True


def _check_range(arguments: tuple[int, ...]) -> None:
    """Models ksys_pread64 and vfs_read: a negative offset, a buffer that is longer than any address space."""
    if arguments[3] >> 63:
        raise KernelError(errno.EINVAL, "a negative offset")
    if arguments[1] + arguments[2] >> 63:
        raise KernelError(errno.EFAULT, "a buffer beyond the end of user memory")


def _readable(task: TargetTask, address: int, size: int) -> bytes:
    """As much of a buffer as there is: a device that takes less does not look at the rest."""
    try:
        return bytes(task.mm.read(address, size))
    except KernelError:
        data, end = bytearray(), address + size
        while address < end:
            part = min(end - address, _PAGE - address % _PAGE)
            try:
                data += task.mm.read(address, part)
            except KernelError:
                break
            address += part
        return bytes(data)
