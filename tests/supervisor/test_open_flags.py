"""open, openat and openat2 on a path of ours with flags that mean nothing; this process stands in for the program."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from support import Edge

from kvmvfio_emu.doors.descriptors import Descriptors
from kvmvfio_emu.doors.supervisor.paths import PathCalls
from kvmvfio_emu.doors.supervisor.reply import CONTINUE, NewFd
from kvmvfio_emu.doors.supervisor.vfs import Vfs
from kvmvfio_emu.kernel.boot import boot
from kvmvfio_emu.kernel.usercopy import UserMemory

DIRECTORY = "/sys/bus/platform/devices"
AT_FDCWD = (1 << 64) - 100

Open = Callable[..., Any]


@pytest.fixture
def call() -> Iterator[Open]:
    """``call(name, path, flags)``, and for openat2 what the rest of its struct is and how long."""
    host = boot()
    proc = os.open("/proc/self", os.O_PATH)
    with closing(Descriptors(host.poller, host.inodes, native=True)) as descriptors, closing(Vfs(host)) as vfs:
        handlers = PathCalls(host, descriptors, vfs).handlers

        def call(name: str, path: str, flags: int, *rest: int, size: int = 24) -> Any:
            task: Any = SimpleNamespace(
                proc=proc,
                tid=os.getpid(),
                tgid=os.getpid(),
                mm=UserMemory(os.getpid()),
                read_path=lambda address: path.encode(),
            )
            if name == "openat2":
                how = struct.pack(f"<{1 + len(rest)}Q", flags, *rest).ljust(size, b"\0")
                return handlers[name](task, (AT_FDCWD, 0, Edge().put(how[:4096]), size, 0, 0))
            return handlers[name](task, (AT_FDCWD, 0, flags, 0, 0, 0) if name == "openat" else (0, flags, 0, 0, 0, 0))

        yield call
    os.close(proc)
    host.power_off()


@pytest.mark.parametrize("name", ["open", "openat"])
@pytest.mark.parametrize("flags", [1 << 31, 1 << 30, 1 << 40, (1 << 64) - (1 << 25)])
def test_open_overlooks_what_it_does_not_know(call: Open, name: str, flags: int) -> None:
    reply = call(name, DIRECTORY, flags)
    assert isinstance(reply, NewFd)
    os.close(reply.fd)


@pytest.mark.parametrize("path", [DIRECTORY, "/dev/kvm"])
@pytest.mark.parametrize(
    ("flags", "rest", "size"),
    [
        (1 << 31, (), 24),
        (1 << 63, (), 24),
        (os.O_RDWR, (0o600,), 24),  # a mode for what is not created
        (os.O_RDWR, (0, 1 << 6), 24),
        (os.O_RDWR, (), 16),
        (os.O_RDWR, (), 4097),
        (os.O_RDWR, (0, 0, 1), 32),
    ],
)
def test_openat2_leaves_what_it_does_not_know_to_the_real_kernel(
    call: Open, path: str, flags: int, rest: tuple[int, ...], size: int
) -> None:
    """Which refuses it before it looks at the path."""
    assert call("openat2", path, flags, *rest, size=size) is CONTINUE


@pytest.mark.parametrize("size", [24, 32, 4096])
def test_openat2_opens_what_is_ours(call: Open, size: int) -> None:
    reply = call("openat2", DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, size=size)
    assert isinstance(reply, NewFd)
    assert reply.cloexec
    os.close(reply.fd)
