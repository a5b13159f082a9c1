"""The KVM and VFIO API as Python: the one place where the rest of the package gets numbers and layouts from.

``uapi.KVM_IRQFD`` is a number of the headers; ``uapi.ffi`` makes and reads their structs; `sizeof`,
`ioctl_name` and `IOCTLS` are for dispatch and decoding. What varies in length is in
`kvmvfio_emu.uapi.payloads`, which is imported on demand, so that this module stays quick to import.

Everything is derived from the C headers in `include_dir`, which come first: change those, then run
``python -m kvmvfio_emu.uapi.generate``.
"""

from __future__ import annotations

from functools import cache

from . import constants
from ._types import ffi
from .constants import *  # noqa: F403 - the list is constants.__all__
from .headers import include_dir
from .ioctls import IOCTLS, KINDS, Ioctl, ioctl_name

__all__ = ["IOCTLS", "KINDS", "Ioctl", "constants", "ffi", "include_dir", "ioctl_name", "sizeof"]
__all__ += constants.__all__


@cache
def sizeof(ctype: str) -> int:
    """The size in bytes of a C type: ``sizeof("struct kvm_irqfd")``. A flexible array counts as empty."""
    return ffi.sizeof(ctype)
