"""Sums up a run: what was counted, what that costs, and how long things took.

Everything is per transaction and in cycles, but for `Measured.per_second`. The parts add up: cycles by parameter make
all cycles, and those that were critical and those that were not do, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kvmvfio_emu.rr.account import TICKS, VCPU_CPU
from kvmvfio_emu.rr.costs import Costs
from kvmvfio_emu.rr.ways import Ways
from kvmvfio_emu.rr.workload import Run

#: What counts as an exit that the interrupt made: the WFI trap is the guest's own.
EXITS = ("vmexit_irq", "vmexit_kick", "vmexit_maint")


class Spread(NamedTuple):
    """A distribution of latencies, in cycles."""

    least: float
    median: float
    p99: float
    most: float
    mean: float

    @classmethod
    def of(cls, ticks: Iterable[int]) -> Spread:
        """Of these; all zero when there are none."""
        ordered = sorted(ticks) or [0]
        last = len(ordered) - 1
        chosen = (ordered[0], ordered[last // 2], ordered[(last * 99 + 99) // 100], ordered[last])
        least, median, p99, most = (value / TICKS for value in chosen)
        return cls(least, median, p99, most, sum(ordered) / len(ordered) / TICKS)


@dataclass(frozen=True, slots=True)
class Measured:
    """One mode of the workload."""

    transactions: int
    events: dict[str, float]  #: event name -> how often, each transaction
    parameters: dict[str, float]  #: parameter -> cycles, each transaction
    critical: dict[str, float]  #: of those, the cycles that some response had to wait for
    cpus: dict[int, float]  #: physical CPU -> share of the time that it had something to do
    elapsed: float  #: cycles from the first measured response to the last
    per_second: float  #: transactions
    injection: Spread  #: from the line's rise to the guest's acknowledge
    exit: Spread  #: from the guest's end of interrupt until the guest goes on
    response: Spread  #: from the request's arrival to the response
    waiting: float  #: of the mean response, what is not the cost of a step: the CPU was busy, or others had to come

    @property
    def exits(self) -> float:
        """Exits that interrupts made."""
        return sum(self.events.get(name, 0.0) for name in EXITS)

    @property
    def cycles(self) -> float:
        """All cycles."""
        return sum(self.parameters.values())

    @property
    def critical_cycles(self) -> float:
        """Those before a response."""
        return sum(self.critical.values())


def measure(run: Run, costs: Costs) -> Measured:
    """Sum up ``run``, which used ``costs``."""
    steps = run.account.steps
    transactions = len(run.answers)
    parameters, critical, events = Counter[str](), Counter[str](), Counter[str]()
    busy, ways = Counter[int](), Ways(steps)
    responses, waiting = [], 0
    for index, arrived in run.answers:
        ways.mark(index, arrived)
        responses.append(steps[index].end - arrived)
        first = ways.first(index, arrived)
        waiting += steps[index].end - arrived if first < 0 else steps[first].start - arrived
    for index in range(run.first, run.last):
        step = steps[index]
        events[step.name] += 1
        busy[step.cpu] += step.end - step.start
        parameters.update(step.pays)
        if ways.critical(index):
            critical.update(step.pays)
    elapsed = (steps[run.last - 1].end - steps[run.first - 1].end) / TICKS
    hertz = costs.value("clock") * 1e9

    def cycles(counted: Counter[str]) -> dict[str, float]:
        return {name: counted[name] * costs.value(name) / transactions for name in costs.parameters if counted[name]}

    return Measured(
        transactions=transactions,
        events={name: number / transactions for name, number in sorted(events.items())},
        parameters=cycles(parameters),
        critical=cycles(critical),
        cpus={cpu: ticks / TICKS / elapsed if elapsed else 0.0 for cpu, ticks in sorted(busy.items()) if cpu >= 0},
        elapsed=elapsed,
        per_second=transactions / elapsed * hertz if elapsed else float("inf"),
        injection=Spread.of(_injections(run)),
        exit=Spread.of(_exits(run)),
        response=Spread.of(responses),
        waiting=waiting / transactions / TICKS,
    )


def _injections(run: Run) -> Iterable[int]:
    """From each rise of a line to the acknowledge that belongs to it."""
    raised: dict[int, int] = {}
    for index, step in enumerate(run.account.steps[: run.last]):
        if step.name == "line_up":
            raised[step.irq] = step.end
        elif step.name == "guest_iar" and step.irq in raised:
            since = raised.pop(step.irq)
            if index >= run.first:
                yield step.end - since


def _exits(run: Run) -> Iterable[int]:
    """From each end of interrupt to what the guest does next."""
    ended: int | None = None
    for index, step in enumerate(run.account.steps):
        if ended is not None and step.cpu == VCPU_CPU and step.name.startswith("guest_"):
            yield step.start - ended
            ended = None
        if step.name == "guest_eoi" and run.first <= index < run.last:
            ended = step.end
