"""`current` for the in-process door: our own memory, our own descriptors."""

from __future__ import annotations

import errno
import os
import signal
from os import close  # bound here: not what `Kernel.installed` may put in its place
from typing import TYPE_CHECKING
from weakref import WeakSet

from kvmvfio_emu.doors.blocking import Signals
from kvmvfio_emu.doors.descriptors import Descriptors
from kvmvfio_emu.doors.eventfds import eventfd_key, held_elsewhere
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFd
from kvmvfio_emu.kernel.file import File
from kvmvfio_emu.kernel.task import Task, UserPtr
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.host import Host

#: What `fcntl.ioctl` gives the kernel to read and write, however short the caller's buffer is.
_WINDOW = 1024


#: All that exist: after fork the child has another memory, so its kernels serve it as another process.
_tasks: WeakSet[LocalTask] = WeakSet()


def _forked() -> None:
    for task in _tasks:
        task.forked()


os.register_at_fork(after_in_child=_forked)


class LocalTask(Task):
    """This process. A user pointer is an address, or a buffer object that was handed over as such."""

    def __init__(self, host: Host, descriptors: Descriptors) -> None:
        self.tid = os.getpid()
        self.mm = UserMemory(self.tid)
        self.signals = Signals(host.poller)
        self._host = host
        self._descriptors = descriptors
        _tasks.add(self)

    def forked(self) -> None:
        """In the child of a fork: it works on a copy of the kernel, so nothing real may be shared with the parent."""
        self.tid = os.getpid()
        self.mm = UserMemory(self.tid)
        if not self._host.poller.closed:
            self._host.poller.forked()
            self._descriptors.forked()

    # -- memory -----------------------------------------------------------------------------------------------

    def copy_from_user(self, pointer: UserPtr, size: int, offset: int = 0) -> bytearray:
        """As `Task`; a buffer that is too short reads as zeroes after its end, as the C wrapper's would."""
        if type(pointer) is int:
            return self.mm.read(pointer + offset, size)
        assert not isinstance(pointer, int)
        part = (
            pointer[offset : offset + size]
            if type(pointer) is bytearray
            else bytearray(pointer[offset : offset + size])
        )
        if len(part) != size:
            self._check_window(pointer, offset + size)
            part.extend(bytes(size - len(part)))
        return part

    def copy_to_user(self, pointer: UserPtr, data: bytes | bytearray | memoryview, offset: int = 0) -> None:
        """As `Task`; what does not fit into a buffer that is too short is lost, as in the C wrapper's copy."""
        if isinstance(pointer, int):
            self.mm.write(pointer + offset, data)
            return
        room = max(len(pointer) - offset, 0)
        if room < len(data):
            self._check_window(pointer, offset + len(data))
        pointer[offset : offset + min(room, len(data))] = bytes(data[:room])

    @staticmethod
    def _check_window(pointer: bytearray | memoryview, end: int) -> None:
        if end > _WINDOW:
            raise KernelError(errno.EFAULT, f"a buffer of {len(pointer)} bytes was given for {end}")

    # -- descriptors --------------------------------------------------------------------------------------------

    def fget(self, fd: int) -> File | None:
        """As `Task`."""
        try:
            return self._descriptors.find(_c_int(fd))
        except OSError as error:
            raise KernelError(errno.EBADF, f"descriptor {fd}: {error.strerror}") from None

    def eventfd(self, fd: int) -> EventFd:
        """As `Task`."""
        number = _c_int(fd)
        key = eventfd_key(number)
        if key is None:
            raise KernelError(errno.EINVAL, f"descriptor {fd} is not an eventfd")
        try:
            return self._host.eventfds.adopt(key, os.dup(number))
        except OSError as error:
            raise KernelError(error.errno or errno.EBADF, f"descriptor {fd}: {error.strerror}") from None

    def abandoned(self, eventfd: EventFd) -> bool:
        """As `Task`."""
        return not held_elsewhere(eventfd.key, eventfd.fd)

    def install(self, file: File) -> int:
        """As `Task`."""
        return self._descriptors.install(file)

    def uninstall(self, fd: int) -> None:
        """As `Task`."""
        close(fd)
        self._descriptors.drain()

    def signal_pending(self, blocked: int | None = None) -> bool:
        """Whether a signal came during this call; Python has run its handler by then, unless the process blocks it."""
        heard = self.signals.heard
        if blocked is None:
            return bool(heard)
        return any(not blocked >> number - 1 & 1 for number in {*heard, *signal.sigpending()})

    # -- eventfds that somebody closes ------------------------------------------------------------------------------

    def awaited(self, fd: int) -> int | None:
        """The number of the eventfd behind ``fd`` if a kernel of this process waits for its signals."""
        if not any(eventfd.waiters for task in _tasks for eventfd in task._host.eventfds.held()):
            return None
        try:
            return eventfd_key(fd)
        except KernelError:
            return None

    def hang_up(self, key: int) -> None:
        """A descriptor of eventfd ``key`` was closed. If it was the last one, tell those who wait."""
        found = [eventfd for task in _tasks if (eventfd := task._host.eventfds.find(key)) is not None]
        ours = {eventfd.fd for task in _tasks for eventfd in task._host.eventfds.held()}
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in ours:
                try:
                    if eventfd_key(int(name)) == key:
                        return
                except KernelError:
                    continue  # the directory's own descriptor, closed by now
        for eventfd in found:
            eventfd.closed()


def _c_int(fd: int) -> int:
    """A descriptor as the kernel takes it: unsigned, so that a negative one is simply not open."""
    if not 0 <= fd <= 0x7FFFFFFF:
        raise KernelError(errno.EBADF, f"descriptor {fd} is not open")
    return fd
