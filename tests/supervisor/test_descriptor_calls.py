"""pread and pwrite on an emulated file, without a program: whose mistake is found first, and how much is looked at."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from types import SimpleNamespace
from typing import Any

import pytest
from support import Edge

from kvmvfio_emu.doors.supervisor.calls import DescriptorCalls
from kvmvfio_emu.doors.supervisor.reply import CONTINUE, Value
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.usercopy import UserMemory

REGION = 64
GIANT = 4 << 30


class Region:
    """An open file with one region of 64 bytes, whose calls nobody watches."""

    host = SimpleNamespace(trace=SimpleNamespace(calls=False))

    def __init__(self) -> None:
        self.data = bytearray(range(REGION))

    def read(self, size: int, offset: int) -> bytes:
        if offset >= REGION:
            raise KernelError(errno.EINVAL, "behind the region")
        return bytes(self.data[offset : offset + size])

    def write(self, data: bytes, offset: int) -> int:
        if offset >= REGION:
            raise KernelError(errno.EINVAL, "behind the region")
        taken = data[: REGION - offset]
        self.data[offset : offset + len(taken)] = taken
        return len(taken)


@pytest.fixture
def file() -> Region:
    return Region()


@pytest.fixture
def task(file: Region) -> Any:
    """This process, whose descriptor 7 is the file."""
    return SimpleNamespace(mm=UserMemory(os.getpid()), fget=lambda fd: file if fd == 7 else None)


def call(name: str, task: Any, fd: int, address: int, size: int, offset: int) -> Any:
    return DescriptorCalls().handlers[name](task, (fd, address, size, offset & (1 << 64) - 1, 0, 0))


@pytest.mark.parametrize("name", ["pread64", "pwrite64"])
def test_other_descriptors_are_the_real_kernels(task: Any, name: str) -> None:
    assert call(name, task, 8, 0, GIANT, -1) is CONTINUE


@pytest.mark.parametrize("size", [REGION, REGION + 1, mmap.PAGESIZE * 3, GIANT, (1 << 62)])
def test_the_regions_end_comes_before_the_buffers(task: Any, file: Region, size: int) -> None:
    """A buffer that ends where the region does, and a count far beyond both."""
    edge = Edge()
    address = edge.put(bytes(reversed(range(REGION))))
    assert call("pwrite64", task, 7, address, size, 0) == Value(REGION)
    assert file.data == bytes(reversed(range(REGION)))
    file.data[:] = bytes(range(REGION))
    assert call("pread64", task, 7, address, size, 0) == Value(REGION)
    assert ctypes.string_at(address, REGION) == bytes(range(REGION))


@pytest.mark.parametrize("name", ["pread64", "pwrite64"])
@pytest.mark.parametrize("size", [REGION, GIANT])
def test_a_buffer_that_ends_before_the_region_is_efault(task: Any, name: str, size: int) -> None:
    address = Edge().put(bytes(REGION - 8))
    with pytest.raises(KernelError) as caught:
        call(name, task, 7, address, size, 0)
    assert caught.value.errno == errno.EFAULT


def test_what_a_short_buffer_had_is_written(task: Any, file: Region) -> None:
    """The kernel takes register by register, and finds the end of the buffer on the way."""
    address = Edge().put(b"\xff" * 8)
    with pytest.raises(KernelError):
        call("pwrite64", task, 7, address, 16, 0)
    assert file.data == b"\xff" * 8 + bytes(range(8, REGION))


@pytest.mark.parametrize("name", ["pread64", "pwrite64"])
@pytest.mark.parametrize(
    ("address", "size", "offset", "error"),
    [
        (0, 4, REGION, errno.EINVAL),  # where it is comes before what it is
        (0, 4, -4, errno.EINVAL),
        (0, 4, 0, errno.EFAULT),
        (16, GIANT, 0, errno.EFAULT),
        ((1 << 64) - 4, 16, 0, errno.EFAULT),
        (4096, (1 << 64) - 1, 0, errno.EFAULT),
    ],
)
def test_mistakes(task: Any, name: str, address: int, size: int, offset: int, error: int) -> None:
    with pytest.raises(KernelError) as caught:
        call(name, task, 7, address, size, offset)
    assert caught.value.errno == error
