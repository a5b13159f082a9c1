"""Deferred work: queued twice it runs once, and which item is next is the policy's choice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.engine.work import Work, WorkQueue


def three(queue: WorkQueue) -> tuple[list[str], list[Work]]:
    """Three queued items and the list of those that ran."""
    ran: list[str] = []
    works = [Work(name, lambda name=name: ran.append(name)) for name in "abc"]  # type: ignore[misc]
    for work in works:
        assert queue.queue(work)
    return ran, works


def drain(queue: WorkQueue) -> None:
    while queue.waiting:
        queue.run_one()


def test_the_default_order_is_that_of_queueing() -> None:
    queue = WorkQueue(Trace(Clock()))
    ran, _ = three(queue)
    drain(queue)
    assert ran == ["a", "b", "c"]


def test_the_policy_chooses() -> None:
    def last(waiting: Sequence[Work]) -> int:
        return len(waiting) - 1

    queue = WorkQueue(Trace(Clock()), last)
    ran, _ = three(queue)
    drain(queue)
    assert ran == ["c", "b", "a"]


def test_an_item_that_waits_is_not_queued_again() -> None:
    queue = WorkQueue(Trace(Clock()))
    ran, works = three(queue)
    assert not queue.queue(works[0])
    drain(queue)
    assert ran == ["a", "b", "c"]
    assert queue.queue(works[0])
    drain(queue)
    assert ran[-1] == "a"


def test_an_item_may_queue_itself_while_it_runs() -> None:
    queue, left = WorkQueue(Trace(Clock())), [3]

    def again() -> None:
        left[0] -= 1
        if left[0]:
            assert queue.queue(work)

    work = Work("again", again)
    queue.queue(work)
    drain(queue)
    assert left == [0]
    assert not work.pending


def test_cancel_takes_back_what_waits() -> None:
    queue = WorkQueue(Trace(Clock()))
    ran, works = three(queue)
    queue.cancel(works[1])
    queue.cancel(works[1])
    drain(queue)
    assert ran == ["a", "c"]
    assert queue.queue(works[1])


def test_flush_runs_what_waits_now_and_once() -> None:
    queue = WorkQueue(Trace(Clock()))
    ran, works = three(queue)
    queue.flush(works[2])
    assert ran == ["c"]
    queue.flush(works[2])
    drain(queue)
    assert ran == ["c", "a", "b"]


def test_an_item_that_fails_is_out_of_the_queue() -> None:
    queue = WorkQueue(Trace(Clock()))
    failing = Work("failing", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    queue.queue(failing)
    with pytest.raises(ZeroDivisionError):
        queue.run_one()
    assert queue.waiting == []
    assert queue.queue(failing)


def test_repr_names_the_item_and_its_state() -> None:
    work = Work("inject", lambda: None)
    assert repr(work) == "<Work inject>"
    WorkQueue(Trace(Clock())).queue(work)
    assert repr(work) == "<Work inject (queued)>"


class Queues(RuleBasedStateMachine):
    """Against the plainest model: a list of names."""

    @initialize()
    def start(self) -> None:
        self.choice = 0
        self.queue = WorkQueue(Trace(Clock()), lambda waiting: self.choice % len(waiting))
        self.ran: list[int] = []
        self.works = [Work(str(number), lambda number=number: self.ran.append(number)) for number in range(4)]  # type: ignore[misc]
        self.model: list[int] = []
        self.expected: list[int] = []

    @rule(number=st.integers(0, 3))
    def add(self, number: int) -> None:
        assert self.queue.queue(self.works[number]) == (number not in self.model)
        if number not in self.model:
            self.model.append(number)

    @rule(number=st.integers(0, 3))
    def cancel(self, number: int) -> None:
        self.queue.cancel(self.works[number])
        if number in self.model:
            self.model.remove(number)

    @rule(number=st.integers(0, 3))
    def flush(self, number: int) -> None:
        self.queue.flush(self.works[number])
        if number in self.model:
            self.model.remove(number)
            self.expected.append(number)

    @precondition(lambda self: self.model)
    @rule(choice=st.integers(0, 100))
    def run(self, choice: int) -> None:
        self.choice = choice
        self.queue.run_one()
        self.expected.append(self.model.pop(choice % len(self.model)))

    @invariant()
    def same(self) -> None:
        if hasattr(self, "model"):
            assert [int(work.name) for work in self.queue.waiting] == self.model
            assert self.ran == self.expected
            assert [work.pending for work in self.works] == [number in self.model for number in range(4)]


TestQueues = Queues.TestCase


def test_an_item_that_is_held_runs_once_it_is_admitted():
    queue, ran, held = WorkQueue(Trace(Clock())), [], []
    item = Work("late", lambda: ran.append("late"))
    queue.hold = lambda work: held.append(work) or True
    assert queue.queue(item)
    assert not queue.queue(item)  # it is queued, though it may not run
    assert (held, queue.waiting) == ([item], [])
    queue.admit(item)
    queue.admit(item)
    assert queue.waiting == [item]
    queue.run_one()
    assert ran == ["late"]


def test_an_item_that_is_held_can_be_cancelled_and_flushed():
    queue, ran = WorkQueue(Trace(Clock())), []
    item = Work("late", lambda: ran.append("late"))
    queue.hold = lambda work: True
    queue.queue(item)
    queue.cancel(item)
    queue.admit(item)
    assert queue.waiting == []
    queue.queue(item)
    queue.flush(item)
    assert ran == ["late"]
