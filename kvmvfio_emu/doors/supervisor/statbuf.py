"""``struct stat`` and ``struct statx`` as the target's system call wants them."""

from __future__ import annotations

import os
import struct

_STATX = struct.Struct("<IIQIIIH2xQQQQ" + "qI4x" * 4 + "IIIIQ")
_STATX_SIZE = 256
_STATX_BASIC = 0x7FF
_BILLION = 10**9


def pack_stat(st: os.stat_result) -> bytes:
    """``struct stat`` of this machine: 144 bytes on x86_64, 128 on arm64."""
    times = [part for ns in (st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns) for part in divmod(ns, _BILLION)]
    if os.uname().machine == "x86_64":
        head = struct.pack(
            "<QQQIII4xQ", st.st_dev, st.st_ino, st.st_nlink, st.st_mode, st.st_uid, st.st_gid, st.st_rdev
        )
        return head + struct.pack("<qqq6q24x", st.st_size, st.st_blksize, st.st_blocks, *times)
    head = struct.pack("<QQIIIIQ8x", st.st_dev, st.st_ino, st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_rdev)
    return head + struct.pack("<qi4xq6q8x", st.st_size, st.st_blksize, st.st_blocks, *times)


def pack_statx(st: os.stat_result) -> bytes:
    """``struct statx`` with the basic fields; the birth time is the change time."""
    access, change, modify = (divmod(ns, _BILLION) for ns in (st.st_atime_ns, st.st_ctime_ns, st.st_mtime_ns))
    raw = _STATX.pack(
        *(_STATX_BASIC, st.st_blksize, 0, st.st_nlink, st.st_uid, st.st_gid, st.st_mode),
        *(st.st_ino, st.st_size, st.st_blocks, 0, *access, *change, *change, *modify),
        *(os.major(st.st_rdev), os.minor(st.st_rdev), os.major(st.st_dev), os.minor(st.st_dev), 0),
    )
    return raw.ljust(_STATX_SIZE, b"\0")
