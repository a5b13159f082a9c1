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
        "read": 0,
        "open": 2,
        "stat": 4,
        "lstat": 6,
        "lseek": 8,
        "mmap": 9,
        "ioctl": 16,
        "pread64": 17,
        "pwrite64": 18,
        "access": 21,
        "fcntl": 72,
        "ftruncate": 77,
        "rename": 82,
        "creat": 85,
        "link": 86,
        "symlink": 88,
        "readlink": 89,
        "mount": 165,
        "umount2": 166,
        "openat": 257,
        "newfstatat": 262,
        "renameat": 264,
        "linkat": 265,
        "symlinkat": 266,
        "readlinkat": 267,
        "faccessat": 269,
        "fallocate": 285,
        "renameat2": 316,
        "statx": 332,
        "move_mount": 429,
        "openat2": 437,
        "faccessat2": 439,
    },
    317,
)
_AARCH64 = Architecture(
    0xC00000B7,
    {
        "fcntl": 25,
        "ioctl": 29,
        "symlinkat": 36,
        "linkat": 37,
        "renameat": 38,
        "umount2": 39,
        "mount": 40,
        "ftruncate": 46,
        "fallocate": 47,
        "faccessat": 48,
        "openat": 56,
        "lseek": 62,
        "read": 63,
        "pread64": 67,
        "pwrite64": 68,
        "readlinkat": 78,
        "newfstatat": 79,
        "mmap": 222,
        "renameat2": 276,
        "statx": 291,
        "move_mount": 429,
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
