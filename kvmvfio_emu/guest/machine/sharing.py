"""Another process's memory in ours: a shared mapping of a file can be mapped here, too, as long as it is open there."""

from __future__ import annotations

import ctypes
import mmap
import os

from kvmvfio_emu.kernel.usercopy import Vma


def address_of(buffer: mmap.mmap) -> int:
    """Where a mapping of ours is."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def share(pid: int, vma: Vma, start: int, size: int) -> mmap.mmap | None:
    """``size`` bytes from user address ``start``, in ``vma`` of process ``pid``, as the same memory.

    None when the mapping is private or of no file, or the process has no descriptor of the file that it may write to.
    """
    if not vma.shared or not vma.inode:
        return None
    directory = f"/proc/{pid}/fd"
    for name in os.listdir(directory):
        fd = _open_same(f"{directory}/{name}", vma)
        if fd is None:
            continue
        try:
            return mmap.mmap(fd, size, mmap.MAP_SHARED, offset=vma.offset + start - vma.start)
        except (OSError, ValueError):  # the file is shorter than the mapping: what is there can still be copied
            return None
        finally:
            os.close(fd)
    return None


def _open_same(path: str, vma: Vma) -> int | None:
    """The file of ``vma``, if descriptor ``path`` is of it and still there."""
    try:
        found = os.stat(path)
        if (found.st_dev, found.st_ino) != (vma.device, vma.inode):
            return None
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
