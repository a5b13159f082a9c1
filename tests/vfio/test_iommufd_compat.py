"""An iommufd in the place of a VFIO container, and VFIO's container ioctls on it; iommufd's vfio_compat.c."""

from __future__ import annotations

import struct

import pytest
from iommufd_bench import ALL, PAGE, RANGES, IommufdBench, bench, group_of
from pci_bench import EDU
from vfio_bench import WILD, fails

from kvmvfio_emu import uapi

__all__ = ["bench"]

GET, SET, CLEAR = uapi.IOMMU_VFIO_IOAS_GET, uapi.IOMMU_VFIO_IOAS_SET, uapi.IOMMU_VFIO_IOAS_CLEAR


def map_dma(bench: IommufdBench, vaddr: int, iova: int, size: int = PAGE, flags: int = 3) -> None:
    request = uapi.pack("struct vfio_iommu_type1_dma_map", argsz=32, flags=flags, vaddr=vaddr, iova=iova, size=size)
    bench.ioctl(bench.iommu, uapi.VFIO_IOMMU_MAP_DMA, uapi.ffi.from_buffer(request))


def unmap_dma(bench: IommufdBench, iova: int, size: int, flags: int = 0) -> int:
    request = uapi.pack("struct vfio_iommu_type1_dma_unmap", argsz=24, flags=flags, iova=iova, size=size)
    try:
        bench.ioctl(bench.iommu, uapi.VFIO_IOMMU_UNMAP_DMA, uapi.ffi.from_buffer(request))
    finally:
        bench.unmapped = uapi.view("struct vfio_iommu_type1_dma_unmap", request).size
    return int(bench.unmapped)


def opened(bench: IommufdBench) -> tuple[int, int]:
    """(group, device): the group with the iommufd for a container."""
    group = bench.group(group_of(EDU))
    bench.set_container(group, bench.iommu)
    return group, bench.get_device(group, EDU)


def test_a_group_takes_an_iommufd_for_a_container(bench: IommufdBench) -> None:
    group, device = opened(bench)
    address, area = bench.memory()
    assert bench.ioctl(bench.iommu, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU) == 0
    map_dma(bench, address, 0x10000)
    bench.edu.dma.write(0x10000, b"compat")
    assert area[:6] == b"compat"
    status = uapi.ffi.new("struct vfio_group_status *", {"argsz": 8})
    bench.ioctl(group, uapi.VFIO_GROUP_GET_STATUS, status)
    assert status.flags == 3
    with fails("EINVAL"):
        bench.set_container(group, bench.container())
    ioas = bench.command("VFIO_IOAS", op=GET).ioas_id
    assert bench.ranges(ioas) == RANGES
    bench.close(device)
    assert bench.ranges(ioas) == [(0, ALL)]


def test_the_device_stays_when_the_group_lets_go(bench: IommufdBench) -> None:
    group, device = opened(bench)
    assert bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER) == 0
    with fails("EINVAL"):
        bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)
    with fails("EINVAL"):
        bench.get_device(group, EDU)
    info = uapi.ffi.new("struct vfio_irq_info *", {"argsz": 16})
    assert bench.ioctl(device, uapi.VFIO_DEVICE_GET_IRQ_INFO, info) == 0
    bench.close(group)
    with fails("EINVAL"):  # the group is closed, so the node may be bound, but the device is in use
        bench.bind(bench.node())
    bench.close(device)
    bench.bind(bench.node())


def test_a_second_file_of_the_device_shares_the_binding(bench: IommufdBench) -> None:
    group, device = opened(bench)
    again = bench.get_device(group, EDU)
    bench.close(device)
    assert bench.ranges(bench.command("VFIO_IOAS", op=GET).ioas_id) == RANGES
    bench.close(again)


def test_the_address_space_of_the_container_ioctls(bench: IommufdBench) -> None:
    with fails("ENODEV"):
        bench.command("VFIO_IOAS", op=GET)
    with fails("ENOENT"):
        bench.command("VFIO_IOAS", op=SET, ioas_id=1)
    ioas = bench.ioas()
    bench.command("VFIO_IOAS", op=SET, ioas_id=ioas)
    opened(bench)
    assert bench.command("VFIO_IOAS", op=GET).ioas_id == ioas, "none is made when there is one"
    bench.command("VFIO_IOAS", op=CLEAR)
    with fails("ENODEV"):
        map_dma(bench, 0, 0)
    for fields in ({"op": 3}, {"__reserved": 1}):
        with fails("EOPNOTSUPP"):
            bench.command("VFIO_IOAS", **fields)


def test_destroying_it_leaves_none(bench: IommufdBench) -> None:
    ioas = bench.ioas()
    bench.command("VFIO_IOAS", op=SET, ioas_id=ioas)
    bench.command("DESTROY", id=ioas)
    with fails("ENODEV"):
        bench.command("VFIO_IOAS", op=GET)


def test_without_one_a_device_cannot_be_opened(bench: IommufdBench) -> None:
    group = bench.group(group_of(EDU))
    bench.set_container(group, bench.iommu)
    bench.command("VFIO_IOAS", op=CLEAR)
    with fails("ENODEV"):
        bench.get_device(group, EDU)
    assert bench.vfio.registered[0].open_count == 0


def test_extensions_and_types(bench: IommufdBench) -> None:
    def check(number: int) -> int:
        return int(bench.ioctl(bench.iommu, uapi.VFIO_CHECK_EXTENSION, number))

    assert bench.ioctl(bench.iommu, uapi.VFIO_GET_API_VERSION) == 0
    assert [number for number in range(20) if number != uapi.VFIO_DMA_CC_IOMMU and check(number)] == [1, 3, 9]
    for name, kind in (("EINVAL", 6), ("EINVAL", 0), ("ENODEV", 1), ("ENODEV", 3)):
        with fails(name):
            bench.ioctl(bench.iommu, uapi.VFIO_SET_IOMMU, kind)
    with fails("ENODEV"):
        check(uapi.VFIO_DMA_CC_IOMMU)
    bench.command("VFIO_IOAS", op=SET, ioas_id=bench.ioas())
    assert check(uapi.VFIO_DMA_CC_IOMMU) == 1
    opened(bench)
    assert check(uapi.VFIO_DMA_CC_IOMMU) == 0, "this IOMMU cannot enforce it"


def test_type_1_cuts_mappings_and_1v2_does_not(bench: IommufdBench) -> None:
    bench.command("VFIO_IOAS", op=SET, ioas_id=bench.ioas())
    address, _ = bench.memory(4 * PAGE)
    map_dma(bench, address, 0x10000, 4 * PAGE)
    with fails("ENOENT"):
        unmap_dma(bench, 0x11000, PAGE)
    assert bench.unmapped == 0
    bench.ioctl(bench.iommu, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1_IOMMU)
    device, _ = bench.bound()
    bench.attach(device, 1)
    assert unmap_dma(bench, 0x11000, PAGE) == PAGE
    bench.edu.dma.write(0x12000, b"rest")
    bench.edu.dma.write(0x10FFC, b"rest")
    assert unmap_dma(bench, 0, 0, uapi.VFIO_DMA_UNMAP_FLAG_ALL) == 3 * PAGE
    for iova, size, flags in ((0, PAGE, 2), (0x10000, 0, 0), (0, 0, 1)):
        with fails("EINVAL"):
            unmap_dma(bench, iova, size, flags)
    for size, flags in ((PAGE, 4), (0, 3)):
        with fails("EINVAL"):
            map_dma(bench, address, 0x10000, size, flags)
    with fails("ENOTTY"):
        bench.ioctl(bench.iommu, uapi.VFIO_IOMMU_DIRTY_PAGES, WILD)


@pytest.mark.parametrize("room", [15, 16, 24, 40, 64, 88, 200])
def test_get_info(bench: IommufdBench, room: int) -> None:
    opened(bench)
    buffer = bytearray(struct.pack("=I", room).ljust(200, b"\xaa"))
    if room < 16:
        with fails("EINVAL"):
            bench.ioctl(bench.iommu, uapi.VFIO_IOMMU_GET_INFO, uapi.ffi.from_buffer(buffer))
        return
    bench.ioctl(bench.iommu, uapi.VFIO_IOMMU_GET_INFO, uapi.ffi.from_buffer(buffer))
    argsz, flags, sizes = struct.unpack_from("=IIQ", buffer)
    total = 24 + 12 + 16 + 2 * 16
    assert (argsz, flags, sizes) == (total, 3, 0x40201000)
    if room >= 24:
        assert struct.unpack_from("=I", buffer, 16) == (24 if room >= total else 0,)
    if room >= total:
        assert struct.unpack_from("=HHII", buffer, 24) == (3, 1, 36, 0xFFFFFFFF)
        assert struct.unpack_from("=HHIII4Q", buffer, 36) == (1, 1, 0, 2, 0, *RANGES[0], *RANGES[1])
    assert buffer[max(room, 24) :] == b"\xaa" * (200 - max(room, 24)) or room >= total
