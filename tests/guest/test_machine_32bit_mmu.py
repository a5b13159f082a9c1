"""A 32-bit guest behind its MMU: accesses that it maps elsewhere, and the faults of its own page tables."""

from __future__ import annotations

from collections.abc import Iterator

import machine_code32 as guest
import pytest
from machine_rig import MAILBOX, PSTATE, RAM, VBAR, Machine, core, system

TTBR0, TTBCR, DACR, SCTLR = system(3, 0, 2, 0, 0), system(3, 0, 2, 0, 2), system(3, 4, 3, 0, 0), system(3, 0, 1, 0, 0)
VECTORS, TABLE = RAM + 0x1000, RAM + 0x4000
DEVICES, PRIVILEGED, NOWHERE = 0x5000_0000, 0x4020_0000, 0xD000_0000  #: virtual
USER = 0x1D0
PREFETCH, DATA = 0x0C, 0x10
STORE, LOAD, JUMP = 0xE5890000, 0xE5910000, 0xE12FFF11  # str r0, [r9]; ldr r0, [r1]; bx r1


def _entries(machine: Machine, size: int, entries: dict[int, int]) -> None:
    for index, entry in entries.items():
        at = TABLE - RAM + size * index
        machine.ram[at : at + size] = entry.to_bytes(size, "little")


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Sections by short descriptors: all of RAM for everybody, what is at `DEVICES` likewise, a privileged alias."""
    with Machine(width=32) as machine:
        everybody, privileged, never = 3 << 10, 1 << 10, 1 << 4
        _entries(
            machine,
            4,
            {
                RAM >> 20: RAM | everybody | 2,
                DEVICES >> 20: MAILBOX | everybody | never | 2,
                PRIVILEGED >> 20: RAM | privileged | 2,
            },
        )
        for register, value in ((VBAR, VECTORS), (TTBR0, TABLE), (DACR, 1), (SCTLR, 1)):
            machine.put(register, value)
        machine.x(x0=7, x9=DEVICES)
        yield machine


def _caught(machine: Machine, vector: int) -> list[int]:
    """What the handler at a vector finds: LR, SPSR, CPSR, DFSR, DFAR, IFSR, IFAR, SP."""
    machine.code(guest.HANDLER, VECTORS + vector)
    return [machine.written()[2] for _ in range(8)]


def test_the_address_of_an_exit_is_physical(machine: Machine) -> None:
    machine.code((STORE,))
    assert machine.written() == (MAILBOX, 4, 7)


@pytest.mark.parametrize(("access", "status"), [(LOAD, 0x005), (0xE5810000, 0x805)], ids=["load", "store"])
def test_translation_fault(machine: Machine, access: int, status: int) -> None:
    machine.code((access,))
    machine.x(x1=NOWHERE)
    link, _, cpsr, found, address, *_ = _caught(machine, DATA)
    assert (link, cpsr & 0x3FF, found, address) == (RAM + 8, 0x1D7, status, NOWHERE)


def test_permission_fault_of_a_user(machine: Machine) -> None:
    machine.code((LOAD,))
    machine.x(x1=PRIVILEGED)
    machine.put(PSTATE, USER)
    link, spsr, _, status, address, *_ = _caught(machine, DATA)
    assert (link, spsr & 0x3FF, status, address) == (RAM + 8, USER, 0x00D, PRIVILEGED)


@pytest.mark.parametrize(("place", "status"), [(NOWHERE, 0x005), (DEVICES, 0x00D)])
def test_fault_of_an_instruction(machine: Machine, place: int, status: int) -> None:
    machine.code((JUMP,))
    machine.x(x1=place)
    link, *_, found, address, _ = _caught(machine, PREFETCH)
    assert (link, found, address) == (place + 4, status, place)


def test_long_descriptors(machine: Machine) -> None:
    block = 1 << 10 | 1
    _entries(machine, 8, {0: 0, 1: RAM | 1 << 6 | block, 2: block, 3: 0})  # gigabytes
    machine.put(TTBCR, 1 << 31)
    machine.x(x9=(2 << 30) + MAILBOX, x1=NOWHERE)
    machine.code((STORE, LOAD))
    assert machine.written() == (MAILBOX, 4, 7)
    link, _, _, status, address, *_ = _caught(machine, DATA)
    assert (link, status, address) == (RAM + 12, 0x205, NOWHERE)
    assert machine.get(core("regs", "regs", 1)) == NOWHERE
