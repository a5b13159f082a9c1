"""Calls in progress get their slices in turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmvfio_emu.engine.scheduler import Scheduler, Turn


class Call:
    """A call whose turns are given; it says when it has one."""

    def __init__(self, name: str, log: list[str], turns: list[Turn], then: Callable[[], None] = lambda: None) -> None:
        self.name, self._log, self._turns, self._then = name, log, turns, then

    def advance(self) -> Turn:
        self._log.append(self.name)
        self._then()
        return self._turns.pop(0)


def test_one_slice_for_each_in_order() -> None:
    scheduler, log = Scheduler(), []
    for name in "abc":
        scheduler.add(Call(name, log, [Turn.RUNNABLE] * 2))
    assert scheduler.round()
    assert scheduler.round()
    assert log == ["a", "b", "c"] * 2


@pytest.mark.parametrize(
    ("turns", "more"),
    [
        ([], False),
        ([Turn.BLOCKED, Turn.BLOCKED], False),
        ([Turn.BLOCKED, Turn.RUNNABLE], True),
        ([Turn.RUNNABLE, Turn.BLOCKED], True),
        ([Turn.DONE, Turn.BLOCKED], True),  # its caller may now do something
    ],
)
def test_a_round_says_whether_anything_happened(turns: list[Turn], more: bool) -> None:
    scheduler, log = Scheduler(), []
    for turn in turns:
        scheduler.add(Call("x", log, [turn]))
    assert scheduler.round() is more
    assert len(log) == len(turns)  # all of them had their slice, whatever the first one said


def test_calls_that_begin_or_end_during_a_round() -> None:
    scheduler, log = Scheduler(), []
    late = Call("late", log, [Turn.RUNNABLE])

    def swap() -> None:
        scheduler.remove(first)
        scheduler.add(late)

    first = Call("first", log, [Turn.DONE], swap)
    scheduler.add(first)
    scheduler.add(Call("second", log, [Turn.RUNNABLE] * 2))
    scheduler.round()
    assert log == ["first", "second"]
    scheduler.round()
    assert log == ["first", "second", "second", "late"]
