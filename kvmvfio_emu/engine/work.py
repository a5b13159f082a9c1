"""Deferred work; models kernel/workqueue.c: an item that is queued twice before it runs, runs once.

Which waiting item runs next is a choice that is injected: the default takes them in order, a property test takes
them in any order and so finds races without a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvmvfio_emu.engine.trace import Trace

#: Picks the index of the item to run next.
Policy = Callable[[Sequence["Work"]], int]


def in_order(waiting: Sequence[Work]) -> int:
    """The default policy: first queued, first run."""
    return 0


class Work:
    """One deferred function, ``struct work_struct``."""

    __slots__ = ("cause", "function", "name", "pending")

    def __init__(self, name: str, function: Callable[[], None]) -> None:
        self.name = name
        self.function = function
        self.pending = False
        self.cause = 0  #: the event that queued it

    def __repr__(self) -> str:
        return f"<Work {self.name}{' (queued)' if self.pending else ''}>"


class WorkQueue:
    """What is to be done later, by a kernel thread in Linux, between two steps of the model here."""

    __slots__ = ("_trace", "held", "holding", "policy", "waiting")

    def __init__(self, trace: Trace, policy: Policy = in_order) -> None:
        self._trace = trace
        self.policy = policy
        self.waiting: list[Work] = []
        #: While ``holding`` an item waits here, until `run_held`: its kernel thread does not get the CPU.
        self.held: list[Work] = []
        self.holding = False

    def queue(self, work: Work) -> bool:
        """Queue ``work``; False when it waits already. Models queue_work."""
        if work.pending:
            return False
        work.pending = True
        work.cause = self._trace.cause
        (self.held if self.holding else self.waiting).append(work)
        return True

    def cancel(self, work: Work) -> None:
        """Take ``work`` back if it waits. Models cancel_work_sync."""
        if work.pending:
            work.pending = False
            (self.held if work in self.held else self.waiting).remove(work)

    def flush(self, work: Work) -> None:
        """Run ``work`` now if it waits. Models flush_work."""
        if work.pending:
            self.cancel(work)
            self._run(work)

    def run_one(self) -> None:
        """Run the item that the policy picks; at least one must wait."""
        work = self.waiting.pop(self.policy(self.waiting))
        work.pending = False
        self._run(work)

    def run_held(self, index: int) -> None:
        """Run one of the items that are held."""
        work = self.held.pop(index)
        work.pending = False
        self._run(work)

    def _run(self, work: Work) -> None:
        trace = self._trace
        before, trace.cause = trace.cause, work.cause  # as `Trace.resume`, of which each interrupt takes several
        try:
            work.function()
        finally:
            trace.cause = before
