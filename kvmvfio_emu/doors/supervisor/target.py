"""`current` for a supervised thread: its memory by process_vm_readv, its descriptors by /proc and pidfd_getfd."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.eventfds import eventfd_key, held_elsewhere
from kvmvfio_emu.doors.supervisor.userpath import read_path
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFd
from kvmvfio_emu.kernel.file import File
from kvmvfio_emu.kernel.task import Task
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.doors.descriptors import Descriptors
    from kvmvfio_emu.doors.supervisor.notify import Listener
    from kvmvfio_emu.kernel.host import Host

_PIDFD_THREAD = os.O_EXCL  # Linux 6.9: a pidfd of any thread, not only of a leader
_SYS_PIDFD_GETFD = 438
#: Seconds between two looks at the pending signals of a thread in KVM_RUN: each costs as much as a whole ioctl.
_LOOK_AGAIN = 0.001

_libc = ctypes.CDLL(None, use_errno=True)


class TargetTask(Task):
    """Thread ``tid`` of a supervised process.

    ``proc`` is an open directory /proc/TID: look-ups through it fail once the thread is gone, even if its number is
    in use again.
    """

    def __init__(self, tid: int, host: Host, descriptors: Descriptors, listener: Listener) -> None:
        self.tid = tid
        try:
            self.proc = os.open(f"/proc/{tid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ProcessLookupError(errno.ESRCH, f"thread {tid} is gone") from None
        try:
            status = self._status()
        except OSError:
            os.close(self.proc)
            raise ProcessLookupError(errno.ESRCH, f"thread {tid} is gone") from None
        self.tgid = int(status[b"Tgid"])
        self.mm = UserMemory(tid)
        self.notification = 0  #: id of the call that is being served
        self._pidfd = -1
        self._looked = 0.0
        self.host = host
        self._descriptors = descriptors
        self._listener = listener

    def alive(self) -> bool:
        """Whether the thread still exists."""
        try:
            os.stat("fd", dir_fd=self.proc)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give our descriptors of it back."""
        os.close(self.proc)
        if self._pidfd >= 0:
            os.close(self._pidfd)

    # -- memory -----------------------------------------------------------------------------------------------

    def read_path(self, address: int) -> bytes:
        """The path at ``address``. EFAULT, ENAMETOOLONG."""
        return read_path(self.mm.pid, address)

    # -- descriptors --------------------------------------------------------------------------------------------

    def fget(self, fd: int) -> File | None:
        """As `Task`."""
        try:
            status = os.stat(f"fd/{fd}", dir_fd=self.proc)
        except OSError:
            if not self.alive():
                raise ProcessLookupError(errno.ESRCH, f"thread {self.tid} is gone") from None
            raise KernelError(errno.EBADF, f"descriptor {fd} is not open") from None
        return self.host.inodes.get((status.st_dev, status.st_ino))

    def fdget(self, fd: int) -> File | None:
        """As `Task`."""
        file = self.fget(fd)
        if file is None and self.description_flags(fd) & os.O_PATH:
            raise KernelError(errno.EBADF, f"descriptor {fd} is only a path (O_PATH)")
        return file

    def description_flags(self, fd: int) -> int:
        """The flags of an open file description, as F_GETFL has them on a kernel without ours between. EBADF."""
        info = os.open(f"fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        with os.fdopen(info, "rb", buffering=0) as file:
            lines = file.read(4096).splitlines()
        flags = next(line.partition(b":")[2] for line in lines if line.startswith(b"flags:"))
        return int(flags, 8) & ~os.O_CLOEXEC

    def eventfd(self, fd: int) -> EventFd:
        """As `Task`."""
        key = eventfd_key(fd, self.proc)
        if key is None:
            raise KernelError(errno.EINVAL, f"descriptor {fd} is not an eventfd")
        return self.host.eventfds.adopt(key, self.take_fd(fd))

    def take_fd(self, fd: int) -> int:
        """Our own duplicate of the target's descriptor ``fd``. EBADF, EMFILE, EPERM."""
        if self._pidfd < 0:
            self._pidfd = self._open_pidfd()
        ours = _libc.syscall(_SYS_PIDFD_GETFD, self._pidfd, fd, 0)
        if ours < 0:
            raise KernelError(ctypes.get_errno(), f"pidfd_getfd of descriptor {fd} failed")
        return int(ours)

    def abandoned(self, eventfd: EventFd) -> bool:
        """As `Task`."""
        return not held_elsewhere(eventfd.key, eventfd.fd)

    def install(self, file: File, flags: int = os.O_RDWR, *, cloexec: bool = True) -> int:
        """As `Task`: the descriptor appears in the target at once."""
        ours = self._descriptors.install(file, flags)
        try:
            return self._listener.add_fd(self.notification, ours, cloexec=cloexec)
        except OSError as error:
            raise KernelError(error.errno or errno.EMFILE, "the target takes no further descriptor") from None
        finally:
            os.close(ours)  # if the target has no copy, this was the last one

    def uninstall(self, fd: int) -> None:
        """A descriptor in the target cannot be taken back; it is closed with the target."""

    # -- signals ------------------------------------------------------------------------------------------------

    def signal_pending(self, blocked: int | None = None) -> bool:
        """Whether a signal waits that is not in ``blocked`` (a mask, bit 0 is signal 1; None: the thread's own)."""
        now = time.monotonic()
        if blocked is None and now - self._looked < _LOOK_AGAIN:
            return False  # an unblocked signal of a waiting thread is not missed, only seen a little later
        try:
            status = self._status()
        except OSError:
            return True  # it is gone: whatever waits for it should end
        pending = int(status[b"SigPnd"], 16) | int(status[b"ShdPnd"], 16)
        found = bool(pending & ~(int(status[b"SigBlk"], 16) if blocked is None else blocked))
        self._looked = 0.0 if found else now  # who has been told of one asks again, on the way out
        return found

    def _status(self) -> dict[bytes, bytes]:
        fd = os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        with os.fdopen(fd, "rb", buffering=0) as file:
            lines = file.read(8192).splitlines()
        return {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}

    def _open_pidfd(self) -> int:
        try:
            return os.pidfd_open(self.tid, _PIDFD_THREAD)
        except OSError:
            return os.pidfd_open(self.tgid)
