"""The seccomp listener: receiving notifications and answering them (Documentation/userspace-api/seccomp_filter)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import NamedTuple

from kvmvfio_emu.kernel.errors import KernelError

_NOTIF = struct.Struct("<QI4xi4x8x6Q")  # id, pid, (flags), number, (arch), (instruction pointer), arguments
_RESPONSE = struct.Struct("<QqiI")  # id, value, -errno, flags
_ADDFD = struct.Struct("<QIIII")  # id, flags, our fd, their fd, their flags
_SIZES = struct.Struct("<HHH")

_RECV, _SEND, _ID_VALID, _ADD, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103, 0x40082104
_CONTINUE = 1
_ADDFD_SEND = 2
_SYNC_WAKE_UP = 1
_GET_NOTIF_SIZES = 3


class Interrupted(KernelError):
    """The caller waits no more, so it cannot be given a descriptor; what was done for it is undone."""


class Notification(NamedTuple):
    """One trapped call of thread ``tid``. ``arguments`` are the six raw registers."""

    id: int
    tid: int
    number: int
    arguments: tuple[int, ...]


class Listener:
    """The descriptor that the kernel tells us of trapped calls on.

    ``ioctl`` asks that kernel, as `fcntl.ioctl` does; a test can put one in its place.
    """

    def __init__(self, fd: int, ioctl: Callable[[int, int, bytearray | int], int] | None = None) -> None:
        self.fd = fd
        self._ask = fcntl.ioctl if ioctl is None else ioctl
        self._response = bytearray(_RESPONSE.size)
        try:
            # The target's CPU is handed to us and back: half the cost of a call (Linux 6.6).
            self._ask(fd, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY):
                raise

    def receive(self) -> Notification | None:
        """The next call; None when its thread was killed or interrupted meanwhile. Blocks if there is none."""
        raw = bytearray(_NOTIF.size)  # must be zero, or the kernel refuses
        try:
            self._ask(self.fd, _RECV, raw)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        fields = _NOTIF.unpack(raw)
        return Notification(fields[0], fields[1], fields[2], fields[3:])

    def pass_on(self, identifier: int) -> bool:
        """Let the real kernel execute the call. False when nobody waits for it any more."""
        return self._send(identifier, 0, 0, _CONTINUE)

    def answer(self, identifier: int, value: int) -> bool:
        """The call returns ``value`` (>= 0, or -errno). False when nobody waits for it any more."""
        error = value if -4096 < value < 0 else 0
        return self._send(identifier, 0 if error else value, error, 0)

    def add_fd(self, identifier: int, fd: int, *, cloexec: bool, answer: bool = False) -> int:
        """Give the caller a copy of ``fd``, and with ``answer`` return it from the call at once.

        Returns its number there. OSError: EMFILE the caller has too many; `Interrupted` it waits no more.
        """
        flags = _ADDFD_SEND if answer else 0
        request = bytearray(_ADDFD.pack(identifier, flags, fd, 0, os.O_CLOEXEC if cloexec else 0))
        try:
            return self._ioctl(_ADD, request)
        except OSError as error:
            # ESRCH: it was there, but a signal took it away before it had taken the descriptor.
            if error.errno not in (errno.ENOENT, errno.ESRCH):
                raise
            raise Interrupted(errno.EINTR, "the caller waits no more") from None

    def is_waiting(self, identifier: int) -> bool:
        """Whether the caller still waits for an answer."""
        try:
            self._ioctl(_ID_VALID, bytearray(struct.pack("<Q", identifier)))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def _send(self, identifier: int, value: int, error: int, flags: int) -> bool:
        _RESPONSE.pack_into(self._response, 0, identifier, value, error, flags)
        try:
            self._ioctl(_SEND, self._response)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def _ioctl(self, request: int, argument: bytearray) -> int:
        """An ioctl that a signal of ours only delays: it ends the wait for a lock, and nothing was done."""
        while True:
            try:
                return self._ask(self.fd, request, argument)
            except InterruptedError:
                continue


def supported(seccomp: int) -> str | None:
    """Why this host's kernel cannot notify us, in one line; None when it can. ``seccomp`` is the call's number."""
    sizes = ctypes.create_string_buffer(_SIZES.size)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(seccomp, _GET_NOTIF_SIZES, 0, sizes):
        error = ctypes.get_errno()
        forbidden = error in (errno.EPERM, errno.EACCES)
        advice = "a container needs a seccomp profile that allows seccomp(2)" if forbidden else "Linux 5.9 has it"
        return f"seccomp user notification: {os.strerror(error)}; {advice}"
    if _SIZES.unpack(sizes.raw)[:2] != (_NOTIF.size, _RESPONSE.size):
        return f"seccomp notifications have an unknown layout {_SIZES.unpack(sizes.raw)}"
    return None
