"""The main state machine: it passes, it gets far, and it finds what each safeguard is there for."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from kvmvfio_emu import KvmVfioEmuError, profiles
from kvmvfio_emu.testing import wrong
from kvmvfio_emu.testing.machine import Life, step
from kvmvfio_emu.testing.safeguards import Safeguards

#: Hypothesis's own budget. The same examples each time: what is found here is found everywhere.
BUDGET = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
#: States that an interrupt goes through when all is well, in both modes, and when it is changed on the way.
MUST_REACH = {
    "I",
    "P, masked",
    "P, masked, LR pending EOI",
    "P, masked, LR active EOI",
    "I, masked, LR active EOI",
    "I, forwarded",
    "AP, forwarded",
    "AP, forwarded, injection waits",
    "AP, forwarded, LR pending HW",
    "AP, forwarded, LR active HW",
    "A, forwarded, LR active HW",
    "I, masked, forwarded",
}
#: What only kernels without forward control refuse.
WITHOUT = "assign without forwarding"


def test_all_orders_hold_and_the_far_states_are_reached() -> None:
    class Main(Life):
        pass

    run_state_machine_as_test(Main, settings=settings(BUDGET, max_examples=300, phases=[Phase.generate]))
    print(Main.coverage)
    assert set(Main.coverage.states) >= MUST_REACH
    clauses = {clause.rpartition(":")[0] for clause in Main.coverage.clauses}
    assert clauses >= set(wrong.CALLS) - {WITHOUT}, "clauses that no call met"


@pytest.mark.parametrize("name", [name for name in profiles.names() if profiles.load(name).is_arm])
def test_all_orders_hold_on_other_kernels(name: str) -> None:
    class Other(Life):
        profile = name

    run_state_machine_as_test(Other, settings=settings(BUDGET, max_examples=40, phases=[Phase.generate]))
    forwards = bool(profiles.load(name).forward_control)
    assert any("forwarded" in state for state in Other.coverage.states) == forwards
    assert (f"{WITHOUT}: ENXIO" in Other.coverage.clauses) != forwards


def test_an_injection_behind_the_end_of_forwarding_does_not_join_what_was_forwarded() -> None:
    """Found by a campaign: the new hit shared the old one's list register, and nobody heard of its completion."""
    Life.replay(
        "boot(forwarded=15); loopback(number=0); work(number=0); guest_goes_on(number=0); "
        "connect_or_disconnect(number=0); vcpu_stops_or_starts(number=0); connect_or_disconnect(number=0); "
        "deassign(after=4, number=0)"
    )


def test_a_kernel_without_a_gic() -> None:
    class X86(Life):
        profile = "linux-6.18-x86"

    with pytest.raises(KvmVfioEmuError, match=r"linux-6\.18-x86 is no kernel for Arm"):
        run_state_machine_as_test(X86, settings=settings(BUDGET, max_examples=1))


@pytest.mark.parametrize("name", [field.name for field in fields(Safeguards)])
def test_each_safeguard_is_missed_when_it_is_off(name: str) -> None:
    class Careless(Life):
        safeguards = Safeguards(**{name: False})

    with pytest.raises(AssertionError) as failed:
        run_state_machine_as_test(Careless, settings=settings(BUDGET, phases=[Phase.generate]))
    notes = failed.value.__notes__
    assert any(note.startswith("what happened inside") for note in notes)
    script = Careless.shorten(script_in(notes))
    assert len(script.split(";")) <= 8, f"not short: {script}"
    with pytest.raises(AssertionError):
        Careless.replay(script)
    Life.replay(script)  # and it is the safeguard that makes the difference


def test_hypothesis_shrinks_the_order() -> None:
    class Careless(Life):
        safeguards = Safeguards(assign_when_idle=False)

        @step()
        def everybody_finishes(self) -> None:
            """Never, so that there is less to try."""

    with pytest.raises(AssertionError) as failed:
        run_state_machine_as_test(Careless, settings=BUDGET)
    assert len(script_in(failed.value.__notes__).split(";")) <= 5


def script_in(notes: list[str]) -> str:
    """What a failure says one should replay."""
    replays = [note for note in notes if note.startswith("replay with: ")]
    return replays[-1].partition("(")[2].strip("()").strip("'\"")


def test_a_users_own_step_that_raises_is_what_is_told() -> None:
    class Own(Life):
        @step(number=st.integers(0, 3))
        def breaks(self, number: int) -> None:
            self.at(number).line.set(True)
            raise ZeroDivisionError("the user's own")

    with pytest.raises(ZeroDivisionError, match="the user's own") as failed:
        run_state_machine_as_test(Own, settings=BUDGET)
    assert any("replay with: Own.replay('boot(forwarded=0); breaks(number=0)')" in n for n in failed.value.__notes__)


def test_a_script_that_is_none() -> None:
    with pytest.raises(ValueError, match="'import os' is no step"):
        Life.replay("boot(forwarded=0); import os")
    with pytest.raises(ValueError, match="'nothing\\(\\)' is no step"):
        Life.replay("boot(forwarded=0); nothing()")


def test_an_idle_machine_takes_the_same_steps_and_does_nothing() -> None:
    class Idle(Life):
        acts = False

    run_state_machine_as_test(Idle, settings=settings(BUDGET, max_examples=5))
    assert (Idle.coverage.examples, Idle.coverage.steps) == (0, 0)
