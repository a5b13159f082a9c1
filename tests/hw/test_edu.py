"""QEMU's edu device, register by register."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec
from kvmvfio_emu.hw.boards import BoardError, load
from kvmvfio_emu.hw.devices import edu as reg
from kvmvfio_emu.hw.devices.base import DmaFault
from kvmvfio_emu.hw.devices.edu import Edu
from kvmvfio_emu.hw.machine import Machine

ONES = 0xFFFFFFFF


class Memory:
    """64 KiB of memory behind bus address 0x10000."""

    def __init__(self) -> None:
        self.data = bytearray(0x10000)

    def read(self, iova: int, size: int) -> bytes:
        if not 0x10000 <= iova <= 0x20000 - size:
            raise DmaFault(iova, "not mapped")
        return bytes(self.data[iova - 0x10000 : iova - 0x10000 + size])

    def write(self, iova: int, data: bytes) -> None:
        self.read(iova, len(data))
        self.data[iova - 0x10000 : iova - 0x10000 + len(data)] = data


class Bench:
    def __init__(self, **parameters: Any) -> None:
        self.clock = Clock()
        spec = DeviceSpec("0000:00:01.0", "edu", 0, bus="pci", interrupts=(InterruptSpec(4),), parameters=parameters)
        machine = Machine(Board("tiny", devices=(spec,)), self.clock, Trace(self.clock))
        device = machine.devices[spec.name]
        assert isinstance(device, Edu)
        self.edu = device
        self.edu.function.command = 6
        self.edu.dma = self.memory = Memory()

    def __getitem__(self, offset: int) -> int:
        return self.edu.read(0, offset, 4)

    def __setitem__(self, offset: int, value: int) -> None:
        self.edu.write(0, offset, 4, value)

    @property
    def level(self) -> bool:
        return self.edu.lines[0].level

    def transfer(self, source: int, destination: int, count: int, command: int) -> None:
        self[reg.DMA_SOURCE], self[reg.DMA_DESTINATION], self[reg.DMA_COUNT] = source, destination, count
        self[reg.DMA_COMMAND] = command


@pytest.fixture
def edu() -> Bench:
    return Bench()


def test_it_says_who_it_is(edu: Bench) -> None:
    function = edu.edu.function
    assert (function.read(0, 4), function.read(8, 4), function.read(0x2C, 4)) == (0x11E81234, 0x00FF0010, 0x11001AF4)
    assert edu[reg.IDENTIFICATION] == 0x010000ED
    edu[reg.IDENTIFICATION] = 0
    assert edu[reg.IDENTIFICATION] == 0x010000ED


def test_it_is_alive(edu: Bench) -> None:
    edu[reg.LIVENESS] = 0x12345678
    assert edu[reg.LIVENESS] == 0xEDCBA987


@pytest.mark.parametrize("offset", [0x0C, 0x28, reg.INTERRUPT_RAISE, reg.INTERRUPT_ACKNOWLEDGE, 0xA0, reg.BUFFER])
def test_what_is_not_there_reads_ones(edu: Bench, offset: int) -> None:
    edu[offset] = 0
    assert edu[offset] == ONES


def test_access_sizes(edu: Bench) -> None:
    device = edu.edu
    for size in (1, 2, 8):
        assert device.read(0, 0, size) == (1 << 8 * size) - 1
        device.write(0, reg.LIVENESS, size, 0)
    assert edu[reg.LIVENESS] == 0
    device.write(0, reg.DMA_SOURCE, 8, 0x1_2345_6789)
    assert device.read(0, reg.DMA_SOURCE, 8) == 0x1_2345_6789
    assert device.read(0, reg.DMA_SOURCE, 2) == 0xFFFF
    device.write(0, reg.DMA_SOURCE, 2, 0)
    assert edu[reg.DMA_SOURCE] == 0x2345_6789


def test_a_page_at_a_time(edu: Bench) -> None:
    page = edu.edu.peek(0, 0, 0x1000).to_bytes(0x1000, "little")
    assert page[:8] == b"\xed\0\0\1\0\0\0\0"
    assert page[0x80:0xA0] == (bytes(4) + b"\xff" * 4) * 4
    assert edu.edu.peek(0, 0x40000, 8) == (1 << 64) - 1


# -- interrupts ----------------------------------------------------------------------------------------------


def test_raise_and_acknowledge(edu: Bench) -> None:
    edu[reg.INTERRUPT_RAISE] = 0b101
    assert (edu[reg.INTERRUPT_STATUS], edu.level) == (0b101, True)
    edu[reg.INTERRUPT_ACKNOWLEDGE] = 0b001
    assert (edu[reg.INTERRUPT_STATUS], edu.level) == (0b100, True)
    edu[reg.INTERRUPT_ACKNOWLEDGE] = 0b100
    assert (edu[reg.INTERRUPT_STATUS], edu.level) == (0, False)
    edu[reg.INTERRUPT_RAISE] = 0
    assert not edu.level


def test_each_raise_sends_a_message(edu: Bench) -> None:
    sent: list[int] = []
    messages = edu.edu.function.messages
    messages.on_message = sent.append
    messages.enable(5, 1)
    edu[reg.INTERRUPT_RAISE] = 1
    edu[reg.INTERRUPT_RAISE] = 1
    edu[reg.INTERRUPT_ACKNOWLEDGE] = 1
    assert sent == [0, 0]
    assert not edu.level


# -- factorial -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2, 5, 12, 13, 20, 33, 34, 1000, ONES])
def test_factorials_modulo_32_bits(edu: Bench, number: int) -> None:
    edu[reg.FACTORIAL] = number
    assert edu[reg.STATUS] == 0
    assert edu[reg.FACTORIAL] == (math.factorial(number) % 2**32 if number <= 1000 else 0)
    assert not edu.level


def test_a_factorial_may_interrupt(edu: Bench) -> None:
    edu[reg.STATUS] = 0xFF
    assert edu[reg.STATUS] == reg.STATUS_INTERRUPT
    edu[reg.FACTORIAL] = 4
    assert (edu[reg.INTERRUPT_STATUS], edu.level) == (reg.CAUSE_FACTORIAL, True)


def test_a_factorial_takes_its_time() -> None:
    edu = Bench(delay=1000)
    edu[reg.FACTORIAL] = 5
    assert edu[reg.STATUS] == reg.STATUS_COMPUTING
    edu[reg.FACTORIAL] = 7
    edu[reg.STATUS] = reg.STATUS_INTERRUPT
    edu.clock.advance(999)
    assert edu[reg.STATUS] == reg.STATUS_COMPUTING | reg.STATUS_INTERRUPT
    edu.clock.advance(1)
    assert edu[reg.STATUS] == reg.STATUS_INTERRUPT
    assert edu[reg.FACTORIAL] == 120
    assert edu.level


# -- DMA -----------------------------------------------------------------------------------------------------


def test_there_and_back(edu: Bench) -> None:
    edu.memory.data[:6] = b"abcdef"
    edu.transfer(0x10000, reg.BUFFER + 0x10, 6, reg.COMMAND_START)
    assert edu.edu.buffer[0x10:0x16] == b"abcdef"
    assert edu[reg.DMA_COMMAND] == 0
    assert not edu.level
    command = reg.COMMAND_START | reg.COMMAND_TO_MEMORY | reg.COMMAND_INTERRUPT
    edu.transfer(reg.BUFFER + 0x12, 0x1FFFE, 2, command)
    assert edu.memory.data[-2:] == b"cd"
    assert edu[reg.INTERRUPT_STATUS] == reg.CAUSE_DMA
    assert edu.edu.faults == 0


def test_the_device_sees_28_address_bits(edu: Bench) -> None:
    edu.memory.data[0] = 7
    edu.transfer(0x10010000, reg.BUFFER, 1, reg.COMMAND_START)
    assert edu.edu.buffer[0] == 7


@pytest.mark.parametrize(
    ("source", "destination", "count", "command"),
    [
        (0x20000, reg.BUFFER, 4, 1),
        (0x10000, reg.BUFFER - 1, 4, 1),
        (0x10000, reg.BUFFER + 0xFFD, 4, 1),
        (0x10000, 0, 4, 1),
        (reg.BUFFER, 0x1FFFE, 4, 3),
        (0, 0x10000, 4, 3),
    ],
)
def test_a_transfer_that_cannot_be(edu: Bench, source: int, destination: int, count: int, command: int) -> None:
    edu.memory.data[:] = b"\x11" * len(edu.memory.data)
    edu.transfer(source, destination, count, command | reg.COMMAND_INTERRUPT)
    assert edu.edu.faults == 1
    assert edu.edu.buffer == bytes(0x1000)
    assert set(edu.memory.data) == {0x11}
    assert edu[reg.INTERRUPT_STATUS] == reg.CAUSE_DMA, "it ends like any other"


def test_without_bus_mastering_nothing_moves(edu: Bench) -> None:
    edu.edu.function.command = 2
    edu.transfer(0x10000, reg.BUFFER, 4, 1)
    assert edu.edu.faults == 1


def test_a_running_transfer_cannot_be_changed() -> None:
    edu = Bench(delay=100)
    edu.memory.data[:2] = b"ok"
    edu.transfer(0x10000, reg.BUFFER, 2, 1)
    assert edu[reg.DMA_COMMAND] == 1
    edu.transfer(0, 0, 0, 3)
    edu.clock.advance(100)
    assert edu.edu.buffer[:2] == b"ok"
    assert edu[reg.DMA_SOURCE] == 0x10000


def test_a_command_without_start_is_ignored(edu: Bench) -> None:
    edu.transfer(0x10000, reg.BUFFER, 2, reg.COMMAND_INTERRUPT)
    assert (edu[reg.DMA_COMMAND], edu.level) == (0, False)


def test_reset_forgets_everything() -> None:
    edu = Bench(delay=100)
    edu[reg.LIVENESS] = 1
    edu[reg.INTERRUPT_RAISE] = 1
    edu[reg.STATUS] = reg.STATUS_INTERRUPT
    edu[reg.FACTORIAL] = 5
    edu.edu.reset()
    edu.edu.function.command = 2
    assert (edu[reg.LIVENESS], edu[reg.FACTORIAL], edu[reg.STATUS], edu[reg.INTERRUPT_STATUS]) == (0, 0, 0, 0)
    edu.clock.advance(1000)
    assert not edu.level


# -- boards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{"delay": -1}, {"delay": True}, {"delay": "1"}, {"speed": 1}])
def test_parameters_are_checked(parameters: dict[str, Any]) -> None:
    with pytest.raises(BoardError, match=next(iter(parameters))):
        Bench(**parameters)


def test_the_boards_with_an_edu() -> None:
    for name in ("edu", "oracle-virt"):
        spec = next(device for device in load(name).devices if device.name == "0000:00:01.0")
        assert (spec.model, spec.bus, spec.driver) == ("edu", "pci", "vfio-pci")
