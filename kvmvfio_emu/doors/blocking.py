"""Waiting for the outside world as a system call does: a signal ends it, even if Python's handler returns."""

from __future__ import annotations

import ctypes
import errno
import select
from typing import Protocol

_libc = ctypes.CDLL(None, use_errno=True)
#: Long enough to cost nothing, short enough to see immediate_exit when a handler of another thread's signal set it.
_MILLISECONDS = 10


class _PollFd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


class Interruptible(Protocol):
    """Who waits."""

    interrupted: bool


def wait_readable(fd: int, waiter: Interruptible) -> None:
    """Wait a while until ``fd`` is readable; sets ``waiter.interrupted`` when a signal came first.

    `select.poll` would go on waiting after a signal (PEP 475), so poll(2) is called directly.
    """
    entry = _PollFd(fd, select.POLLIN, 0)
    if _libc.poll(ctypes.byref(entry), 1, _MILLISECONDS) < 0 and ctypes.get_errno() == errno.EINTR:
        waiter.interrupted = True
