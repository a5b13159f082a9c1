"""The list of active and pending interrupts, and its way through the list registers, within one stay in the guest."""

from __future__ import annotations

from typing import Any

import pytest
from modern import CTLR, IPRIORITYR, ISACTIVER, ITARGETSR, KERNELS, SGIR, SPENDSGIR, Guest, Machine
from support import BOARD, CPU_BASE

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import read, wait_for_interrupt, work, write
from kvmvfio_emu.guest.script import Operation
from kvmvfio_emu.hw.gich import LR_ACTIVE, LR_STATE, lr_source, lr_virtual_id

NOTHING = 1023
ACK = read(CPU_BASE + 0xC)
LRS = BOARD.list_registers


@pytest.fixture
def edges(machine: Machine) -> Machine:
    """Edge interrupts 40 to 40 + 3 * LRS - 1, enabled and routed to vCPU 0."""
    return machine.boot(*range(40, 40 + 3 * LRS), edge=True)


def _eoi(irq: int) -> Operation:
    return write(CPU_BASE + 0x10, irq)


def _start(guest: Guest, *operations: Operation) -> Any:
    """Begin a KVM_RUN that stays in the guest, or in WFI, after ``operations``."""
    guest.todo += [*operations, *[work(1)] * 100_000]
    call = guest.client.kernel.start(guest.fd, uapi.KVM_RUN)
    call.advance()
    return call


def _stop(guest: Guest, call: Any) -> None:
    call.interrupt()
    guest.todo.clear()


def test_an_empty_list_register_brings_the_next_without_anybody_asking(edges: Machine) -> None:
    irqs = list(range(40, 40 + 3 * LRS))
    for irq in irqs:
        edges.line(irq, 1)
    edges.guest.do(*(step for irq in irqs for step in (ACK, _eoi(irq))))
    assert edges.guest.results[-2 * len(irqs) :: 2] == irqs
    assert edges.client.kernel.counters["vmexit_maint"] > 0


def test_what_is_active_has_a_list_register_before_all_others(edges: Machine) -> None:
    last = 40 + 3 * LRS - 1
    for irq in range(40, last):
        edges.line(irq, 1)
    edges.put_bit(ISACTIVER, last)
    edges.guest.eoi(last)
    assert edges.state(last) == "I"


def test_disabled_ones_come_last(edges: Machine) -> None:
    guest = edges.guest
    for irq in range(40, 40 + 2 * LRS):
        edges.line(irq, 1)
    for irq in range(40, 40 + LRS):
        edges.set(0x184, 1 << irq % 32)
    assert guest.ack() == 40 + LRS


def test_nothing_of_lower_priority_is_seen_between_the_sources_of_an_sgi(machine: Machine) -> None:
    first, second = machine.boot(33, eoi_mode=1).guests
    first.write(IPRIORITYR + 3, 0x40, 1)
    first.write(IPRIORITYR + 33, 0x80, 1)
    machine.line(33, 1)
    first.write(SGIR, 1 << 16 | 3)
    second.write(SGIR, 1 << 16 | 3)
    # The first source is dropped but not deactivated, so nothing tells KVM to bring the second.
    assert first.do(ACK, _eoi(3), ACK) == NOTHING
    assert first.results[-3] == 3
    first.deactivate(3)
    assert first.ack() == 3 | 1 << 10


def _queued(guest: Guest) -> list[tuple[int, int, int]]:
    """(interrupt, state, source) of what the next entry puts into list registers."""
    queued: list[int] = []
    stop = guest.client.kernel.listen(
        lambda event: event.name == "lr_queued" and queued.append(int(event.fields["value"]))  # type: ignore[func-returns-value]
    )
    guest.do()
    stop()
    return [(lr_virtual_id(lr), lr & LR_STATE, lr_source(lr)) for lr in queued]


def test_an_active_sgi_keeps_its_source(machine: Machine) -> None:
    first, second = machine.boot().guests
    second.write(SGIR, 1 << 16 | 3)
    assert first.ack() == 3 | 1 << 10
    assert _queued(first)[0] == (3, LR_ACTIVE, 1)


def test_several_requests_wait_for_the_end_of_an_active_sgi(machine: Machine) -> None:
    first, second = machine.boot().guests
    second.write(SGIR, 1 << 16 | 3)
    assert first.ack() == 3 | 1 << 10
    machine.set(SPENDSGIR, 3 << 24)  # by both vCPUs
    assert _queued(first)[0] == (3, LR_ACTIVE, 1)
    first.eoi(3 | 1 << 10)
    assert [first.handle(), first.handle(), first.handle()] == [3, 3 | 1 << 10, NOTHING]


def test_whoever_gets_an_interrupt_of_another_wakes(machine: Machine) -> None:
    first, second = machine.boot(33).guests
    call = _start(second, wait_for_interrupt())
    assert second.model.blocked
    machine.line(33, 1)
    first.write(ITARGETSR + 33, 2, 1)
    assert not second.model.blocked
    _stop(second, call)
    assert second.ack() == 33


def test_in_its_handler_a_guest_waits_although_the_line_is_high(machine: Machine) -> None:
    guest = machine.boot(33).guest
    machine.line(33, 1)
    call = _start(guest, ACK, wait_for_interrupt())
    assert guest.results[-1] == 33
    assert guest.model.blocked
    _stop(guest, call)


def test_turning_the_distributor_on_takes_out_who_has_something_to_look_at(machine: Machine) -> None:
    first, second = machine.boot(33).guests
    machine.line(33, 1)
    call = _start(first)
    second.write(CTLR, 0)
    assert (first.model.in_guest, first.model.forced) == (True, None)
    second.write(CTLR, 1)
    assert machine.client.kernel.counters["vmexit_kick"] == 1 or first.model.forced == "kick"
    _stop(first, call)
    assert first.ack() == 33


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_interrupts_than_list_registers_all_arrive_best_first(boot: Any, kernel: str) -> None:
    machine = Machine(boot(kernel))
    irqs = list(range(40, 40 + 3 * LRS))
    machine.boot(*irqs)
    for irq in irqs:
        machine.guest.write(IPRIORITYR + irq, (irq - 40) * 8, 1)
    for irq in reversed(irqs):
        machine.line(irq, 1)
    taken = []
    for _ in irqs:
        irq = machine.guest.ack()
        machine.line(irq, 0)
        machine.guest.eoi(irq)
        taken.append(irq)
    assert taken == irqs
    assert machine.guest.ack() == NOTHING
