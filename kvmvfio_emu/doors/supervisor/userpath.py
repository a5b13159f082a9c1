"""Reads the paths that trapped calls name; models strncpy_from_user (lib/strncpy_from_user.c).

Every open of a program costs one such read, so its buffers are made once: one thread serves all.
"""

from __future__ import annotations

import ctypes
import errno

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.usercopy import Iovec, process_vm_readv

_PATH_MAX = 4096
#: Paths are read in pieces of at most so many bytes, none of which crosses a page's end; most paths are one piece.
_PIECE = 256

_text = ctypes.create_string_buffer(_PIECE + 1)  # its last byte stays 0
_local = Iovec(ctypes.addressof(_text), _PIECE)
_remote = Iovec()


def read_path(pid: int, address: int) -> bytes:
    """The C string at ``address`` in process (or thread) ``pid``. EFAULT, ENAMETOOLONG."""
    path = b""
    while len(path) < _PATH_MAX:
        size = _PIECE - address % _PIECE
        _remote.base, _remote.length = address, size
        if process_vm_readv(pid, _local, 1, _remote, 1, 0) != size:
            raise KernelError(errno.EFAULT, f"no path at user address {address:#x}")
        part = _text.value
        if len(part) < size:
            path += part
            break
        path += part[:size]  # what follows it was read for another path
        address += size
    if len(path) >= _PATH_MAX:
        raise KernelError(errno.ENAMETOOLONG, f"a path of more than {_PATH_MAX - 1} bytes")
    return path
