"""Memory that is shared with userspace through a file, for as long as anybody here refers to it.

`mmap.mmap` would keep a duplicate of the descriptor until the garbage collector comes by, so this calls mmap(2).
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

from kvmvfio_emu import uapi

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


def map_shared(fd: int, size: int, pointer_type: str) -> Any:
    """The first ``size`` bytes of file ``fd`` as a cffi pointer; unmapped when that goes. OSError."""
    address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if address == _FAILED:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return uapi.ffi.gc(uapi.ffi.cast(pointer_type, address), lambda _: _libc.munmap(address, size))
