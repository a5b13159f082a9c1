"""Interrupts of VFIO platform devices: handler, masking, eventfds; contract 3.3, 3.8, oracle 18 to 20."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from vfio_bench import MASK, MULTI, NIC, TRIGGER, UNMASK, Bench

LEVEL, EDGE = 0, 2


class Armed(Bench):
    """A device with a trigger on interrupt ``index``."""

    def __init__(self, index: int = LEVEL, **profile: object) -> None:
        super().__init__(**profile)
        self.group_fd = self.attached()[1]
        self.fd = self.get_device(self.group_fd, NIC)
        self.index = index
        self.t = self.eventfd()
        self.set_eventfd(self.fd, TRIGGER, self.t, index)

    def line(self, level: bool) -> None:
        self.hw().lines[self.index].set(level)
        self.settle()

    def loopback(self) -> int:
        self.set_none(self.fd, TRIGGER, self.index)
        return self.count(self.t)

    @property
    def fired(self) -> int:
        return self.count(self.t)

    def mask(self) -> None:
        self.set_none(self.fd, MASK, self.index)

    def unmask(self) -> None:
        self.set_none(self.fd, UNMASK, self.index)

    def virqfd(self, action: int, value: int = 0) -> int:
        eventfd = self.eventfd(value)
        self.set_eventfd(self.fd, action, eventfd, self.index)
        return eventfd


@pytest.fixture
def armed() -> Armed:
    return Armed()


# -- level -----------------------------------------------------------------------------------------


def test_level_fires_once_then_is_masked(armed: Armed) -> None:
    armed.line(True)
    assert armed.fired == 1
    assert armed.desc().disabled
    armed.line(False)
    armed.line(True)
    assert armed.fired == 0


def test_level_counts_of_the_contract_3_8_1(armed: Armed) -> None:
    armed.trace.counters.clear()
    armed.line(True)
    assert dict(armed.trace.counters) == {
        "line_up": 1,
        "host_irq": 1,
        "eventfd_trigger": 1,
        "host_irq_lazy": 1,
        "gicd_mask": 1,
    }
    assert armed.machine.gic.state(armed.desc().hwirq) == "P"
    armed.line(False)
    armed.unmask()
    assert armed.trace.counters["gicd_unmask"] == 1


def test_trigger_event_names_the_interrupt(armed: Armed) -> None:
    seen: list[dict[str, object]] = []
    armed.trace.listen(lambda event: seen.append(event.fields) if event.name == "eventfd_trigger" else None)
    armed.line(True)
    assert seen == [{"irq": 77 + 32, "device": NIC, "index": 0}]


def test_unmask_while_high_fires_again_while_low_nothing(armed: Armed) -> None:
    armed.line(True)
    assert armed.fired == 1
    armed.unmask()
    assert armed.fired == 1
    armed.line(False)
    armed.unmask()
    assert armed.fired == 0
    armed.line(True)
    assert armed.fired == 1


def test_level_is_not_latched_while_masked(armed: Armed) -> None:
    armed.line(True)
    armed.line(False)
    armed.line(True)
    armed.line(False)
    assert armed.fired == 1
    armed.unmask()
    assert armed.fired == 0


def test_masks_do_not_nest(armed: Armed) -> None:
    armed.mask()
    armed.mask()
    armed.line(True)
    assert armed.fired == 0
    armed.unmask()
    assert armed.fired == 1


def test_unmask_of_an_unmasked_interrupt_changes_nothing(armed: Armed) -> None:
    armed.unmask()
    armed.unmask()
    assert armed.desc().depth == 0
    assert armed.desc().unbalanced == 0


@pytest.mark.parametrize(("value", "acts"), [(0, False), (1, True), (0xFF, True)])
def test_bool_acts_iff_not_0(armed: Armed, value: int, acts: bool) -> None:
    armed.set_bool(armed.fd, MASK, value)
    assert armed.desc().disabled == acts
    armed.mask()
    armed.set_bool(armed.fd, UNMASK, value)
    assert armed.desc().disabled != acts
    armed.unmask()
    armed.set_bool(armed.fd, TRIGGER, value)
    assert armed.fired == acts


def test_arming_while_high_fires_at_once(bench: Bench) -> None:
    device, trigger = bench.device(), bench.eventfd()
    bench.hw().lines[0].set(True)
    bench.set_eventfd(device, TRIGGER, trigger)
    assert bench.count(trigger) == 1


def test_no_trigger_no_interrupt(armed: Armed) -> None:
    armed.set_none(armed.fd, TRIGGER, count=0)
    armed.line(True)
    assert armed.fired == 0
    assert armed.desc().hits == 0


def test_mask_survives_a_trigger_change(armed: Armed) -> None:
    armed.line(True)
    assert armed.fired == 1
    new = armed.eventfd()
    armed.set_eventfd(armed.fd, TRIGGER, new)
    assert (armed.fired, armed.count(new)) == (0, 0)
    armed.unmask()
    assert (armed.fired, armed.count(new)) == (0, 1)


def test_mask_survives_disarming(armed: Armed) -> None:
    assert armed.loopback() == 1
    armed.set_none(armed.fd, TRIGGER, count=0)
    armed.set_eventfd(armed.fd, TRIGGER, armed.t)
    assert armed.loopback() == 0
    armed.unmask()
    assert armed.loopback() == 1


def test_mask_and_unmask_without_a_trigger(bench: Bench) -> None:
    device, trigger = bench.device(), bench.eventfd()
    bench.set_none(device, MASK)
    bench.set_eventfd(device, TRIGGER, trigger)
    bench.set_none(device, TRIGGER)
    assert bench.count(trigger) == 0
    bench.set_none(device, TRIGGER, count=0)
    bench.set_none(device, UNMASK)
    bench.set_eventfd(device, TRIGGER, trigger)
    bench.set_none(device, TRIGGER)
    assert bench.count(trigger) == 1


# -- loopback --------------------------------------------------------------------------------------


def test_loopback_of_a_level_interrupt_masks_it(armed: Armed) -> None:
    assert armed.loopback() == 1
    assert armed.desc().disabled
    assert armed.loopback() == 0
    armed.line(True)
    assert armed.fired == 0
    armed.unmask()
    assert armed.fired == 1


def test_loopback_without_a_trigger_masks_too(bench: Bench) -> None:
    device, trigger = bench.device(), bench.eventfd()
    assert bench.set_none(device, TRIGGER) == 0
    bench.set_eventfd(device, TRIGGER, trigger)
    bench.set_none(device, TRIGGER)
    assert bench.count(trigger) == 0


def test_loopback_of_an_edge_interrupt_never_masks() -> None:
    armed = Armed(EDGE)
    assert [armed.loopback() for _ in range(3)] == [1, 1, 1]


# -- edge ------------------------------------------------------------------------------------------


def test_each_edge_fires() -> None:
    armed = Armed(EDGE)
    for _ in range(3):
        armed.line(True)
        assert armed.fired == 1
        armed.line(False)
        assert armed.fired == 0


def test_edge_while_disarmed_is_latched() -> None:
    armed = Armed(EDGE)
    armed.set_none(armed.fd, TRIGGER, EDGE, count=0)
    armed.line(True)
    armed.line(False)
    armed.set_eventfd(armed.fd, TRIGGER, armed.t, EDGE)
    assert armed.fired == 1


# -- forwarded -------------------------------------------------------------------------------------


def forwarded(armed: Armed) -> None:
    armed.host.irqs.set_forwarded(armed.desc(), True)
    armed.trace.counters.clear()


def test_forwarded_is_signalled_but_neither_masked_nor_completed(armed: Armed) -> None:
    forwarded(armed)
    armed.line(True)
    assert dict(armed.trace.counters) == {"line_up": 1, "host_irq": 1, "eventfd_trigger": 1}
    assert armed.fired == 1
    assert not armed.desc().disabled
    assert armed.machine.gic.state(armed.desc().hwirq) == "AP"
    armed.machine.gic.deactivate(armed.desc().hwirq)  # as the guest's completion does
    armed.settle()
    assert armed.fired == 1


def test_forwarded_and_masked_by_the_user_is_quiet(armed: Armed) -> None:
    forwarded(armed)
    armed.mask()
    assert armed.loopback() == 0
    armed.unmask()
    assert armed.loopback() == 1


def test_forwarded_loopback_does_not_mask(armed: Armed) -> None:
    forwarded(armed)
    assert [armed.loopback(), armed.loopback()] == [1, 1]


def test_unmask_while_forwarded_and_not_masked_changes_nothing(armed: Armed) -> None:
    forwarded(armed)
    armed.line(True)
    armed.unmask()
    assert armed.machine.gic.state(armed.desc().hwirq) == "AP"
    assert armed.trace.counters["gicd_unmask"] == 0


@pytest.mark.parametrize(
    "end",
    [
        lambda armed: armed.set_none(armed.fd, TRIGGER, count=0),
        lambda armed: armed.set_eventfd(armed.fd, TRIGGER, -1),
        lambda armed: armed.close(armed.fd),
    ],
)
def test_removing_the_trigger_of_a_forwarded_interrupt_completes_it(
    armed: Armed, end: Callable[[Armed], object]
) -> None:
    forwarded(armed)
    armed.line(True)
    end(armed)
    assert not armed.machine.gic.is_active(armed.desc().hwirq)
    assert not armed.machine.gic.is_enabled(armed.desc().hwirq)
    assert armed.desc().forwarded


# -- mask and unmask eventfds ----------------------------------------------------------------------


def test_mask_eventfd_masks_and_unmask_eventfd_unmasks(armed: Armed) -> None:
    mask, unmask = armed.virqfd(MASK), armed.virqfd(UNMASK)
    armed.signal(mask)
    armed.line(True)
    assert armed.fired == 0
    armed.signal(unmask)
    assert armed.fired == 1
    armed.line(False)
    armed.signal(unmask)
    armed.signal(unmask)
    assert armed.fired == 0


def test_virqfd_acts_in_the_context_of_a_signal_from_the_kernel(armed: Armed) -> None:
    unmask = armed.virqfd(UNMASK)
    armed.line(True)
    eventfd = armed.task.eventfd(unmask)
    eventfd.signal()  # as the resampler does
    eventfd.put()
    assert armed.fired == 2


@pytest.mark.parametrize(("drained", "left"), [(False, 1), (True, 0)])
@pytest.mark.parametrize("action", [MASK, UNMASK])
def test_virqfd_drains_its_eventfd_where_the_kernel_does(drained: bool, left: int, action: int) -> None:
    armed = Armed(eventfd_drained=drained)
    eventfd = armed.virqfd(action)
    armed.signal(eventfd)
    assert armed.count(eventfd) == left


@pytest.mark.parametrize("drained", [False, True])
def test_preloaded_unmask_eventfd_unmasks_and_keeps_its_count(drained: bool) -> None:
    armed = Armed(eventfd_drained=drained)
    assert armed.loopback() == 1
    unmask = armed.virqfd(UNMASK, value=3)
    assert armed.count(unmask) == 3
    assert armed.loopback() == 1


def test_removed_virqfd_does_nothing(armed: Armed) -> None:
    mask = armed.virqfd(MASK)
    armed.set_eventfd(armed.fd, MASK, -1)
    armed.signal(mask)
    assert armed.loopback() == 1


def test_closing_the_eventfd_frees_the_place(armed: Armed) -> None:
    old = armed.virqfd(UNMASK)
    held = armed.task.eventfd(old)
    held.closed()
    held.put()
    armed.virqfd(UNMASK)


def test_unmask_eventfd_that_is_the_trigger_swallows_it() -> None:
    armed = Armed(eventfd_drained=True)
    armed.set_eventfd(armed.fd, UNMASK, armed.t)
    assert armed.loopback() == 0
    assert not armed.desc().disabled


@pytest.mark.parametrize("start", ["line", "loopback", "arm"])
def test_interrupt_that_unmasks_itself_storms_in_virtual_time_only(armed: Armed, start: str) -> None:
    armed.set_eventfd(armed.fd, UNMASK, armed.t)
    if start == "loopback":
        armed.mask()
        armed.line(True)
        armed.unmask()
    elif start == "arm":
        armed.set_none(armed.fd, TRIGGER, count=0)
        armed.line(True)
        armed.set_eventfd(armed.fd, TRIGGER, armed.t)
    else:
        armed.line(True)
    assert armed.trace.counters["eventfd_trigger"] == 1
    for _ in range(3):
        assert armed.clock.jump()
        armed.settle()
    assert armed.trace.counters["eventfd_trigger"] == 4
    armed.line(False)
    while armed.clock.jump():
        armed.settle()
    assert armed.trace.counters["eventfd_trigger"] == 4
    assert not armed.desc().disabled


def test_storm_that_nobody_ends_leaves_the_interrupt_masked(armed: Armed) -> None:
    armed.set_eventfd(armed.fd, UNMASK, armed.t)
    for _ in range(2):
        armed.line(True)
        while armed.clock.jump():
            pass
        assert armed.desc().disabled
        armed.line(False)
        armed.unmask()
    assert armed.trace.counters["irq_storm"] == 2


def test_storm_ends_with_an_explicit_mask_and_with_the_last_close(armed: Armed) -> None:
    armed.set_eventfd(armed.fd, UNMASK, armed.t)
    armed.line(True)
    armed.mask()
    assert not armed.clock.jump()
    armed.unmask()
    armed.close(armed.fd)
    assert not armed.clock.jump()
    assert armed.host.eventfds.held() == []


def test_two_devices_that_unmask_each_other_storm_in_virtual_time_only(armed: Armed) -> None:
    other = armed.device(MULTI)
    back = armed.eventfd()
    armed.set_eventfd(other, TRIGGER, back, 1)
    armed.set_eventfd(armed.fd, UNMASK, back)
    armed.set_eventfd(other, UNMASK, armed.t, 1)
    armed.hw(MULTI).lines[1].set(True)
    armed.line(True)
    assert armed.trace.counters["eventfd_trigger"] <= 4
    assert armed.clock.jump()


# -- life cycle ------------------------------------------------------------------------------------


def test_two_files_of_one_device_share_the_interrupt(armed: Armed) -> None:
    second = armed.get_device(armed.group_fd, NIC)
    armed.set_none(second, TRIGGER)
    assert armed.fired == 1
    armed.close(armed.fd)
    armed.set_none(second, UNMASK)
    armed.set_none(second, TRIGGER)
    assert armed.fired == 1


def test_last_close_frees_the_interrupt_and_the_mask(armed: Armed) -> None:
    armed.virqfd(MASK)
    armed.virqfd(UNMASK)
    armed.line(True)
    assert armed.fired == 1
    armed.close(armed.fd)
    assert armed.host.eventfds.held() == []
    assert not armed.machine.gic.is_enabled(armed.desc().hwirq)
    armed.fd = armed.get_device(armed.group_fd, NIC)
    armed.hw().lines[0].set(True)
    armed.set_eventfd(armed.fd, TRIGGER, armed.t)
    assert armed.fired == 1


def test_trigger_goes_on_when_userspace_closed_its_descriptor(armed: Armed) -> None:
    trigger = os.eventfd(0, os.EFD_NONBLOCK)
    alive = os.dup(trigger)
    armed.set_eventfd(armed.fd, TRIGGER, trigger)
    os.close(trigger)
    armed.loopback()
    assert os.eventfd_read(alive) == 1
    os.close(alive)


def test_full_trigger_counter_stays_full(armed: Armed) -> None:
    full = armed.eventfd()
    os.eventfd_write(full, 2**64 - 2)
    armed.set_eventfd(armed.fd, TRIGGER, full)
    armed.loopback()
    assert armed.count(full) == 2**64 - 2


def test_interrupts_of_one_device_are_independent(armed: Armed) -> None:
    other = armed.eventfd()
    armed.set_eventfd(armed.fd, TRIGGER, other, 1)
    armed.line(True)
    assert (armed.fired, armed.count(other)) == (1, 0)
    armed.hw().lines[1].set(True)
    assert (armed.fired, armed.count(other)) == (0, 1)


def test_interrupts_have_descriptors_from_boot(bench: Bench) -> None:
    assert [desc.hwirq for desc in bench.vfio.devices[NIC].irqs] == [109, 110, 111]
    assert bench.desc(1).name == f"{NIC}:1"
