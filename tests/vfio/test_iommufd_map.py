"""iommufd: mapping, copying, unmapping, and which IOVA may be used; drivers/iommu/iommufd/ioas.c, io_pagetable.c."""

from __future__ import annotations

import mmap

import pytest
from iommufd_bench import ALL, FIXED, PAGE, RANGES, READ, WRITE, IommufdBench, bench
from vfio_bench import WILD, fails

__all__ = ["bench"]

MAP = {"flags": READ | WRITE | FIXED, "length": PAGE, "iova": 0x10000}


def test_a_fresh_address_space_takes_any_byte(bench: IommufdBench) -> None:
    ioas = bench.ioas()
    assert bench.ranges(ioas) == [(0, ALL)]
    assert bench.alignment == 1
    address, _ = bench.memory()
    assert bench.map(ioas, address + 3, length=5, iova=7) == 7
    assert bench.unmap(ioas, 0, 100) == 5


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("EOPNOTSUPP", {"flags": READ | 8}),
        ("EOPNOTSUPP", {"__reserved": 1}),
        ("EOVERFLOW", {"iova": ALL}),
        ("EOVERFLOW", {"length": ALL}),
        ("EINVAL", {"flags": FIXED}),
        ("ENOENT", {"ioas_id": 9}),
        ("EINVAL", {"length": 0}),
        ("EINVAL", {"length": ALL - 1}),
        ("EOVERFLOW", {"iova": ALL - 1}),
    ],
)
def test_what_map_refuses(bench: IommufdBench, name: str, fields: dict[str, int]) -> None:
    ioas, (address, _) = bench.ioas(), bench.memory()
    with fails(name):
        bench.command("IOAS_MAP", **{"ioas_id": ioas, "user_va": address, **MAP, **fields})
    assert bench.unmap(ioas, 0, ALL) == 0


def test_flags_are_judged_before_numbers_and_both_before_the_object(bench: IommufdBench) -> None:
    with fails("EOPNOTSUPP"):
        bench.command("IOAS_MAP", flags=8, ioas_id=99, length=ALL)
    with fails("EOVERFLOW"):
        bench.command("IOAS_MAP", flags=0, ioas_id=99, length=ALL)
    with fails("EINVAL"):
        bench.command("IOAS_MAP", flags=0, ioas_id=99)


def test_overlap_is_eexist(bench: IommufdBench) -> None:
    ioas, (address, _) = bench.ioas(), bench.memory(2 * PAGE)
    bench.map(ioas, address, length=2 * PAGE, iova=0x10000)
    for iova, length in ((0x10000, PAGE), (0xF000, 2 * PAGE), (0x11FFF, 1), (0x8000, 0x10000)):
        with fails("EEXIST"):
            bench.map(ioas, address, length=length, iova=iova)
    assert bench.map(ioas, address, iova=0x12000) == 0x12000


def test_memory_is_looked_at_once_a_device_is_there(bench: IommufdBench) -> None:
    ioas = bench.ioas()
    bench.map(ioas, WILD & -PAGE, iova=0x10000)  # nobody looks
    device, _ = bench.bound()
    with fails("EFAULT"):
        bench.attach(device, ioas)
    assert bench.ranges(ioas) == [(0, ALL)], "a refused attach leaves no trace"
    bench.unmap(ioas, 0x10000, PAGE)
    bench.attach(device, ioas)
    with fails("EFAULT"):
        bench.map(ioas, 0x1000, iova=0x10000)
    address, _ = bench.memory(prot=mmap.PROT_READ)
    with fails("EFAULT"):
        bench.map(ioas, address, iova=0x10000)
    assert bench.map(ioas, address, flags=READ, iova=0x10000) == 0x10000


# -- where the kernel chooses ------------------------------------------------------------------------------------------


def test_a_chosen_iova_is_the_lowest_that_is_as_aligned_as_the_memory(bench: IommufdBench) -> None:
    ioas, (address, _) = bench.ioas(), bench.memory(1 << 20)
    base = -(-address // 0x8000) * 0x8000 | 0x8000  # at least 32 KiB aligned
    assert bench.map(ioas, base, length=PAGE) == PAGE, "never 0"
    first = bench.map(ioas, base, length=0x4000)
    assert first == 0x4000
    assert bench.map(ioas, base + PAGE, length=0x4000) == 0x2000 + 0x6000
    assert bench.map(ioas, base + 0x10, length=0x20) == 0x2010
    bench.unmap(ioas, first, 0x4000)
    assert bench.map(ioas, base, length=0x4000) == first


def test_a_chosen_iova_is_in_an_allowed_range(bench: IommufdBench) -> None:
    ioas, (address, _) = bench.ioas(), bench.memory(4 * PAGE)
    bench.allow(ioas, (0x100000, 0x101FFF))
    assert 0x100000 <= bench.map(ioas, address, length=PAGE) <= 0x101000
    bench.map(ioas, address, length=PAGE)
    with fails("ENOSPC"):
        bench.map(ioas, address, length=PAGE)
    assert bench.map(ioas, address, iova=0x5000) == 0x5000, "a fixed one need not be"


def test_a_length_that_no_iova_has(bench: IommufdBench) -> None:
    ioas, (address, _) = bench.ioas(), bench.memory()
    with fails("EOVERFLOW"):
        bench.map(ioas, address, length=1 << 63)
    with fails("ENOSPC"):
        bench.map(ioas, 1 << 62, length=(1 << 62) + (1 << 61))
        bench.map(ioas, 1 << 62, length=(1 << 62) + (1 << 61))


# -- unmap -------------------------------------------------------------------------------------------------------------


def test_unmap_takes_whole_mappings(bench: IommufdBench) -> None:
    ioas, (address, _) = bench.ioas(), bench.memory(4 * PAGE)
    for iova in (0x10000, 0x12000, 0x14000):
        bench.map(ioas, address, length=2 * PAGE, iova=iova)
    with fails("ENOENT"):
        bench.unmap(ioas, 0x11000, PAGE)
    with fails("ENOENT"):
        bench.unmap(ioas, 0x20000, PAGE)
    with fails("ENOENT"):  # the first goes although the second sticks out
        bench.unmap(ioas, 0x10000, 0x3000)
    assert bench.unmap(ioas, 0, 0x20000) == 4 * PAGE


@pytest.mark.parametrize(
    ("name", "iova", "length"),
    [("EINVAL", 0, 0), ("EOVERFLOW", ALL, 1), ("EOVERFLOW", 1, ALL), ("EOVERFLOW", ALL - 1, 3)],
)
def test_what_unmap_refuses(bench: IommufdBench, name: str, iova: int, length: int) -> None:
    with fails(name):
        bench.unmap(bench.ioas(), iova, length)


def test_unmapping_everything_is_fine_with_nothing(bench: IommufdBench) -> None:
    ioas = bench.ioas()
    assert bench.unmap(ioas, 0, ALL) == 0
    bench.map(ioas, bench.memory()[0])
    assert bench.unmap(ioas, 0, ALL) == PAGE
    with fails("ENOENT"):
        bench.unmap(ioas + 1, 0, ALL)


# -- copy --------------------------------------------------------------------------------------------------------------


def copy(bench: IommufdBench, source: int, target: int, *, flags: int = READ | WRITE, **fields: int) -> int:
    flags |= FIXED if "dst_iova" in fields else 0
    return int(bench.command("IOAS_COPY", flags=flags, src_ioas_id=source, dst_ioas_id=target, **fields).dst_iova)


def test_a_copy_shows_the_same_memory(bench: IommufdBench) -> None:
    source, target = bench.ioas(), bench.ioas()
    address, area = bench.memory(2 * PAGE)
    bench.map(source, address, iova=0x10000)
    bench.map(source, address + PAGE, iova=0x11000)
    assert copy(bench, source, target, src_iova=0x10800, length=PAGE, dst_iova=0x20800) == 0x20800
    device, _ = bench.bound()
    with fails("EADDRINUSE"):  # half pages
        bench.attach(device, target)
    bench.unmap(target, 0, ALL)
    copy(bench, source, target, src_iova=0x10000, length=2 * PAGE, dst_iova=0x20000)
    bench.attach(device, target)
    bench.edu.dma.write(0x20FFE, b"four")
    assert area[PAGE - 2 : PAGE + 2] == b"four"
    assert bench.unmap(target, 0x20000, PAGE) == PAGE, "one mapping for each piece"


def test_what_copy_refuses(bench: IommufdBench) -> None:
    ioas, (address, _) = bench.ioas(), bench.memory()
    bench.map(ioas, address, flags=READ, iova=0x10000)
    for name, fields in [
        ("EOPNOTSUPP", {"flags": 8}),
        ("EINVAL", {"flags": 0}),
        ("EINVAL", {"length": 0}),
        ("EOVERFLOW", {"length": ALL}),
        ("EOVERFLOW", {"src_iova": ALL}),
        ("EOVERFLOW", {"src_iova": ALL - 1, "length": 8}),
        ("ENOENT", {"length": PAGE + 1}),
        ("ENOENT", {"src_iova": 0x20000}),
        ("EPERM", {}),  # the source may only be read
    ]:
        with fails(name):
            copy(bench, ioas, ioas, **{"src_iova": 0x10000, "length": PAGE, "dst_iova": 0x30000, **fields})
    with fails("ENOENT"):
        copy(bench, 7, ioas, src_iova=0x10000, length=PAGE)
    with fails("ENOENT"):
        copy(bench, ioas, 7, src_iova=0x10000, length=PAGE)
    with fails("EEXIST"):
        copy(bench, ioas, ioas, flags=READ, src_iova=0x10000, length=PAGE, dst_iova=0x10000)
    assert copy(bench, ioas, ioas, flags=READ, src_iova=0x10000, length=PAGE)


# -- ranges ------------------------------------------------------------------------------------------------------------


def test_a_device_narrows_the_ranges_while_it_is_attached(bench: IommufdBench) -> None:
    ioas, (device, _) = bench.ioas(), bench.bound()
    bench.attach(device, ioas)
    assert bench.ranges(ioas) == RANGES
    assert bench.alignment == PAGE
    address, _ = bench.memory(2 * PAGE)
    for iova in (0x8000000, 0x7FFF000, 0x80FF000, (1 << 48) - PAGE, 1 << 50):
        with fails("EINVAL"):
            bench.map(ioas, address, length=2 * PAGE, iova=iova)
    for unaligned in ({"iova": 0x10800}, {"iova": 0x10000, "length": 0x800}):
        with fails("EINVAL"):
            bench.map(ioas, address, **unaligned)
    with fails("EINVAL"):
        bench.map(ioas, address + 0x800, iova=0x10000)
    bench.detach(device)
    assert bench.ranges(ioas) == [(0, ALL)]
    assert bench.alignment == 1


def test_ranges_with_too_little_room(bench: IommufdBench) -> None:
    ioas, (device, _) = bench.ioas(), bench.bound()
    bench.attach(device, ioas)
    for room in (0, 1):
        with fails("EMSGSIZE"):
            bench.ranges(ioas, room)
        assert bench.last.num_iovas == 2, "how many there are"
    with fails("EFAULT"):
        bench.command("IOAS_IOVA_RANGES", ioas_id=ioas, num_iovas=1, allowed_iovas=WILD)
    with fails("EOPNOTSUPP"):
        bench.command("IOAS_IOVA_RANGES", ioas_id=9, __reserved=1)
    with fails("ENOENT"):
        bench.command("IOAS_IOVA_RANGES", ioas_id=9)


def test_what_was_allowed_must_stay_usable(bench: IommufdBench) -> None:
    ioas, (device, _) = bench.ioas(), bench.bound()
    bench.allow(ioas, (0x7000000, 0x8000000))
    with fails("EADDRINUSE"):
        bench.attach(device, ioas)
    bench.allow(ioas, (0, 0x7FFFFFF))
    bench.attach(device, ioas)
    with fails("EADDRINUSE"):
        bench.allow(ioas, (0x8100000, ALL))
    bench.allow(ioas)


def test_ranges_to_allow_must_be_ranges(bench: IommufdBench) -> None:
    ioas = bench.ioas()
    for spans in ([(5, 5)], [(6, 5)], [(0, 9), (9, 20)], [(0, 99), (3, 4)]):
        with fails("EINVAL"):
            bench.allow(ioas, *spans)
    with fails("EFAULT"):
        bench.command("IOAS_ALLOW_IOVAS", ioas_id=ioas, num_iovas=1, allowed_iovas=WILD)
    with fails("EOPNOTSUPP"):
        bench.command("IOAS_ALLOW_IOVAS", ioas_id=9, __reserved=1)
    with fails("ENOENT"):
        bench.command("IOAS_ALLOW_IOVAS", ioas_id=9)


def test_a_mapping_where_a_device_needs_room_stands_against_it(bench: IommufdBench) -> None:
    ioas, (device, _) = bench.ioas(), bench.bound()
    address, _ = bench.memory()
    for iova in (0x8000000, 1 << 48):
        bench.map(ioas, address, iova=iova)
        with fails("EADDRINUSE"):
            bench.attach(device, ioas)
        bench.unmap(ioas, iova, PAGE)
    bench.map(ioas, address, length=0x10, iova=0x10)
    with fails("EADDRINUSE"):
        bench.attach(device, ioas)
    assert bench.ranges(ioas) == [(0, ALL)]
