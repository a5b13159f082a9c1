"""VFIO platform devices: information, registers, mappings; contract 3.3 (last part), 7.3."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest
from vfio_bench import MULTI, NIC, WILD, Bench, EdgePage, fails

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.board import Board, DeviceSpec

R, W, M = 1, 2, 4


def info(bench: Bench, device: int, argsz: int = 16) -> tuple[int, int, int]:
    answer = uapi.ffi.new("struct vfio_device_info *", {"argsz": argsz})
    bench.ioctl(device, uapi.VFIO_DEVICE_GET_INFO, answer)
    return answer.flags, answer.num_regions, answer.num_irqs


def region(bench: Bench, device: int, index: int, argsz: int = 32) -> tuple[int, int, int]:
    answer = uapi.ffi.new("struct vfio_region_info *", {"argsz": argsz, "index": index, "flags": 0xAAAA})
    bench.ioctl(device, uapi.VFIO_DEVICE_GET_REGION_INFO, answer)
    return answer.flags, answer.size, answer.offset


def irq(bench: Bench, device: int, index: int, argsz: int = 16) -> tuple[int, int]:
    answer = uapi.ffi.new("struct vfio_irq_info *", {"argsz": argsz, "index": index, "flags": 0xAAAA})
    bench.ioctl(device, uapi.VFIO_DEVICE_GET_IRQ_INFO, answer)
    return answer.flags, answer.count


@pytest.mark.parametrize("argsz", [16, 19, 64, 2**32 - 1])
def test_get_info(bench: Bench, argsz: int) -> None:
    platform, reset = uapi.VFIO_DEVICE_FLAGS_PLATFORM, uapi.VFIO_DEVICE_FLAGS_RESET
    assert info(bench, bench.device(NIC), argsz) == (platform | reset, 1, 3)
    assert info(bench, bench.device(MULTI), argsz) == (platform, 4, 2)


def test_get_info_leaves_the_fields_behind_the_first_16_bytes(bench: Bench) -> None:
    page, device = EdgePage(), bench.device()
    assert bench.ioctl(device, uapi.VFIO_DEVICE_GET_INFO, page.put(b"\x40" + bytes(15))) == 0


@pytest.mark.parametrize("argsz", [0, 4, 8, 15])
def test_get_info_argsz_below_16_is_einval(bench: Bench, argsz: int) -> None:
    with fails("EINVAL"):
        info(bench, bench.device(), argsz)


@pytest.mark.parametrize(
    "request_number",
    [
        uapi.VFIO_DEVICE_GET_INFO,
        uapi.VFIO_DEVICE_GET_REGION_INFO,
        uapi.VFIO_DEVICE_GET_IRQ_INFO,
        uapi.VFIO_DEVICE_SET_IRQS,
    ],
)
@pytest.mark.parametrize("pointer", [0, WILD, 2**64 - 4])
def test_bad_pointer_is_efault(bench: Bench, request_number: int, pointer: int) -> None:
    with fails("EFAULT"):
        bench.ioctl(bench.device(), request_number, pointer)


def test_get_region_info(bench: Bench) -> None:
    assert region(bench, bench.device(NIC), 0) == (R | W | M, 0x1000, 0)
    device = bench.device(MULTI)
    assert region(bench, device, 0, 64) == (R | W | M, 0x2000, 0)
    assert region(bench, device, 1) == (R | W, 0x200, 1 << 40)
    assert region(bench, device, 2) == (R | M, 0x1000, 2 << 40)
    assert region(bench, device, 3) == (R | W, 0x1000, 3 << 40)


@pytest.mark.parametrize(("index", "argsz"), [(0, 0), (0, 28), (0, 31), (1, 32), (2**32 - 1, 32)])
def test_get_region_info_bad_argsz_or_index_is_einval(bench: Bench, index: int, argsz: int) -> None:
    with fails("EINVAL"):
        region(bench, bench.device(), index, argsz)


def test_get_irq_info(bench: Bench) -> None:
    device = bench.device()
    assert [irq(bench, device, index) for index in range(3)] == [(7, 1), (7, 1), (1, 1)]


@pytest.mark.parametrize(("index", "argsz"), [(0, 0), (0, 12), (0, 15), (3, 16), (2**32 - 1, 16)])
def test_get_irq_info_bad_argsz_or_index_is_einval(bench: Bench, index: int, argsz: int) -> None:
    with fails("EINVAL"):
        irq(bench, bench.device(), index, argsz)


def test_reset(bench: Bench) -> None:
    device = bench.device(NIC)
    resets = bench.hw().resets
    assert bench.ioctl(device, uapi.VFIO_DEVICE_RESET) == 0
    assert bench.hw().resets == resets + 1


def test_reset_without_a_reset_function_is_einval(bench: Bench) -> None:
    with fails("EINVAL"):
        bench.ioctl(bench.device(MULTI), uapi.VFIO_DEVICE_RESET)


def test_reset_at_first_open_and_last_close_only(bench: Bench) -> None:
    _, group = bench.attached()
    assert bench.hw().resets == 0
    first, second = bench.get_device(group, NIC), bench.get_device(group, NIC)
    assert bench.hw().resets == 1
    bench.close(first)
    assert bench.hw().resets == 1
    bench.close(second)
    assert bench.hw().resets == 2


@pytest.mark.parametrize(
    "request_number",
    [
        uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
        uapi.VFIO_GET_API_VERSION,
        uapi.VFIO_GROUP_GET_STATUS,
        0x3BFF,
        0,
    ],
)
def test_unknown_ioctl_is_enotty(bench: Bench, request_number: int) -> None:
    with fails("ENOTTY"):
        bench.ioctl(bench.device(), request_number, WILD)


# -- device features -------------------------------------------------------------------------------


def test_device_feature_is_enotty_in_2014(bench: Bench) -> None:
    with fails("ENOTTY"):
        bench.ioctl(bench.device(), uapi.VFIO_DEVICE_FEATURE, WILD)


@pytest.mark.parametrize(
    ("argsz", "flags", "expected"),
    [
        (4, uapi.VFIO_DEVICE_FEATURE_PROBE, "EINVAL"),
        (8, uapi.VFIO_DEVICE_FEATURE_PROBE, "ENOTTY"),
        (8, uapi.VFIO_DEVICE_FEATURE_PROBE | 9, "ENOTTY"),
        (8, 1 << 19, "EINVAL"),
        (8, uapi.VFIO_DEVICE_FEATURE_GET | uapi.VFIO_DEVICE_FEATURE_SET, "EINVAL"),
    ],
)
def test_device_feature_on_newer_kernels(argsz: int, flags: int, expected: str) -> None:
    bench = Bench(device_feature=True)
    with fails(expected):
        bench.ioctl(bench.device(), uapi.VFIO_DEVICE_FEATURE, uapi.ffi.new("uint32_t[]", [argsz, flags]))


# -- read and write --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size", "widths"),
    [
        (0, 0, []),
        (0, 4, [4]),
        (0, 16, [4, 4, 4, 4]),
        (0, 7, [4, 2, 1]),
        (1, 4, [1, 2, 1]),
        (2, 8, [2, 4, 2]),
        (3, 1, [1]),
        (0xFFC, 16, [4]),
        (0xFFE, 16, [2]),
        (0xFFF, 16, [1]),
        (0xFFC, 1 << 40, [4]),
    ],
)
def test_accesses_are_split_and_end_with_the_region(bench: Bench, offset: int, size: int, widths: list[int]) -> None:
    device, hw = bench.task.files[bench.device()], bench.hw()
    hw.memory[0][:] = bytes(range(256)) * 16
    hw.accesses.clear()
    assert device.read(size, offset) == hw.memory[0][offset : offset + size]
    assert [width for _, _, _, width in hw.accesses] == widths
    if size < 64:
        hw.accesses.clear()
        assert device.write(b"x" * size, offset) == sum(widths)
        assert [(kind, width) for kind, _, _, width in hw.accesses] == [("w", width) for width in widths]


@pytest.mark.parametrize("offset", [0x200, 0x204, (1 << 40) - 4])
@pytest.mark.parametrize("size", [0, 1, 4])
def test_access_behind_the_region_is_einval(bench: Bench, offset: int, size: int) -> None:
    device = bench.task.files[bench.device(MULTI)]
    with fails("EINVAL"):
        device.read(size, (1 << 40) + offset)
    with fails("EINVAL"):
        device.write(bytes(size), (1 << 40) + offset)


@pytest.mark.parametrize("offset", [4 << 40, 2**63 - 1])
def test_access_to_a_missing_region_is_einval(bench: Bench, offset: int) -> None:
    with fails("EINVAL"):
        bench.task.files[bench.device(MULTI)].read(4, offset)


def test_write_to_a_read_only_region_is_einval(bench: Bench) -> None:
    device = bench.task.files[bench.device(MULTI)]
    assert device.read(4, 2 << 40) == bytes(4)
    with fails("EINVAL"):
        device.write(b"abcd", 2 << 40)


def test_the_file_position_moves_on(bench: Bench) -> None:
    device = bench.task.files[bench.device()]
    device.write(b"abcd", None)
    device.write(b"efgh", None)
    assert device.read(8, 0) == b"abcdefgh"


def test_two_files_share_the_device_and_its_last_close_ends_it(bench: Bench) -> None:
    _, group = bench.attached()
    first, second = bench.get_device(group, NIC), bench.get_device(group, NIC)
    bench.task.files[first].write(b"same", 0)
    assert bench.task.files[second].read(4, 0) == b"same"


# -- mmap ------------------------------------------------------------------------------------------


def backed(bench: Bench, fd: int) -> mmap.mmap:
    """Do what a door does: give the file a memfd, have the mapping judged, map it."""
    file = bench.task.files[fd]
    memory = os.memfd_create("device")
    os.ftruncate(memory, file.map_size)
    file.attach_backing(os.dup(memory))
    file.mmap(0, 0x1000, write=True, shared=True)
    try:
        return mmap.mmap(memory, 0x1000)
    finally:
        os.close(memory)


def test_map_size_has_a_place_for_each_region(bench: Bench) -> None:
    assert bench.task.files[bench.device(NIC)].map_size == 1 << 40
    assert bench.task.files[bench.device(MULTI)].map_size == 4 << 40


@pytest.mark.parametrize(
    ("offset", "length", "write"),
    [
        (0x2000, 0x1000, False),
        (0x1000, 0x2000, False),
        (0, 0x3000, False),
        (0x800, 0x1000, False),
        (1 << 40, 0x1000, False),
        (2 << 40, 0x1000, True),
        (3 << 40, 0x1000, False),
        (4 << 40, 0x1000, False),
        (0, 1 << 40, False),
        (0, 2**64 - 0x1000, False),
    ],
)
def test_mmap_of_anything_but_whole_pages_of_one_region_is_einval(
    bench: Bench, offset: int, length: int, write: bool
) -> None:
    with fails("EINVAL"):
        bench.task.files[bench.device(MULTI)].mmap(offset, length, write=write, shared=True)


@pytest.mark.parametrize(
    ("offset", "length", "write"), [(0, 0x2000, True), (0x1000, 1, True), (2 << 40, 0x1000, False)]
)
def test_mmap(bench: Bench, offset: int, length: int, write: bool) -> None:
    bench.task.files[bench.device(MULTI)].mmap(offset, length, write=write, shared=True)


def test_mapping_shows_the_registers(bench: Bench) -> None:
    device = bench.device()
    bench.hw().memory[0][8:12] = b"before"[:4]
    view = backed(bench, device)
    assert view[8:12] == b"befo"
    bench.hw().write(0, 8, 4, 0x11223344)
    bench.host.sync_mirrors()
    assert view[8:12] == bytes.fromhex("44332211")


def test_store_through_a_mapping_reaches_the_registers_once(bench: Bench) -> None:
    view = backed(bench, bench.device())
    bench.hw().accesses.clear()
    view[0x10:0x14] = b"abcd"
    view[0x20:0x22] = b"ef"
    bench.host.sync_mirrors()
    bench.host.sync_mirrors()
    assert bench.hw().accesses == [("w", 0, 0x10, 4), ("w", 0, 0x20, 4)]
    assert bytes(bench.hw().memory[0][0x10:0x14]) == b"abcd"


def test_store_through_one_file_is_seen_through_another(bench: Bench) -> None:
    _, group = bench.attached()
    first, second = (backed(bench, bench.get_device(group, NIC)) for _ in range(2))
    first[0:4] = b"seen"
    bench.host.sync_mirrors()
    assert second[0:4] == b"seen"


def test_last_store_before_the_close_counts(bench: Bench) -> None:
    device = bench.device()
    view = backed(bench, device)
    view[0:4] = b"last"
    bench.close(device)
    assert bytes(bench.hw().memory[0][0:4]) == b"last"
    bench.host.sync_mirrors()


def test_guest_accesses_go_to_the_registers(bench: Bench) -> None:
    file = bench.task.files[bench.device(MULTI)]
    file.mapped_write((1 << 40) + 4, 4, 0x11223344)
    assert file.mapped_read((1 << 40) + 4, 2) == 0x3344
    assert bench.hw(MULTI).accesses == [("w", 1, 4, 4), ("r", 1, 4, 2)]


# -- reset functions of the host's that do nothing ------------------------------------------------------------------


@pytest.fixture
def idle() -> Iterator[Bench]:
    bench = Bench(
        Board(
            name="idle-resets",
            devices=(
                DeviceSpec(NIC, "ram", 1, compatible=("acme,first", "acme,second")),
                DeviceSpec(MULTI, "ram", 2, compatible=("acme,second", "acme,first")),
            ),
        ),
        platform_idle_resets=("acme,first",),
    )
    yield bench
    bench.close(*sorted(bench.task.files))


def test_a_reset_module_is_found_by_the_first_compatible_string(idle: Bench) -> None:
    platform, reset = uapi.VFIO_DEVICE_FLAGS_PLATFORM, uapi.VFIO_DEVICE_FLAGS_RESET
    nic, multi = (idle.get_device(idle.attached(number)[1], name) for number, name in ((1, NIC), (2, MULTI)))
    assert info(idle, nic) == (platform | reset, 0, 0)
    assert info(idle, multi) == (platform, 0, 0)
    assert idle.ioctl(nic, uapi.VFIO_DEVICE_RESET) == 0
    assert idle.hw(NIC).resets == 0
    with fails("EINVAL"):
        idle.ioctl(multi, uapi.VFIO_DEVICE_RESET)
