"""User memory: what is not accessible is EFAULT, to the byte, and never a crash."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Edge

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.usercopy import UserMemory

PAGE = mmap.PAGESIZE
MM = UserMemory(os.getpid())
_libc = ctypes.CDLL(None, use_errno=True)


def faults(call: object, *args: object) -> None:
    with pytest.raises(KernelError, match="EFAULT"):
        call(*args)  # type: ignore[operator]


class Pages:
    """Some pages, each with a protection of its own."""

    def __init__(self, *protections: int) -> None:
        self.map = mmap.mmap(-1, len(protections) * PAGE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.end = self.start + len(protections) * PAGE
        for index, protection in enumerate(protections):
            assert not _libc.mprotect(ctypes.c_void_p(self.start + index * PAGE), PAGE, protection)


RW, RO, NONE = mmap.PROT_READ | mmap.PROT_WRITE, mmap.PROT_READ, 0


@pytest.fixture
def pages() -> Pages:
    return Pages(RW, RO, NONE, RW)


@pytest.mark.parametrize("address", [0, 1, 0x10, PAGE - 1, (1 << 47) - 1, 1 << 47, 1 << 63, (1 << 64) - 1, 1 << 64, -1])
@pytest.mark.parametrize("size", [1, 8, PAGE])
def test_wild_pointers(address: int, size: int) -> None:
    faults(MM.read, address, size)
    faults(MM.write, address, bytes(size))


def test_addresses_do_not_wrap(pages: Pages) -> None:
    """What is no 64-bit address is none, even if its lower bits would be a good one."""
    for address in (pages.start + (1 << 64), pages.start - (1 << 64)):
        faults(MM.read, address, 4)
        faults(MM.write, address, b"data")


def test_nothing_is_read_of_any_address() -> None:
    for address in (0, (1 << 64) - 1, -1, 1 << 70):
        assert MM.read(address, 0) == b""
        MM.write(address, b"")


def test_a_read_is_a_copy(pages: Pages) -> None:
    pages.map[:4] = b"abcd"
    data = MM.read(pages.start, 4)
    pages.map[:4] = b"ABCD"
    assert data == b"abcd"
    data[0] = 0
    assert pages.map[:4] == b"ABCD"


@pytest.mark.parametrize("source", [b"data", bytearray(b"data"), memoryview(b"data")])
def test_a_write_takes_any_bytes(pages: Pages, source: bytes) -> None:
    MM.write(pages.start, source)
    assert pages.map[:4] == b"data"


def test_read_only_memory_can_be_read_and_not_written(pages: Pages) -> None:
    assert MM.read(pages.start + PAGE, PAGE) == bytes(PAGE)
    faults(MM.write, pages.start + PAGE, b"x")
    assert MM.read(pages.start + PAGE, 1) == b"\0"


def test_memory_without_access(pages: Pages) -> None:
    faults(MM.read, pages.start + 2 * PAGE, 1)
    faults(MM.write, pages.start + 2 * PAGE, b"x")


@pytest.mark.parametrize("size", [1, 2, 8, 4095])
def test_an_exact_fit_at_the_end(size: int) -> None:
    edge = Edge()
    address = edge.put(b"\x5a" * size)
    assert MM.read(address, size) == b"\x5a" * size
    MM.write(address, b"\xa5" * size)
    assert MM.read(address, size) == b"\xa5" * size
    faults(MM.read, address, size + 1)
    faults(MM.read, address + 1, size)
    faults(MM.write, address, bytes(size + 1))


def test_a_range_over_several_mappings(pages: Pages) -> None:
    assert len(MM.read(pages.start, 2 * PAGE)) == 2 * PAGE
    faults(MM.read, pages.start, 2 * PAGE + 1)
    faults(MM.read, pages.start + 2 * PAGE - 1, PAGE + 2)


def test_more_than_one_piece() -> None:
    size = (1 << 20) + 5000
    memory = mmap.mmap(-1, size + PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + 7
    data = os.urandom(size)
    MM.write(address, data)
    assert MM.read(address, size) == data
    assert memory[7 : 7 + size] == data


def test_another_process() -> None:
    """As the supervisor does it; and one that is gone is EFAULT, too."""
    memory = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    go, ready = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        memory[:5] = b"child"
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(memory[5])
    os.read(ready[0], 1)
    other = UserMemory(child)
    assert other.read(address, 5) == b"child"
    assert MM.read(address, 5) == bytes(5)
    other.write(address + 5, b"\x2a")
    assert [vma.start for vma in other.vmas()]
    os.write(go[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0x2A
    faults(other.read, address, 1)
    for fd in (*go, *ready):
        os.close(fd)


# -- mappings ---------------------------------------------------------------------------------------------------------


def test_covers_a_range_over_adjacent_mappings(pages: Pages) -> None:
    assert MM.covers(pages.start, PAGE, write=True)
    assert MM.covers(pages.start, 2 * PAGE, write=False)
    assert MM.covers(pages.start + PAGE - 1, 2, write=False)
    assert not MM.covers(pages.start, PAGE + 1, write=True)  # the second page is read-only
    assert not MM.covers(pages.start, 2 * PAGE + 1, write=False)  # the third has no access
    assert not MM.covers(pages.start, 4 * PAGE, write=False)
    assert MM.covers(pages.start + 3 * PAGE, PAGE, write=True)


def test_covers_ends_at_a_hole() -> None:
    pages = Pages(RW, RW, RW)
    assert not _libc.munmap(ctypes.c_void_p(pages.start + PAGE), PAGE)
    assert MM.covers(pages.start, PAGE, write=True)
    assert not MM.covers(pages.start, PAGE + 1, write=True)
    assert not MM.covers(pages.start, 3 * PAGE, write=True)
    assert not MM.covers(pages.start + PAGE, 1, write=False)
    assert MM.find_vma(pages.start + PAGE) is None
    filler = ctypes.CDLL(None).mmap
    filler.restype, filler.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long],
    )
    fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10
    assert filler(pages.start + PAGE, PAGE, RW, fixed, -1, 0) == pages.start + PAGE  # so that the mapping can go as one


@pytest.mark.parametrize("address", [0, 1 << 46, (1 << 64) - PAGE, 1 << 64])
def test_covers_nothing_where_nothing_is(address: int) -> None:
    assert not MM.covers(address, 1, write=False)


def test_find_vma_tells_file_and_offset() -> None:
    memfd = os.memfd_create("x")
    os.ftruncate(memfd, 4 * PAGE)
    with mmap.mmap(memfd, 2 * PAGE, offset=PAGE, prot=RO) as mapping:
        holder = (ctypes.c_char * 1).from_buffer_copy(mapping)
        assert holder is not None
        found = [vma for vma in MM.vmas() if vma.inode == os.fstat(memfd).st_ino]
        assert len(found) == 1
        (vma,) = found
        assert (vma.end - vma.start, vma.offset, vma.readable, vma.writable) == (2 * PAGE, PAGE, True, False)
        assert vma.device == os.fstat(memfd).st_dev
        assert MM.find_vma(vma.start) == MM.find_vma(vma.end - 1) == vma
        assert MM.find_vma(vma.end) != vma
    os.close(memfd)


MANY = Pages(RW, RO, NONE, RW, RW, NONE, RO, RO)
READABLE = [True, True, False, True, True, False, True, True]
WRITABLE = [True, False, False, True, True, False, False, False]


@given(start=st.integers(0, 8 * PAGE - 1), size=st.integers(1, 8 * PAGE), write=st.booleans())
def test_covers_says_what_a_copy_would_do(start: int, size: int, write: bool) -> None:
    size = min(size, 8 * PAGE - start)
    allowed = WRITABLE if write else READABLE
    expected = all(allowed[start // PAGE : (start + size - 1) // PAGE + 1])
    assert MM.covers(MANY.start + start, size, write=write) == expected
    call = (lambda: MM.write(MANY.start + start, bytes(size))) if write else (lambda: MM.read(MANY.start + start, size))
    if expected:
        call()
    else:
        faults(call)
