"""iommufd: sizes of structs, objects and their users, options; the rules of drivers/iommu/iommufd/main.c."""

from __future__ import annotations

import pytest
from iommufd_bench import PAGE, IommufdBench, bench
from pci_bench import NEW, PciBench
from vfio_bench import WILD, EdgePage, fails

from kvmvfio_emu import uapi

__all__ = ["bench"]


def test_an_older_kernel_has_no_such_node() -> None:
    older = PciBench(**NEW)
    with fails("ENOENT"):
        older.open("/dev/iommu")
    with fails("ENOENT"):
        older.open("/dev/vfio/devices/vfio0")


def test_numbers_are_the_lowest_that_are_free_from_1(bench: IommufdBench) -> None:
    assert [bench.ioas() for _ in range(3)] == [1, 2, 3]
    bench.command("DESTROY", id=2)
    assert bench.ioas() == 2
    other = bench.open("/dev/iommu")
    assert bench.command("IOAS_ALLOC", fd=other).out_ioas_id == 1


@pytest.mark.parametrize("number", [0, 2, 1 << 31, (1 << 32) - 1])
def test_destroy_of_nothing(bench: IommufdBench, number: int) -> None:
    assert bench.ioas() == 1
    with fails("ENOENT"):
        bench.command("DESTROY", id=number)


SIZES = [  # request, the least size that it takes, the whole struct
    ("DESTROY", 8, 8),
    ("IOAS_ALLOC", 12, 12),
    ("IOAS_ALLOW_IOVAS", 24, 24),
    ("IOAS_COPY", 40, 40),
    ("IOAS_IOVA_RANGES", 32, 32),
    ("IOAS_MAP", 40, 40),
    ("IOAS_UNMAP", 24, 24),
    ("OPTION", 24, 24),
    ("VFIO_IOAS", 12, 12),
    ("HWPT_ALLOC", 24, 48),
    ("GET_HW_INFO", 32, 40),
    ("HWPT_SET_DIRTY_TRACKING", 16, 16),
    ("HWPT_GET_DIRTY_BITMAP", 48, 48),
    ("HWPT_INVALIDATE", 32, 32),
]


@pytest.mark.parametrize(("name", "least", "whole"), SIZES)
def test_the_size_comes_first(bench: IommufdBench, name: str, least: int, whole: int) -> None:
    request = getattr(uapi, f"IOMMU_{name}")
    with fails("EFAULT"):
        bench.ioctl(bench.iommu, request, WILD)
    for size in (0, 4, least - 1):
        with fails("EINVAL"):
            bench.command(name, size=size)
    page = EdgePage()
    with fails("EFAULT"):  # the size can be read, what it promises cannot
        bench.ioctl(bench.iommu, request, page.put(least.to_bytes(4, "little")))
    tail = bytearray((whole + 8).to_bytes(4, "little").ljust(whole + 8, b"\0"))
    tail[-1] = 1
    with fails("E2BIG"):
        bench.ioctl(bench.iommu, request, page.put(bytes(tail)))


def test_a_longer_struct_is_fine_as_long_as_it_says_nothing(bench: IommufdBench) -> None:
    buffer = bytearray((1 << 17).to_bytes(4, "little").ljust(1 << 17, b"\0"))
    assert bench.ioctl(bench.iommu, uapi.IOMMU_IOAS_ALLOC, uapi.ffi.from_buffer(buffer)) == 0
    assert buffer[8:12] == b"\x01\0\0\0"


def test_a_shorter_answer_for_who_knows_less(bench: IommufdBench) -> None:
    _, device = bench.bound()
    bench.command("GET_HW_INFO", dev_id=device, size=32, out_capabilities=77)
    assert bench.last.out_capabilities == 77


@pytest.mark.parametrize("number", [0x7F, 0x8F, 0xFF, uapi.VFIO_IOMMU_DIRTY_PAGES & 0xFF])
def test_an_unknown_number_is_enotty_and_reads_nothing(bench: IommufdBench, number: int) -> None:
    with fails("ENOTTY"):
        bench.ioctl(bench.iommu, 0x3B00 | number, WILD)


def test_a_number_with_another_direction_is_unknown(bench: IommufdBench) -> None:
    with fails("ENOTTY"):
        bench.ioctl(bench.iommu, 1 << 30 | 12 << 16 | 0x3B81, WILD)


def test_alloc_takes_no_flags_and_is_undone_by_efault(bench: IommufdBench) -> None:
    with fails("EOPNOTSUPP"):
        bench.command("IOAS_ALLOC", flags=1)
    page = EdgePage()
    read_only = page.put(bytes((12, *bytes(11))))
    import ctypes

    assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(page.start), PAGE, 1)
    with fails("EFAULT"):
        bench.ioctl(bench.iommu, uapi.IOMMU_IOAS_ALLOC, read_only)
    assert bench.ioas() == 1


# -- options ---------------------------------------------------------------------------------------------------------

SET, GET = uapi.IOMMU_OPTION_OP_SET, uapi.IOMMU_OPTION_OP_GET
RLIMIT, HUGE = uapi.IOMMU_OPTION_RLIMIT_MODE, uapi.IOMMU_OPTION_HUGE_PAGES


def test_rlimit_mode_is_set_before_there_are_objects(bench: IommufdBench) -> None:
    assert bench.command("OPTION", option_id=RLIMIT, op=GET).val64 == 0
    bench.command("OPTION", option_id=RLIMIT, op=SET, val64=1)
    assert bench.command("OPTION", option_id=RLIMIT, op=GET).val64 == 1
    with fails("EINVAL"):
        bench.command("OPTION", option_id=RLIMIT, op=SET, val64=2)
    with fails("EOPNOTSUPP"):
        bench.command("OPTION", option_id=RLIMIT, op=GET, object_id=1)
    bench.ioas()
    with fails("EBUSY"):
        bench.command("OPTION", option_id=RLIMIT, op=SET, val64=2)


def test_huge_pages_are_an_option_of_an_address_space(bench: IommufdBench) -> None:
    ioas = bench.ioas()
    assert bench.command("OPTION", option_id=HUGE, op=GET, object_id=ioas).val64 == 1
    bench.command("OPTION", option_id=HUGE, op=SET, object_id=ioas, val64=0)
    assert bench.command("OPTION", option_id=HUGE, op=GET, object_id=ioas).val64 == 0
    bench.ranges(ioas)
    assert bench.alignment == PAGE
    bench.command("OPTION", option_id=HUGE, op=SET, object_id=ioas, val64=1)
    bench.ranges(ioas)
    assert bench.alignment == 1
    with fails("EINVAL"):
        bench.command("OPTION", option_id=HUGE, op=SET, object_id=ioas, val64=2)
    with fails("ENOENT"):
        bench.command("OPTION", option_id=HUGE, op=GET, object_id=ioas + 1)


@pytest.mark.parametrize("fields", [{"option_id": 2}, {"op": 2}, {"option_id": HUGE, "op": 9, "object_id": 1}])
def test_unknown_options_and_operations(bench: IommufdBench, fields: dict[str, int]) -> None:
    bench.ioas()
    with fails("EOPNOTSUPP"):
        bench.command("OPTION", **fields)


def test_large_pages_cannot_be_given_up_once_they_may_be_in_use(bench: IommufdBench) -> None:
    ioas = bench.ioas()
    device, _ = bench.bound()
    bench.map(ioas, bench.memory()[0])
    bench.attach(device, ioas)
    with fails("EINVAL"):
        bench.command("OPTION", option_id=HUGE, op=SET, object_id=ioas, val64=0)


def test_a_small_mapping_stands_against_giving_up_large_pages(bench: IommufdBench) -> None:
    ioas = bench.ioas()
    bench.map(ioas, bench.memory()[0], length=16, iova=16)
    with fails("EADDRINUSE"):
        bench.command("OPTION", option_id=HUGE, op=SET, object_id=ioas, val64=0)
