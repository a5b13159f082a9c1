"""System call numbers of the machines that the supervisor runs on, by name."""

from __future__ import annotations

import os
from typing import NamedTuple

from kvmvfio_emu.kernel.errors import KvmVfioEmuError


class Architecture(NamedTuple):
    """``audit`` is the AUDIT_ARCH_* value that a seccomp filter sees; ``numbers`` maps names to numbers."""

    audit: int
    numbers: dict[str, int]
    seccomp: int


_X86_64 = Architecture(
    0xC000003E,
    {
        "open": 2,
        "stat": 4,
        "lstat": 6,
        "ioctl": 16,
        "pread64": 17,
        "pwrite64": 18,
        "access": 21,
        "creat": 85,
        "readlink": 89,
        "openat": 257,
        "newfstatat": 262,
        "readlinkat": 267,
        "faccessat": 269,
        "statx": 332,
        "openat2": 437,
        "faccessat2": 439,
    },
    317,
)
_AARCH64 = Architecture(
    0xC00000B7,
    {
        "ioctl": 29,
        "faccessat": 48,
        "openat": 56,
        "pread64": 67,
        "pwrite64": 68,
        "readlinkat": 78,
        "newfstatat": 79,
        "statx": 291,
        "openat2": 437,
        "faccessat2": 439,
    },
    277,
)
_KNOWN = {"x86_64": _X86_64, "aarch64": _AARCH64}


def architecture() -> Architecture:
    """This machine's. KvmVfioEmuError on another one."""
    machine = os.uname().machine
    if machine not in _KNOWN:
        raise KvmVfioEmuError(f"the supervisor knows {' and '.join(_KNOWN)}, not {machine}")
    return _KNOWN[machine]
