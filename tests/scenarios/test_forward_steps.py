"""One level interrupt, step by step: the tables 3.8.1 and 3.8.2 of the contract, each row looked at from inside."""

from __future__ import annotations

import pytest
from scenarios.rig import GSI, Rig, Snap

from kvmvfio_emu.hw.gic import Gic

V = GSI + 32

# A row: event, GIC(p), depth, masked, level, pending, queued, LR. The state is that in which the event happens: what it
# announces comes right after it. "gic.*" are the hardware's own steps, seen when they are done.
ROW = tuple[str, str, int, bool, bool, bool, bool, str]

UNFORWARDED: list[ROW] = [
    ("line_up", "en I", 0, False, False, False, False, ""),  # 0
    ("vmexit_irq", "en P", 0, False, False, False, False, ""),  # 1, 2
    ("gic.acknowledge", "en AP", 0, False, False, False, False, ""),  # 3
    ("host_irq", "en AP", 0, False, False, False, False, ""),
    ("eventfd_trigger", "en AP", 1, True, False, False, False, ""),  # 4, 5
    ("gic.deactivate", "en P", 1, True, False, False, False, ""),  # 6: still enabled
    ("gic.acknowledge", "en AP", 1, True, False, False, False, ""),  # 7: hit again at once
    ("host_irq_lazy", "en AP", 1, True, False, False, False, ""),
    ("gicd_mask", "en AP", 1, True, False, False, False, ""),
    ("gic.deactivate", "dis P", 1, True, False, False, False, ""),
    ("work", "dis P", 1, True, False, False, False, ""),  # 8, 9
    ("set_irq", "dis P", 1, True, False, False, False, ""),
    ("lr_queued", "dis P", 1, True, True, True, False, "pending EOI"),  # 10
    ("vmentry", "dis P", 1, True, True, True, True, "pending EOI"),
    ("guest_iar", "dis P", 1, True, True, True, True, "active EOI"),  # 11
    ("line_down", "dis P", 1, True, True, True, True, "active EOI"),  # 12
    ("guest_eoi", "dis I", 1, True, True, True, True, "active EOI"),
    ("vmexit_maint", "dis I", 1, True, True, True, True, "invalid EOI"),  # 13, 14
    ("resample_ack", "dis I", 1, True, True, True, False, "invalid EOI"),  # 15, 17
    ("set_irq", "dis I", 1, True, True, True, False, "invalid EOI"),
    ("eventfd_resample", "dis I", 1, True, False, False, False, "invalid EOI"),  # 16
    ("gicd_unmask", "dis I", 0, False, False, False, False, "invalid EOI"),
    ("vmentry", "en I", 0, False, False, False, False, ""),  # 17
]

FORWARDED: list[ROW] = [
    ("line_up", "en I", 0, False, False, False, False, ""),  # 0
    ("vmexit_irq", "en P", 0, False, False, False, False, ""),  # 1, 2
    ("gic.acknowledge", "en AP", 0, False, False, False, False, ""),  # 3
    ("host_irq", "en AP", 0, False, False, False, False, ""),
    ("eventfd_trigger", "en AP", 0, False, False, False, False, ""),  # 4, 5: not disabled, not masked
    ("work", "en AP", 0, False, False, False, False, ""),  # 6: not deactivated, so no second hit
    ("set_irq", "en AP", 0, False, False, False, False, ""),  # 7
    ("lr_queued", "en AP", 0, False, False, True, False, "pending HW->109"),  # 8
    ("vmentry", "en AP", 0, False, False, False, False, "pending HW->109"),
    ("guest_iar", "en AP", 0, False, False, False, False, "active HW->109"),  # 9
    ("line_down", "en AP", 0, False, False, False, False, "active HW->109"),
    ("guest_eoi", "en A", 0, False, False, False, False, "active HW->109"),  # 10
    ("hw_deactivate", "en A", 0, False, False, False, False, "invalid HW->109"),
    ("gic.deactivate", "en I", 0, False, False, False, False, "invalid HW->109"),  # 11, and no exit
]


def steps(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[Snap]:
    """Serve one interrupt, snapshots at every event and at the hardware's own steps."""

    def spy(method: str) -> None:
        original = getattr(Gic, method)

        def spied(gic: Gic, irq: int) -> None:
            original(gic, irq)
            seen.append(rig.snap(f"gic.{method}"))

        monkeypatch.setattr(Gic, method, spied)

    spy("acknowledge")
    spy("deactivate")
    with rig.watched() as seen:
        rig.hit()
        assert rig.serve() == V
    return seen


@pytest.mark.parametrize(("forwarded", "expected"), [(False, UNFORWARDED), (True, FORWARDED)])
def test_every_step(forwarded: bool, expected: list[ROW], monkeypatch: pytest.MonkeyPatch) -> None:
    with Rig(forwarded=forwarded) as rig:
        assert steps(rig, monkeypatch) == [Snap(*row) for row in expected]


def test_unforwarded_step_18_a_line_that_stays_high_is_taken_before_the_guest_is_entered_again() -> None:
    with Rig() as rig:
        rig.hit()
        irq = rig.guest.ack()
        rig.mark()
        rig.guest.eoi(irq)
        assert rig.counts("vmexit_irq", "vmexit_maint", "host_irq", "vmentry") == {
            "vmexit_irq": 0,
            "vmexit_maint": 1,
            "host_irq": 1,
            "vmentry": 1,
        }
        assert rig.guest.lrs == [f"{V} pending EOI"]


def test_forwarded_step_13_a_line_that_stays_high_hits_again_at_the_guests_eoi() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        irq = rig.guest.ack()
        rig.mark()
        with rig.watched() as seen:
            rig.guest.eoi(irq)
        assert [snap.event for snap in seen] == [
            *("guest_eoi", "hw_deactivate", "vmexit_irq", "host_irq", "eventfd_trigger", "work", "set_irq"),
            *("lr_queued", "vmentry"),
        ]
        assert next(snap.gic for snap in seen if snap.event == "vmexit_irq") == "en P"
        assert rig.guest.lrs == [f"{V} pending HW->109"]


def test_forwarded_step_12_any_later_exit_frees_the_list_register_and_tells_nobody() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.serve()
        held = rig.vm.vgic.cpus[0].lr_of
        assert list(held) == [(V, 0)]  # invalid, but KVM has not seen it
        rig.mark()
        rig.guest.model.force_exit("kick")
        rig.guest.slice()
        assert held == {}
        assert rig.counts() == {"vmexit_kick": 1, "vmentry": 1}


def test_forwarded_the_interrupt_cannot_hit_again_while_the_guest_is_busy() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.guest.ack()
        rig.mark()
        rig.dev.line(False)
        rig.dev.line(True)
        rig.guest.slice(3)
        assert rig.dev.p() == "en AP"
        assert rig.counts() == {"line_down": 1, "line_up": 1}


@pytest.mark.parametrize("forwarded", [False, True])
def test_a_line_held_high_over_three_eois_is_three_interrupts(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        rig.hit()
        for _ in range(2):
            rig.guest.eoi(rig.guest.ack())
        assert rig.serve() == V
        exits = {"vmexit_irq": 3, "vmexit_maint": 0} if forwarded else {"vmexit_irq": 1, "vmexit_maint": 3}
        assert rig.counts("guest_iar", "eventfd_trigger", "hw_deactivate", *exits) == {
            "guest_iar": 3,
            "eventfd_trigger": 3,
            "hw_deactivate": 3 if forwarded else 0,
            **exits,
        }
        assert rig.dev.p() == "en I"
        assert rig.count(rig.dev.resample[0]) == (0 if forwarded else 3)


@pytest.mark.parametrize("forwarded", [False, True])
def test_guest_eoimode_1_completes_with_dir(forwarded: bool) -> None:
    with Rig(forwarded=forwarded, eoi_mode=1) as rig:
        rig.hit()
        irq = rig.guest.ack()
        rig.guest.do(lambda: rig.dev.line(False))
        rig.mark()
        rig.guest.eoi(irq)
        assert rig.counts() == {"guest_eoi": 1}  # the priority drop, nothing else
        assert rig.dev.p() == ("en A" if forwarded else "dis I")
        assert rig.guest.model.interface.running_priority == 0x100
        assert rig.guest.lrs == [f"{V} active HW->109" if forwarded else f"{V} active EOI"]
        rig.guest.dir(irq)
        assert rig.n("hw_deactivate" if forwarded else "vmexit_maint") == 1
        assert rig.n("vmexit_maint" if forwarded else "hw_deactivate") == 0
        assert rig.dev.p() == "en I"
        assert not rig.dev.irq().masked


def test_another_interrupt_at_the_completion_is_handled_before_the_resampler_hears_of_it() -> None:
    with Rig() as rig:
        rig.hit()
        irq = rig.guest.ack()
        rig.dev.line(False)
        stop = rig.kernel.listen(lambda event: rig.dev.line(True, 1) if event.name == "vmexit_maint" else None)
        with rig.watched() as seen:
            rig.guest.eoi(irq)
        stop()
        events = [snap.event for snap in seen]
        assert events.index("host_irq") < events.index("resample_ack")
        rig.dev.line(False, 1)


def test_an_interrupt_that_comes_during_entry_is_not_lost() -> None:
    """Interrupts are off from the filling of the list registers on; it makes the guest exit at once."""
    with Rig(forwarded=True) as rig:
        stop = rig.kernel.listen(lambda event: rig.dev.line(True, 1) if event.name == "lr_queued" else None)
        with rig.watched() as seen:
            rig.hit()
        stop()
        events = [snap.event for snap in seen]
        assert events.count("vmexit_irq") == events.count("vmentry") == 2
        assert rig.dev.p(1) == "dis P"  # the second interrupt has no irqfd, but was handled
        assert rig.count(rig.dev.trigger[1]) == 1
        rig.dev.line(False, 1)
