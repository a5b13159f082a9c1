"""The KVM and VFIO API as Python: the one place where the rest of the package gets numbers and layouts from.

``uapi.KVM_IRQFD`` is a number of the headers; ``uapi.ffi`` makes and reads their structs; `sizeof`,
`ioctl_name` and `IOCTLS` are for dispatch and decoding. What varies in length is in
`kvmvfio_emu.uapi.payloads`, which is imported on demand, so that this module stays quick to import.

Everything is derived from the C headers in `include_dir`, which come first: change those, then run
``python -m kvmvfio_emu.uapi.generate``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from . import constants
from ._types import ffi
from .constants import *  # noqa: F403 - the list is constants.__all__
from .headers import include_dir
from .ioctls import IOCTLS, KINDS, Ioctl, ioctl_name

__all__ = [
    "IOCTLS",
    "KINDS",
    "Ioctl",
    "address",
    "constants",
    "ffi",
    "include_dir",
    "ioctl_name",
    "pack",
    "sizeof",
    "view",
]
__all__ += constants.__all__


@cache
def sizeof(ctype: str) -> int:
    """The size in bytes of a C type: ``sizeof("struct kvm_irqfd")``. A flexible array counts as empty."""
    return ffi.sizeof(ctype)


def view(ctype: str, buffer: bytearray | memoryview | bytes) -> Any:
    """``buffer`` seen as a C struct: fields read and write the buffer's own bytes.

    A buffer shorter than the struct is a ValueError.
    """
    if len(buffer) < sizeof(ctype):
        raise ValueError(f"{len(buffer)} bytes are no {ctype}, which has {sizeof(ctype)}")
    return ffi.from_buffer(ctype + " *", buffer)


def address(buffer: bytearray | memoryview) -> int:
    """Where ``buffer`` lies in memory, for a struct's pointer field. Keep the buffer alive, and at its size."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer)))


def pack(ctype: str, **fields: int) -> bytearray:
    """A new struct with these fields, the others zero, as the buffer that an ioctl takes.

    ``pack("struct kvm_irqfd", fd=3, gsi=80)``; a field that the struct has not is an AttributeError, a value that
    does not fit an OverflowError.
    """
    buffer = bytearray(sizeof(ctype))
    struct = view(ctype, buffer)
    for name, value in fields.items():
        setattr(struct, name, value)
    return buffer
