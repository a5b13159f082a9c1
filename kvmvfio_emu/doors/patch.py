"""Puts a `Kernel` in front of the standard library's calls, for code that cannot be handed one."""

from __future__ import annotations

import builtins
import fcntl
import mmap as _mmap
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvmvfio_emu.doors.inprocess import Kernel

#: What of `os` a `Kernel` has a method of the same name and form for.
_OS_CALLS = ("close", "read", "write", "pread", "pwrite")


@contextmanager
def patched(kernel: Kernel) -> Iterator[None]:
    """Replace `os.open` and its kin, `fcntl.ioctl`, `mmap.mmap` and `open` while the context lasts.

    Nests: an inner kernel passes on what is not its own, to the outer one's functions.
    """
    busy = False  # the kernel's own calls of these functions are meant for what was there before

    def guarded(emulated: Callable[..., Any], before: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal busy
            if busy:
                return before(*args, **kwargs)
            busy = True
            try:
                return emulated(*args, **kwargs)
            finally:
                busy = False

        call.__name__ = getattr(before, "__name__", "call")
        call.__doc__ = before.__doc__
        return call

    before_open, before_builtin_open, before_mmap = os.open, builtins.open, _mmap.mmap

    def open_path(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if not isinstance(path, int) and kernel.owns(os.fsdecode(path)):
            return kernel.open(path, flags, mode)
        return before_open(path, flags, mode, dir_fd=dir_fd)

    def open_file(file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, (str, bytes, os.PathLike)) and kernel.owns(os.fsdecode(file)):
            file = kernel.open(file)  # the file object closes it, which the kernel notices like any last close
        return before_builtin_open(file, *args, **kwargs)

    # A class, since callers subclass it and ask isinstance.
    class Mapping(before_mmap):  # type: ignore[valid-type,misc]
        def __new__(cls, fileno: int, length: int, *args: Any, **kwargs: Any) -> Any:
            if busy or cls is not Mapping:
                return before_mmap.__new__(cls, fileno, length, *args, **kwargs)
            return guarded(kernel.mmap, before_mmap)(fileno, length, *args, **kwargs)

    with ExitStack() as stack:

        def replace(module: Any, name: str, value: Any) -> None:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)

        for name in _OS_CALLS:
            replace(os, name, guarded(getattr(kernel, name), getattr(os, name)))
        replace(os, "open", guarded(open_path, before_open))
        replace(builtins, "open", guarded(open_file, before_builtin_open))
        replace(fcntl, "ioctl", guarded(kernel.ioctl, fcntl.ioctl))
        replace(_mmap, "mmap", Mapping)
        yield
