"""Where the two modes meet bad luck: every row of table 3.10 of the contract, the wedges included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scenarios.rig import DISK, DIST, GSI, MASK, TRIGGER, UNMASK, Assigned, Rig, write

V = GSI + 32
both = pytest.mark.parametrize("forwarded", [False, True], ids=["unforwarded", "forwarded"])


def stuck(rig: Rig) -> None:
    """Whatever the guest and its device do now, no interrupt comes."""
    before = rig.kernel.counters["host_irq"]
    for level in (False, True, False, True):
        rig.dev.line(level)
        rig.guest.slice(2)
    assert rig.kernel.counters["host_irq"] == before
    assert rig.guest.lrs == []


# -- the guest's and the device's own ways --------------------------------------------------------------------------


@both
def test_the_line_drops_before_the_guest_acks(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        rig.hit()
        assert rig.dev.p() == ("en AP" if forwarded else "dis P")
        rig.dev.line(False)
        assert rig.dev.p() == ("en A" if forwarded else "dis I")
        rig.guest.slice()
        assert rig.guest.lrs == [f"{V} pending HW->109" if forwarded else f"{V} pending EOI"]
        assert rig.guest.ack() == V
        rig.guest.eoi(V)
        assert rig.dev.p() == "en I"
        assert rig.guest.ack() == 1023
        assert rig.counts("resample_ack", "hw_deactivate") == {
            "resample_ack": 0 if forwarded else 1,
            "hw_deactivate": 1 if forwarded else 0,
        }
        rig.works()


@both
def test_the_line_rises_again_between_quieting_and_eoi(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        rig.hit()
        rig.guest.do(rig.guest.cpu.acknowledge(), lambda: rig.dev.line(False), lambda: rig.dev.line(True))
        assert rig.dev.p() == ("en AP" if forwarded else "dis P")
        rig.mark()
        rig.guest.eoi(V)
        assert rig.counts("vmexit_irq", "host_irq", "eventfd_trigger") == {
            "vmexit_irq": 1 if forwarded else 0,  # else taken in the host, which was there for the maintenance
            "host_irq": 1,
            "eventfd_trigger": 1,
        }
        assert rig.serve() == V
        rig.works()


@both
def test_the_guest_disables_it_while_active_and_it_is_stuck(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        rig.hit()
        rig.guest.ack()
        rig.guest.do(rig.guest.cpu.disable_irq(V))
        assert rig.guest.lrs == []  # retired
        rig.mark()
        rig.guest.do(lambda: rig.dev.line(False))
        rig.guest.eoi(V)
        assert rig.counts() == {"line_down": 1, "guest_eoi": 1}
        assert rig.dev.p() == ("en A" if forwarded else "dis I")
        assert rig.dev.irq().masked is not forwarded
        stuck(rig)
        assert rig.dev.p() == ("en AP" if forwarded else "dis P")


def test_what_an_explicit_unmask_does_for_the_stuck_unforwarded_one() -> None:
    with Rig() as rig:
        rig.hit()
        rig.guest.ack()
        rig.guest.do(rig.guest.cpu.disable_irq(V), lambda: rig.dev.line(False))
        rig.guest.eoi(V)
        stuck(rig)
        rig.dev.now(UNMASK)
        rig.guest.slice(2)
        assert rig.n("host_irq") == 2  # the line is high: it comes at once
        assert (rig.dev.p(), rig.guest.lrs) == ("dis P", [])  # but the guest still has it disabled
        rig.guest.do(rig.guest.enabling(V))
        assert rig.serve() == V
        rig.works()


@pytest.mark.parametrize(
    "release",
    [
        lambda rig: rig.vm.deassign(rig.dev.fd),
        lambda rig: rig.close(rig.dev.fd),
        lambda rig: rig.dev.set_eventfd(TRIGGER, -1),
    ],
    ids=["unforward", "close", "free"],
)
def test_what_ends_the_active_state_of_the_stuck_forwarded_one(release: Callable[[Rig], None]) -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.guest.ack()
        rig.guest.do(rig.guest.cpu.disable_irq(V), lambda: rig.dev.line(False))
        rig.guest.eoi(V)
        assert rig.dev.p() == "en A"
        release(rig)
        assert rig.dev.p().split()[1] == "I"


@both
def test_the_guest_never_enables_it(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        rig.guest.do(rig.guest.cpu.disable_irq(V))
        rig.mark()
        rig.hit()
        rig.guest.slice(5)
        v = rig.vm.v()
        assert (v.level, v.pending, v.queued) == (not forwarded, True, False)
        assert rig.dev.p() == ("en AP" if forwarded else "dis P")
        assert rig.guest.lrs == []
        assert rig.n("eventfd_trigger") == 1
        assert rig.n("vmexit_kick") == 0


@both
def test_the_guest_enables_it_later(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        rig.guest.do(rig.guest.cpu.disable_irq(V))
        rig.hit()
        assert rig.guest.ack() == 1023
        rig.guest.do(rig.guest.enabling(V))
        assert rig.serve() == V
        assert rig.dev.p() == "en I"
        rig.works()


# -- irqfds of another shape -------------------------------------------------------------------------------------------


@both
def test_two_devices_share_a_gsi(forwarded: bool) -> None:
    """Forwarding the first one's interrupt starves the second one's resampler; nothing refuses it."""
    with Rig(forwarded=forwarded) as rig:
        disk = Assigned(rig, DISK)
        rig.vm.irqfd(disk.trigger[0], disk.resample[0])
        disk.line(True)
        rig.guest.slice(2)
        assert disk.irq().masked
        assert rig.guest.ack() == V
        rig.guest.do(lambda: disk.line(False))
        rig.guest.eoi(V)
        assert [rig.count(one.resample[0]) for one in (rig.dev, disk)] == ([0, 0] if forwarded else [1, 1])
        assert disk.irq().masked is forwarded  # for ever, when forwarded
        disk.line(True)
        rig.guest.slice(2)
        assert rig.guest.lrs == ([] if forwarded else [f"{V} pending EOI"])
        assert disk.p() == "dis P"  # forwarded: stuck; unforwarded: on its way


@both
def test_an_irqfd_without_resampling_on_a_level_interrupt(forwarded: bool) -> None:
    """The pulse is lost unforwarded, and nobody unmasks; forwarded, its falling half is ignored."""
    with Rig(forwarded=forwarded, resample=False) as rig:
        rig.hit()
        assert rig.n("set_irq") == 2
        if forwarded:
            assert rig.guest.lrs == [f"{V} pending HW->109"]
            assert rig.serve() == V
            rig.works()
        else:
            assert rig.guest.lrs == []
            assert (rig.vm.v().level, rig.vm.v().pending) == (False, False)
            assert rig.dev.irq().masked
            stuck(rig)


def test_a_pulse_survives_when_the_guest_itself_had_set_it_pending() -> None:
    with Rig(resample=False) as rig:
        rig.guest.do(rig.guest.cpu.disable_irq(V), write(DIST + 0x200 + V // 32 * 4, 1 << V % 32))
        assert rig.vm.v().soft_pending
        rig.hit()
        assert (rig.vm.v().level, rig.vm.v().pending) == (False, True)
        rig.guest.do(rig.guest.enabling(V))
        assert rig.guest.lrs == [f"{V} pending EOI"]
        assert rig.serve() == V
        assert (rig.vm.v().soft_pending, rig.vm.v().pending) == (False, False)
        assert rig.dev.irq().masked  # delivered, but nobody resamples


# -- forwarding changed at a bad moment ------------------------------------------------------------------------------


def test_assign_while_it_is_in_a_list_register_finishes_the_old_way() -> None:
    with Rig() as rig:
        rig.hit()
        rig.vm.assign(rig.dev.fd)
        assert rig.n("forward_hazard") == 1
        assert rig.guest.lrs == [f"{V} pending EOI"]
        rig.mark()
        assert rig.serve() == V
        assert rig.counts("vmexit_maint", "eventfd_resample", "gicd_unmask", "hw_deactivate") == {
            "vmexit_maint": 1,
            "eventfd_resample": 1,
            "gicd_unmask": 1,
            "hw_deactivate": 0,
        }
        assert rig.guest.lrs == []
        assert rig.guest.ack() == 1023
        rig.hit()
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        assert rig.serve() == V
        assert rig.dev.p() == "en I"


@pytest.mark.parametrize("why", ["guest has it disabled", "vcpu is outside"])
def test_assign_after_the_hit_and_before_the_list_register_wedges(why: str) -> None:
    with Rig() as rig:
        if why == "vcpu is outside":
            rig.guest.stop()
            rig.dev.line(True)
            rig.host.settle()
            rig.vm.assign(rig.dev.fd)
            rig.guest.start().slice()
        else:
            rig.guest.do(rig.guest.cpu.disable_irq(V))
            rig.hit()
            rig.vm.assign(rig.dev.fd)
            rig.guest.do(rig.guest.enabling(V))
        assert rig.dev.p() == "dis P"  # masked, not active
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        rig.mark()
        assert rig.serve() == V
        assert rig.counts("hw_deactivate", "vmexit_maint", "resample_ack", "gicd_unmask") == {
            "hw_deactivate": 1,
            "vmexit_maint": 0,
            "resample_ack": 0,
            "gicd_unmask": 0,
        }
        assert rig.dev.irq().masked
        stuck(rig)
        rig.dev.now(UNMASK)
        rig.guest.slice(2)
        assert rig.serve() == V  # only that helps
        rig.works()


@pytest.mark.parametrize("line", ["before", "after"], ids=["raised before UNMASK", "raised after UNMASK"])
def test_assign_while_masked_by_the_user_and_idle(line: str) -> None:
    with Rig() as rig:
        rig.dev.now(MASK)
        rig.vm.assign(rig.dev.fd)
        if line == "before":
            rig.dev.line(True)
            rig.guest.slice(2)
            assert (rig.dev.p(), rig.guest.lrs) == ("dis P", [])
        rig.dev.now(UNMASK)
        rig.dev.line(True)
        rig.guest.slice(2)
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        assert rig.serve() == V
        assert rig.n("eventfd_resample") == 0
        rig.works()


def test_deassign_while_it_is_in_a_list_register_leaves_it_to_the_guest() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.vm.deassign(rig.dev.fd)
        assert rig.dev.p() == "en AP"
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        assert rig.serve() == V
        assert rig.counts("hw_deactivate", "host_deactivate", "vmexit_maint") == {
            "hw_deactivate": 1,
            "host_deactivate": 0,
            "vmexit_maint": 0,
        }
        rig.hit()
        assert rig.guest.lrs == [f"{V} pending EOI"]
        assert rig.serve() == V
        assert (rig.dev.p(), rig.dev.irq().masked) == ("en I", False)


@pytest.mark.parametrize("line", [True, False], ids=["line high", "line fallen"])
@pytest.mark.parametrize("why", ["guest has it disabled", "vcpu is outside"])
def test_deassign_before_the_list_register_completes_it_in_the_host(why: str, line: bool) -> None:
    with Rig(forwarded=True) as rig:
        if why == "vcpu is outside":
            rig.guest.stop()
        else:
            rig.guest.do(rig.guest.cpu.disable_irq(V))
        rig.dev.line(True)
        if why != "vcpu is outside":
            rig.guest.slice(2)
        rig.host.settle()
        assert rig.dev.p() == "en AP"
        rig.dev.line(line)
        rig.vm.deassign(rig.dev.fd)
        assert rig.n("host_deactivate") == 1
        if why == "vcpu is outside":
            assert rig.dev.p() == ("dis P" if line else "en I")
            rig.guest.start().slice()
        else:
            rig.guest.do(rig.guest.enabling(V))
        assert rig.guest.lrs == [f"{V} pending EOI"]  # delivered as an ordinary one
        rig.mark()
        assert rig.serve() == V
        assert rig.counts("vmexit_maint", "hw_deactivate", "irq_unbalanced") == {
            "vmexit_maint": 1,
            "hw_deactivate": 0,
            "irq_unbalanced": 0,
        }
        assert (rig.dev.p(), rig.dev.irq().masked) == ("en I", False)
        rig.works()


@both
def test_the_vcpu_moves_to_another_physical_cpu_with_it_in_a_list_register(forwarded: bool) -> None:
    with Rig(forwarded=forwarded, cpus=2) as rig:
        rig.hit()
        rig.guest.stop()
        rig.guest.model.cpu = rig.host.cpus[1]
        rig.guest.start()
        assert rig.serve() == V
        assert (rig.dev.p(), rig.dev.irq().masked) == ("en I", False)
        rig.works()


# -- SET_IRQS while forwarded ------------------------------------------------------------------------------------------


def test_mask_while_forwarded_and_idle() -> None:
    with Rig(forwarded=True) as rig:
        rig.dev.now(MASK)
        rig.hit()
        assert (rig.dev.p(), rig.dev.desc().depth, rig.guest.lrs) == ("dis P", 1, [])
        rig.dev.now(UNMASK)
        rig.guest.slice(2)
        assert rig.serve() == V
        rig.works()


def test_mask_while_forwarded_and_active_in_the_guest_completes_the_physical_one() -> None:
    with Rig(forwarded=True, gic_lazy_disable=False) as rig:
        rig.hit()
        rig.guest.ack()
        rig.dev.now(MASK)
        assert rig.dev.p() == "dis P"
        assert rig.n("host_deactivate") == 1
        rig.guest.eoi(V)  # on an inactive interrupt: nothing
        assert (rig.dev.p(), rig.guest.lrs) == ("dis P", [])
        rig.dev.now(UNMASK)
        rig.guest.slice(2)
        assert rig.serve() == V
        rig.works()


def test_mask_while_forwarded_and_active_with_lazy_disabling_bites_at_the_next_hit() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.guest.ack()
        rig.dev.now(MASK)
        assert rig.dev.p() == "en AP"
        rig.mark()
        rig.guest.eoi(V)
        assert rig.counts("host_irq", "host_irq_lazy", "gicd_mask") == {
            "host_irq": 0,
            "host_irq_lazy": 1,
            "gicd_mask": 1,
        }
        assert (rig.dev.p(), rig.guest.lrs) == ("dis P", [])
        rig.dev.now(UNMASK)
        rig.guest.slice(2)
        assert rig.serve() == V
        rig.works()


@pytest.mark.parametrize("in_flight", [False, True])
def test_unmask_while_forwarded_does_nothing(in_flight: bool) -> None:
    with Rig(forwarded=True) as rig:
        if in_flight:
            rig.hit()
        before = rig.dev.p(), rig.dev.desc().depth
        rig.mark()
        rig.dev.now(UNMASK)
        rig.kernel.write(rig.dev.resample[0], (1).to_bytes(8, "little"))
        assert rig.counts() == {"eventfd_write": 1}
        assert (rig.dev.p(), rig.dev.desc().depth) == before
        if in_flight:
            rig.serve()


def test_loopback_trigger_while_forwarded_is_harmless() -> None:
    with Rig(forwarded=True) as rig:
        rig.dev.now(TRIGGER)
        rig.guest.slice(2)
        assert rig.dev.p() == "en I"
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        assert rig.serve() == V
        assert rig.counts("host_irq", "eventfd_trigger", "hw_deactivate") == {
            "host_irq": 0,
            "eventfd_trigger": 1,
            "hw_deactivate": 1,
        }
        assert rig.dev.p() == "en I"
        rig.works()


def test_loopback_trigger_unforwarded_really_masks() -> None:
    with Rig() as rig:
        rig.dev.now(TRIGGER)
        assert (rig.dev.irq().masked, rig.dev.desc().depth) == (True, 1)
        rig.guest.slice(2)
        assert rig.serve() == V
        assert not rig.dev.irq().masked
        rig.works()
