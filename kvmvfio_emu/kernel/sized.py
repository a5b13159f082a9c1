"""Structs that begin with their own size, as the caller knows it; models copy_struct_from_user (lib/usercopy.c).

The convention of iommufd: who knows a shorter struct than the kernel has the rest zero; who knows a longer one may
not say anything in what the kernel does not know.
"""

from __future__ import annotations

import errno

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.task import Task, UserPtr

_SIZE = 4
_CHUNK = 1 << 16


def copy_struct_from_user(task: Task, arg: UserPtr, size: int, minsz: int) -> bytearray:
    """``size`` bytes, of which the caller gives at least ``minsz``. EFAULT, EINVAL (too short), E2BIG."""
    given = int.from_bytes(task.copy_from_user(arg, _SIZE), "little")
    if given < minsz:
        raise KernelError(errno.EINVAL, f"the struct's size {given} is below {minsz}")
    for start in range(size, given, _CHUNK):
        if any(task.copy_from_user(arg, min(_CHUNK, given - start), start)):
            raise KernelError(errno.E2BIG, f"something behind the {size} bytes that this kernel knows")
    return task.copy_from_user(arg, min(size, given)).ljust(size, b"\0")
