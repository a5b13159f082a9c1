"""The xgmac: interrupts, descriptor rings both ways, bus errors, reset."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, RegionSpec
from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices import DmaFault
from kvmvfio_emu.hw.devices import xgmac_registers as reg
from kvmvfio_emu.hw.devices.base import NoDma
from kvmvfio_emu.hw.devices.xgmac import Xgmac
from kvmvfio_emu.hw.devices.xgmac_registers import Status
from kvmvfio_emu.hw.machine import Machine

BUS_MODE, TX_POLL, RX_LIST, TX_LIST, STATUS, CONTROL, INTR_ENA, MISSED = (
    0xF00,
    0xF04,
    0xF0C,
    0xF10,
    0xF14,
    0xF18,
    0xF1C,
    0xF20,
)
ALL = 0x1E7FF
RX_RING, TX_RING, BUFFERS = 0x1000, 0x2000, 0x4000
FRAME = bytes(range(12)) + b"\x08\x00" + b"payload" * 8  #: with an EtherType


class Memory:
    """64 KiB behind the device; beyond it, faults. ``readonly`` addresses fault on writes."""

    def __init__(self) -> None:
        self.bytes = bytearray(0x10000)
        self.readonly: range = range(0)

    def read(self, iova: int, size: int) -> bytes:
        if iova + size > len(self.bytes):
            raise DmaFault(max(iova, len(self.bytes)), "not mapped")
        return bytes(self.bytes[iova : iova + size])

    def write(self, iova: int, data: bytes) -> None:
        if iova + len(data) > len(self.bytes) or iova in self.readonly:
            raise DmaFault(iova, "not mapped for writing")
        self.bytes[iova : iova + len(data)] = data

    def words(self, at: int, count: int = 4) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}I", self.bytes, at)

    def put(self, at: int, *words: int) -> None:
        struct.pack_into(f"<{len(words)}I", self.bytes, at, *words)


class Bench:
    """An xgmac with three lines, memory, and both rings where a driver would have set them up."""

    def __init__(self, **parameters: Any) -> None:
        spec = DeviceSpec(
            "mac",
            "xgmac",
            0,
            regions=(RegionSpec(0xFFF50000, 0x1000),),
            interrupts=(InterruptSpec(77), InterruptSpec(78), InterruptSpec(79)),
            parameters=parameters,
        )
        clock = Clock()
        machine = Machine(Board("bench", devices=(spec,)), clock, Trace(clock))
        device = machine.devices["mac"]
        assert isinstance(device, Xgmac)
        self.device = device
        self.memory = Memory()
        self.device.dma = self.memory
        self.sent: list[bytes] = []
        if not parameters.get("loopback"):
            self.device.on_transmit = self.sent.append

    def start(self, *, atds: bool = False) -> None:
        """As Linux's driver does it, all interrupts enabled."""
        self.write(BUS_MODE, reg.BUS_ATDS if atds else 0)
        self.write(RX_LIST, RX_RING)
        self.write(TX_LIST, TX_RING)
        self.write(INTR_ENA, ALL)
        self.write(0, reg.MAC_TE | reg.MAC_RE)
        self.memory.put(TX_RING, 0)
        self.write(CONTROL, reg.DMA_SR | reg.DMA_ST)
        self.write(STATUS, ALL)

    def read(self, offset: int) -> int:
        return self.device.read(0, offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.device.write(0, offset, 4, value)

    @property
    def status(self) -> int:
        return self.read(STATUS) & ~(Status.NIS | Status.AIS)

    @property
    def levels(self) -> list[bool]:
        return [line.level for line in self.device.lines]

    def rx(self, index: int, size: int = 0x100, flags: int = reg.OWN, more: int = 0) -> int:
        """Give the device receive descriptor ``index``; returns the address of its buffer."""
        buffer = BUFFERS + 0x100 * index
        self.memory.put(RX_RING + 16 * index, flags, size | more, buffer, 0)
        return buffer

    def tx(self, index: int, data: bytes, flags: int = reg.TX_FIRST | reg.TX_LAST) -> None:
        """Give the device transmit descriptor ``index``."""
        buffer = BUFFERS + 0x1000 + 0x100 * index
        self.memory.write(buffer, data)
        self.memory.put(TX_RING + 16 * index, reg.OWN | flags, len(data), buffer, 0)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.start()
    return bench


# -- registers ----------------------------------------------------------------------------------------------


def test_identity() -> None:
    bench = Bench()
    assert bench.read(0x020) == 0x1012
    assert bench.read(0xF58) == 0, "no checksum offload"
    bench.write(0x020, 0)
    assert bench.read(0x020) == 0x1012


def test_the_address_that_firmware_left() -> None:
    assert (Bench().read(0x44), Bench().read(0x40)) == (0xF5FF0002, 0x0000)
    bench = Bench(mac="02:11:22:33:44:5F")
    assert (bench.read(0x44), bench.read(0x40)) == (0x33221102, 0x5F44)


@pytest.mark.parametrize("parameters", [{"mac": "02:11:22:33:44"}, {"mac": 5}, {"loopback": 1}, {"speed": 10}])
def test_parameters_that_make_no_sense(parameters: dict[str, Any]) -> None:
    with pytest.raises(BoardError, match=f"device mac: .*{next(iter(parameters))}"):
        Bench(**parameters)


def test_only_region_0_has_registers(bench: Bench) -> None:
    bench.device.write(1, 0, 4, 0)
    assert bench.read(0) != 0
    assert bench.device.read(1, 0x20, 4) == bench.device.peek(1, 0x20, 4) == 0


# -- interrupts ---------------------------------------------------------------------------------------------


def test_the_main_line_is_high_while_an_enabled_bit_and_its_summary_are() -> None:
    bench = Bench()
    bench.device.raise_interrupt()
    assert bench.read(STATUS) == Status.RI, "nothing enabled: no summary"
    bench.write(INTR_ENA, Status.RI)
    assert bench.read(STATUS) == Status.RI | Status.NIS
    assert bench.levels == [False] * 3, "the summary itself is not enabled"
    bench.write(INTR_ENA, Status.RI | Status.NIS)
    assert bench.levels == [True, False, False]
    bench.write(STATUS, Status.RI)
    assert (bench.read(STATUS), bench.levels[0]) == (0, False)


@pytest.mark.parametrize(
    ("bit", "summary"),
    [(bit, Status.NIS) for bit in (Status.TI, Status.TU, Status.RI, Status.ERI)]
    + [
        (bit, Status.AIS)
        for bit in (
            Status.TPS,
            Status.TJT,
            Status.OVF,
            Status.UNF,
            Status.RU,
            Status.RPS,
            Status.RWT,
            Status.ETI,
            Status.FBI,
        )
    ],
)
def test_each_cause_has_its_summary(bit: Status, summary: Status) -> None:
    bench = Bench()
    bench.write(INTR_ENA, bit | summary)
    bench.device.raise_interrupt(bit)
    assert bench.read(STATUS) == bit | summary
    assert bench.levels[0]
    other = (Status.NIS | Status.AIS) & ~summary
    bench.write(INTR_ENA, bit | other)
    assert not bench.levels[0]


def test_clearing_one_of_two_causes_keeps_the_line_high(bench: Bench) -> None:
    bench.device.raise_interrupt(Status.RI | Status.TI)
    bench.write(STATUS, Status.TI | Status.NIS)
    assert bench.status == Status.RI
    assert bench.levels[0]


def test_power_management_and_low_power_lines(bench: Bench) -> None:
    bench.device.power_management(True)
    assert (bench.levels, bench.read(0x3C)) == ([False, True, False], 1 << 7)
    bench.write(0x3C, reg.INT_PMT_MASKED)
    assert (bench.levels[1], bench.read(0x3C)) == (False, reg.INT_PMT_MASKED | 1 << 7)
    bench.device.low_power_idle(True)
    assert bench.levels == [False, False, True]
    bench.device.low_power_idle(False)
    bench.write(0x3C, 0)
    bench.device.power_management(False)
    assert (bench.levels, bench.read(0x3C)) == ([False] * 3, 0)


def test_a_board_may_wire_fewer_lines() -> None:
    device = Xgmac(DeviceSpec("mac", "xgmac", 0), (), Clock())
    device.write(0, INTR_ENA, 4, ALL)
    device.raise_interrupt()
    assert device.read(0, STATUS, 4) == Status.RI | Status.NIS


def test_whoever_takes_the_interrupt_may_clear_it_at_once(bench: Bench) -> None:
    gic = bench.device.lines[0]._gic
    gic.enable(109)
    gic.handlers[0] = lambda: bench.write(STATUS, ALL)
    bench.device.raise_interrupt()
    assert (bench.status, bench.levels[0]) == (0, False)


# -- receive ------------------------------------------------------------------------------------------------


def test_a_frame_is_received(bench: Bench) -> None:
    buffer = bench.rx(0)
    assert bench.device.receive(FRAME)
    flags = bench.memory.words(RX_RING)[0]
    assert flags == (len(FRAME) + 4) << 16 | reg.RX_FIRST | reg.RX_LAST | reg.RX_TYPE
    fcs = zlib.crc32(FRAME).to_bytes(4, "little")
    assert bench.memory.read(buffer, len(FRAME) + 4) == FRAME + fcs
    assert (bench.status, bench.levels[0]) == (Status.RI, True)


def test_the_fcs_of_a_frame_with_a_length_can_be_stripped(bench: Bench) -> None:
    bench.write(0, reg.MAC_RE | reg.MAC_ACS)
    bench.rx(0)
    bench.device.receive(bytes(60))
    assert bench.memory.words(RX_RING)[0] == 60 << 16 | reg.RX_FIRST | reg.RX_LAST


def test_the_ring_is_walked_and_wraps(bench: Bench) -> None:
    buffers = [bench.rx(0), bench.rx(1, more=1 << 15)]
    for number in (1, 2):
        assert bench.device.receive(bytes([number]) * 20)
    bench.rx(0)
    assert bench.device.receive(b"\x03" * 20)
    assert [bench.memory.read(buffer, 1)[0] for buffer in buffers] == [3, 2]


def test_long_descriptors_are_32_bytes_apart() -> None:
    bench = Bench()
    bench.start(atds=True)
    bench.memory.put(RX_RING, reg.OWN, 64, BUFFERS, 0)
    bench.memory.put(RX_RING + 32, reg.OWN, 64, BUFFERS + 64, 0)
    assert bench.device.receive(b"a")
    assert bench.device.receive(b"b")
    assert bench.memory.read(BUFFERS + 64, 1) == b"b"


def test_chained_receive_descriptors(bench: Bench) -> None:
    bench.memory.put(RX_RING, reg.OWN, 64 | 1 << 14, BUFFERS, RX_RING + 0x800)
    bench.memory.put(RX_RING + 0x800, reg.OWN, 64, BUFFERS + 64, 0)
    bench.device.receive(b"a")
    bench.device.receive(b"b")
    assert bench.memory.read(BUFFERS + 64, 1) == b"b"
    assert bench.read(0xF4C) == RX_RING + 0x810


def test_a_long_frame_takes_both_buffers_and_several_descriptors(bench: Bench) -> None:
    frame = bytes(range(76))
    bench.memory.put(RX_RING, reg.OWN, 30 | 20 << 16, BUFFERS, BUFFERS + 0x200)
    buffer = bench.rx(1)
    bench.device.receive(frame)
    got = bench.memory.read(BUFFERS, 30) + bench.memory.read(BUFFERS + 0x200, 20) + bench.memory.read(buffer, 26)
    assert got == frame
    first, last = bench.memory.words(RX_RING)[0], bench.memory.words(RX_RING + 16)[0]
    assert first == reg.RX_FIRST
    assert last == reg.RX_LAST | 80 << 16 | reg.RX_TYPE


def test_no_descriptor_is_ru_and_the_frame_is_counted_as_missed(bench: Bench) -> None:
    bench.rx(0, flags=0)
    assert not bench.device.receive(FRAME)
    assert (bench.status, bench.levels[0]) == (Status.RU, True)
    assert bench.device.peek(0, MISSED, 4) == 1
    assert bench.read(MISSED) == 1
    assert bench.read(MISSED) == 0, "cleared by reading"
    bench.rx(0)
    assert bench.device.receive(FRAME), "the next frame looks again"


def test_a_frame_that_runs_out_of_descriptors_is_truncated(bench: Bench) -> None:
    bench.rx(0, size=32)
    bench.rx(1, flags=0)
    assert not bench.device.receive(FRAME)
    flags = bench.memory.words(RX_RING)[0]
    assert flags == reg.RX_FIRST | reg.RX_LAST | reg.RX_TYPE | reg.RX_TRUNCATED | 32 << 16
    assert bench.status == Status.RI | Status.RU


def test_a_ring_without_buffers_ends(bench: Bench) -> None:
    bench.rx(0, size=0, more=1 << 15)
    assert not bench.device.receive(FRAME)
    assert bench.memory.words(RX_RING)[0] & reg.RX_TRUNCATED


@pytest.mark.parametrize(("mac", "dma"), [(0, reg.DMA_SR), (reg.MAC_RE, 0)])
def test_a_receiver_that_is_off_hears_nothing(bench: Bench, mac: int, dma: int) -> None:
    bench.rx(0)
    bench.write(0, mac)
    bench.write(CONTROL, dma)
    bench.write(STATUS, ALL)
    assert not bench.device.receive(FRAME)
    assert (bench.status, bench.memory.words(RX_RING)[0]) == (0, reg.OWN)


@pytest.mark.parametrize("size", [0, reg.MAX_FRAME + 1])
def test_no_cable_carries_such_a_frame(bench: Bench, size: int) -> None:
    with pytest.raises(ValueError, match="a frame has 1 to"):
        bench.device.receive(bytes(size))


# -- transmit -----------------------------------------------------------------------------------------------


def test_poll_demand_sends_what_the_device_owns(bench: Bench) -> None:
    bench.tx(0, b"one")
    bench.tx(1, b"two")
    bench.memory.put(TX_RING + 32, 0)
    bench.write(TX_POLL, 1)
    assert bench.sent == [b"one", b"two"]
    assert [bench.memory.words(TX_RING + at)[0] & reg.OWN for at in (0, 16)] == [0, 0]
    assert (bench.status, bench.levels[0]) == (Status.TI | Status.TU, True)
    assert bench.read(0xF48) == TX_RING + 32


def test_a_frame_is_gathered_from_several_descriptors_and_buffers(bench: Bench) -> None:
    bench.tx(0, b"ab", reg.TX_FIRST)
    bench.memory.put(TX_RING + 8, BUFFERS + 0x1000, BUFFERS + 0x1001)
    bench.memory.put(TX_RING + 4, 1 | 1 << 16)
    bench.tx(1, b"cd", reg.TX_LAST | reg.TX.end_of_ring)
    bench.write(TX_POLL, 1)
    assert bench.sent == [b"abcd"]
    assert bench.read(0xF48) == TX_RING


def test_a_frame_may_be_continued_by_a_later_poll(bench: Bench) -> None:
    bench.tx(0, b"ab", reg.TX_FIRST)
    bench.memory.put(TX_RING + 16, 0)
    bench.write(TX_POLL, 1)
    assert bench.status == Status.TU
    bench.tx(1, b"cd", reg.TX_LAST)
    bench.write(TX_POLL, 1)
    assert bench.sent == [b"abcd"]


def test_chained_transmit_descriptors(bench: Bench) -> None:
    bench.tx(0, b"one", reg.TX_FIRST | reg.TX_LAST | reg.TX.chained)
    bench.memory.put(TX_RING + 12, TX_RING + 0x50)
    bench.tx(5, b"two")
    bench.write(TX_POLL, 1)
    assert bench.sent == [b"one", b"two"]


def test_setting_the_start_bit_polls_too(bench: Bench) -> None:
    bench.write(CONTROL, 0)
    assert bench.status == Status.TPS | Status.RPS
    bench.tx(0, b"one")
    bench.write(TX_POLL, 1)
    assert bench.sent == []
    bench.write(CONTROL, reg.DMA_ST)
    assert bench.sent == [b"one"]


def test_a_callback_may_send_more(bench: Bench) -> None:
    def again(frame: bytes) -> None:
        bench.sent.append(frame)
        if len(bench.sent) < 3:
            bench.write(TX_POLL, 1)

    bench.device.on_transmit = again
    for index in range(4):
        bench.tx(index, bytes([index]))
    bench.write(TX_POLL, 1)
    assert bench.sent == [b"\0", b"\1", b"\2", b"\3"]


def test_an_endless_frame_is_jabber(bench: Bench) -> None:
    for index in range(3):
        last = reg.TX_LAST | reg.TX.end_of_ring if index == 2 else 0
        bench.memory.put(TX_RING + 16 * index, reg.OWN | last, 0x1FFF, BUFFERS, 0)
    bench.write(TX_POLL, 1)
    assert bench.sent == []
    assert bench.status == Status.TJT | Status.TU


def test_an_empty_frame_is_ignored(bench: Bench) -> None:
    bench.tx(0, b"")
    bench.write(TX_POLL, 1)
    assert bench.sent == []


def test_loopback_by_parameter() -> None:
    bench = Bench(loopback=True)
    bench.start()
    buffer = bench.rx(0)
    bench.tx(0, FRAME)
    bench.write(TX_POLL, 1)
    assert bench.memory.read(buffer, len(FRAME)) == FRAME
    assert bench.status == Status.RI | Status.TI | Status.TU


def test_loopback_by_the_mac_control_bit_keeps_the_frame_off_the_cable(bench: Bench) -> None:
    bench.write(0, reg.MAC_RE | reg.MAC_TE | reg.MAC_LOOPBACK)
    bench.rx(0)
    bench.tx(0, FRAME)
    bench.write(TX_POLL, 1)
    assert bench.sent == []
    assert bench.status & Status.RI


# -- bus errors, reset --------------------------------------------------------------------------------------


def restart(bench: Bench) -> None:
    bench.write(BUS_MODE, reg.BUS_SWR)
    bench.start()


@pytest.mark.parametrize("case", ["descriptor", "buffer", "own bit"])
def test_a_fault_on_receive_is_fbi_until_reset(bench: Bench, case: str) -> None:
    buffer = bench.rx(0)
    match case:
        case "descriptor":
            bench.write(RX_LIST, 0xFFF8)
        case "buffer":
            bench.memory.readonly = range(buffer, buffer + 1)
        case "own bit":
            bench.memory.readonly = range(RX_RING, RX_RING + 1)
    assert not bench.device.receive(FRAME)
    assert (bench.status, bench.levels[0]) == (Status.FBI, True)
    bench.memory.readonly = range(0)
    bench.write(RX_LIST, RX_RING)
    assert not bench.device.receive(FRAME), "stopped"
    restart(bench)
    assert bench.device.receive(FRAME)


@pytest.mark.parametrize("case", ["descriptor", "buffer", "own bit"])
def test_a_fault_on_transmit_is_fbi_until_reset(bench: Bench, case: str) -> None:
    bench.tx(0, b"one")
    match case:
        case "descriptor":
            bench.write(TX_LIST, 0xFFF8)
        case "buffer":
            bench.memory.put(TX_RING + 8, 0xFFFF)
        case "own bit":
            bench.memory.readonly = range(TX_RING, TX_RING + 1)
    bench.write(TX_POLL, 1)
    assert (bench.status, bench.sent) == (Status.FBI, [])
    bench.memory.readonly = range(0)
    bench.tx(0, b"two")
    bench.write(TX_LIST, TX_RING)
    bench.write(TX_POLL, 1)
    assert bench.sent == [], "stopped"
    restart(bench)
    bench.tx(0, b"two")
    bench.write(TX_POLL, 1)
    assert bench.sent == [b"two"]


def test_a_device_in_no_domain_faults(bench: Bench) -> None:
    bench.device.dma = NoDma()
    assert not bench.device.receive(FRAME)
    assert bench.status == Status.FBI


@pytest.mark.parametrize("how", ["reset()", "SWR"])
def test_reset_clears_registers_and_lines_but_not_the_address(bench: Bench, how: str) -> None:
    bench.write(0x44, 0x1234)
    bench.device.raise_interrupt()
    bench.device.power_management(True)
    if how == "SWR":
        bench.write(BUS_MODE, reg.BUS_SWR | 1 << 16)
    else:
        bench.device.reset()
    assert bench.levels == [False] * 3
    assert [bench.read(at) for at in (0, BUS_MODE, STATUS, INTR_ENA, CONTROL, RX_LIST)] == [0] * 6
    assert bench.read(0x44) == 0xF5FF0002


def test_flush_and_poll_bits_clear_themselves(bench: Bench) -> None:
    bench.write(0x400, 0x00300020)
    assert bench.read(0x400) == 0x00200020
    assert bench.read(TX_POLL) == 0
