"""DMA mappings of type1: contract 7.4, and what devices see through them."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator

import pytest
from vfio_bench import MULTI, WILD, Bench, EdgePage, fails, replace_iommu

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.devices import DmaFault

READ, WRITE, VADDR = 1, 2, 4
BOTH = READ | WRITE
PAGE = 0x1000
TOP = 2**64 - PAGE


class Memory:
    """64 KiB of client memory, and a read-only page."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, 16 * PAGE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.constant = mmap.mmap(-1, PAGE)
        self.read_only = ctypes.addressof(ctypes.c_char.from_buffer(self.constant))
        assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(self.read_only), PAGE, mmap.PROT_READ)


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


class Dma(Bench):
    """A container with an IOMMU, and calls on it."""

    def __init__(self, kind: int = 3, *args: object, **profile: object) -> None:
        super().__init__(*args, **profile)
        self.fd, self.group_fd = self.attached(kind=kind)

    def map(self, vaddr: int, iova: int, size: int = PAGE, flags: int = BOTH, argsz: int = 32) -> int:
        before = self.mapped()
        request = uapi.ffi.new("struct vfio_iommu_type1_dma_map *", [argsz, flags, vaddr, iova, size])
        try:
            return self.ioctl(self.fd, uapi.VFIO_IOMMU_MAP_DMA, request)
        except BaseException:
            assert self.mapped() == before, "a refused MAP_DMA changed something"
            raise

    def unmap(self, iova: int, size: int, flags: int = 0, argsz: int = 24) -> int:
        before = self.mapped()
        request = uapi.ffi.new("struct vfio_iommu_type1_dma_unmap *", [argsz, flags, iova, size])
        try:
            assert self.ioctl(self.fd, uapi.VFIO_IOMMU_UNMAP_DMA, request) == 0
        except BaseException:
            assert self.mapped() == before, "a refused UNMAP_DMA changed something"
            assert request.size == size
            raise
        return int(request.size)

    def mapped(self) -> list[tuple[int, int]]:
        dma = self.hw().dma
        return [(entry.iova, entry.size) for entry in dma.mappings()]  # type: ignore[attr-defined]


@pytest.fixture
def dma() -> Iterator[Dma]:
    return Dma()


@pytest.fixture
def v1() -> Dma:
    return Dma(1)


# -- GET_INFO --------------------------------------------------------------------------------------


@pytest.mark.parametrize("argsz", [0, 8, 15])
def test_get_info_argsz_below_16_is_einval(dma: Dma, argsz: int) -> None:
    with fails("EINVAL"):
        dma.ioctl(dma.fd, uapi.VFIO_IOMMU_GET_INFO, uapi.ffi.new("struct vfio_iommu_type1_info *", [argsz]))


@pytest.mark.parametrize("pointer", [0, WILD, 2**64 - 8])
def test_get_info_bad_pointer_is_efault(dma: Dma, pointer: int) -> None:
    with fails("EFAULT"):
        dma.ioctl(dma.fd, uapi.VFIO_IOMMU_GET_INFO, pointer)


@pytest.mark.parametrize("argsz", [16, 24, 2**32 - 1])
def test_get_info_of_2014_has_page_sizes_and_no_flags(dma: Dma, argsz: int) -> None:
    info = uapi.ffi.new("struct vfio_iommu_type1_info *", {"argsz": argsz, "flags": 0xAA, "cap_offset": 0x55})
    assert dma.ioctl(dma.fd, uapi.VFIO_IOMMU_GET_INFO, info) == 0
    assert (info.argsz, info.flags, info.iova_pgsizes, info.cap_offset) == (argsz, 0, 0x40201000, 0x55)


def test_get_info_counts_only_sizes_of_a_page_and_more() -> None:
    bench = Dma(3, replace_iommu(page_sizes=(0x400, 0x10000)))
    info = uapi.ffi.new("struct vfio_iommu_type1_info *", [16])
    bench.ioctl(bench.fd, uapi.VFIO_IOMMU_GET_INFO, info)
    assert info.iova_pgsizes == 0x10000


CAPS = {"iommu_info_caps": True, "type1_dma_limit": 65535, "type1_iova_ranges": True}


@pytest.mark.parametrize(("align", "total", "ranges_at"), [(4, 116, 68), (8, 120, 72)])
def test_get_info_capability_chain(align: int, total: int, ranges_at: int) -> None:
    bench = Dma(3, **CAPS, info_cap_align=align)
    buffer = uapi.ffi.from_buffer(bytearray(struct.pack("<I", total) + bytes(total - 4)))
    assert bench.ioctl(bench.fd, uapi.VFIO_IOMMU_GET_INFO, buffer) == 0
    raw = bytes(uapi.ffi.buffer(buffer))
    assert struct.unpack_from("<IIQI", raw) == (total, 3, 0x40201000, 24)
    assert struct.unpack_from("<HHIIIQQ", raw, 24) == (2, 1, 56, 0, 0, PAGE, 256 << 20)
    assert struct.unpack_from("<HHII", raw, 56) == (3, 1, ranges_at, 65535)
    assert struct.unpack_from("<HHIII4Q", raw, ranges_at) == (1, 1, 0, 2, 0, *(0, 0x7FFFFFF, 0x8100000, 0xFFFFFFFFFFFF))


@pytest.mark.parametrize("argsz", [16, 19, 20, 24, 115])
def test_get_info_without_room_for_the_chain_says_how_much_it_takes(argsz: int) -> None:
    bench = Dma(3, **CAPS)
    buffer = uapi.ffi.from_buffer(bytearray(struct.pack("<IIQI", argsz, 0, 0, 0x55) + b"\x77" * 180))
    assert bench.ioctl(bench.fd, uapi.VFIO_IOMMU_GET_INFO, buffer) == 0
    raw = bytes(uapi.ffi.buffer(buffer))
    assert struct.unpack_from("<IIQI", raw) == (116, 3, 0x40201000, 0x55 if argsz < 20 else 0)
    assert raw[20:] == b"\x77" * 180


def test_get_info_absurd_argsz_writes_no_further_than_the_chain() -> None:
    bench, page = Dma(3, **CAPS), EdgePage()
    address = page.put(struct.pack("<I", 2**32 - 1) + bytes(112))
    assert bench.ioctl(bench.fd, uapi.VFIO_IOMMU_GET_INFO, address) == 0
    with fails("EFAULT"):
        bench.ioctl(bench.fd, uapi.VFIO_IOMMU_GET_INFO, page.put(struct.pack("<I", 2**32 - 1) + bytes(100)))


# -- MAP_DMA ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_number", [uapi.VFIO_IOMMU_MAP_DMA, uapi.VFIO_IOMMU_UNMAP_DMA])
@pytest.mark.parametrize("pointer", [0, WILD, 2**64 - 8])
def test_map_and_unmap_bad_pointer_is_efault(dma: Dma, request_number: int, pointer: int) -> None:
    with fails("EFAULT"):
        dma.ioctl(dma.fd, request_number, pointer)


@pytest.mark.parametrize("argsz", [0, 24, 31])
def test_map_argsz_below_32_is_einval(dma: Dma, memory: Memory, argsz: int) -> None:
    with fails("EINVAL"):
        dma.map(memory.start, 0x10000, argsz=argsz)


@pytest.mark.parametrize("flags", [0, 4, 7, 8, BOTH | 8, 2**32 - 1])
def test_map_flags_none_or_unknown_is_einval(dma: Dma, memory: Memory, flags: int) -> None:
    with fails("EINVAL"):
        dma.map(memory.start, 0x10000, flags=flags)


@pytest.mark.parametrize("argsz", [32, 2**32 - 1])
@pytest.mark.parametrize("flags", [READ, WRITE, BOTH])
def test_map(dma: Dma, memory: Memory, flags: int, argsz: int) -> None:
    assert dma.map(memory.start, 0x10000, flags=flags, argsz=argsz) == 0
    assert dma.mapped() == [(0x10000, PAGE)]


@pytest.mark.parametrize(
    ("vaddr", "iova", "size"),
    [(0, 0x10000, 0), (0, 0x10000, 0x1001), (0, 0x10000, 0x800), (0, 0x10010, PAGE), (0x10, 0x10000, PAGE)],
)
def test_map_zero_or_unaligned_is_einval(dma: Dma, memory: Memory, vaddr: int, iova: int, size: int) -> None:
    with fails("EINVAL"):
        dma.map(memory.start + vaddr, iova, size)


def test_map_alignment_is_that_of_the_smallest_page(memory: Memory) -> None:
    bench = Dma(3, replace_iommu(page_sizes=(0x10000,)))
    with fails("EINVAL"):
        bench.map(memory.start, 0x10000, PAGE)


@pytest.mark.parametrize("size", [2 * PAGE, TOP])
def test_map_iova_or_vaddr_wrap_is_einval(dma: Dma, memory: Memory, size: int) -> None:
    with fails("EINVAL"):
        dma.map(memory.start, TOP, size)
    with fails("EINVAL"):
        dma.map(TOP, 0x10000, size)


@pytest.mark.parametrize("iova", [2**48, 2**48 - PAGE, 2**60, TOP])
def test_map_beyond_the_aperture_is_refused(memory: Memory, iova: int) -> None:
    size = 2 * PAGE if iova == 2**48 - PAGE else PAGE
    with fails("ERANGE"):
        Dma().map(memory.start, iova, size)
    with fails("EINVAL"):
        Dma(3, type1_iova_ranges=True).map(memory.start, iova, size)


@pytest.mark.parametrize("iova", [0x7FFF000, 0x8000000, 0x80FF000])
def test_map_over_the_msi_window_is_einval_where_ranges_are_known(memory: Memory, iova: int) -> None:
    assert Dma().map(memory.start, iova, 2 * PAGE) == 0
    with fails("EINVAL"):
        Dma(3, type1_iova_ranges=True).map(memory.start, iova, 2 * PAGE)


def test_map_bad_vaddr_is_efault(dma: Dma, memory: Memory) -> None:
    page = EdgePage()
    for vaddr, size in ((PAGE, PAGE), (page.end, PAGE), (page.start, 2 * PAGE), (memory.start, 2**47)):
        with fails("EFAULT"):
            dma.map(vaddr, 0, size)
    with fails("EFAULT"):
        dma.map(memory.read_only, 0x10000)
    assert dma.map(memory.read_only, 0x10000, flags=READ) == 0


def test_map_overlap_is_eexist(dma: Dma, memory: Memory) -> None:
    dma.map(memory.start, 0x10000, 0x8000)
    for iova, size in (
        (0x10000, 0x8000),
        (0x14000, 0x8000),
        (0xC000, 0x8000),
        (0x12000, PAGE),
        (0, 0x10000 + PAGE),
    ):
        with fails("EEXIST"):
            dma.map(memory.start, iova, size)
    assert dma.map(memory.start, 0x18000) == 0
    assert dma.map(memory.start, 0xF000) == 0


def test_map_more_than_the_limit_is_enospc(memory: Memory) -> None:
    bench = Dma(3, type1_dma_limit=2)
    bench.map(memory.start, 0)
    bench.map(memory.start, PAGE)
    with fails("ENOSPC"):
        bench.map(memory.start, 2 * PAGE)


def test_the_last_page_of_the_address_space_can_be_mapped(memory: Memory) -> None:
    bench = Dma(3, replace_iommu(address_bits=64))
    assert bench.map(memory.start, TOP) == 0
    assert bench.unmap(TOP, PAGE) == PAGE


# -- UNMAP_DMA -------------------------------------------------------------------------------------


@pytest.mark.parametrize("argsz", [0, 23])
def test_unmap_argsz_below_24_is_einval(dma: Dma, memory: Memory, argsz: int) -> None:
    dma.map(memory.start, 0)
    with fails("EINVAL"):
        dma.unmap(0, PAGE, argsz=argsz)


@pytest.mark.parametrize("flags", [1, 2, 4, 16, 2**32 - 1])
def test_unmap_any_flag_is_einval(dma: Dma, memory: Memory, flags: int) -> None:
    dma.map(memory.start, 0)
    with fails("EINVAL"):
        dma.unmap(0, PAGE, flags)


@pytest.mark.parametrize(("iova", "size"), [(0x10010, PAGE), (0, 0x10), (0, 0), (TOP, 2 * PAGE)])
def test_unmap_unaligned_zero_or_wrapping_is_einval(dma: Dma, iova: int, size: int) -> None:
    with fails("EINVAL"):
        dma.unmap(iova, size)


def test_unmap_nothing_is_0_with_size_0(dma: Dma) -> None:
    assert dma.unmap(0x800000, PAGE) == 0


@pytest.mark.parametrize(("iova", "size"), [(0x14000, PAGE), (0x10000, 0x4000), (0x14000, 0x4000), (0x4000, 0x10000)])
def test_unmap_v2_bisecting_is_einval(dma: Dma, memory: Memory, iova: int, size: int) -> None:
    dma.map(memory.start, 0x10000, 0x8000)
    with fails("EINVAL"):
        dma.unmap(iova, size)


def test_unmap_v2_removes_all_that_is_covered(dma: Dma, memory: Memory) -> None:
    for iova in (0x10000, 0x20000, 0x40000):
        dma.map(memory.start, iova, 2 * PAGE)
    assert dma.unmap(0, 0x30000) == 4 * PAGE
    assert dma.mapped() == [(0x40000, 2 * PAGE)]
    assert dma.unmap(0, TOP) == 2 * PAGE


def test_unmap_v1_starting_inside_is_0_with_size_0(v1: Dma, memory: Memory) -> None:
    v1.map(memory.start, 0x10000, 0x8000)
    assert v1.unmap(0x14000, PAGE) == 0
    assert v1.mapped() == [(0x10000, 0x8000)]


def test_unmap_v1_of_the_head_removes_the_whole(v1: Dma, memory: Memory) -> None:
    v1.map(memory.start, 0x10000, 0x8000)
    assert v1.unmap(0x10000, PAGE) == 0x8000
    assert v1.mapped() == []


NEW = {"type1_extensions": (1, 3, 6, 9, 10)}


@pytest.mark.parametrize("kind", [1, 3])
def test_unmap_all(memory: Memory, kind: int) -> None:
    bench = Dma(kind, **NEW)
    for iova in (0, 0x10000):
        bench.map(memory.start, iova, 2 * PAGE)
    for iova, size in ((0, PAGE), (PAGE, 0)):
        with fails("EINVAL"):
            bench.unmap(iova, size, 2)
    assert bench.unmap(0, 0, 2) == 4 * PAGE
    assert bench.unmap(0, 0, 2) == 0


def test_vaddr_can_be_replaced(memory: Memory) -> None:
    bench = Dma(3, **NEW)
    with fails("ENOENT"):
        bench.map(memory.start, 0, flags=VADDR)
    bench.map(memory.start, 0, 2 * PAGE)
    with fails("EINVAL"):
        bench.map(memory.start, 0, 2 * PAGE, flags=VADDR)
    assert bench.unmap(0, 2 * PAGE, 4) == 2 * PAGE
    with fails("EINVAL"):
        bench.unmap(0, 2 * PAGE, 4)
    with pytest.raises(DmaFault):
        bench.hw().dma.read(0, 1)
    with fails("EINVAL"):
        bench.map(memory.start, 0, PAGE, flags=VADDR)
    with fails("EINVAL"):
        bench.map(memory.start, 0, 2 * PAGE, flags=VADDR | READ)
    memory.map[PAGE : PAGE + 2] = b"ok"
    assert bench.map(memory.start + PAGE, 0, 2 * PAGE, flags=VADDR) == 0
    assert bench.hw().dma.read(0, 2) == b"ok"


# -- what the device sees --------------------------------------------------------------------------


def test_device_reads_and_writes_client_memory(dma: Dma, memory: Memory) -> None:
    dma.map(memory.start, 0x10000, 2 * PAGE)
    memory.map[0x10:0x15] = b"hello"
    assert dma.hw().dma.read(0x10010, 5) == b"hello"
    dma.hw().dma.write(0x10FFE, b"across")
    assert memory.map[0xFFE:0x1004] == b"across"


def test_device_access_runs_through_adjacent_mappings(dma: Dma, memory: Memory) -> None:
    dma.map(memory.start + 5 * PAGE, 0)
    dma.map(memory.start, PAGE)
    dma.hw().dma.write(PAGE - 2, b"abcd")
    assert memory.map[6 * PAGE - 2 : 6 * PAGE] + memory.map[0:2] == b"abcd"


def test_device_faults_where_nothing_is_mapped(dma: Dma, memory: Memory) -> None:
    dma.map(memory.start, 0x10000)
    for iova, size, first in ((0, 1, 0), (0xFFFF, 2, 0xFFFF), (0x10FFF, 2, 0x11000)):
        with pytest.raises(DmaFault) as caught:
            dma.hw().dma.read(iova, size)
        assert caught.value.iova == first


def test_device_faults_against_the_direction(dma: Dma, memory: Memory) -> None:
    dma.map(memory.start, 0, flags=READ)
    dma.map(memory.start, PAGE, flags=WRITE)
    with pytest.raises(DmaFault):
        dma.hw().dma.write(0, b"x")
    with pytest.raises(DmaFault):
        dma.hw().dma.read(PAGE, 1)


def test_device_faults_when_the_client_unmapped_its_memory(dma: Dma) -> None:
    page = EdgePage()
    dma.map(page.start, 0)
    assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(page.start), PAGE, 0)
    with pytest.raises(DmaFault):
        dma.hw().dma.read(0, 1)
    with pytest.raises(DmaFault):
        dma.hw().dma.write(0, b"x")


def test_device_without_container_faults(bench: Bench) -> None:
    with pytest.raises(DmaFault):
        bench.hw().dma.read(0, 1)
    _, group = bench.attached()
    bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)
    with pytest.raises(DmaFault):
        bench.hw().dma.write(0, b"x")


def test_group_that_joins_later_sees_the_mappings(dma: Dma, memory: Memory) -> None:
    dma.map(memory.start, 0)
    memory.map[0:1] = b"!"
    dma.set_container(dma.group(2), dma.fd)
    assert dma.hw(MULTI).dma.read(0, 1) == b"!"
    assert dma.hw("9031000.companion").dma.read(0, 1) == b"!"


def test_leaving_the_container_ends_all_mappings(dma: Dma, memory: Memory) -> None:
    dma.map(memory.start, 0)
    dma.ioctl(dma.group_fd, uapi.VFIO_GROUP_UNSET_CONTAINER)
    dma.set_container(dma.group_fd, dma.fd)
    dma.ioctl(dma.fd, uapi.VFIO_SET_IOMMU, 3)
    assert dma.mapped() == []


@pytest.mark.parametrize("request_number", [uapi.VFIO_IOMMU_ENABLE, uapi.VFIO_IOMMU_DISABLE])
def test_requests_of_other_iommus_are_enotty(dma: Dma, request_number: int) -> None:
    with fails("ENOTTY"):
        dma.ioctl(dma.fd, request_number)
