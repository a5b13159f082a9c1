"""GET_INFO, GET_REGION_INFO and GET_IRQ_INFO of PCI devices, in a kernel of 2014 and in recent ones."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from pci_bench import EDU, ERR, FULL, INTX, MSI, MSIX, NEW, OLD, REQ, TWIN, PciBench
from vfio_bench import WILD, fails

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

INFO, REGION, IRQ = (
    uapi.VFIO_DEVICE_GET_INFO,
    uapi.VFIO_DEVICE_GET_REGION_INFO,
    uapi.VFIO_DEVICE_GET_IRQ_INFO,
)


@pytest.fixture
def make() -> Iterator[Callable[..., PciBench]]:
    made = []

    def make(name: str = EDU, **profile: object) -> PciBench:
        made.append(PciBench(**profile))
        made[-1].use(name)
        return made[-1]

    yield make
    for bench in made:
        bench.finish()


def region(bench: PciBench, index: int, argsz: int = 32) -> tuple[int, ...]:
    return bench.struct(REGION, "=IIIIQQ", argsz, 0, index, 0, 0, 0, room=32)


def irq(bench: PciBench, index: int) -> tuple[int, int]:
    _, flags, _, count = bench.struct(IRQ, "=IIII", 16, 0, index, 0)
    return flags, count


@pytest.mark.parametrize(("name", "flags"), [(EDU, 2), (FULL, 3), (OLD, 2)])
def test_a_device_says_pci_nine_regions_five_interrupts_and_whether_it_can_be_reset(
    make: Callable[..., PciBench], name: str, flags: int
) -> None:
    assert make(name).struct(INFO, "=IIII", 16, 0, 0, 0) == (16, flags, 9, 5)


@pytest.mark.parametrize(
    ("size", "argsz", "answered"),
    [(16, 64, 16), (20, 19, 16), (20, 20, 20), (20, 64, 20), (24, 19, 19), (24, 20, 20), (24, 64, 24)],
)
def test_newer_kernels_answer_more_of_the_info(
    make: Callable[..., PciBench], size: int, argsz: int, answered: int
) -> None:
    bench = make(pci_device_info_size=size)
    buffer = bytearray(b"\xaa" * 64)
    struct.pack_into("=I", buffer, 0, argsz)
    bench.ioctl(bench.fd, INFO, uapi.ffi.from_buffer(buffer))
    assert buffer[16:] == bytes(answered - 16) + b"\xaa" * (64 - answered)


@pytest.mark.parametrize("request_", [INFO, REGION, IRQ, uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO])
def test_a_bad_pointer_is_efault(make: Callable[..., PciBench], request_: int) -> None:
    bench = make()
    with fails("EFAULT"):
        bench.ioctl(bench.fd, request_, WILD)


def test_too_small_an_argsz_is_einval(make: Callable[..., PciBench]) -> None:
    bench = make()
    with fails("EINVAL"):
        bench.struct(INFO, "=IIII", 15, 0, 0, 0)
    with fails("EINVAL"):
        region(bench, 0, 31)
    with fails("EINVAL"):
        bench.struct(IRQ, "=IIII", 15, 0, 0, 0)


def test_edu_has_one_bar_and_configuration_space(make: Callable[..., PciBench]) -> None:
    bench = make()
    assert region(bench, 0) == (32, 7, 0, 0, 0x100000, 0)
    for index in range(1, 7):
        assert region(bench, index) == (32, 0, index, 0, 0, index << 40)
    assert region(bench, 7) == (32, 3, 7, 0, 0x100, 7 << 40)
    for index in (8, 9, 0xFFFFFFFF):
        with fails("EINVAL"):
            region(bench, index)


def test_an_express_function_has_4_kib_of_configuration_space(make: Callable[..., PciBench]) -> None:
    assert region(make(FULL), 7)[4] == 0x1000


@pytest.mark.parametrize(("new", "flags"), [(False, 3), (True, 7)])
def test_a_bar_below_a_page_is_mappable_in_newer_kernels(make: Callable[..., PciBench], new: bool, flags: int) -> None:
    assert region(make(OLD, pci_small_bar_mappable=new), 0)[1] == flags


def test_ports_are_never_mappable(make: Callable[..., PciBench]) -> None:
    assert region(make(FULL, **NEW), 2)[1] == 3


def test_a_64_bit_bar_leaves_no_region_at_its_upper_half(make: Callable[..., PciBench]) -> None:
    bench = make(FULL)
    assert region(bench, 4)[4] == 0x200000
    assert region(bench, 5)[4] == 0


def test_the_bar_of_the_msix_table_has_a_capability_in_newer_kernels(make: Callable[..., PciBench]) -> None:
    assert region(make(FULL), 1) == (32, 7, 1, 0, 0x4000, 1 << 40)
    bench = make(FULL, **NEW)
    assert region(bench, 1) == (40, 15, 1, 0, 0x4000, 1 << 40)
    assert region(bench, 1, 40) == (40, 15, 1, 32, 0x4000, 1 << 40)
    assert bench.raw[32:40] == struct.pack("=HHI", uapi.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 1, 0)
    assert region(bench, 0, 40)[:4] == (40, 7, 0, 0)


def test_interrupts_of_edu(make: Callable[..., PciBench]) -> None:
    bench = make()
    assert irq(bench, INTX) == (7, 1)
    assert irq(bench, MSI) == (9, 1)
    assert irq(bench, MSIX) == (9, 0)
    assert irq(bench, REQ) == (9, 1)
    for index in (ERR, 5, 0xFFFFFFFF):
        with fails("EINVAL"):
            irq(bench, index)


def test_interrupts_of_a_function_that_has_them_all(make: Callable[..., PciBench]) -> None:
    bench = make(FULL)
    assert [irq(bench, index) for index in range(5)] == [(7, 1), (9, 4), (9, 5), (9, 1), (9, 1)]


def test_a_function_without_a_pin_has_no_intx(make: Callable[..., PciBench]) -> None:
    assert irq(make(TWIN), INTX) == (7, 0)


def test_features(make: Callable[..., PciBench]) -> None:
    bench = make(**NEW)
    probe = uapi.VFIO_DEVICE_FEATURE_PROBE

    def feature(flags: int, argsz: int = 8) -> None:
        bench.struct(uapi.VFIO_DEVICE_FEATURE, "=II", argsz, flags)

    for number in (3, 4, 5):
        feature(number | probe)
        feature(number | probe | uapi.VFIO_DEVICE_FEATURE_SET)
        with fails("EINVAL"):
            feature(number | probe | uapi.VFIO_DEVICE_FEATURE_GET)
        with fails("EINVAL"):
            feature(number)
    for number in (0, 1, 2, 6, 9):
        with fails("ENOTTY"):
            feature(number | probe)
    with fails("EINVAL"):
        feature(3 | probe, 4)
    with fails("ENOTTY"):
        make().struct(uapi.VFIO_DEVICE_FEATURE, "=II", 8, 3 | probe)


def test_an_unknown_request_is_enotty(make: Callable[..., PciBench]) -> None:
    bench = make()
    with fails("ENOTTY"):
        bench.ioctl(bench.fd, 0x3BFE)


def test_vfio_pci_binds_only_to_pci_functions() -> None:
    from vfio_bench import LONELY, Bench

    bench = Bench()
    bench.vfio.unbind(LONELY)
    with pytest.raises(KvmVfioEmuError, match="no PCI function"):
        bench.vfio.bind(LONELY, "vfio-pci")
