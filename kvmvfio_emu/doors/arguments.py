"""Arguments of `fcntl.ioctl`, `mmap.mmap` and their kin, by the rules of the standard library."""

from __future__ import annotations

import mmap as _mmap
import operator
from typing import Any, Protocol

#: `fcntl.ioctl` copies buffers up to this size.
_COPIED = 1024


class HasFileno(Protocol):
    """What os and fcntl take besides a number."""

    def fileno(self) -> int:
        """The descriptor."""


FileLike = int | HasFileno


def fileno(fd: FileLike) -> int:
    """The descriptor of what os and fcntl take as one."""
    if isinstance(fd, int):
        return fd
    if not hasattr(fd, "fileno"):
        raise TypeError("argument must be an int, or have a fileno() method.")
    return fd.fileno()


def mapping_kind(flags: int, prot: int, access: int) -> tuple[bool, bool]:
    """(shared, writable) of a mapping, by either of the two ways in which `mmap.mmap` is told."""
    if access == _mmap.ACCESS_DEFAULT:
        return not flags & _mmap.MAP_PRIVATE, bool(prot & _mmap.PROT_WRITE)
    return access != _mmap.ACCESS_COPY, access != _mmap.ACCESS_READ


def ioctl_argument(arg: Any, mutate: bool) -> tuple[Any, bytearray | None]:
    """(what the kernel gets, what the caller gets back) of an ioctl argument, by the rules of `fcntl.ioctl`."""
    if isinstance(arg, str):
        arg = arg.encode()
    try:
        view = memoryview(arg)
    except TypeError:
        return operator.index(arg), None
    if not view.c_contiguous:
        raise TypeError(f"{type(arg).__name__!r} object cannot be interpreted as an integer")
    if mutate and not view.readonly:
        return (view.cast("B") if view.nbytes else bytearray()), None
    if view.nbytes > _COPIED:
        raise ValueError("ioctl string arg too long")
    copy = bytearray(view)
    return copy, copy
