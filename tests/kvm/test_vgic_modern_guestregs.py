"""A guest's own accesses to the VGIC of Linux 4.7 and later: SGIs, identity, groups, widths, active state."""

from __future__ import annotations

import pytest
from modern import (
    CPENDSGIR,
    ICACTIVER,
    ICENABLER,
    ICFGR,
    ICPENDR,
    IGROUPR,
    IIDR,
    IPRIORITYR,
    ISACTIVER,
    ISENABLER,
    ISPENDR,
    ITARGETSR,
    SGIR,
    SPENDSGIR,
    TYPER,
    Machine,
)
from support import CPU_BASE, CPU_REGS

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import read, work, write

NOTHING = 1023


@pytest.fixture
def running(machine: Machine) -> Machine:
    """Level interrupt 33, enabled and routed to vCPU 0."""
    return machine.boot(33)


# -- SGIs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "receivers"), [(0 << 24 | 2 << 16, [1]), (1 << 24, [1]), (2 << 24, [0]), (3 << 24, [])]
)
def test_an_sgi_goes_to_those_that_its_mode_names(running: Machine, mode: int, receivers: list[int]) -> None:
    running.guest.write(SGIR, mode | 7)
    assert [guest.handle() for guest in running.guests] == [7 if n in receivers else NOTHING for n in (0, 1)]


def test_an_sgi_carries_its_source_and_each_source_is_one(running: Machine) -> None:
    first, second = running.guests
    first.write(SGIR, 1 << 16 | 3)
    second.write(SGIR, 1 << 16 | 3)
    assert running.get(SPENDSGIR) == 3 << 24
    assert [first.handle(), first.handle(), first.handle()] == [3, 3 | 1 << 10, NOTHING]


def test_all_sources_of_an_sgi_go_before_lower_priorities(running: Machine) -> None:
    first, second = running.guests
    first.write(IPRIORITYR + 3, 0x40, 1)
    first.write(IPRIORITYR + 33, 0x80, 1)
    running.line(33, 1)
    first.write(SGIR, 1 << 16 | 3)
    second.write(SGIR, 1 << 16 | 3)
    assert [first.handle(), first.handle(), first.handle()] == [3, 3 | 1 << 10, 33]


def test_a_guest_sets_sgis_pending_by_source_alone(running: Machine) -> None:
    guest = running.guest
    guest.write(ISPENDR, 1 << 5)
    assert guest.read(ISPENDR) == 0
    guest.write(SPENDSGIR + 5, 2, 1)
    assert (guest.read(ISPENDR), guest.read(CPENDSGIR + 5, 1)) == (1 << 5, 2)
    guest.write(ICPENDR, 1 << 5)
    assert guest.ack() == 5 | 1 << 10


def test_an_sgi_can_be_disabled(running: Machine) -> None:
    guest = running.guest
    guest.write(ICENABLER, 1 << 7)
    guest.write(SGIR, 2 << 24 | 7)
    assert (guest.read(ISENABLER) & 1 << 7, guest.ack()) == (0, NOTHING)
    guest.write(ISENABLER, 1 << 7)
    assert guest.ack() == 7


# -- the guest's registers -------------------------------------------------------------------------------------------


def test_identity(machine: Machine) -> None:
    guest = machine.guest
    assert (guest.read(TYPER), guest.read(IIDR)) == (0x22, 0x4B00343B)
    guest.write(IIDR, 0x1234)  # nothing to a guest
    assert guest.read(IIDR) == 0x4B00343B
    assert guest.do(read(CPU_BASE + 0xFC)) == 0x2043B  # the hardware's own
    assert guest.do(read(CPU_BASE + 0x14)) == 0xFF  # idle


def test_a_guests_groups_are_real(machine: Machine) -> None:
    guest = machine.boot(33).guest
    guest.write(IGROUPR + 4, 1 << 1)
    assert guest.read(IGROUPR + 4) == machine.get(IGROUPR + 4) == 1 << 1
    machine.line(33, 1)
    assert (guest.signalled, guest.ack()) == (False, NOTHING)
    guest.do(write(CPU_BASE, 3))  # group 1 on
    assert (guest.signalled, guest.ack()) == (True, 1022)
    assert guest.do(read(CPU_BASE + 0x20)) == 33  # GICV_AIAR


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("offset", "sizes"), [(ISENABLER + 4, {4}), (IPRIORITYR + 40, {1, 4}), (ITARGETSR + 40, {1, 4}), (ICFGR + 8, {4})]
)
def test_accesses_of_another_width_read_as_zero_and_are_ignored(
    machine: Machine, offset: int, sizes: set[int], size: int
) -> None:
    guest = machine.guest
    guest.write(offset, 0, 4)
    guest.write(offset, (1 << 8 * size) - 1, size)
    taken = guest.read(offset, 4) != 0
    assert taken == (size in sizes)
    guest.write(offset, 0xFFFFFFFF, 4)
    assert bool(guest.read(offset, size)) == (size in sizes)


def test_misaligned_and_missing_registers_are_nothing(machine: Machine) -> None:
    guest = machine.guest
    for offset in (0x2, 0xC, 0x3FC, IPRIORITYR + 96, ICFGR + 24, 0xFE8, 0xFFC):
        guest.write(offset, 0xFFFFFFFF)
        assert guest.read(offset) == 0


def test_views_of_guest_and_user_agree(machine: Machine) -> None:
    guest = machine.boot(50).guest
    machine.line(50, 1)
    for _ in range(2):
        assert guest.read(ISPENDR + 4) == machine.get(ISPENDR + 4) == 1 << 18
        guest.write(ICPENDR + 4, 1 << 18)
    machine.line(50, 0)
    assert guest.read(ISPENDR + 4) == machine.get(ISPENDR + 4) == 0
    guest.write(ISPENDR + 4, 1 << 18)
    assert guest.read(ISPENDR + 4) == machine.get(ISPENDR + 4) == 1 << 18


def test_a_guest_makes_an_interrupt_active_and_inactive(running: Machine) -> None:
    guest = running.guest
    running.line(33, 1)
    guest.write(ISACTIVER + 4, 1 << 1)
    assert (guest.read(ISACTIVER + 4), guest.ack()) == (1 << 1, NOTHING)
    guest.write(ICACTIVER + 4, 1 << 1)
    assert guest.ack() == 33


def test_another_vcpus_list_registers_are_asked_for_the_active_state(running: Machine) -> None:
    client, (first, second) = running.client, running.guests
    running.line(33, 1)
    first.todo += [read(CPU_BASE + 0xC), *[work(1)] * 10_000]
    call = client.kernel.start(first.fd, uapi.KVM_RUN)
    call.advance()
    assert (first.model.in_guest, running.core.irq(None, 33).active) == (True, False)  # only its list register knows
    assert second.read(ISACTIVER + 4) == 1 << 1
    call.interrupt()


def test_active_priorities_are_saved_and_restored(running: Machine) -> None:
    guest = running.guest
    guest.write(IPRIORITYR + 33, 0x50, 1)
    running.line(33, 1)
    assert guest.ack() == 33
    assert running.get(0xD0, 0, CPU_REGS) == 1 << 0x50 // 8
    running.set(0xD0, 1 << 0x20 // 8, 0, CPU_REGS)
    assert guest.do(read(CPU_BASE + 0x14)) == 0x20
    guest.eoi(33)
    assert guest.do(read(CPU_BASE + 0x14)) == 0xFF
