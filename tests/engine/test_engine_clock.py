"""Virtual time moves only when it is told to, and what is due happens at its moment, in order."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmvfio_emu.engine.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@given(delays=st.lists(st.integers(0, 50)), steps=st.lists(st.integers(0, 30)))
def test_everything_happens_at_its_own_moment_and_in_order(delays: list[int], steps: list[int]) -> None:
    clock, fired = Clock(), []
    for number, delay in enumerate(delays):
        clock.after(delay, lambda number=number: fired.append((clock.now, number)))  # type: ignore[misc]
    for passed, step in enumerate(steps, 1):
        clock.advance(step)
        assert clock.now == sum(steps[:passed])
    due = sorted((delay, number) for number, delay in enumerate(delays))
    assert fired == [entry for entry in due if steps and entry[0] <= clock.now]
    while clock.jump():
        pass
    assert fired == due


def test_a_delay_in_the_past_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="past"):
        clock.after(-1, lambda: None)


def test_a_cancelled_timer_does_not_fire(clock: Clock) -> None:
    fired: list[str] = []
    timers = [clock.after(5, lambda name=name: fired.append(name)) for name in "abc"]  # type: ignore[misc]
    timers[1].cancel()
    timers[1].cancel()
    clock.advance(5)
    assert fired == ["a", "c"]
    timers[0].cancel()  # too late, harmless


def test_a_timer_may_cancel_one_of_the_same_moment(clock: Clock) -> None:
    fired: list[str] = []
    clock.after(5, lambda: later.cancel())
    later = clock.after(5, lambda: fired.append("later"))
    clock.advance(10)
    assert fired == []


def test_next_due_passes_over_cancelled_ones(clock: Clock) -> None:
    assert clock.next_due() is None
    first = clock.after(3, lambda: None)
    clock.after(7, lambda: None)
    assert clock.next_due() == 3
    first.cancel()
    assert clock.next_due() == 7


def test_jump_goes_to_the_next_moment_only(clock: Clock) -> None:
    fired: list[int] = []
    for delay in (9, 4):
        clock.after(delay, lambda: fired.append(clock.now))
    assert clock.jump()
    assert (clock.now, fired) == (4, [4])
    assert clock.jump()
    assert (clock.now, fired) == (9, [4, 9])
    assert not clock.jump()
    assert clock.now == 9


def test_a_timer_set_by_a_timer_fires_in_the_same_advance(clock: Clock) -> None:
    fired: list[int] = []

    def tick() -> None:
        fired.append(clock.now)
        clock.after(3, tick)

    clock.after(3, tick)
    clock.advance(10)
    assert fired == [3, 6, 9]
    assert clock.now == 10


def test_time_never_goes_back(clock: Clock) -> None:
    """Even if a callback lets time pass itself, as a guest's access does."""
    seen: list[int] = []
    clock.after(5, lambda: clock.advance(100))
    clock.after(50, lambda: seen.append(clock.now))
    clock.advance(10)
    seen.append(clock.now)
    assert seen == [50, 105]
    assert all(before <= after for before, after in pairwise(seen))


def test_an_exception_of_a_timer_loses_no_other(clock: Clock) -> None:
    fired: list[int] = []
    clock.after(1, lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    clock.after(1, lambda: fired.append(1))
    with pytest.raises(ZeroDivisionError):
        clock.advance(5)
    clock.advance(5)
    assert fired == [1]
