"""Registers that are mapped, as another device's DMA meets them: in the accesses that a bus makes."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator

import pytest

from kvmvfio_emu import Kernel
from kvmvfio_emu.kernel import registers
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.usercopy import UserMemory

PAGE = mmap.PAGESIZE


class Recorded(File):
    """A file of registers; byte n reads as the low byte of n."""

    is_device_memory = True

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.seen: list[tuple[str, int, int, int]] = []

    def mapped_read(self, offset: int, size: int) -> int:
        self.seen.append(("load", offset, size, 0))
        return int.from_bytes(bytes(at & 0xFF for at in range(offset, offset + size)), "little")

    def mapped_write(self, offset: int, size: int, value: int) -> None:
        self.seen.append(("store", offset, size, value))


@pytest.fixture
def file() -> Iterator[Recorded]:
    with Kernel() as kernel:
        made = Recorded(kernel.host)
        yield made
        made.put()


@pytest.fixture
def address(file: Recorded) -> Iterator[int]:
    """A page of memory, then a page of the registers from offset 0x1000, which memory does not reach."""
    fd = os.memfd_create("registers")
    os.ftruncate(fd, 3 * PAGE)
    status = os.fstat(fd)
    with mmap.mmap(fd, 3 * PAGE) as view:
        start = ctypes.addressof(pin := ctypes.c_char.from_buffer(view))
        os.ftruncate(fd, PAGE)
        file.host.inodes[status.st_dev, status.st_ino] = file
        yield start + PAGE
        del file.host.inodes[status.st_dev, status.st_ino], pin
    os.close(fd)


def test_a_device_reads_registers_in_aligned_pieces(file: Recorded, address: int) -> None:
    mm = UserMemory(os.getpid())
    assert registers.bus_read(file.host, mm, address + 2, 14) == bytes(range(2, 16))
    assert file.seen == [("load", PAGE + 2, 2, 0), ("load", PAGE + 4, 4, 0), ("load", PAGE + 8, 8, 0)]


def test_a_device_writes_registers(file: Recorded, address: int) -> None:
    registers.bus_write(file.host, UserMemory(os.getpid()), address + 4, bytes(range(1, 6)))
    assert file.seen == [("store", PAGE + 4, 4, 0x04030201), ("store", PAGE + 8, 1, 5)]


def test_registers_go_on_over_a_page(file: Recorded, address: int) -> None:
    assert registers.bus_read(file.host, UserMemory(os.getpid()), address + PAGE - 2, 4) == b"\xfe\xff\x00\x01"
    assert file.seen == [("load", 2 * PAGE - 2, 2, 0), ("load", 2 * PAGE, 2, 0)]


def test_what_is_not_mapped_at_all_is_efault(file: Recorded) -> None:
    with pytest.raises(KernelError) as caught:
        registers.bus_read(file.host, UserMemory(os.getpid()), 0x10, 4)
    assert caught.value.errno == errno.EFAULT
    with pytest.raises(KernelError):
        registers.bus_write(file.host, UserMemory(os.getpid()), 0x10, b"1234")
