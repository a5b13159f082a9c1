"""inotify instances for the doors. One is kept for the next kernel: the host takes milliseconds to close one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from os import close, read  # bound here: not what `Kernel.installed` may put in their place

_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
#: Room for all events of a look.
BATCH = 65536

_libc = ctypes.CDLL(None, use_errno=True)
_kept: list[int] = []


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def create() -> int:
    """A descriptor of an instance without watches; its first watch may have any number. OSError EMFILE, ENFILE."""
    return _kept.pop() if _kept else fresh()


def fresh() -> int:
    """One that nobody else has, a parent of this process neither. OSError as `create`."""
    return _checked(_libc.inotify_init1(_FLAGS))


def add_watch(instance: int, path: bytes, mask: int) -> int:
    """The number of a new watch. OSError ENOSPC, ENOMEM."""
    return _checked(_libc.inotify_add_watch(instance, path, ctypes.c_uint32(mask)))


def give_back(instance: int, watches: Iterable[int]) -> None:
    """Its owner needs it no more. ``watches``: those that it has still."""
    if _kept:
        close(instance)
        return
    for watch in watches:
        _libc.inotify_rm_watch(instance, watch)
    try:
        while True:
            read(instance, BATCH)
    except BlockingIOError:
        _kept.append(instance)


def _forget() -> None:
    """A child shares its parent's instance, and so its events."""
    while _kept:
        close(_kept.pop())


os.register_at_fork(after_in_child=_forget)
