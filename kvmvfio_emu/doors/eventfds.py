"""Which eventfd a descriptor of any process is: they all share one inode, but the kernel numbers them."""

from __future__ import annotations

import errno
import os
from functools import cache
from os import close, read  # bound here: not what `Kernel.installed` may put in their place
from os import open as open_

from kvmvfio_emu.kernel.errors import KernelError

_LINK = "anon_inode:[eventfd]"


def eventfd_key(fd: int, process: int | None = None) -> int | None:
    """The number of the eventfd behind ``fd``, the same for all its descriptors; None for another kind of file.

    ``process`` is an open directory /proc/PID; None means this process. EBADF; EINVAL on hosts before Linux 5.2.
    """
    if process is None and _is_other(fd):
        return None
    base = "/proc/self/" if process is None else ""
    try:
        if process is not None and os.readlink(f"fd/{fd}", dir_fd=process) != _LINK:
            return None
        info = open_(f"{base}fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    except (FileNotFoundError, ProcessLookupError):
        raise KernelError(errno.EBADF, f"descriptor {fd} is not open") from None
    try:
        lines = read(info, 4096).splitlines()
    finally:
        close(info)
    names = [line.partition(b":")[0] for line in lines]
    if b"eventfd-id" in names:
        return int(lines[names.index(b"eventfd-id")].partition(b":")[2])
    if b"eventfd-count" not in names:
        return None
    raise KernelError(errno.EINVAL, "the host's kernel does not number its eventfds (Linux 5.2 does)")


def _is_other(fd: int) -> bool:
    """Whether it cannot be an eventfd, by its inode, which is the cheapest thing to ask. EBADF."""
    try:
        status = os.fstat(fd)
    except OSError:
        raise KernelError(errno.EBADF, f"descriptor {fd} is not open") from None
    try:
        return _inode() not in (None, (status.st_dev, status.st_ino))
    except OSError:
        return False  # no descriptor is left to find out with


@cache
def _inode() -> tuple[int, int] | None:
    """That of all eventfds; None on a host where they have not the same."""
    pair = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(2)]
    found = {(status.st_dev, status.st_ino) for status in map(os.fstat, pair)}
    for fd in pair:
        close(fd)
    return found.pop() if len(found) == 1 else None


def held_elsewhere(key: int, ours: int) -> bool:
    """Whether any descriptor in any process that we may look into, but our own ``ours``, is eventfd ``key``."""
    me = str(os.getpid())
    for name in (me, *(name for name in os.listdir("/proc") if name.isdecimal() and name != me)):  # mostly it is here
        try:
            process = open_(f"/proc/{name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # ended meanwhile
        try:
            if any(not (name == me and fd == ours) and _is(key, fd, process) for fd in _descriptors(process)):
                return True
        finally:
            close(process)
    return False


def _descriptors(process: int) -> list[int]:
    try:
        directory = open_("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
    except OSError:
        return []  # ended, or another user's
    try:
        return [int(name) for name in os.listdir(directory)]
    except OSError:
        return []
    finally:
        close(directory)


def _is(key: int, fd: int, process: int) -> bool:
    try:
        return eventfd_key(fd, process) == key
    except (KernelError, OSError):
        return False  # closed meanwhile
