"""Reading, writing, mapping and resetting PCI devices, eventfds that write, DMA, and QEMU's way through it all."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest
from pci_bench import CONFIG, EDU, ERR, FULL, INTX, NEW, OLD, REQ, TWIN, TWIN2, PciBench
from vfio_bench import NONE, TRIGGER, WILD, fails

from kvmvfio_emu import uapi

HOT_INFO, HOT_RESET, IOEVENTFD = (
    uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
    uapi.VFIO_DEVICE_PCI_HOT_RESET,
    uapi.VFIO_DEVICE_IOEVENTFD,
)


@pytest.fixture
def bench() -> Iterator[PciBench]:
    bench = PciBench(**NEW)
    yield bench
    bench.finish()


# -- BARs ----------------------------------------------------------------------------------------------------


def test_accesses_are_the_largest_aligned_ones(bench: PciBench) -> None:
    bench.use(FULL)
    card = bench.card(FULL)
    assert bench.pwrite(b"0123456789", 1) == 10
    assert card.accesses == [("w", 0, 1, 1), ("w", 0, 2, 2), ("w", 0, 4, 4), ("w", 0, 8, 2), ("w", 0, 10, 1)]
    assert bench.pread(10, 1) == b"0123456789"


def test_at_the_end_of_a_bar(bench: PciBench) -> None:
    bench.use(FULL)
    assert bench.pread(8, 0xFC) == bytes(4)
    assert bench.pwrite(bytes(8), 0xFF) == 1
    for offset in (0x100, 0x1000):
        with fails("EINVAL"):
            bench.pread(1, offset)
        with fails("EINVAL"):
            bench.pwrite(b"x", offset)


@pytest.mark.parametrize("region", [3, 5, 6, 8, 9, 100])
def test_a_region_that_is_not_there(bench: PciBench, region: int) -> None:
    bench.use(FULL)
    with fails("EINVAL"):
        bench.pread(4, region << 40)
    with fails("EINVAL"):
        bench.pwrite(bytes(4), region << 40)
    assert bench.pread(0, region << 40) == b""
    assert bench.pwrite(b"", region << 40) == 0


def test_the_msix_table_is_out_of_reach(bench: PciBench) -> None:
    bench.use(FULL)
    table = (1 << 40) + 0x1000
    assert bench.pread(8, table) == b"\xff" * 8
    assert bench.pwrite(bytes(80), table) == 80
    assert bench.card(FULL).function.messages.table[12] == 1, "still masked"
    assert bench.pread(8, table - 4) == bytes(4) + b"\xff" * 4
    assert bench.pread(8, table + 76) == b"\xff" * 4 + bytes(4)


def test_a_bar_is_dead_while_the_user_has_decoding_off(bench: PciBench) -> None:
    bench.use(FULL)
    bench.set_config(4, 0, 2)
    for bar in (0, 1, 4):
        with fails("EIO"):
            bench.pread(4, bar << 40)
    assert bench.pread(4, 2 << 40) == b"\xff" * 4, "ports are not guarded: the bus answers"
    old = PciBench()
    old.use(FULL)
    old.set_config(4, 0, 2)
    assert old.pread(4, 0) == b"\xff" * 4
    old.finish()


@pytest.mark.parametrize(
    ("name", "offset", "length", "old", "new"),
    [
        (EDU, 0, 0x1000, True, True),
        (EDU, 0xFF000, 0x1000, True, True),
        (EDU, 0xFF000, 0x2000, False, False),
        (EDU, 1 << 40, 0x1000, False, False),
        (EDU, CONFIG, 0x1000, False, False),
        (EDU, 9 << 40, 0x1000, False, False),
        (FULL, 2 << 40, 0x1000, False, False),
        (FULL, 0, 0x100, False, True),
        (FULL, 1 << 40, 0x1000, True, True),
        (FULL, 1 << 40, 0x2000, False, True),
        (FULL, (1 << 40) + 0x2000, 0x1000, True, True),
        (OLD, 0, 0x2000, False, False),
    ],
)
def test_what_can_be_mapped(name: str, offset: int, length: int, old: bool, new: bool) -> None:
    for profile, allowed in (({}, old), (NEW, new)):
        bench = PciBench(**profile)
        file = bench.task.files[bench.use(name)]
        if allowed:
            file.mmap(offset, length, write=True, shared=True)
        else:
            with fails("EINVAL"):
                file.mmap(offset, length, write=True, shared=True)
        with fails("EINVAL"):
            file.mmap(offset, length, write=False, shared=False)
        bench.finish()


def test_a_mapping_shows_the_registers_and_passes_stores_on(bench: PciBench) -> None:
    file = bench.task.files[bench.use(EDU)]
    memfd = os.memfd_create("edu")
    os.ftruncate(memfd, file.map_size)
    mine = os.dup(memfd)
    file.attach_backing(memfd)
    file.mmap(0, 0x1000, write=True, shared=True)
    with mmap.mmap(mine, 0x1000) as view:
        assert view[:4] == b"\xed\x00\x00\x01"
        trigger = bench.eventfd()
        bench.triggers(INTX, trigger)
        for _ in range(2):
            view[0x60:0x64] = b"\1\0\0\0"
            bench.host.sync_mirrors()
        assert bench.count(trigger) == 1
        assert view[0x24:0x28] == b"\1\0\0\0"
        assert view[0x60:0x64] == b"\xff" * 4, "so that the next store is seen"
    os.close(mine)
    assert file.mapped_read(0, 4) == 0x010000ED
    file.mapped_write(4, 4, 0)
    assert file.mapped_read(4, 4) == 0xFFFFFFFF


# -- DMA -----------------------------------------------------------------------------------------------------


def test_edu_moves_data_through_the_iommu(bench: PciBench) -> None:
    bench.use(EDU)
    with mmap.mmap(-1, 0x1000) as memory:
        memory[:5] = b"hello"
        held = uapi.ffi.from_buffer(memory, require_writable=True)
        address = int(uapi.ffi.cast("uintptr_t", held))
        mapping = struct.pack("=IIQQQ", 32, 3, address, 0x100000, 0x1000)
        bench.ioctl(bench.container_fd, uapi.VFIO_IOMMU_MAP_DMA, uapi.ffi.from_buffer(mapping))

        def transfer(source: int, target: int, command: int) -> None:
            for register, value in ((0x80, source), (0x88, target), (0x90, 5), (0x98, command)):
                bench.set_register(register, value)

        transfer(0x100000, 0x40000, 1)
        assert bench.edu.faults == 1, "not a bus master yet"
        bench.set_config(4, 6, 2)
        transfer(0x100000, 0x40000, 1)
        transfer(0x40000, 0x100800, 3)
        assert memory[0x800:0x805] == b"hello"
        transfer(0x40000, 0x200000, 3)
        assert bench.edu.faults == 2, "not mapped"
        uapi.ffi.release(held)


# -- reset ---------------------------------------------------------------------------------------------------


def test_a_reset_clears_the_device_and_keeps_the_configuration(bench: PciBench) -> None:
    bench.use(FULL)
    card = bench.card(FULL)
    bench.set_config(4, 7, 2)
    before, resets = bench.pread(64, CONFIG), card.resets
    assert bench.ioctl(bench.fd, uapi.VFIO_DEVICE_RESET) == 0
    assert card.resets == resets + 1
    assert bench.pread(64, CONFIG) == before


@pytest.mark.parametrize("name", [EDU, OLD])
def test_a_device_that_cannot_be_reset(bench: PciBench, name: str) -> None:
    bench.use(name)
    with fails("EINVAL"):
        bench.ioctl(bench.fd, uapi.VFIO_DEVICE_RESET)


def test_opening_and_closing_reset_what_can_be_reset(bench: PciBench) -> None:
    card = bench.card(FULL)
    bench.use(FULL)
    assert card.resets == 1
    bench.close(bench.fd)
    assert card.resets == 2


def test_a_root_bus_cannot_be_reset(bench: PciBench) -> None:
    bench.use(EDU)
    with fails("ENODEV"):
        bench.struct(HOT_INFO, "=III", 12, 0, 0)
    with fails("ENODEV"):
        bench.struct(HOT_RESET, "=IIIi", 16, 0, 1, bench.group_fd)
    with fails("EINVAL"):
        bench.struct(HOT_INFO, "=III", 11, 0, 0)
    with fails("EFAULT"):
        bench.ioctl(bench.fd, HOT_RESET, WILD)


def test_what_a_bus_reset_takes_along(bench: PciBench) -> None:
    bench.use(TWIN)
    with fails("ENOSPC"):
        bench.struct(HOT_INFO, "=III", 12, 7, 0)
    assert struct.unpack("=III", bench.raw) == (12, 0, 2)
    bench.struct(HOT_INFO, "=III", 28, 0, 0, room=16)
    entries = list(struct.iter_unpack("=IHBB", bench.raw[12:]))
    assert entries == [(9, 0, 1, 0x00), (10, 0, 1, 0x01)]


def test_a_bus_reset_needs_every_group(bench: PciBench) -> None:
    bench.use(TWIN)
    first, second = bench.group_fd, bench.group(10)
    for fds, error in (((first,), "EINVAL"), ((), "EINVAL"), ((first, second, first), "EINVAL")):
        with fails(error):
            bench.struct(HOT_RESET, f"=III{len(fds)}i", 24, 0, len(fds), *fds)
    with fails("EINVAL"):
        bench.struct(HOT_RESET, "=III2i", 24, 1, 2, first, second)
    with fails("EBADF"):
        bench.struct(HOT_RESET, "=III2i", 24, 0, 2, first, 777777)
    with fails("EINVAL"):
        bench.struct(HOT_RESET, "=III2i", 24, 0, 2, first, bench.fd)
    function = bench.card(TWIN2).function
    function.command = 2
    bench.struct(HOT_RESET, "=III2i", 24, 0, 2, first, second)
    assert function.command == 2


# -- eventfds that write -------------------------------------------------------------------------------------


def ioeventfd(bench: PciBench, fd: int, offset: int = 0x10, data: int = 0xAB, size: int = 4, argsz: int = 32) -> None:
    bench.struct(IOEVENTFD, "=IIQQiI", argsz, size, offset, data, fd, 0)


def test_an_eventfd_writes_to_a_bar(bench: PciBench) -> None:
    bench.use(FULL)
    fd = bench.eventfd()
    ioeventfd(bench, fd)
    with fails("EEXIST"):
        ioeventfd(bench, fd)
    bench.signal(fd)
    assert bench.pread(4, 0x10) == b"\xab\0\0\0"
    bench.pwrite(bytes(4), 0x10)
    ioeventfd(bench, -1)
    bench.signal(fd)
    assert bench.pread(4, 0x10) == bytes(4)
    with fails("ENODEV"):
        ioeventfd(bench, -1)
    ioeventfd(bench, fd)  # the close takes it


def test_what_an_eventfd_cannot_write(bench: PciBench) -> None:
    bench.use(FULL)
    fd = bench.eventfd()
    with fails("EFAULT"):
        bench.ioctl(bench.fd, IOEVENTFD, WILD)
    for wrong in (
        {"argsz": 27},
        {"size": 0},
        {"size": 3},
        {"size": 16},
        {"offset": 0xFE},
        {"offset": 3 << 40},
        {"offset": CONFIG},
        {"offset": (1 << 40) + 0x1000},
        {"fd": -2},
    ):
        with fails("EINVAL"):
            ioeventfd(bench, **{"fd": fd, **wrong})
    with fails("EBADF"):
        ioeventfd(bench, 777777)
    old = PciBench()
    old.use(FULL)
    with fails("ENOTTY"):
        ioeventfd(old, 0)
    old.finish()


# -- QEMU ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [{}, NEW])
def test_qemus_way_through_a_pci_device(profile: dict[str, object]) -> None:
    """The calls that QEMU 7.2 makes on a vfio-pci device, from its start to its exit, in that order."""
    bench = PciBench(**profile)
    bench.use(FULL)
    assert bench.struct(uapi.VFIO_DEVICE_GET_INFO, "=IIIII", 20, 0, 0, 0, 0)[1:4] == (3, 9, 5)
    for index in (0, 1, 2, 3, 4, 5, 7):
        bench.struct(uapi.VFIO_DEVICE_GET_REGION_INFO, "=IIIIQQ", 32, 0, index, 0, 0, 0)
    bench.struct(uapi.VFIO_DEVICE_GET_IRQ_INFO, "=IIII", 16, 0, ERR, 0)
    assert len(bench.pread(256, CONFIG)) == 256
    bench.set_config(0x30, 0xFFFFF800)
    assert bench.config(0x30) == 0
    bench.set_config(0x30, 0)
    assert [bench.config(0x7A, 2), bench.config(0x7C), bench.config(0x80)] == [4, 0x1001, 0x2001]
    assert bench.config(0x3D, 1) == 1
    trigger, request = bench.eventfd(), bench.eventfd()
    bench.triggers(INTX, trigger)
    assert bench.struct(uapi.VFIO_DEVICE_GET_IRQ_INFO, "=IIII", 16, 0, REQ, 0)[1:] == (9, REQ, 1)
    bench.triggers(REQ, request)
    for _ in range(2):  # each reset of the machine
        bench.set_irqs(bench.fd, NONE | TRIGGER, INTX, count=0)
        command = bench.config(4, 2)
        bench.set_config(4, command & ~7, 2)
        with fails("ENODEV"):
            bench.struct(HOT_INFO, "=III", 12, 0, 0)
        bench.ioctl(bench.fd, uapi.VFIO_DEVICE_RESET)
        bench.triggers(INTX, trigger)
    bench.triggers(REQ, -1)
    bench.set_irqs(bench.fd, NONE | TRIGGER, INTX, count=0)
    bench.close(bench.fd)
    bench.ioctl(bench.group_fd, uapi.VFIO_GROUP_UNSET_CONTAINER)
    bench.finish()
