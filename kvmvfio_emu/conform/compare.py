"""A run against recorded answers: section by section, and case by case where they differ."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from kvmvfio_emu.conform.abi import translate
from kvmvfio_emu.conform.answers import Answer, Answers, section


class Difference(NamedTuple):
    """A case that we answer differently, or not at all (``ours`` is None then)."""

    case: str
    kernel: Answer
    ours: Answer | None
    reason: str | None  #: why we refused, if we did


@dataclass
class Row:
    """One section's count."""

    given: int = 0
    equal: int = 0
    different: int = 0
    unanswered: int = 0

    @property
    def percent(self) -> float:
        """Equal ones of those given."""
        return 100 * self.equal / self.given if self.given else 100.0


@dataclass
class Comparison:
    """What came of it. ``sections`` in the order of the recorded answers."""

    sections: dict[str, Row] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)

    @property
    def total(self) -> Row:
        """All sections together."""
        rows = self.sections.values()
        return Row(
            sum(row.given for row in rows),
            sum(row.equal for row in rows),
            sum(row.different for row in rows),
            sum(row.unanswered for row in rows),
        )


def compare(kernel: Answers, ours: Answers, sections: Collection[str] = ()) -> Comparison:
    """Compare every case that ``kernel`` answered, or those in ``sections`` (all if empty; ``vfio`` takes vfio-*)."""
    found = Comparison()
    for case, answer in kernel.cases.items():
        name = section(case)
        if sections and not is_asked(name, sections):
            continue
        row = found.sections.setdefault(name, Row())
        row.given += 1
        our = ours.cases.get(case)
        if our is None:
            row.unanswered += 1
        elif our._replace(out=translate(our.out, ours.machine, kernel.machine)) == answer:
            row.equal += 1
            continue
        else:
            row.different += 1
        found.differences.append(Difference(case, answer, our, ours.reasons.get(case)))
    return found


def is_asked(name: str, sections: Collection[str]) -> bool:
    """Whether section ``name`` is among those asked for, by itself or as a part of one (as the probe decides)."""
    return any(name == wanted or name.startswith(f"{wanted}-") for wanted in sections)
