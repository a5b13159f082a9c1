"""struct stat and struct statx, as bytes: what a C library of this machine makes of them, and of another's layout."""

from __future__ import annotations

import os
import platform
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvmvfio_emu.doors.supervisor import statbuf


def like(**changes: int) -> os.stat_result:
    """A stat_result with a different value in every field."""
    extra = {
        "st_atime_ns": 1_000_000_001,
        "st_mtime_ns": 2_000_000_002,
        "st_ctime_ns": 3_999_999_999,
        "st_blksize": 512,
        "st_blocks": 99,
        "st_rdev": os.makedev(10, 232),
    }
    return os.stat_result((0o20666, 1 << 33, os.makedev(0, 27), 3, 1000, 1001, 1 << 40, 1, 2, 3), {**extra, **changes})


#: What the C program prints of `like`.
EXPECTED = {
    "dev": str(os.makedev(0, 27)),
    "ino": str(1 << 33),
    "nlink": "3",
    "mode": "20666",
    "uid": "1000",
    "gid": "1001",
    "size": str(1 << 40),
    "blksize": "512",
    "blocks": "99",
    "atime": "1.000000001",
    "mtime": "2.000000002",
    "ctime": "3.999999999",
    "rdev": str(os.makedev(10, 232)),
}


def shown(program: str, kind: str, raw: bytes) -> dict[str, str]:
    done = subprocess.run([program, kind], input=raw, capture_output=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.decode().splitlines())


def test_stat_is_what_c_reads(build: Callable[..., str]) -> None:
    assert shown(build("stat"), "stat", statbuf.pack_stat(like())) == EXPECTED


def test_statx_is_what_c_reads(build: Callable[..., str]) -> None:
    raw = statbuf.pack_statx(like())
    assert len(raw) == 256
    assert shown(build("stat"), "statx", raw) == {**EXPECTED, "mask": "7ff", "btime": EXPECTED["ctime"]}


def test_a_real_file_comes_out_as_the_kernel_has_it(build: Callable[..., str], tmp_path: Path) -> None:
    """Byte by byte, the kernel's own struct stat."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 12345)
    os.utime(path, ns=(1_111_111_111_111_111_111, 222_222_222_222))
    kernels = subprocess.run([build("stat"), "raw", path], capture_output=True, check=True).stdout
    assert statbuf.pack_stat(os.stat(path)) == kernels


def test_times_before_1970(build: Callable[..., str]) -> None:
    raw = statbuf.pack_stat(like(st_mtime_ns=-1))
    assert shown(build("stat"), "stat", raw)["mtime"] == "-1.999999999"


def test_the_layout_of_arm64(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 bytes, with the field offsets of asm-generic/stat.h."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    raw = statbuf.pack_stat(like())
    assert len(raw) == 128
    u32, u64 = (struct.Struct(f"<{kind}").unpack_from for kind in "IQ")
    assert [u64(raw, at)[0] for at in (0, 8, 32, 48, 64)] == [
        os.makedev(0, 27),
        1 << 33,
        os.makedev(10, 232),
        1 << 40,
        99,
    ]
    assert [u32(raw, at)[0] for at in (16, 20, 24, 28, 56)] == [0o20666, 3, 1000, 1001, 512]
    assert [u64(raw, at)[0] for at in (72, 80, 88, 96, 104, 112)] == [1, 1, 2, 2, 3, 999_999_999]
