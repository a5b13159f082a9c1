"""The devices of the board oracle-virt: PL031, PL061, the virtio-mmio frames beside it, pci-testdev."""

from __future__ import annotations

from typing import Any

import pytest

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, RegionSpec
from kvmvfio_emu.hw.boards import BoardError, load
from kvmvfio_emu.hw.devices import Device
from kvmvfio_emu.hw.devices.composite import Composite
from kvmvfio_emu.hw.devices.pci_testdev import TESTS, PciTestdev
from kvmvfio_emu.hw.devices.pl061 import Pl061
from kvmvfio_emu.hw.machine import Machine

SECOND = 1_000_000_000
DR, MR, LR, CR, IMSC, RIS, MIS, ICR = range(0, 0x20, 4)
DIR, IS, IBE, IEV, IE, GRIS, GMIS, IC = range(0x400, 0x420, 4)
ALL_DATA = 0x3FC


class Bench:
    """One platform device with one page and one interrupt."""

    def __init__(self, model: str, **parameters: Any) -> None:
        self.clock = Clock()
        spec = DeviceSpec(
            "dev",
            model,
            0,
            regions=(RegionSpec(0x9010000, 0x1000),),
            interrupts=(InterruptSpec(2),),
            parameters=parameters,
        )
        self.device: Device = Machine(Board("tiny", devices=(spec,)), self.clock, Trace(self.clock)).devices["dev"]

    def __getitem__(self, offset: int) -> int:
        return self.device.read(0, offset, 4)

    def __setitem__(self, offset: int, value: int) -> None:
        self.device.write(0, offset, 4, value)

    @property
    def level(self) -> bool:
        return self.device.lines[0].level


# ---- PL031 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def rtc() -> Bench:
    return Bench("pl031", start=100)


def test_rtc_identifies_itself(rtc: Bench) -> None:
    found = [rtc[0xFE0 + 4 * n] for n in range(8)]
    assert found == [0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


def test_rtc_counts_virtual_seconds(rtc: Bench) -> None:
    assert rtc[DR] == 100
    rtc.clock.advance(3 * SECOND - 1)
    assert rtc[DR] == 102
    rtc.clock.advance(1)
    assert rtc[DR] == 103
    rtc[DR] = 7
    assert rtc[DR] == 103, "read-only"
    assert rtc.device.peek(0, 0, 0x1000) & 0xFFFFFFFF == 103


def test_rtc_load_sets_the_counter(rtc: Bench) -> None:
    rtc.clock.advance(5 * SECOND)
    rtc[LR] = 0xFFFFFFFF
    assert rtc[DR] == 0xFFFFFFFF
    rtc.clock.advance(SECOND)
    assert rtc[DR] == 0, "it wraps"


def test_rtc_match_of_now_is_at_once(rtc: Bench) -> None:
    rtc[IMSC] = 1
    rtc[MR] = rtc[DR]
    assert (rtc[RIS], rtc[MIS], rtc.level) == (1, 1, True)
    rtc[ICR] = 1
    assert (rtc[RIS], rtc[MIS], rtc.level) == (0, 0, False)


def test_rtc_match_of_later_comes_with_its_second(rtc: Bench) -> None:
    rtc.clock.advance(SECOND // 4)
    rtc[IMSC] = 1
    rtc[MR] = 102
    rtc.clock.advance(2 * SECOND - SECOND // 4 - 1)
    assert not rtc.level
    rtc.clock.advance(1)
    assert rtc.level
    assert rtc[DR] == 102


def test_rtc_match_behind_comes_after_a_turn(rtc: Bench) -> None:
    rtc[IMSC] = 1
    rtc[MR] = 99
    rtc.clock.advance(((1 << 32) - 1) * SECOND - 1)
    assert not rtc.level
    rtc.clock.advance(1)
    assert rtc.level


def test_rtc_new_match_replaces_the_old_one(rtc: Bench) -> None:
    rtc[IMSC] = 1
    rtc[MR] = 101
    rtc[MR] = 103
    rtc.clock.advance(2 * SECOND)
    assert not rtc.level
    rtc.clock.advance(SECOND)
    assert rtc.level


def test_rtc_load_moves_the_match(rtc: Bench) -> None:
    rtc[IMSC] = 1
    rtc[MR] = 110
    rtc[LR] = 109
    rtc.clock.advance(SECOND)
    assert rtc.level


def test_rtc_masked_match_is_raw_only(rtc: Bench) -> None:
    rtc[MR] = rtc[DR]
    assert (rtc[RIS], rtc[MIS], rtc.level) == (1, 0, False)
    rtc[IMSC] = 1
    assert (rtc[MIS], rtc.level) == (1, True)
    rtc[IMSC] = 0
    assert (rtc[MIS], rtc.level) == (0, False)


def test_rtc_reset_forgets_the_match_but_not_the_time(rtc: Bench) -> None:
    rtc[IMSC] = 1
    rtc[MR] = 101
    rtc.device.reset()
    rtc.clock.advance(2 * SECOND)
    assert (rtc[DR], rtc[RIS], rtc[IMSC], rtc.level) == (102, 0, 0, False)


@pytest.mark.parametrize("parameters", [{"start": -1}, {"start": "noon"}, {"begin": 1}])
def test_rtc_bad_parameters(parameters: dict[str, Any]) -> None:
    with pytest.raises(BoardError, match="parameter"):
        Bench("pl031", **parameters)


# ---- PL061 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def gpio() -> Bench:
    return Bench("pl061")


def test_gpio_identifies_itself(gpio: Bench) -> None:
    found = [gpio[0xFE0 + 4 * n] for n in range(8)]
    assert found == [0x61, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


def test_gpio_data_addresses_select_pins(gpio: Bench) -> None:
    gpio[DIR] = 0xF0
    gpio[ALL_DATA] = 0xFF
    assert gpio[ALL_DATA] == 0xF0, "inputs are driven from outside"
    gpio[0x40 << 2] = 0
    assert gpio[ALL_DATA] == 0xB0
    assert gpio[0x30 << 2] == 0x30


def _pin(gpio: Bench, pin: int, level: bool) -> None:
    assert isinstance(gpio.device, Pl061)
    gpio.device.set_input(pin, level)


def test_gpio_low_level_is_a_level(gpio: Bench) -> None:
    gpio[IS] = 0xFF
    assert (gpio[GRIS], gpio[GMIS], gpio.level) == (0xFF, 0, False)
    gpio[IE] = 1
    assert (gpio[GMIS], gpio.level) == (1, True)
    gpio[IC] = 0xFF
    assert (gpio[GRIS], gpio.level) == (0xFF, True), "the level is still there"
    _pin(gpio, 0, True)
    assert (gpio[GRIS], gpio.level) == (0xFE, False)
    gpio[IE] = 0
    assert not gpio.level


def test_gpio_enable_drives_the_line(gpio: Bench) -> None:
    gpio[IS] = 0xFF
    for level in (True, False, True, False):
        gpio[IE] = int(level)
        assert gpio.level is level


@pytest.mark.parametrize(
    ("event", "both", "expected"), [(0, 0, [False, True]), (1, 0, [True, False]), (0, 1, [True, True])]
)
def test_gpio_edges(gpio: Bench, event: int, both: int, expected: list[bool]) -> None:
    gpio[IE], gpio[IEV], gpio[IBE] = 2, event << 1, both << 1
    seen = []
    for level in (True, False):
        _pin(gpio, 1, level)
        seen.append(gpio.level)
        gpio[IC] = 2
        assert not gpio.level, "an edge is cleared"
    assert seen == expected


def test_gpio_output_has_no_edges(gpio: Bench) -> None:
    gpio[DIR], gpio[IE], gpio[IBE] = 2, 2, 2
    gpio[ALL_DATA] = 2
    assert (gpio[GRIS], gpio.level) == (0, False)


def test_gpio_has_eight_pins(gpio: Bench) -> None:
    with pytest.raises(ValueError, match="pin 8"):
        _pin(gpio, 8, True)


# ---- several in one ---------------------------------------------------------------------------------------------


def test_composite_gives_each_region_its_part() -> None:
    machine = Machine(load("oracle-virt"), Clock(), Trace(Clock()))
    multi = machine.devices["9030000.oracle-multi"]
    assert isinstance(multi, Composite)
    assert multi.read(0, 0xFE0, 4) == 0x61
    for frame in (1, 2):
        assert [multi.read(frame, at, 4) for at in (0, 4, 8)] == [0x74726976, 1, 0]
    multi.write(0, IS, 4, 0xFF)
    multi.write(0, IE, 4, 1)
    assert [line.level for line in multi.lines] == [True, False, False]
    assert multi.peek(0, GMIS, 4) == 1
    multi.reset()
    assert [line.level for line in multi.lines] == [False, False, False]
    dma = object()
    multi.dma = dma  # type: ignore[assignment]
    assert all(part.dma is dma for part in multi.parts)


@pytest.mark.parametrize("parameters", [{}, {"parts": []}, {"parts": ["pl061"], "more": 1}, {"parts": "pl061"}])
def test_composite_bad_parameters(parameters: dict[str, Any]) -> None:
    with pytest.raises(BoardError, match="parameter"):
        Bench("composite", **parameters)


# ---- pci-testdev --------------------------------------------------------------------------------------------------


@pytest.fixture
def testdev() -> PciTestdev:
    machine = Machine(load("oracle-virt"), Clock(), Trace(Clock()))
    device = machine.devices["0000:00:03.0"]
    assert isinstance(device, PciTestdev)
    device.function.command = 3
    return device


@pytest.mark.parametrize(("bar", "prefix"), [(0, "mmio"), (1, "portio")])
def test_testdev_shows_the_selected_test(testdev: PciTestdev, bar: int, prefix: str) -> None:
    for number, test in enumerate(TESTS):
        testdev.write(bar, 0, 1, number)
        assert testdev.read(bar, 0, 1) == number
        text = bytes(testdev.read(bar, 16 + at, 1) for at in range(40)).partition(b"\0")[0].decode()
        assert text == f"{prefix}-{test.name}"
        assert testdev.read(1 - bar, 16, 1) == 0, "the other BAR shows nothing"


@pytest.mark.parametrize("number", range(len(TESTS)))
def test_testdev_counts_writes_to_the_target(testdev: PciTestdev, number: int) -> None:
    testdev.write(0, 0, 1, number)
    target, data = testdev.read(0, 4, 4), testdev.read(0, 8, 1)
    testdev.write(0, target, 1, data)
    testdev.write(0, target + 1, 1, data)
    assert testdev.read(0, 12, 4) == 1
    testdev.write(0, target, 1, data ^ 1)
    testdev.write(0, target, 4, data)
    assert testdev.read(0, 12, 4) == (1 if TESTS[number].matches else 3)
    testdev.write(0, 0, 1, number)
    assert testdev.read(0, 12, 4) == 0, "selecting starts anew"


def test_testdev_without_a_test_is_silent(testdev: PciTestdev) -> None:
    testdev.write(0, 0, 1, len(TESTS))
    testdev.write(0, 0x80, 1, 0xFA)
    assert testdev.read(0, 0, 8) == 0
    assert testdev.count == 0
