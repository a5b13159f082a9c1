"""Puts a `Kernel` in front of the standard library's calls, for code that cannot be handed one."""

from __future__ import annotations

import builtins
import fcntl
import io
import mmap as _mmap
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvmvfio_emu.doors.inprocess import Kernel

#: What of `os` a `Kernel` has a method of the same name and form for.
_OS_CALLS = ("close", "read", "write", "pread", "pwrite")


class _Guard:
    """Whose calls are for the kernel: this thread's, but for those that the kernel itself makes meanwhile."""

    def __init__(self) -> None:
        self._thread = get_ident()
        self._busy = False

    @property
    def outside(self) -> bool:
        """Whether a call now is meant for what was there before."""
        return self._busy or get_ident() != self._thread

    def wrap(self, emulated: Callable[..., Any], before: Callable[..., Any]) -> Callable[..., Any]:
        """A function that calls ``emulated``, or ``before`` from outside."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.outside:
                return before(*args, **kwargs)
            self._busy = True
            try:
                return emulated(*args, **kwargs)
            finally:
                self._busy = False

        call.__name__ = getattr(before, "__name__", "call")
        call.__doc__ = before.__doc__
        return call


@contextmanager
def patched(kernel: Kernel) -> Iterator[None]:
    """Replace `os.open` and its kin, `fcntl.ioctl`, `mmap.mmap` and `open` while the context lasts.

    For the calling thread: other threads get the real ones, as a kernel serves one thread only. Nests: an inner
    kernel passes on what is not its own, to the outer one's functions.
    """
    guard = _Guard()
    before_open, before_builtin_open, before_mmap = os.open, builtins.open, _mmap.mmap

    def owns(path: object) -> bool:
        return isinstance(path, (str, bytes, os.PathLike)) and kernel.owns(os.fsdecode(path))

    def open_path(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if owns(path):
            return kernel.open(path, flags, mode)
        return before_open(path, flags, mode, dir_fd=dir_fd)

    opener_of_ours = guard.wrap(kernel.open, before_open)

    def open_file(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Callable[[str, int], int] | None = None,
    ) -> Any:
        if opener is None and not guard.outside and owns(file):
            opener = opener_of_ours  # one of the caller's own finds the replaced `os.open`
        return before_builtin_open(file, mode, buffering, encoding, errors, newline, closefd, opener)

    class OfBoth(type(before_mmap)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, before_mmap) if cls is Mapping else super().__instancecheck__(instance)

    # A class, since callers subclass it; mappings made before and elsewhere are instances of it, too.
    class Mapping(before_mmap, metaclass=OfBoth):  # type: ignore[valid-type,misc]
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            make = partial(before_mmap.__new__, cls)
            return guard.wrap(partial(kernel._map, make), make)(*args, **kwargs)

    with ExitStack() as stack:

        def replace(module: Any, name: str, value: Any) -> None:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)

        for name in _OS_CALLS:
            replace(os, name, guard.wrap(getattr(kernel, name), getattr(os, name)))
        replace(os, "open", guard.wrap(open_path, before_open))
        replace(builtins, "open", open_file)
        replace(io, "open", open_file)
        replace(fcntl, "ioctl", guard.wrap(kernel.ioctl, fcntl.ioctl))
        replace(_mmap, "mmap", Mapping)
        yield
