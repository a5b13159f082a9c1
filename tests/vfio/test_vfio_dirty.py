"""Dirty bitmaps of type1 on newer kernels."""

from __future__ import annotations

import ctypes
import mmap
import struct

import pytest
from vfio_bench import WILD, Bench, fails

from kvmvfio_emu import uapi

PAGE = 0x1000
START, STOP, GET = 1, 2, 4


class Tracking(Bench):
    """A container, 128 pages of client memory, and room for a bitmap."""

    def __init__(self, kind: int = 3, start: bool = True) -> None:
        super().__init__(type1_dirty=True, type1_extensions=(1, 3, 6, 9, 10))
        self.fd, _ = self.attached(kind=kind)
        self.memory = mmap.mmap(-1, 128 * PAGE)
        self.vaddr = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.bits = (ctypes.c_uint64 * 8)()
        if start:
            self.dirty(START)

    def map(self, iova: int, pages: int) -> None:
        request = uapi.ffi.new("struct vfio_iommu_type1_dma_map *", [32, 3, self.vaddr, iova, pages * PAGE])
        self.ioctl(self.fd, uapi.VFIO_IOMMU_MAP_DMA, request)

    def description(self, pgsize: int = PAGE, room: int = 64, data: int | None = None) -> bytes:
        return struct.pack("<QQQ", pgsize, room, ctypes.addressof(self.bits) if data is None else data)

    def dirty(self, flags: int, tail: bytes = b"", argsz: int | None = None) -> int:
        raw = struct.pack("<II", 8 + len(tail) if argsz is None else argsz, flags) + tail
        return self.ioctl(self.fd, uapi.VFIO_IOMMU_DIRTY_PAGES, uapi.ffi.from_buffer(bytearray(raw)))

    def get(self, iova: int, size: int, **description: int) -> int:
        return self.dirty(GET, struct.pack("<QQ", iova, size) + self.description(**description))

    def unmap(self, iova: int, size: int, flags: int = 1, argsz: int = 48, **description: int) -> int:
        raw = bytearray(struct.pack("<IIQQ", argsz, flags, iova, size) + self.description(**description))
        self.ioctl(self.fd, uapi.VFIO_IOMMU_UNMAP_DMA, uapi.ffi.from_buffer(raw))
        return int(struct.unpack_from("<Q", raw, 16)[0])


@pytest.fixture
def tracking() -> Tracking:
    return Tracking()


def test_dirty_pages_is_enotty_in_2014(bench: Bench) -> None:
    container, _ = bench.attached()
    with fails("ENOTTY"):
        bench.ioctl(container, uapi.VFIO_IOMMU_DIRTY_PAGES, WILD)


def test_version_1_is_eacces_unread() -> None:
    bench = Tracking(1, start=False)
    with fails("EACCES"):
        bench.ioctl(bench.fd, uapi.VFIO_IOMMU_DIRTY_PAGES, WILD)


def test_bad_pointer_is_efault(tracking: Tracking) -> None:
    with fails("EFAULT"):
        tracking.ioctl(tracking.fd, uapi.VFIO_IOMMU_DIRTY_PAGES, WILD)


@pytest.mark.parametrize(("flags", "argsz"), [(START, 0), (START, 7), (0, 8), (3, 8), (6, 8), (8, 8), (2**31, 8)])
def test_bad_argsz_or_not_one_flag_is_einval(tracking: Tracking, flags: int, argsz: int) -> None:
    with fails("EINVAL"):
        tracking.dirty(flags, argsz=argsz)


def test_start_and_stop_may_be_repeated(tracking: Tracking) -> None:
    for flags in (START, START, STOP, STOP):
        assert tracking.dirty(flags) == 0


def test_get_while_off_is_einval(tracking: Tracking) -> None:
    tracking.dirty(STOP)
    with fails("EINVAL"):
        tracking.get(0, PAGE)
    with fails("EINVAL"):
        tracking.unmap(0, PAGE)


def test_get_reports_what_is_mapped(tracking: Tracking) -> None:
    tracking.map(0, 2)
    tracking.map(0x43000, 70)
    tracking.bits[7] = 0x77
    assert tracking.get(0, 200 * PAGE) == 0
    assert list(tracking.bits) == [3, ((1 << 64) - 1) ^ 7, (1 << 9) - 1, 0, 0, 0, 0, 0x77]


@pytest.mark.parametrize(
    ("iova", "size", "description"),
    [
        (0, 0, {}),
        (0, 0x800, {}),
        (0x800, PAGE, {}),
        (2**64 - PAGE, PAGE, {}),
        (2**64 - PAGE, 2 * PAGE, {}),
        (0, PAGE, {"pgsize": 0}),
        (0, PAGE, {"pgsize": 0x2000}),
        (0, PAGE, {"room": 0}),
        (0, 1000 * PAGE, {"room": 64}),
        (0, PAGE, {"room": (256 << 20) + 1}),
        (0, PAGE, {"room": 2**64 - 1}),
        (0, PAGE, {"data": 2**63}),
        (0x20000, PAGE, {}),
        (0x21000, PAGE, {}),
    ],
)
def test_get_bad_range_or_bitmap_is_einval(
    tracking: Tracking, iova: int, size: int, description: dict[str, int]
) -> None:
    tracking.map(0x20000, 2)
    with fails("EINVAL"):
        tracking.get(iova, size, **description)


def test_get_argsz_without_the_range_is_einval(tracking: Tracking) -> None:
    with fails("EINVAL"):
        tracking.dirty(GET, bytes(64), argsz=47)


@pytest.mark.parametrize("iova", [0, 0x1000])
def test_get_into_a_wild_bitmap_is_efault(tracking: Tracking, iova: int) -> None:
    tracking.map(iova, 1)
    with fails("EFAULT"):
        tracking.get(0, 2 * PAGE, data=WILD)


def test_unmap_reports_and_removes(tracking: Tracking) -> None:
    tracking.map(0x1000, 3)
    assert tracking.unmap(0, 4 * PAGE) == 3 * PAGE
    assert tracking.bits[0] == 0b1110
    assert tracking.unmap(0, 4 * PAGE) == 0


@pytest.mark.parametrize(
    ("flags", "argsz", "description"),
    [(3, 48, {}), (5, 48, {}), (1, 24, {}), (1, 47, {}), (1, 48, {"pgsize": 1}), (1, 48, {"room": 0})],
)
def test_unmap_with_bad_flags_or_bitmap_is_einval_and_removes_nothing(
    tracking: Tracking, flags: int, argsz: int, description: dict[str, int]
) -> None:
    tracking.map(0, 1)
    with fails("EINVAL"):
        tracking.unmap(0, PAGE, flags, argsz, **description)
    assert tracking.unmap(0, PAGE) == PAGE


def test_unmap_into_a_wild_bitmap_is_efault_and_removes_nothing(tracking: Tracking) -> None:
    tracking.map(0, 1)
    with fails("EFAULT"):
        tracking.unmap(0, PAGE, data=WILD)
    assert tracking.unmap(0, PAGE) == PAGE
