"""The kernel's side of a seccomp listener, made up: what the supervisor asks of it, and whether it may ask that.

The supervised program is this process, or a child of it that can die at any moment; so its memory, its descriptors
and /proc are real. What is left to make up are notifications and the answers of the listener's five ioctls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import threading
import warnings
from collections.abc import Callable
from typing import NamedTuple

from kvmvfio_emu.doors.supervisor.notify import Notification

_RECV, _SEND, _ID_VALID, _ADD, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103, 0x40082104
_NOTIF, _RESPONSE, _ADDFD = struct.Struct("<QI4xi4x8x6Q"), struct.Struct("<QqiI"), struct.Struct("<QIIII")
_CONTINUE, _SENDS = 1, 2
_PR_SET_PDEATHSIG = 1


class Wait(NamedTuple):
    """A thread that waits for the answer to its call. ``refuses``: errno of its next ADDFD, 0 for none.

    ``gone``: it was killed right after RECV told of it.
    """

    notification: Notification
    refuses: int = 0
    gone: bool = False


class Forbidden(BaseException):
    """The supervisor asked for something that no kernel's protocol allows."""


class FakeSeccomp:
    """Called as `fcntl.ioctl`. ``next_call`` makes up the next notification, or raises what RECV fails with.

    ``fd`` is readable as long as there are ``more`` notifications, and then hangs up, as a listener does. ``given``
    hears of descriptors that the program was given.
    """

    def __init__(self, more: Callable[[], bool], next_call: Callable[[], Wait], given: Callable[[int], None]) -> None:
        self.fd, self.writer = os.pipe2(os.O_CLOEXEC)
        self._more, self._next, self._given = more, next_call, given
        self.waiting: dict[int, Wait] = {}  #: by the notification's id
        self.answered: set[int] = set()
        self.gone: set[int] = set()
        self._announce()

    def _announce(self) -> None:
        if self._more():
            os.write(self.writer, b"!")
        else:
            os.close(self.writer)
            self.writer = -1

    def leave(self, identifier: int) -> None:
        """A signal, or its death: that thread waits no more."""
        if self.waiting.pop(identifier, None) is not None:
            self.gone.add(identifier)

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self.fd)
        if self.writer >= 0:
            os.close(self.writer)

    def __call__(self, fd: int, request: int, argument: bytearray | int) -> int:
        assert fd == self.fd
        if request == _SET_FLAGS:
            return 0
        assert isinstance(argument, bytearray)
        if request == _RECV:
            return self._receive(argument)
        identifier = int.from_bytes(argument[:8], "little")
        if identifier in self.answered:
            raise Forbidden(f"notification {identifier} is answered already, and {request:#x} is asked of it")
        if identifier in self.gone:
            raise OSError(errno.ENOENT, "nobody waits")
        if identifier not in self.waiting:
            raise Forbidden(f"there is no notification {identifier}")
        if request == _ID_VALID:
            return 0
        if request == _SEND:
            _, value, error, flags = _RESPONSE.unpack(argument)
            return self._answered(identifier, value, error, flags)
        assert request == _ADD
        return self._added(identifier, *_ADDFD.unpack(argument)[1:])

    def _receive(self, argument: bytearray) -> int:
        if any(argument):
            raise Forbidden("RECV wants zeroes")
        os.read(self.fd, 1)
        try:
            wait = self._next()
        finally:
            self._announce()
        identifier, tid, number, arguments = wait.notification
        if wait.gone:
            self.gone.add(identifier)
        else:
            self.waiting[identifier] = wait
        _NOTIF.pack_into(argument, 0, identifier, tid, number, *arguments)
        return 0

    def _answered(self, identifier: int, value: int, error: int, flags: int) -> int:
        if flags & _CONTINUE and (value or error):
            raise Forbidden("EINVAL: it is to continue, and has a result")
        if not -4096 < error <= 0:
            raise Forbidden(f"{error} is no error")
        del self.waiting[identifier]
        self.answered.add(identifier)
        return 0

    def _added(self, identifier: int, flags: int, ours: int, theirs: int, their_flags: int) -> int:
        refuses = self.waiting[identifier].refuses
        if refuses:
            if refuses in (errno.ENOENT, errno.ESRCH):
                self.leave(identifier)
            else:
                self.waiting[identifier] = self.waiting[identifier]._replace(refuses=0)
            raise OSError(refuses, os.strerror(refuses))
        fd = os.dup(ours)
        self._given(fd)
        if flags & _SENDS:
            self._answered(identifier, fd, 0, 0)
        return fd


class Caller:
    """A thread of the program: here the one that runs this."""

    def __init__(self, tid: int) -> None:
        self.tid = tid

    def end(self) -> None:
        """It ends."""


class Thread(Caller):
    """Another thread of this process."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._over.wait, daemon=True)
        self._thread.start()
        assert self._thread.native_id is not None
        super().__init__(self._thread.native_id)

    def end(self) -> None:
        self._over.set()
        self._thread.join()


class Child(Caller):
    """A process that is a copy of this one, files and all, and does nothing. After its end its number is nobody's.

    ``without``: a descriptor that it does not keep.
    """

    def __init__(self, without: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it needs no lock of any thread
            pid = os.fork()
        if not pid:
            os.close(without)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            while True:
                signal.pause()
        super().__init__(pid)
        self._alive = True

    def end(self) -> None:
        if self._alive:
            self._alive = False
            os.kill(self.tid, signal.SIGKILL)
            os.waitpid(self.tid, 0)
