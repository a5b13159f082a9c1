"""The model of a PCI function: header, BARs, capabilities, INTx, MSI, MSI-X, power states and resets."""

from __future__ import annotations

from typing import Any

import pytest

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw import pci_caps as caps
from kvmvfio_emu.hw.board import BarSpec, Board, DeviceSpec, InterruptSpec, MsixSpec, PciSpec
from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices import Device
from kvmvfio_emu.hw.devices.base import DmaFault
from kvmvfio_emu.hw.devices.pci import PciDevice
from kvmvfio_emu.hw.gic import Gic
from kvmvfio_emu.hw.machine import Machine
from kvmvfio_emu.hw.pci import (
    BAR0,
    COMMAND,
    COMMAND_INTX_DISABLE,
    STATUS,
    STATUS_INTERRUPT,
    Line,
    PciFunction,
    PciIds,
    assign_bars,
)

IDS = PciIds(0x1234, 0x5678, 0x020000, 3, 0x9ABC, 0xDEF0)
LIST, PIN = 0x34, 0x3D


def function(*capabilities: caps.Capability, bars: tuple[BarSpec, ...] = (), **more: Any) -> PciFunction:
    return PciFunction(IDS, bars, capabilities, **more)


def line() -> Line:
    return Line(Gic(), Trace(Clock()), 36, "pin")


def machine(*specs: DeviceSpec) -> Machine:
    clock = Clock()
    return Machine(Board("tiny", devices=specs), clock, Trace(clock))


def one(name: str = "0000:00:01.0", model: str = "none", **more: Any) -> PciDevice:
    spec = DeviceSpec(name, model, 0, bus="pci", driver="vfio-pci", **more)
    device = machine(spec).devices[name]
    assert isinstance(device, PciDevice)
    return device


# -- header --------------------------------------------------------------------------------------------------


def test_identification() -> None:
    found = function()
    assert found.read(0, 4) == 0x56781234
    assert found.read(8, 4) == 0x02000003
    assert found.read(0x2C, 4) == 0xDEF09ABC
    assert (found.read(STATUS, 2), found.read(LIST, 1), found.read(PIN, 1)) == (0, 0, 0)
    assert found.size == 0x100
    found.write(0, 4, 0)
    assert found.read(0, 4) == 0x56781234


def test_a_function_with_a_line_has_a_pin() -> None:
    assert function(line=line()).read(PIN, 1) == 1


@pytest.mark.parametrize(
    ("bar", "mask"),
    [
        (BarSpec(0, 0x1000), 0xFFFFF000),
        (BarSpec(0, 0x1000, prefetchable=True), 0xFFFFF008),
        (BarSpec(0, 0x20, "io"), 0xFFFFFFE1),
        (BarSpec(4, 0x40000000, "mem64"), 0xFFFFFFFF_C0000004),
    ],
)
def test_sizing(bar: BarSpec, mask: int) -> None:
    found = function(bars=(bar,))
    place, width = BAR0 + 4 * bar.index, 8 if bar.kind == "mem64" else 4
    found.write(place, width, (1 << 8 * width) - 1)
    assert found.read(place, width) == mask


@pytest.mark.parametrize(
    "bars",
    [
        (BarSpec(0, 0x1001),),
        (BarSpec(0, 8),),
        (BarSpec(6, 0x1000),),
        (BarSpec(5, 0x1000, "mem64"),),
        (BarSpec(0, 0x1000, "memory"),),
        (BarSpec(0, 0x1000), BarSpec(0, 0x1000)),
        (BarSpec(0, 0x1000, "mem64"), BarSpec(1, 0x1000)),
        (BarSpec(1, 0x1000), BarSpec(0, 0x1000, "mem64")),
    ],
)
def test_impossible_bars(bars: tuple[BarSpec, ...]) -> None:
    with pytest.raises(ValueError, match="BAR"):
        function(bars=bars)


def test_addresses_are_aligned_apart_and_each_has_its_page() -> None:
    bars = (BarSpec(0, 0x100), BarSpec(1, 0x100000), BarSpec(2, 0x10, "io"), BarSpec(4, 0x4000, "mem64"))
    functions = [function(bars=bars), function(bars=bars)]
    assign_bars(functions)
    taken: list[tuple[int, int]] = []
    for found in functions:
        for bar in bars:
            address = found.addresses[bar.index]
            width = 8 if bar.kind == "mem64" else 4
            assert found.read(BAR0 + 4 * bar.index, width) & ~0xF == address
            assert address % bar.size == 0
            size = max(bar.size, 0x20 if bar.kind == "io" else 0x1000)
            assert all(address >= end or address + size <= start for start, end in taken)
            taken.append((address, address + size))


# -- capabilities --------------------------------------------------------------------------------------------


def test_capabilities_are_chained_in_order_on_dwords() -> None:
    found = function(caps.PowerManagement(), caps.Msi(offset=0x60), caps.Vendor(data=b"xyz"), caps.Express())
    chain, at = [], found.read(LIST, 1)
    while at:
        chain.append((at, found.read(at, 1)))
        at = found.read(at + 1, 1)
    assert chain == [(0x40, 1), (0x60, 5), (0x70, 9), (0x78, 0x10)]
    assert found.read(STATUS, 2) == 0x10
    assert (found.find(caps.EXPRESS), found.find(caps.MSIX)) == (0x78, 0)
    assert found.size == 0x1000


@pytest.mark.parametrize(
    ("wide", "maskable", "length"), [(False, False, 10), (True, False, 14), (False, True, 20), (True, True, 24)]
)
def test_the_lengths_of_msi(wide: bool, maskable: bool, length: int) -> None:
    capability = caps.Msi(vectors=8, wide=wide, maskable=maskable)
    assert len(capability.body()) == len(capability.writable()) == length - 2
    assert capability.body()[0] >> 1 & 7 == 3


@pytest.mark.parametrize(
    "capability",
    [caps.PowerManagement(), caps.MsiX(vectors=3, bar=1), caps.Express(), caps.AdvancedFeatures(), caps.Vendor()],
)
def test_a_capability_and_its_mask_have_one_length(capability: caps.Capability) -> None:
    assert len(capability.body()) == len(capability.writable())


def test_impossible_capabilities() -> None:
    with pytest.raises(ValueError, match="vectors"):
        caps.Msi(vectors=3)
    with pytest.raises(ValueError, match="vectors"):
        caps.MsiX(vectors=0, bar=0)
    with pytest.raises(ValueError, match="does not fit"):
        function(caps.Vendor(data=bytes(250)))
    with pytest.raises(ValueError, match="does not fit"):
        function(caps.PowerManagement(offset=0x42))


# -- INTx ----------------------------------------------------------------------------------------------------


def test_the_pin_follows_unless_disabled_and_the_status_always_tells() -> None:
    pin = line()
    found = function(line=pin)
    found.set_intx(True)
    assert pin.level
    assert found.read(STATUS, 2) == STATUS_INTERRUPT
    assert found.read(COMMAND, 4) == STATUS_INTERRUPT << 16
    found.command |= COMMAND_INTX_DISABLE
    assert not pin.level
    assert found.read(STATUS, 2) == STATUS_INTERRUPT
    found.command &= ~COMMAND_INTX_DISABLE
    assert pin.level
    found.set_intx(False)
    assert not pin.level
    assert found.read(STATUS, 2) == 0


def test_before_pci_2_3_there_is_no_disable_bit() -> None:
    pin = line()
    found = function(line=pin, masks_intx=False)
    found.set_intx(True)
    found.command |= COMMAND_INTX_DISABLE
    assert pin.level
    assert found.command == 0
    assert found.read(STATUS, 2) == 0


# -- messages ------------------------------------------------------------------------------------------------


def sending(*capabilities: caps.Capability) -> tuple[PciFunction, list[int]]:
    found, sent = function(*capabilities, line=line()), []
    found.messages.on_message = sent.append
    found.command = 4
    return found, sent


def test_without_a_mechanism_there_is_only_the_pin() -> None:
    found, sent = sending(caps.Msi())
    assert not found.messages.send(0)
    assert sent == []


def test_msi_with_fewer_vectors_than_the_function_has() -> None:
    found, sent = sending(caps.Msi(vectors=8))
    found.messages.enable(caps.MSI, 2)
    for vector in range(4):
        assert found.messages.send(vector)
    assert sent == [0, 1, 0, 1]


def test_msi_masks_and_pending_bits() -> None:
    found, sent = sending(caps.Msi(vectors=4, maskable=True))
    found.messages.enable(caps.MSI, 4)
    found.write(0x50, 4, 0b1010)
    for vector in range(4):
        found.messages.send(vector)
    assert sent == [0, 2]
    assert found.read(0x54, 4) == 0b1010
    found.write(0x54, 4, 0)
    assert found.read(0x54, 4) == 0b1010, "read-only"
    found.write(0x50, 4, 0b1000)
    assert sent == [0, 2, 1]
    found.write(0x50, 4, 0)
    assert sent == [0, 2, 1, 3]
    assert found.read(0x54, 4) == 0


def test_msix_masks_by_vector_and_by_function() -> None:
    found, sent = sending(caps.MsiX(vectors=70, bar=0, table=0x100, pba=0x800))
    messages = found.messages
    messages.enable(caps.MSIX, 70)
    found.write(0x42, 2, 0xC000)
    messages.send(1)
    messages.send(69)
    assert sent == []
    assert messages.overlay(0, 0x800, 4) == 0b10
    assert messages.overlay(0, 0x808, 8) == 1 << 5
    found.write(0x42, 2, 0x8000)
    assert sent == [1, 69]
    messages.store(0, 0x100 + 16 + 12, 4, 1)
    messages.send(1)
    assert sent == [1, 69]
    messages.store(0, 0x100 + 16 + 12, 4, 0)
    assert sent == [1, 69, 1]
    assert messages.send(70), "lost: there is no such vector"
    assert sent == [1, 69, 1]
    assert messages.overlay(0, 0x100 + 70 * 16, 4) is None
    assert messages.overlay(1, 0x100, 4) is None


def test_messages_quiet_the_pin() -> None:
    pin = line()
    found = function(caps.Msi(), line=pin)
    found.set_intx(True)
    found.messages.enable(caps.MSI, 1)
    assert not pin.level
    found.messages.disable()
    assert pin.level


def test_no_message_from_what_is_not_a_bus_master() -> None:
    found, sent = sending(caps.Msi())
    found.messages.enable(caps.MSI, 1)
    found.command = 0
    assert found.messages.send(0)
    assert sent == []


# -- resets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "offset", "size", "value"),
    [
        (caps.Express(), 0x48, 2, 0x8000),
        (caps.Express(), 0x49, 1, 0x80),
        (caps.Express(), 0x48, 4, 0x8000),
        (caps.AdvancedFeatures(), 0x44, 1, 1),
        (caps.AdvancedFeatures(), 0x42, 4, 0x10000),
    ],
)
def test_a_function_level_reset(capability: caps.Capability, offset: int, size: int, value: int) -> None:
    found = function(capability, bars=(BarSpec(0, 0x1000),))
    assert found.can_reset
    assign_bars([found])
    found.command = 6
    found.write(offset, size, 0)
    assert found.command == 6
    found.write(offset, size, value)
    assert found.command == 0
    assert found.read(BAR0, 4) == 0
    assert found.read(offset, size) & value == 0


def test_coming_back_from_d3_resets_what_says_so_but_keeps_the_header() -> None:
    for gentle in (True, False):
        found, resets = function(caps.PowerManagement(no_soft_reset=gentle), bars=(BarSpec(0, 0x1000),)), []
        assert found.can_reset is not gentle
        found.on_reset = lambda resets=resets, found=found: (resets.append(1), found.reset())
        found.command = 2
        assert found.decodes(0)
        found.write(0x44, 2, 3)
        assert found.power_state == 3
        assert not found.decodes(0)
        found.wake()
        assert len(resets) == (0 if gentle else 1)
        assert (found.power_state, found.command, found.decodes(0)) == (0, 2, True)


def test_save_and_restore() -> None:
    found = function(caps.MsiX(vectors=2, bar=0), bars=(BarSpec(0, 0x1000),))
    assign_bars([found])
    found.command = 7
    found.messages.enable(caps.MSIX, 2)
    saved, before = found.save(), found.read(0, 256)
    found.reset()
    assert not found.messages.enabled
    assert found.messages.table[12] == 1
    found.restore(saved)
    assert found.read(0, 256) == before
    assert found.messages.table[12] == 0


# -- devices -------------------------------------------------------------------------------------------------


def test_a_board_can_describe_a_function_without_behaviour() -> None:
    spec = PciSpec(
        vendor=1,
        device=2,
        class_code=0x010203,
        revision=4,
        bars=(BarSpec(0, 0x4000),),
        msi=2,
        msix=MsixSpec(3, 0),
        express=True,
        power_management=True,
    )
    found = one(pci=spec, interrupts=(InterruptSpec(4),)).function
    assert (found.read(0, 4), found.read(8, 4), found.read(PIN, 1)) == (0x00020001, 0x01020304, 1)
    assert [caps.number_of(item) for item in found.capabilities.values()] == [1, 5, 0x10, 0x11]


def test_ids_of_the_board_replace_the_models() -> None:
    assert one(model="edu", pci=PciSpec(device=0x9999)).function.read(0, 4) == 0x99991234


def test_a_model_that_brings_bars_refuses_the_boards() -> None:
    with pytest.raises(BoardError, match="brings its own BARs"):
        one(model="edu", pci=PciSpec(bars=(BarSpec(0, 0x1000),)))
    with pytest.raises(BoardError, match="not a power of two"):
        one(pci=PciSpec(bars=(BarSpec(0, 0x1001),)))


def test_a_model_sits_on_the_bus_it_is_made_for() -> None:
    for spec in (DeviceSpec("a", "edu", 0), DeviceSpec("a", "xgmac", 0, bus="pci")):
        with pytest.raises(BoardError, match="is not for bus"):
            machine(spec)
    assert type(machine(DeviceSpec("a", "none", 0)).devices["a"]) is Device


def test_accesses_that_nothing_decodes() -> None:
    device = one(pci=PciSpec(bars=(BarSpec(0, 0x1000), BarSpec(1, 0x20, "io"))))
    for region, bit in ((0, 2), (1, 1)):
        device.function.command = 3 & ~bit
        assert device.read(region, 0, 4) == 0xFFFFFFFF
        assert device.peek(region, 0, 8) == (1 << 64) - 1
        device.function.command = bit
        assert device.read(region, 0, 4) == device.peek(region, 0, 8) == 0
    assert device.read(2, 0, 1) == 0xFF


def test_peeking_shows_the_msix_table() -> None:
    device = one(pci=PciSpec(bars=(BarSpec(0, 0x1000),), msix=MsixSpec(2, 0, table=0x10)))
    device.function.command = 2
    assert device.peek(0, 0, 0x40) == 1 << 8 * 0x1C | 1 << 8 * 0x2C
    assert device.read(0, 0x1C, 4) == 1
    device.write(0, 0x1C, 4, 0)
    assert device.read(0, 0x1C, 4) == 0


def test_dma_needs_bus_mastering() -> None:
    class Memory:
        def read(self, iova: int, size: int) -> bytes:
            return b"x" * size

        def write(self, iova: int, data: bytes) -> None:
            self.data = data

    device = one()
    device.dma = Memory()
    for access in (lambda: device.dma_read(0, 1), lambda: device.dma_write(0, b"y")):
        with pytest.raises(DmaFault, match="bus master"):
            access()
    device.function.command = 4
    assert device.dma_read(0, 2) == b"xx"
    device.dma_write(0, b"y")
    assert device.dma.data == b"y"


def test_an_interrupt_takes_the_way_that_is_enabled() -> None:
    device, sent = one(pci=PciSpec(msi=1), interrupts=(InterruptSpec(4),)), []
    device.function.messages.on_message = sent.append
    device.interrupt(True)
    assert device.lines[0].level
    device.interrupt(False)
    assert not device.lines[0].level
    device.function.command = 4
    device.function.messages.enable(caps.MSI, 1)
    device.interrupt(True)
    device.interrupt(False)
    assert sent == [0]
    assert not device.lines[0].level
