"""Saving an ITS to guest memory and restoring it: what a migration does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gicv3_rig import RAM, RAM_SIZE, Machine, boot_v3
from its_rig import (
    BASER0,
    BASER1,
    COLLECTIONS,
    CTLR,
    DEVICE,
    DEVICES,
    EVENT,
    INDIRECT,
    ITT,
    LEVEL2,
    LPI,
    SECOND_ITT,
    VALID,
    Guest,
)
from support import CTRL, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import gicv3 as g

SAVE, RESTORE, RESET = (
    uapi.KVM_DEV_ARM_ITS_SAVE_TABLES,
    uapi.KVM_DEV_ARM_ITS_RESTORE_TABLES,
    uapi.KVM_DEV_ARM_ITS_CTRL_RESET,
)


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


def control(guest: Guest, attribute: int) -> None:
    guest.machine.client.set_at(guest.machine.its, CTRL, attribute, 0)


def reset(guest: Guest, device_table: int = VALID | DEVICES | 1) -> None:
    """As a new machine that gets the tables of the old one."""
    control(guest, RESET)
    guest.machine.its_reg(BASER0, device_table)
    guest.machine.its_reg(BASER1, VALID | COLLECTIONS)


def refused(guest: Guest, name: str, attribute: int) -> None:
    guest.machine.client.refused(name, control, guest, attribute)


def put(guest: Guest, address: int, value: int) -> None:
    guest.poke(address, value.to_bytes(8, "little"))


def test_format(guest: Guest) -> None:
    guest.mapd(DEVICE + 0x20, SECOND_ITT, 16)
    guest.mapc(9, 1)
    guest.mapti(EVENT + 4, 8300, collection=9)
    control(guest, SAVE)
    assert guest.peek(DEVICES + DEVICE * 8) == VALID | 0x20 << 49 | (ITT >> 8) << 5 | 3
    assert guest.peek(DEVICES + (DEVICE + 0x20) * 8) == VALID | (SECOND_ITT >> 8) << 5 | 15
    assert guest.peek(ITT + EVENT * 8) == 4 << 48 | LPI << 16 | 0
    assert guest.peek(ITT + (EVENT + 4) * 8) == 8300 << 16 | 9
    entries = [guest.peek(COLLECTIONS + 8 * index) for index in range(3)]
    assert entries == [VALID, VALID | 1 << 16 | 9, 0]


def test_round_trip(guest: Guest) -> None:
    guest.mapd(0x3FFF, SECOND_ITT, 16)
    guest.mapc(9, 1)
    guest.mapti(0xFFFF, 8300, collection=9, device=0x3FFF)
    guest.mapti(EVENT + 4, 8301, collection=9)
    control(guest, SAVE)
    reset(guest)
    assert guest.lpi() is None
    control(guest, RESTORE)
    assert guest.lpi() == (False, True, 0xA0, 0)
    assert guest.lpi(8300) == guest.lpi(8301) == (False, True, 0xA0, 1)
    guest.machine.its_reg(0x80, VALID)
    guest.machine.its_reg(CTLR, 1)
    assert guest.signal(0xFFFF, 0x3FFF) == guest.signal() == 1
    assert guest.lpi(8300) == (True, True, 0xA0, 1)


def test_round_trip_by_two_levels(machine: Machine) -> None:
    guest = Guest(machine, enable=False)
    table = VALID | INDIRECT | DEVICES
    machine.its_reg(BASER0, table)
    put(guest, DEVICES + 8, VALID | LEVEL2)
    machine.its_reg(CTLR, 1)
    guest.mapd(0x2005)
    guest.mapc()
    guest.mapti(device=0x2005)
    control(guest, SAVE)
    assert guest.peek(LEVEL2 + 5 * 8) == VALID | (ITT >> 8) << 5 | 3
    reset(guest, table)
    control(guest, RESTORE)
    assert guest.lpi() == (False, True, 0xA0, 0)


def test_pending_bits_come_back_with_the_lpis(guest: Guest) -> None:
    guest.signal()
    control(guest, SAVE)
    guest.machine.client.set_at(guest.machine.gic, CTRL, uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, 0)
    reset(guest)
    control(guest, RESTORE)
    assert guest.lpi() == (True, True, 0xA0, 0)


def test_tables_that_are_not_valid_are_left_alone(guest: Guest) -> None:
    control(guest, SAVE)
    before = bytes(guest.machine.ram[:0x80000])
    control(guest, RESET)
    control(guest, SAVE)
    control(guest, RESTORE)
    assert bytes(guest.machine.ram[:0x80000]) == before
    assert guest.lpi() is None


def test_device_that_fits_no_longer_is_einval(guest: Guest) -> None:
    guest.mapd(0x3FFF, SECOND_ITT)
    guest.machine.its_reg(CTLR, 0)
    guest.machine.its_reg(BASER0, VALID | DEVICES)  # one page: 0x2000 devices
    refused(guest, "EINVAL", SAVE)


def test_saving_to_no_memory_is_efault(guest: Guest) -> None:
    guest.machine.its_reg(CTLR, 0)
    guest.machine.its_reg(BASER1, VALID | RAM + RAM_SIZE)
    refused(guest, "EFAULT", SAVE)


@pytest.mark.parametrize(
    ("address", "value", "name"),
    [
        (COLLECTIONS, VALID | 2 << 16, "EINVAL"),  # no such vCPU
        (COLLECTIONS + 8, VALID, "EEXIST"),  # collection 0 again
        (COLLECTIONS + 8, VALID | 0x2000, "EINVAL"),  # beyond the table
        (COLLECTIONS, 0, "EINVAL"),  # then an event's collection is unknown
        (DEVICES + DEVICE * 8, VALID | (ITT >> 8) << 5 | 16, "EINVAL"),  # 17 bits of events
        (DEVICES + DEVICE * 8, VALID | (RAM + RAM_SIZE >> 8) << 5 | 3, "EFAULT"),
        (ITT, 100 << 16, "EINVAL"),  # no LPI
        (ITT, 16 << 48 | LPI << 16, "EINVAL"),  # the next event is beyond the device's
        (ITT, 1 << 48 | LPI << 16 | 5, "EINVAL"),  # unknown collection
    ],
)
def test_nonsense_in_a_table_restores_nothing(guest: Guest, address: int, value: int, name: str) -> None:
    control(guest, SAVE)
    reset(guest)
    put(guest, address, value)
    refused(guest, name, RESTORE)
    its = guest.machine.model.lpis.its[0]
    assert (its.devices, its.collections, guest.lpi()) == ({}, {}, None)


def test_restoring_twice_is_eexist(guest: Guest) -> None:
    control(guest, SAVE)
    refused(guest, "EEXIST", RESTORE)


def test_restored_device_takes_the_place_of_the_one_that_was_there(guest: Guest) -> None:
    control(guest, SAVE)
    guest.mapti(5, 8300)
    guest.machine.its_reg(CTLR, 0)
    guest.machine.its_reg(BASER1, 0)
    guest.machine.its_reg(BASER1, VALID | COLLECTIONS)
    control(guest, RESTORE)
    assert guest.lpi() == (False, True, 0xA0, 0)
    assert guest.lpi(8300) is None


def test_unmapped_collection_of_a_saved_event(guest: Guest) -> None:
    guest.mapti(5, 8300, collection=7)
    control(guest, SAVE)
    reset(guest)
    control(guest, RESTORE)
    assert guest.lpi(8300) == (False, True, 0xA0, None)
    guest.machine.its_reg(0x80, VALID)
    guest.machine.its_reg(CTLR, 1)
    assert guest.signal(5) == 0


def test_guest_takes_lpis_only_while_they_are_enabled(guest: Guest) -> None:
    guest.machine.dist(0, 2)
    guest.signal()
    queued = guest.machine.model.vgic.cpus[0].ap_list
    assert [irq.intid for irq in queued] == [LPI]
    guest.machine.redist(g.GICR_CTLR, 0)
    assert queued == []
