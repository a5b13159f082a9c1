"""The ITS's commands and MSIs: from a device's event to an LPI at a vCPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gicv3_rig import ITS_BASE, RAM, RAM_SIZE, Machine, boot_v3
from its_rig import (
    BASER0,
    BASER1,
    CREADR,
    CTLR,
    CWRITER,
    DEVICE,
    DEVICES,
    EVENT,
    INDIRECT,
    ITT,
    LEVEL2,
    LPI,
    PROPERTIES,
    QUEUE,
    SECOND_ITT,
    VALID,
    Guest,
)
from support import CTRL, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import gicv3 as g

SAVE_PENDING = uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES


@pytest.fixture
def client(boot: Callable[..., Client]) -> Client:
    return boot_v3(boot)


@pytest.fixture
def machine(client: Client) -> Machine:
    return Machine(client, 2)


@pytest.fixture
def guest(machine: Machine) -> Guest:
    guest = Guest(machine)
    guest.one_event()
    return guest


# -- KVM_SIGNAL_MSI ---------------------------------------------------------------------------------------------------


def test_message_makes_the_lpi_pending(guest: Guest) -> None:
    assert guest.lpi() == (False, True, 0xA0, 0)
    assert guest.signal() == 1
    assert guest.lpi() == (True, True, 0xA0, 0)
    assert guest.signal() == 1


def test_any_address_in_the_frames_is_a_doorbell(guest: Guest) -> None:
    for address in (ITS_BASE, ITS_BASE + 0x1FFFF):
        assert guest.signal(at=address) == 1
    for address in (ITS_BASE - 1, ITS_BASE + 0x20000, 0):
        guest.machine.client.refused("EINVAL", guest.signal, at=address)


def test_message_that_leads_nowhere_is_0(guest: Guest) -> None:
    assert guest.signal(EVENT + 1) == 0
    assert guest.signal(device=DEVICE + 1) == 0
    guest.mapc(valid=False)
    assert guest.signal() == 0


def test_flags_of_a_message(guest: Guest) -> None:
    guest.machine.client.refused("EINVAL", guest.signal, flags=0)
    guest.machine.client.refused("EINVAL", guest.signal, flags=2)
    guest.machine.client.refused("EINVAL", guest.signal, flags=3)


def test_message_without_its_is_enodev_and_without_gic_einval(client: Client) -> None:
    machine = Machine(client, 1)
    guest = Guest.__new__(Guest)
    guest.machine = machine
    client.refused("ENODEV", guest.signal)
    client.refused("ENODEV", guest.signal, flags=0)
    machine.vm = client.vm()
    client.refused("EINVAL", guest.signal)


def test_message_to_a_disabled_its_or_redistributor_is_ebusy(guest: Guest) -> None:
    guest.machine.redist(g.GICR_CTLR, 0)
    guest.machine.client.refused("EBUSY", guest.signal)
    guest.machine.redist(g.GICR_CTLR, 1)
    assert guest.signal() == 1
    guest.machine.its_reg(CTLR, 0)
    guest.machine.client.refused("EBUSY", guest.signal)


# -- mapping ----------------------------------------------------------------------------------------------------------


def test_lpi_has_the_configuration_of_its_byte(guest: Guest) -> None:
    guest.poke(PROPERTIES + 1, b"\x43")
    guest.mapti(5, 8193)
    assert guest.lpi(8193) == (False, True, 0x40, 0)
    guest.poke(PROPERTIES + 2, b"\xfe")
    guest.mapti(6, 8194)
    assert guest.lpi(8194) == (False, False, 0xFC, 0)


def test_new_lpi_takes_its_bit_from_the_pending_table(guest: Guest) -> None:
    byte = guest.pending(0) + 8193 // 8
    guest.poke(byte, b"\xff")
    guest.mapti(5, 8193)
    assert guest.lpi(8193) == (True, True, 0xA0, 0)
    assert guest.peek(byte, 1) == 0xFF & ~(1 << 8193 % 8)


def test_mapi_uses_the_event_as_interrupt(guest: Guest) -> None:
    guest.mapd(0x11, SECOND_ITT, 16)
    guest.on_event(g.CMD_MAPI, 8300, 0x11)
    assert guest.lpi(8300) == (False, True, 0xA0, 0)


@pytest.mark.parametrize("lpi", [0, 100, 8191, 0x10000])
def test_no_lpi_outside_of_the_table(guest: Guest, lpi: int) -> None:
    guest.mapti(5, lpi)
    assert guest.signal(5) == 0


def test_propbaser_says_how_many_lpis_there_are(machine: Machine) -> None:
    guest = Guest(machine, enable=False)
    machine.redist(g.GICR_PROPBASER, PROPERTIES | 13)
    machine.its_reg(CTLR, 1)
    guest.mapd()
    guest.mapc()
    guest.mapti(0, (1 << 14) - 1)
    guest.mapti(1, 1 << 14)
    assert guest.lpi((1 << 14) - 1) is not None
    assert guest.lpi(1 << 14) is None


@pytest.mark.parametrize(("bits", "events"), [(1, 2), (4, 16)])
def test_device_has_as_many_events_as_it_says(guest: Guest, bits: int, events: int) -> None:
    guest.mapd(0x11, SECOND_ITT, bits)
    guest.mapti(events - 1, 8300, device=0x11)
    guest.mapti(events, 8301, device=0x11)
    assert guest.lpi(8300) is not None
    assert guest.lpi(8301) is None


def test_device_with_more_than_16_bits_of_events_is_not_mapped(guest: Guest) -> None:
    guest.mapd(0x11, SECOND_ITT, 17)
    guest.mapti(0, 8300, device=0x11)
    assert guest.lpi(8300) is None


def test_mapping_twice_changes_nothing(guest: Guest) -> None:
    guest.mapti(EVENT, 8300)
    assert guest.lpi(8300) is None
    assert guest.lpi() is not None


def test_two_events_can_share_an_lpi(guest: Guest) -> None:
    guest.mapti(5, LPI)
    guest.on_event(g.CMD_DISCARD)
    assert guest.lpi() is not None
    guest.on_event(g.CMD_DISCARD, 5)
    assert guest.lpi() is None


def test_event_in_an_unmapped_collection_waits_for_it(guest: Guest) -> None:
    guest.mapti(5, 8300, collection=7)
    assert guest.lpi(8300) == (False, True, 0xA0, None)
    assert guest.signal(5) == 0
    guest.mapc(7, 1)
    assert guest.lpi(8300) == (False, True, 0xA0, 1)
    assert guest.signal(5) == 1


def test_collection_of_no_vcpu(guest: Guest) -> None:
    guest.mapc(7, 2)
    guest.mapti(5, 8300, collection=7)
    assert guest.signal(5) == 0


def test_mapping_a_device_again_drops_its_events(guest: Guest) -> None:
    guest.mapd()
    assert guest.lpi() is None
    assert guest.signal() == 0


def test_unmapping_a_device_clears_its_entry(guest: Guest) -> None:
    guest.poke(DEVICES + DEVICE * 8, b"\xff" * 8)
    guest.mapd(valid=False)
    assert guest.peek(DEVICES + DEVICE * 8) == 0
    assert guest.lpi() is None


@pytest.mark.parametrize(("device", "mapped"), [(0x3FFF, True), (0x4000, False), (0xFFFFFFFF, False)])
def test_device_table_of_one_level_has_its_size(guest: Guest, device: int, mapped: bool) -> None:
    # Two pages of 64 KiB, 8 bytes an entry.
    guest.mapd(device, SECOND_ITT)
    guest.mapti(0, 8300, device=device)
    assert (guest.lpi(8300) is not None) == mapped


@pytest.mark.parametrize(("device", "mapped"), [(0x2000, True), (0x3FFF, True), (0, False), (0x4000, False)])
def test_device_table_of_two_levels(machine: Machine, device: int, mapped: bool) -> None:
    guest = Guest(machine, enable=False)
    machine.its_reg(BASER0, VALID | INDIRECT | DEVICES)
    guest.poke(DEVICES + 8, (VALID | LEVEL2).to_bytes(8, "little"))
    guest.poke(DEVICES + 16, (VALID | RAM + RAM_SIZE).to_bytes(8, "little"))  # no memory there
    machine.its_reg(CTLR, 1)
    guest.mapc()
    guest.mapd(device)
    guest.mapti(device=device)
    assert (guest.lpi() is not None) == mapped


def test_event_whose_bytes_are_in_no_memory_is_not_mapped(machine: Machine) -> None:
    guest = Guest(machine, enable=False)
    machine.redist(g.GICR_PROPBASER, RAM + RAM_SIZE & 0xFFFFF000 | 15)
    machine.its_reg(CTLR, 1)
    guest.one_event()
    assert guest.lpi() is None
    assert guest.signal() == 0


# -- the other commands -----------------------------------------------------------------------------------------------


def test_int_is_a_message(guest: Guest) -> None:
    guest.on_event(g.CMD_INT)
    assert guest.lpi() == (True, True, 0xA0, 0)


def test_clear_takes_the_latch(guest: Guest) -> None:
    guest.signal()
    guest.on_event(g.CMD_CLEAR)
    assert guest.lpi() == (False, True, 0xA0, 0)


def test_inv_reads_one_configuration(guest: Guest) -> None:
    guest.mapti(5, 8201)
    guest.poke(PROPERTIES + LPI - 8192, b"\x10\x10")
    assert guest.lpi() == (False, True, 0xA0, 0)
    guest.on_event(g.CMD_INV)
    assert guest.lpi() == (False, False, 0x10, 0)
    assert guest.lpi(8201) == (False, True, 0xA0, 0)


def test_invall_reads_those_of_a_vcpu(guest: Guest) -> None:
    guest.mapc(1, 1)
    guest.mapti(5, 8201, collection=1)
    guest.poke(PROPERTIES + LPI - 8192, b"\x10\x10")
    guest.command(g.CMD_INVALL, 0, 1)
    assert guest.lpi() == (False, True, 0xA0, 0)
    assert guest.lpi(8201) == (False, False, 0x10, 1)


def test_redistributor_registers_invalidate_too(guest: Guest) -> None:
    guest.poke(PROPERTIES + LPI - 8192, b"\x10")
    guest.machine.redist(g.GICR_INVLPIR + 4, LPI)
    assert guest.lpi() == (False, True, 0xA0, 0)
    guest.machine.redist(g.GICR_INVLPIR, LPI)
    assert guest.lpi() == (False, False, 0x10, 0)
    guest.poke(PROPERTIES + LPI - 8192, b"\x21")
    guest.machine.redist(g.GICR_INVALLR, 0, affinity=1)
    assert guest.lpi() == (False, False, 0x10, 0)
    guest.machine.redist(g.GICR_INVALLR, 0)
    assert guest.lpi() == (False, True, 0x20, 0)


def test_movi_changes_collection_and_target(guest: Guest) -> None:
    guest.mapc(1, 1)
    guest.on_event(g.CMD_MOVI, collection=1)
    assert guest.lpi() == (False, True, 0xA0, 1)
    guest.on_event(g.CMD_MOVI, collection=9)
    assert guest.lpi() == (False, True, 0xA0, 1)


def test_movall_moves_all_lpis(guest: Guest) -> None:
    guest.command(g.CMD_MOVALL, 0, 0 << 16, 1 << 16)
    assert guest.lpi() == (False, True, 0xA0, 1)
    guest.command(g.CMD_MOVALL, 0, 1 << 16, 2 << 16)
    assert guest.lpi() == (False, True, 0xA0, 1)


def test_discard_clears_the_entry(guest: Guest) -> None:
    guest.poke(ITT + EVENT * 8, b"\xff" * 8)
    guest.on_event(g.CMD_DISCARD)
    assert guest.peek(ITT + EVENT * 8) == 0
    assert guest.lpi() is None


@pytest.mark.parametrize("code", [0, 2, 5, 0x10, 0xFF])
def test_sync_and_unknown_commands_are_passed_over(guest: Guest, code: int) -> None:
    before = guest.machine.its_reg(CREADR)
    guest.command(code, 0, 0)
    assert guest.machine.its_reg(CREADR) == before + 32
    assert guest.lpi() is not None


def test_queue_wraps_and_waits_for_the_its(machine: Machine) -> None:
    guest = Guest(machine, enable=False)
    machine.its_reg(CREADR, 0xFC0)
    machine.its_reg(CWRITER, 0xFC0)
    guest.mapd()
    guest.mapc()
    guest.mapti()
    assert machine.its_reg(CWRITER) == 0x20
    assert (machine.its_reg(CREADR), guest.lpi(), machine.its_reg(CTLR)) == (0xFC0, None, 0)
    machine.its_reg(CTLR, 1)
    assert machine.its_reg(CREADR) == 0x20
    assert guest.lpi() is not None


def test_queue_in_no_memory_is_passed_over(machine: Machine) -> None:
    guest = Guest(machine, enable=False)
    machine.its_reg(0x80, VALID | RAM + RAM_SIZE)
    machine.its_reg(CWRITER, 0x40)
    machine.its_reg(CTLR, 1)
    assert machine.its_reg(CREADR) == 0x40
    assert guest.peek(QUEUE) == 0


def test_invalid_base_register_drops_what_it_described(guest: Guest) -> None:
    guest.machine.its_reg(CTLR, 0)
    guest.machine.its_reg(BASER1, 0)
    assert guest.lpi() is not None
    guest.machine.its_reg(BASER0, 0)
    assert guest.lpi() is None


# -- pending tables ---------------------------------------------------------------------------------------------------


def test_pending_tables_are_saved(guest: Guest) -> None:
    client, machine = guest.machine.client, guest.machine
    guest.mapc(1, 1)
    guest.mapti(5, 8201, collection=1)
    guest.signal(5)
    guest.poke(guest.pending(0) + LPI // 8, b"\xff")
    client.set_at(machine.gic, CTRL, SAVE_PENDING, 0)
    assert guest.peek(guest.pending(0) + LPI // 8, 1) == 0xFF & ~(1 << LPI % 8)
    assert guest.peek(guest.pending(1) + 8201 // 8, 1) == 1 << 8201 % 8


def test_saving_needs_initialisation_and_memory(client: Client) -> None:
    machine = Machine(client, 1, ready=False)
    client.refused("ENXIO", client.set_at, machine.gic, CTRL, SAVE_PENDING, 0)
    machine.place()
    machine.init()
    client.set_at(machine.gic, CTRL, SAVE_PENDING, 0)
    guest = Guest(machine)
    guest.one_event()
    machine.redist(g.GICR_CTLR, 0)
    machine.redist(g.GICR_PENDBASER, (RAM + RAM_SIZE) & 0xFFFF0000)
    client.refused("EFAULT", client.set_at, machine.gic, CTRL, SAVE_PENDING, 0)


def test_enabling_lpis_reads_the_pending_table_unless_it_is_zero(guest: Guest) -> None:
    machine = guest.machine
    guest.poke(guest.pending(0) + LPI // 8, bytes([1 << LPI % 8]))
    machine.redist(g.GICR_CTLR, 0)
    machine.redist(g.GICR_PENDBASER + 4, 1 << 30)
    machine.redist(g.GICR_CTLR, 1)
    assert guest.lpi() == (False, True, 0xA0, 0)
    machine.redist(g.GICR_CTLR, 0)
    machine.redist(g.GICR_PENDBASER + 4, 0)
    machine.redist(g.GICR_CTLR, 1)
    assert guest.lpi() == (True, True, 0xA0, 0)
