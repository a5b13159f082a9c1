"""iommufd: devices bound to it, what they are attached to, page tables; drivers/iommu/iommufd/device.c."""

from __future__ import annotations

import dataclasses

import pytest
from iommufd_bench import ALL, PAGE, RANGES, IommufdBench, bench
from pci_bench import BOARD, EDU, FULL, TWIN, TWIN2
from vfio_bench import WILD, Bench, fails

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.board import Board
from kvmvfio_emu.hw.devices.base import DmaFault

__all__ = ["bench"]


def used_together() -> IommufdBench:
    """A bench where the two functions of one device share an IOMMU group."""
    made = IommufdBench.__new__(IommufdBench)
    devices = tuple(dataclasses.replace(spec, group=9) if spec.name == TWIN2 else spec for spec in BOARD.devices)
    Bench.__init__(
        made, dataclasses.replace(BOARD, devices=devices), iommufd=True, vfio_device_cdev=True, eventfd_drained=True
    )
    made.iommu = made.open("/dev/iommu")
    made._memory = []
    return made


def test_dma_goes_through_the_address_space(bench: IommufdBench) -> None:
    ioas, (address, area) = bench.ioas(), bench.memory()
    device, _ = bench.bound()
    with pytest.raises(DmaFault):
        bench.edu.dma.read(0x10000, 4)
    bench.map(ioas, address, iova=0x10000)
    table = bench.attach(device, ioas)
    bench.edu.dma.write(0x10010, b"dma")
    assert area[0x10:0x13] == b"dma"
    area[0:4] = b"back"
    assert bench.edu.dma.read(0x10000, 4) == b"back"
    bench.unmap(ioas, 0x10000, PAGE)
    with pytest.raises(DmaFault):
        bench.edu.dma.read(0x10000, 4)
    bench.map(ioas, address, iova=0x10000)
    bench.detach(device)
    with pytest.raises(DmaFault):
        bench.edu.dma.read(0x10000, 4)
    bench.detach(device)  # twice is harmless
    with fails("ENOENT"):
        bench.command("DESTROY", id=table)  # it went with its last device


def test_devices_share_a_page_table_that_attaching_made(bench: IommufdBench) -> None:
    ioas = bench.ioas()
    (edu, _), (full, _) = bench.bound(EDU), bench.bound(FULL)
    table = bench.attach(edu, ioas)
    assert bench.attach(full, ioas) == table
    bench.detach(edu)
    with fails("EBUSY"):
        bench.command("DESTROY", id=table)
    assert bench.ranges(ioas) == RANGES
    bench.detach(full)
    assert bench.ranges(ioas) == [(0, ALL)]


def test_who_uses_what(bench: IommufdBench) -> None:
    ioas, (device, number) = bench.ioas(), bench.bound()
    with fails("EBUSY"):
        bench.command("DESTROY", id=number)
    table = bench.attach(device, ioas)
    for used in (ioas, table, number):
        with fails("EBUSY"):
            bench.command("DESTROY", id=used)
    bench.close(device)
    bench.command("DESTROY", id=ioas)
    with fails("ENOENT"):
        bench.command("DESTROY", id=number)


def test_a_page_table_made_on_purpose_stays(bench: IommufdBench) -> None:
    ioas, (device, number) = bench.ioas(), bench.bound()
    table = bench.command("HWPT_ALLOC", dev_id=number, pt_id=ioas).out_hwpt_id
    with fails("EBUSY"):
        bench.command("DESTROY", id=ioas)
    assert bench.attach(device, table) == table
    with fails("EBUSY"):
        bench.command("DESTROY", id=table)
    assert bench.attach(device, ioas) != table, "attaching to the address space makes its own"
    bench.command("DESTROY", id=table)
    bench.detach(device)
    bench.command("DESTROY", id=ioas)


def test_attaching_again_moves_the_device(bench: IommufdBench) -> None:
    first, second = bench.ioas(), bench.ioas()
    (address, area), (other, elsewhere) = bench.memory(), bench.memory()
    bench.map(first, address, iova=0x10000)
    bench.map(second, other, iova=0x10000)
    device, _ = bench.bound()
    table = bench.attach(device, first)
    assert bench.attach(device, first) == table
    moved = bench.attach(device, second)
    assert moved != table
    bench.edu.dma.write(0x10000, b"moved")
    assert (area[:5], elsewhere[:5]) == (bytes(5), b"moved")
    assert bench.ranges(first) == [(0, ALL)]
    assert bench.ranges(second) == RANGES
    bench.command("DESTROY", id=first)


def test_a_move_that_fails_leaves_all_as_it_was(bench: IommufdBench) -> None:
    first, second = bench.ioas(), bench.ioas()
    address, area = bench.memory()
    bench.map(first, address, iova=0x10000)
    bench.map(second, address, iova=0x8000000)
    device, _ = bench.bound()
    bench.attach(device, first)
    with fails("EADDRINUSE"):
        bench.attach(device, second)
    with fails("ENOENT"):
        bench.attach(device, 77)
    bench.edu.dma.write(0x10000, b"still")
    assert area[:5] == b"still"
    assert bench.ranges(second) == [(0, ALL)]


def test_devices_are_nothing_to_attach_to(bench: IommufdBench) -> None:
    device, number = bench.bound()
    with fails("EINVAL"):
        bench.attach(device, number)


def test_the_devices_of_one_group_stand_behind_one_page_table() -> None:
    bench = used_together()
    first, second = bench.ioas(), bench.ioas()
    (one, _), (two, _) = bench.bound(TWIN), bench.bound(TWIN2)
    table = bench.attach(one, first)
    assert bench.card(TWIN2).dma is bench.card(TWIN).dma, "the group moves as a whole"
    with fails("EINVAL"):
        bench.attach(two, second)
    assert bench.attach(two, first) == table
    bench.attach(one, second)
    assert bench.ranges(first) == [(0, ALL)], "both went along"
    bench.detach(one)
    assert bench.ranges(second) == RANGES
    other = bench.open("/dev/iommu")
    bench.close(one)
    with fails("EPERM"):  # the group belongs to the first
        bench.bind(bench.node(TWIN), other)
    bench.finish()


def test_a_host_driver_in_the_group() -> None:
    bench = used_together()
    bench.vfio.unbind(TWIN2)
    bench.vfio.bind(TWIN2, "some-driver")
    with fails("EPERM"):
        bench.bound(TWIN)
    bench.finish()


@pytest.mark.parametrize(
    ("errno", "iommu"), [("EINVAL", {"coherent": False}), ("EPERM", {"interrupt_remapping": False})]
)
def test_an_iommu_that_is_not_good_enough(errno: str, iommu: dict[str, bool]) -> None:
    bench = IommufdBench()
    bench.machine.board = dataclasses.replace(BOARD, iommu=BOARD.iommu._replace(**iommu))
    assert isinstance(bench.machine.board, Board)
    with fails(errno):
        bench.bound()
    if errno == "EPERM":
        bench.host.modules["iommufd"].allow_unsafe_interrupts = True
        bench.bound()
    bench.finish()


def test_the_file_lives_as_long_as_its_devices(bench: IommufdBench) -> None:
    ioas, (address, area) = bench.ioas(), bench.memory()
    bench.map(ioas, address, iova=0x10000)
    device, _ = bench.bound()
    bench.attach(device, ioas)
    bench.close(bench.iommu)
    bench.edu.dma.write(0x10000, b"alive")
    assert area[:5] == b"alive"
    bench.close(device)
    assert bench.host.open_files() == []


# -- page tables and hardware ----------------------------------------------------------------------------------------


def test_what_a_page_table_cannot_be(bench: IommufdBench) -> None:
    ioas, (device, number) = bench.ioas(), bench.bound()
    table = bench.command("HWPT_ALLOC", dev_id=number, pt_id=ioas).out_hwpt_id
    for name, fields in [
        ("EOPNOTSUPP", {"__reserved": 1, "dev_id": 99}),
        ("EINVAL", {"data_type": 1, "dev_id": 99}),
        ("EINVAL", {"data_len": 1, "dev_id": 99}),
        ("ENOENT", {"dev_id": 99}),
        ("ENOENT", {"dev_id": ioas}),
        ("EINVAL", {"pt_id": 99}),
        ("EINVAL", {"pt_id": number}),
        ("EOPNOTSUPP", {"flags": uapi.IOMMU_HWPT_ALLOC_NEST_PARENT}),
        ("EOPNOTSUPP", {"flags": uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING}),
        ("EOPNOTSUPP", {"data_type": 1, "data_len": 8}),
        ("EOPNOTSUPP", {"pt_id": table}),
        ("EINVAL", {"pt_id": table, "data_type": 1, "data_len": 8}),
    ]:
        with fails(name):
            bench.command("HWPT_ALLOC", **{"dev_id": number, "pt_id": ioas, **fields})
    bench.close(device)
    bench.command("DESTROY", id=table)
    bench.command("DESTROY", id=ioas)


def test_hw_info_says_nothing_and_clears_the_buffer(bench: IommufdBench) -> None:
    _, number = bench.bound()
    address, area = bench.memory()
    area[:16] = b"x" * 16
    answer = bench.command("GET_HW_INFO", dev_id=number, data_len=8, data_uptr=address)
    assert (answer.data_len, answer.out_data_type, answer.out_capabilities) == (0, uapi.IOMMU_HW_INFO_TYPE_NONE, 0)
    assert area[:16] == bytes(8) + b"x" * 8
    with fails("EFAULT"):
        bench.command("GET_HW_INFO", dev_id=number, data_len=8, data_uptr=WILD)
    for name, fields in [("EOPNOTSUPP", {"flags": 1}), ("EOPNOTSUPP", {"__reserved": 1}), ("ENOENT", {"dev_id": 9})]:
        with fails(name):
            bench.command("GET_HW_INFO", **{"dev_id": number, **fields})


def test_no_dirty_tracking(bench: IommufdBench) -> None:
    ioas, (_, number) = bench.ioas(), bench.bound()
    table = bench.command("HWPT_ALLOC", dev_id=number, pt_id=ioas).out_hwpt_id
    bitmap = {"hwpt_id": table, "iova": 0, "length": PAGE, "page_size": PAGE}
    for request, name, fields in [
        ("HWPT_SET_DIRTY_TRACKING", "EOPNOTSUPP", {"hwpt_id": 99, "flags": 2}),
        ("HWPT_SET_DIRTY_TRACKING", "ENOENT", {"hwpt_id": 99, "flags": 1}),
        ("HWPT_SET_DIRTY_TRACKING", "EOPNOTSUPP", {"hwpt_id": table, "flags": 1}),
        ("HWPT_GET_DIRTY_BITMAP", "EOPNOTSUPP", {"hwpt_id": 99, "flags": 2}),
        ("HWPT_GET_DIRTY_BITMAP", "ENOENT", bitmap | {"hwpt_id": 99}),
        ("HWPT_GET_DIRTY_BITMAP", "EOVERFLOW", bitmap | {"length": 0}),
        ("HWPT_GET_DIRTY_BITMAP", "EOVERFLOW", bitmap | {"iova": ALL, "length": 2}),
        ("HWPT_GET_DIRTY_BITMAP", "EINVAL", bitmap | {"length": 0x800}),
        ("HWPT_GET_DIRTY_BITMAP", "EINVAL", bitmap | {"page_size": 0}),
        ("HWPT_GET_DIRTY_BITMAP", "EINVAL", bitmap | {"page_size": 2 * PAGE}),
        ("HWPT_GET_DIRTY_BITMAP", "EOPNOTSUPP", bitmap),
        ("HWPT_INVALIDATE", "EOPNOTSUPP", {"__reserved": 1}),
        ("HWPT_INVALIDATE", "EINVAL", {"entry_num": 2}),
        ("HWPT_INVALIDATE", "ENOENT", {"hwpt_id": table}),
    ]:
        with fails(name):
            bench.command(request, **fields)
    with fails("EINVAL"):
        bench.command("HWPT_INVALIDATE", entry_num=2)
    assert bench.last.entry_num == 0, "how many were done"
