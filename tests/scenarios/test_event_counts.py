"""How often each thing happens for one interrupt: table 3.9 of the contract, a test for each way of getting there."""

from __future__ import annotations

import pytest
from scenarios.rig import GSI, Rig, fails

from kvmvfio_emu import uapi

V = GSI + 32

COUNTED = (
    "vmexit_irq",
    "vmexit_kick",
    "vmexit_maint",
    "host_irq",
    "host_irq_lazy",
    "host_irq_maint",
    "eventfd_trigger",
    "eventfd_resample",
    "work",
    "gicd_mask",
    "gicd_unmask",
    "set_irq",
    "resample_ack",
    "hw_deactivate",
    "guest_iar",
    "guest_eoi",
)


def column(**counts: int) -> dict[str, int]:
    return {name: counts.pop(name, 0) for name in COUNTED} | counts


UNFORWARDED = column(
    vmexit_irq=1,
    vmexit_maint=1,
    host_irq=1,
    host_irq_lazy=1,
    eventfd_trigger=1,
    eventfd_resample=1,
    work=1,
    gicd_mask=1,
    gicd_unmask=1,
    set_irq=2,
    resample_ack=1,
    guest_iar=1,
    guest_eoi=1,
)
FORWARDED = column(
    vmexit_irq=1, host_irq=1, eventfd_trigger=1, work=1, set_irq=1, hw_deactivate=1, guest_iar=1, guest_eoi=1
)
COLUMNS = {False: UNFORWARDED, True: FORWARDED}
both = pytest.mark.parametrize("forwarded", [False, True], ids=["unforwarded", "forwarded"])


def exits(rig: Rig) -> int:
    return sum(rig.n(f"vmexit_{why}") for why in ("irq", "kick", "maint", "preempt", "mmio", "signal", "wfi"))


@both
def test_a_running_vcpu(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        for _ in range(3):
            rig.mark()
            rig.hit()
            rig.serve()
            assert rig.counts(*COUNTED) == COLUMNS[forwarded]
            assert exits(rig) == (1 if forwarded else 2)
            assert rig.n("vmentry") == exits(rig)


@both
def test_a_vcpu_in_the_guest_on_another_cpu_is_kicked(forwarded: bool) -> None:
    with Rig(forwarded=forwarded, cpus=2, vcpus=2, target=1) as rig:
        rig.guests[0].stop()  # CPU 0, which takes the physical interrupt, is idle
        rig.mark()
        rig.hit()
        rig.serve()
        assert rig.counts(*COUNTED) == COLUMNS[forwarded] | {"vmexit_irq": 0, "vmexit_kick": 1}
        assert exits(rig) == (1 if forwarded else 2)


@both
def test_both_vcpus_running_the_one_on_the_interrupts_cpu_exits_too(forwarded: bool) -> None:
    with Rig(forwarded=forwarded, cpus=2, vcpus=2, target=1) as rig:
        rig.dev.line(True)
        rig.guests[0].slice()
        assert rig.counts("vmexit_irq", "vmexit_kick") == {"vmexit_irq": 1, "vmexit_kick": 0}
        rig.guest.slice()
        rig.serve()
        assert rig.counts(*COUNTED) == COLUMNS[forwarded] | {"vmexit_kick": 1}


@both
def test_a_vcpu_in_wfi_is_only_woken(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        rig.guest.wfi()
        assert rig.guest.blocked
        rig.mark()
        rig.hit()
        assert not rig.guest.blocked
        rig.serve()
        assert rig.counts(*COUNTED) == COLUMNS[forwarded] | {"vmexit_irq": 0}
        assert exits(rig) == (0 if forwarded else 1)


@both
def test_a_vcpu_outside_kvm_run_takes_it_when_it_comes_back(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        rig.guest.stop()
        rig.mark()
        rig.dev.line(True)
        rig.host.settle()
        assert rig.n("work") == 1
        rig.guest.start()
        assert rig.serve() == V
        assert rig.counts(*COUNTED) == COLUMNS[forwarded] | {"vmexit_irq": 0}


def test_without_split_eoi_the_unforwarded_column_is_the_same() -> None:
    with Rig(split_eoi=False) as rig:
        rig.hit()
        rig.serve()
        assert rig.counts(*COUNTED) == UNFORWARDED


def test_without_split_eoi_nothing_can_be_forwarded() -> None:
    with Rig(split_eoi=False) as rig:
        with fails("ENXIO"):
            rig.vm.attr(uapi.KVM_HAS_DEVICE_ATTR, rig.vm.control, uapi.KVM_DEV_VFIO_DEVICE, 1)
        with fails("ENXIO"):
            rig.vm.assign(rig.dev.fd)
        assert not rig.dev.desc().forwarded


def test_a_gic_driver_that_disables_at_once_has_no_second_hit() -> None:
    with Rig(gic_lazy_disable=False) as rig:
        with rig.watched() as seen:
            rig.hit()
        mask = next(snap for snap in seen if snap.event == "gicd_mask")
        assert (mask.gic, mask.depth) == ("en AP", 1)
        assert [snap.event for snap in seen].index("gicd_mask") < [s.event for s in seen].index("eventfd_trigger")
        rig.serve()
        assert rig.counts(*COUNTED) == UNFORWARDED | {"host_irq_lazy": 0}


def test_a_gic_driver_that_disables_at_once_leaves_a_forwarded_interrupt_alone() -> None:
    with Rig(forwarded=True, gic_lazy_disable=False) as rig:
        rig.hit()
        rig.serve()
        assert rig.counts(*COUNTED) == FORWARDED


def test_a_line_that_falls_before_the_hosts_eoi_is_not_hit_again() -> None:
    with Rig() as rig:
        stop = rig.kernel.listen(lambda event: rig.dev.line(False) if event.name == "eventfd_trigger" else None)
        rig.hit()
        stop()
        assert rig.dev.p() == "en I"  # disabled only lazily, and nothing came
        assert rig.dev.irq().masked
        rig.serve()
        assert rig.counts(*COUNTED) == UNFORWARDED | {"host_irq_lazy": 0, "gicd_mask": 0}
        rig.works()


@both
def test_two_irqfds_on_a_gsi_are_two_resample_signals(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        second = rig.eventfd(), rig.eventfd()
        rig.vm.irqfd(*second)
        rig.hit()
        rig.serve()
        assert rig.counts(*COUNTED) == COLUMNS[forwarded] | {"eventfd_resample": 0 if forwarded else 2}
        signals = 0 if forwarded else 1
        assert [rig.count(fd) for fd in (rig.dev.resample[0], second[1])] == [signals, signals]


@both
def test_eventfd_counters_only_grow(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        for _ in range(3):
            rig.hit()
            rig.serve()
        assert rig.count(rig.dev.trigger[0]) == 3
        assert rig.count(rig.dev.resample[0]) == (0 if forwarded else 3)


def test_signals_before_the_deferred_injection_ran_are_one_injection() -> None:
    with Rig(forwarded=True) as rig:
        eventfd = rig.dev.irq().trigger
        assert eventfd is not None
        eventfd.signal()
        eventfd.signal()
        rig.host.settle()
        assert rig.n("work") == 1
        assert rig.count(rig.dev.trigger[0]) == 2
