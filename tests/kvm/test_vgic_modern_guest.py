"""What a guest sees of the VGIC of Linux 4.7 and later, and what its completions cause.

The scenarios are those of the recorded answers' section "guest"; so are the expected values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from modern import (
    CTLR,
    ICENABLER,
    ICPENDR,
    IPRIORITYR,
    ISENABLER,
    ISPENDR,
    ITARGETSR,
    Machine,
)
from support import CPU_BASE, NIC, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import wait_for_interrupt, write

RESAMPLE, DEASSIGN = uapi.KVM_IRQFD_FLAG_RESAMPLE, uapi.KVM_IRQFD_FLAG_DEASSIGN
NOTHING = 1023


@pytest.fixture
def running(machine: Machine) -> Machine:
    """Level interrupts 33, 41, 44 and 47 and edge interrupt 36, enabled and routed to vCPU 0."""
    machine.boot(33, 41, 44, 47)
    return machine.boot(36, edge=True)


# -- a level by KVM_IRQ_LINE -----------------------------------------------------------------------------------------


def test_a_level_that_stays_high_comes_again(running: Machine) -> None:
    guest = running.guest
    running.line(33, 1)
    assert (running.state(33), guest.signalled) == ("P", True)
    assert guest.ack() == 33
    assert (running.state(33), guest.signalled, guest.ack()) == ("PA", False, NOTHING)
    guest.eoi(33)
    assert (running.state(33), guest.signalled) == ("P", True)
    assert guest.ack() == 33
    running.line(33, 0)
    assert running.state(33) == "A"
    guest.eoi(33)
    assert (running.state(33), guest.ack()) == ("I", NOTHING)


def test_a_level_that_is_lowered_before_the_acknowledge_was_never_there(running: Machine) -> None:
    running.line(33, 1)
    running.line(33, 0)
    assert running.guest.ack() == NOTHING


def test_a_latched_level_is_over_once_it_is_handled(running: Machine) -> None:
    running.guest.write(ISPENDR + 4, 1 << 1)
    assert running.guest.handle() == 33
    assert (running.state(33), running.guest.ack()) == ("I", NOTHING)


# -- an edge ---------------------------------------------------------------------------------------------------------


def test_an_edge_while_active_is_one_more(running: Machine) -> None:
    guest = running.guest
    running.line(36, 1)
    assert guest.ack() == 36
    assert running.state(36) == "A"
    for _ in range(3):
        running.line(36, 1)
    assert running.state(36) == "PA"
    guest.eoi(36)
    assert running.state(36) == "P"
    assert [guest.handle(), guest.handle()] == [36, NOTHING]


def test_an_edge_in_a_list_register_is_still_to_be_seen(running: Machine) -> None:
    running.line(36, 1)
    running.guest.do()  # entered and left without an acknowledge
    assert running.state(36) == "P"
    running.put_bit(ICPENDR, 36)
    assert running.guest.ack() == NOTHING


# -- resampling ------------------------------------------------------------------------------------------------------


@pytest.fixture
def resampled(running: Machine) -> Callable[[], tuple[int, int]]:
    """The irqfd and resamplefd of interrupt 41."""
    trigger, resample = running.client.eventfd(), running.client.eventfd()
    running.client.irqfd(running.vm, trigger, 9, RESAMPLE, resample)
    return lambda: (trigger, resample)


def test_the_completion_lowers_the_line_and_tells_the_resamplefd(running: Machine, resampled: Any) -> None:
    trigger, resample = resampled()
    running.signal(trigger)
    assert (running.state(41), running.guest.ack()) == ("P", 41)
    running.signal(trigger)
    assert (running.state(41), running.count(resample)) == ("PA", 0)
    running.guest.eoi(41)
    assert (running.state(41), running.count(resample), running.guest.ack()) == ("I", 1, NOTHING)


def test_it_also_lowers_what_another_source_raised(running: Machine, resampled: Any) -> None:
    trigger, resample = resampled()
    running.line(41, 1)
    running.signal(trigger)
    assert running.guest.handle() == 41
    assert (running.state(41), running.count(resample), running.guest.ack()) == ("I", 1, NOTHING)


@pytest.mark.parametrize("lowered", [False, True])
def test_it_happens_when_the_line_was_the_only_source(running: Machine, resampled: Any, lowered: bool) -> None:
    _, resample = resampled()
    running.line(41, 1)
    assert running.guest.ack() == 41
    if lowered:
        running.line(41, 0)
    running.guest.eoi(41)
    assert (running.state(41), running.count(resample)) == ("I", 1)


def test_a_disabled_interrupt_waits(running: Machine, resampled: Any) -> None:
    trigger, resample = resampled()
    running.guest.write(ICENABLER + 4, 1 << 9)
    running.signal(trigger)
    assert (running.state(41), running.guest.ack()) == ("P", NOTHING)
    running.guest.write(ISENABLER + 4, 1 << 9)
    assert running.guest.signalled
    running.guest.write(ICPENDR + 4, 1 << 9)  # the line is what makes it pending
    assert running.guest.handle() == 41
    assert running.count(resample) == 1


def test_after_deassigning_nobody_hears_of_the_completion(running: Machine, resampled: Any) -> None:
    trigger, resample = resampled()
    running.signal(trigger)
    assert running.guest.ack() == 41
    running.client.irqfd(running.vm, trigger, 9, DEASSIGN)
    assert running.state(41) == "A"
    running.guest.eoi(41)
    assert (running.state(41), running.count(resample)) == ("I", 0)


def test_every_resamplefd_of_the_gsi_is_told(running: Machine, resampled: Any) -> None:
    trigger, resample = resampled()
    other, third = running.client.eventfd(), running.client.eventfd()
    running.client.irqfd(running.vm, other, 9, RESAMPLE, third)
    running.signal(trigger)
    assert running.guest.handle() == 41
    assert (running.count(resample), running.count(third)) == (1, 1)


def test_of_an_edge_interrupt_nobody_is_ever_told(running: Machine) -> None:
    trigger, resample = running.client.eventfd(), running.client.eventfd()
    running.client.irqfd(running.vm, trigger, 4, RESAMPLE, resample)
    for _ in range(2):
        running.signal(trigger)
        assert running.guest.handle() == 36
        assert (running.state(36), running.count(resample)) == ("I", 0)


def test_in_split_mode_the_deactivation_counts(machine: Machine) -> None:
    machine.boot(41, eoi_mode=1)
    trigger, resample = machine.client.eventfd(), machine.client.eventfd()
    machine.client.irqfd(machine.vm, trigger, 9, RESAMPLE, resample)
    machine.signal(trigger)
    assert machine.guest.ack() == 41
    machine.guest.eoi(41)
    assert (machine.state(41), machine.count(resample)) == ("PA", 0)
    machine.guest.deactivate(41)
    assert (machine.state(41), machine.count(resample)) == ("I", 1)


def test_the_gsi_of_a_routed_pin_is_told(running: Machine) -> None:
    client, trigger, resample = running.client, running.client.eventfd(), running.client.eventfd()
    entry = uapi.pack("struct kvm_irq_routing_entry", gsi=500, type=uapi.KVM_IRQ_ROUTING_IRQCHIP)
    uapi.view("struct kvm_irq_routing_entry", entry).u.irqchip.pin = 9
    client.ioctl(
        running.vm, uapi.KVM_SET_GSI_ROUTING, client.pointer(uapi.pack("struct kvm_irq_routing", nr=1) + entry)
    )
    client.irqfd(running.vm, trigger, 500, RESAMPLE, resample)
    running.signal(trigger)
    assert (running.guest.handle(), running.count(resample), running.state(41)) == (41, 1, "I")


# -- VFIO ------------------------------------------------------------------------------------------------------------


def test_a_level_interrupt_of_an_assigned_device_end_to_end(machine: Machine) -> None:
    client, guest = machine.client, machine.boot(41).guest
    device, trigger, unmask = client.device(), client.eventfd(), client.eventfd()
    wire = client.kernel.device(NIC).lines[0]
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, unmask)
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_TRIGGER, trigger)
    client.irqfd(machine.vm, trigger, 9, RESAMPLE, unmask)
    for _ in range(3):
        wire.set(True)
        client.host.settle()
        assert (machine.state(41), guest.ack()) == ("P", 41)
        guest.eoi(41)
        client.host.settle()
        assert machine.state(41) == "P"  # unmasked while its line is high, it fires again
        assert guest.ack() == 41
        wire.set(False)
        guest.eoi(41)
        client.host.settle()
        assert (machine.state(41), guest.ack()) == ("I", NOTHING)
    assert client.kernel.counters["eventfd_resample"] == 6


def test_an_edge_spi_keeps_a_level_interrupt_of_vfio_masked_for_ever(machine: Machine) -> None:
    client, guest = machine.client, machine.boot(41, edge=True).guest
    device, trigger, unmask = client.device(), client.eventfd(), client.eventfd()
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, unmask)
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_TRIGGER, trigger)
    client.irqfd(machine.vm, trigger, 9, RESAMPLE, unmask)
    client.kernel.device(NIC).lines[0].set(True)
    client.host.settle()
    assert [guest.handle(), guest.handle()] == [41, NOTHING]
    client.host.settle()
    assert guest.ack() == NOTHING


# -- priorities, enables, room ---------------------------------------------------------------------------------------


def test_the_better_priority_goes_first_and_the_other_waits_for_its_end(running: Machine) -> None:
    guest = running.guest
    guest.write(IPRIORITYR + 44, 0x20A0A0A0)
    running.line(44, 1)
    running.line(47, 1)
    assert [guest.ack(), guest.ack()] == [47, NOTHING]
    running.line(47, 0)
    guest.eoi(47)
    assert guest.ack() == 44


def test_the_priority_mask(running: Machine) -> None:
    guest = running.guest
    guest.write(IPRIORITYR + 44, 0xA0, 1)
    guest.do(write(CPU_BASE + 4, 0xA0))
    running.line(44, 1)
    assert (guest.ack(), running.core.pending_for(guest.model)) == (NOTHING, False)
    guest.do(write(CPU_BASE + 4, 0xA8))
    assert running.core.pending_for(guest.model)
    assert guest.ack() == 44


def test_what_came_while_the_distributor_was_off_is_not_looked_at_again(running: Machine) -> None:
    guest = running.guest
    guest.write(CTLR, 0)
    running.line(44, 1)
    assert (running.state(44), guest.ack()) == ("P", NOTHING)
    guest.write(CTLR, 1)
    assert guest.ack() == NOTHING
    running.line(44, 0)
    running.line(44, 1)
    assert guest.ack() == 44


def test_what_waited_when_the_distributor_went_off_goes_with_the_next_exit(running: Machine) -> None:
    guest = running.guest
    running.line(44, 1)
    guest.write(CTLR, 0)
    assert guest.ack() == NOTHING
    guest.write(CTLR, 1)
    assert guest.ack() == NOTHING


def test_the_cpu_interface_off_and_on(running: Machine) -> None:
    guest = running.guest
    guest.do(write(CPU_BASE, 0))
    running.line(44, 1)
    assert guest.ack() == NOTHING
    guest.do(write(CPU_BASE, 1))
    assert guest.ack() == 44


def test_an_active_interrupt_stays_with_its_vcpu_when_the_target_changes(running: Machine) -> None:
    first, second = running.guests
    running.line(33, 1)
    assert first.ack() == 33
    first.write(ITARGETSR + 33, 2, 1)
    assert second.ack() == NOTHING
    first.eoi(33)
    assert (first.ack(), second.ack()) == (NOTHING, 33)


def test_a_waiting_interrupt_moves_at_the_next_exit(running: Machine) -> None:
    first, second = running.guests
    running.line(33, 1)
    first.write(ITARGETSR + 33, 2, 1)
    assert (first.ack(), second.handle()) == (NOTHING, 33)


def test_no_target_is_the_first_vcpu(running: Machine) -> None:
    first, second = running.guests
    first.write(ITARGETSR + 33, 0, 1)
    running.line(33, 1)
    assert (second.ack(), first.ack()) == (NOTHING, 33)


# -- the vCPU and the end --------------------------------------------------------------------------------------------


def test_a_wfi_ends_with_an_interrupt_only(running: Machine) -> None:
    client, guest = running.client, running.guest
    guest.todo.append(wait_for_interrupt())
    call = client.kernel.start(guest.fd, uapi.KVM_RUN)
    client.kernel.run()
    assert (call.done, guest.model.blocked) == (False, True)
    running.line(36, 1)
    client.kernel.run()
    assert call.done
    assert guest.handle() == 36


def test_the_vgic_is_shown_as_plain_data(running: Machine) -> None:
    running.line(33, 1)
    shown = running.core.dump()
    assert (shown["ready"], shown["enabled"], shown["irqs"], shown["oracle"]) == (True, True, 96, [0])
    assert {one["irq"]: one["queued"] for one in shown["irq"] if one["level"]} == {33: 0}


def test_a_client_ends_with_nothing_left(boot: Callable[..., Client]) -> None:
    client = boot("linux-6.12")
    machine = Machine(client).boot(33)
    machine.line(33, 1)
    assert machine.guest.ack() == 33
    for fd in (machine.fd, machine.vm, machine.guest.fd):
        client.close(fd)
    assert client.kernel.counters["vm_destroy"] == 1
