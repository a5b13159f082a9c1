"""The answer, and what it depends on: each cost over its range, one at a time; other workloads by the same costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from kvmvfio_emu.rr.costs import Costs, Parameter
from kvmvfio_emu.rr.measure import Measured, measure
from kvmvfio_emu.rr.workload import Workload, run

#: A sweep repeats the workload with at most so many transactions: without chance, fewer tell the same.
TRANSACTIONS = 200


class Answer(NamedTuple):
    """Both modes of one workload, by the same costs."""

    workload: Workload
    costs: Costs
    unforwarded: Measured
    forwarded: Measured

    @property
    def faster(self) -> float:
        """By which part forwarding makes more transactions a second."""
        return _change(self.unforwarded.per_second, self.forwarded.per_second)

    @property
    def cheaper(self) -> float:
        """Which part of the cycles of a transaction it saves."""
        return 0.0 - _change(self.unforwarded.cycles, self.forwarded.cycles)

    @property
    def sooner(self) -> float:
        """By how many cycles the guest goes on sooner after its end of interrupt, on average."""
        return self.unforwarded.exit.mean - self.forwarded.exit.mean


class Swing(NamedTuple):
    """A parameter at both ends of its range."""

    parameter: Parameter
    low: Answer
    high: Answer

    def width(self, of: Callable[[Answer], float]) -> float:
        """How much it moves ``of``."""
        return abs(of(self.high) - of(self.low))


class Variant(NamedTuple):
    """The workload, but for one thing."""

    name: str
    answer: Answer


def ask(workload: Workload, costs: Costs) -> Answer:
    """Run both modes."""
    return Answer(
        workload,
        costs,
        *(measure(run(workload, costs, forward=forward), costs) for forward in (False, True)),
    )


def swings(workload: Workload, costs: Costs) -> list[Swing]:
    """Every parameter that matters to ``workload`` at its low and its high, the one that moves the rate most first."""
    small = _small(workload)
    base = ask(small, costs)
    matter = {"clock", "wire", *base.unforwarded.parameters, *base.forwarded.parameters}
    free = {name for name, one in costs.parameters.items() if not one.value and one.high}  # costs nothing, but could
    found = []
    for name, one in costs.parameters.items():
        if name in matter | free and one.low < one.high:
            low, high = (ask(small, costs.with_value(name, value)) for value in (one.low, one.high))
            found.append(Swing(one, low, high))
    found.sort(
        key=lambda swing: (-_rounded(swing.width(faster)), -_rounded(swing.width(cheaper)), swing.parameter.name)
    )
    return found


def variants(workload: Workload, costs: Costs) -> list[Variant]:
    """Other workloads, each different in one thing; and the same one with all cycles at an end of their ranges."""
    other = {
        "vCPU computes" if workload.idle else "vCPU waits in WFI": replace(workload, idle=not workload.idle),
        "guest answers in its handler" if workload.poll else "guest answers after its handler": replace(
            workload, poll=not workload.poll
        ),
        **{f"{n} transactions an interrupt": replace(workload, coalesce=n) for n in (1, 4, 16)},
        **{f"{n} devices" if n > 1 else "1 device": replace(workload, devices=n) for n in (1, 4)},
        "interrupts to another CPU": replace(workload, cpus=max(workload.cpus, 2), irq_cpu=1),
    }
    found = [Variant(name, ask(_small(one), costs)) for name, one in other.items() if one != workload]
    for end in ("lowest", "highest"):
        found.append(Variant(f"all cycles at their {end}", ask(_small(workload), costs.at_end(high=end == "highest"))))
    return found


def faster(answer: Answer) -> float:
    """`Answer.faster`, to sort by."""
    return answer.faster


def cheaper(answer: Answer) -> float:
    """`Answer.cheaper`, to sort by."""
    return answer.cheaper


def _small(workload: Workload) -> Workload:
    batch = workload.coalesce * workload.devices
    wanted = min(workload.transactions, max(TRANSACTIONS, batch))
    return replace(workload, transactions=-(-wanted // workload.coalesce) * workload.coalesce)


def _change(before: float, after: float) -> float:
    if before == after or not before or math.isinf(before):
        return 0.0
    return after / before - 1


def _rounded(value: float) -> float:
    return round(value, 9)
