"""What of a trace goes into a page: a bounded part of each run, with the state right at every step of it.

A page has to open at once, whatever the trace's length. Beyond the bounds a run keeps its beginning and its end; what
happened to the state in between is kept with the first step after the gap.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kvmvfio_emu.view.actors import ACTORS, sentence
from kvmvfio_emu.view.sink import MAGIC, Record

#: Steps in a page, of all runs together.
EVENTS = 100_000
#: Bytes of their texts, fields and states, as `Step.size` estimates them.
BYTES = 24 << 20
#: Runs in a page; further ones are counted.
RUNS = 16
#: State paths, names of events and lanes that no model has, of one run; a trace with more has none of the further ones.
PATHS, NAMES, STRANGERS = 8_192, 1_000, 5
#: What stands for further names and actors.
OTHER = "other"
#: Characters of a string, elements of a list or object, depth of a tree: what is longer is cut, with a mark.
_CHARACTERS, _ELEMENTS, _DEPTH = 1_000, 64, 40
#: Bytes of one value of the state: a tree of a thousand nodes has its place.
_VALUE = 128 << 10
#: What JavaScript's numbers hold exactly.
_EXACT = 1 << 53


def clip(value: Any, depth: int = 0) -> Any:
    """``value`` as the page can hold it: nothing endless, no number that a browser would change."""
    if isinstance(value, str):
        return value if len(value) <= _CHARACTERS else value[:_CHARACTERS] + "…"
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -_EXACT < value < _EXACT else f"{value:#x}"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= _DEPTH:
        return "…"
    if isinstance(value, dict):
        items = list(value.items())[:_ELEMENTS]
        return {clip(str(key)): clip(item, depth + 1) for key, item in items} | (
            {"…": f"{len(value) - _ELEMENTS} more"} if len(value) > _ELEMENTS else {}
        )
    if isinstance(value, list):
        return [clip(item, depth + 1) for item in value[:_ELEMENTS]] + (["…"] if len(value) > _ELEMENTS else [])
    return str(value)


@dataclass(slots=True)
class Step:
    """One event as the page shows it."""

    number: int
    time: int  #: virtual, in nanoseconds
    name: str
    actor: str
    text: str
    cause: int  #: number of another, 0 for none
    fields: dict[str, Any]
    state: dict[str, Any]  #: path -> new value, None for what is gone
    size: int = 0

    @classmethod
    def of(cls, record: Record) -> Step:
        """From a record of a trace."""
        fields = clip(record.get("f") or {})
        name = clip(record["name"])
        state = {clip(path): clip(value) for path, value in (record.get("s") or {}).items()}
        state = {path: value if _weight(value) < _VALUE else "too large for a page" for path, value in state.items()}
        step = cls(
            number=record["n"],
            time=record["t"],
            name=name,
            actor=clip(record["actor"]),
            text=clip(sentence(name, fields)),
            cause=record.get("cause", 0),
            fields=fields,
            state=state,
        )
        step.size = 40 + len(step.text) + _weight(fields) + _weight(state)
        return step


def _weight(value: Any) -> int:
    """About as many bytes as it takes in the page."""
    if isinstance(value, dict):
        return 2 + sum(len(key) + 4 + _weight(item) for key, item in value.items())
    if isinstance(value, list):
        return 2 + sum(1 + _weight(item) for item in value)
    return len(value) + 2 if isinstance(value, str) else 6


@dataclass
class Run:
    """One run: everything counted, a part kept, in two pieces if something between them is missing."""

    header: Record
    counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    size: int = 0
    outside: int = 0  #: steps that were not asked for
    dropped: int = 0  #: steps between the two pieces
    paths: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)  #: actors that are none of ours
    _head: list[Step] = field(default_factory=list)
    _tail: deque[Step] = field(default_factory=deque)
    _carried: dict[str, Any] = field(default_factory=dict)  #: state that changed in the gap

    @property
    def kept(self) -> int:
        """Steps that are kept."""
        return len(self._head) + len(self._tail)

    @property
    def gap(self) -> int:
        """The index of the first step after the gap, -1 without one."""
        return len(self._head) if self.dropped else -1

    @property
    def title(self) -> str:
        """Its mode, or what else there is to call it by."""
        return str(clip(self.header.get("mode") or "one run"))

    def count(self, name: str) -> None:
        """An event came."""
        self.total += 1
        self.counts[name if name in self.counts or len(self.counts) < NAMES else OTHER] += 1

    def add(self, step: Step) -> None:
        """Keep it, for now."""
        if step.actor not in ACTORS and step.actor not in self.strangers:
            if len(self.strangers) < STRANGERS:
                self.strangers.add(step.actor)
            else:
                step.actor = OTHER
        for path in step.state.keys() - self.paths:
            if len(self.paths) < PATHS:
                self.paths.add(path)
            else:
                del step.state[path]
        self._tail.append(step)
        self.size += step.size

    def before(self, state: dict[str, Any]) -> None:
        """What changed before the first step that is kept."""
        self._carried |= state

    def drop(self) -> None:
        """Give up one step in the middle."""
        if not self.dropped:
            steps = [*self._head, *self._tail]
            self._head, self._tail = steps[: len(steps) // 2], deque(steps[len(steps) // 2 :])
        if len(self._head) > len(self._tail):
            step = self._head.pop()
            self._carried = step.state | self._carried
        else:
            step = self._tail.popleft()
            self._carried |= step.state
        self.dropped += 1
        self.size -= step.size

    def steps(self) -> Iterator[Step]:
        """What is kept, in order; the state that changed before or in the gap goes with the step after it."""
        yield from self._head
        carried = self._carried
        for step in self._tail:
            if carried:
                step.state, carried = carried | step.state, {}
            yield step

    def missing(self) -> str:
        """What is not in the page, for a person; empty when it has everything."""
        told = []
        if self.outside:
            told.append(f"{self.outside:,} of {self.total:,} steps are outside the part that was asked for")
        if self.dropped:
            told.append(
                f"{self.dropped:,} steps in the middle are left out: the page has {self.kept:,} of {self.total:,}, "
                "the beginning and the end; choose a part with --from and --to"
            )
        return ". ".join(told)


@dataclass
class Part:
    """The kept part of a whole trace."""

    runs: list[Run] = field(default_factory=list)
    more: int = 0  #: runs that are not kept


def gather(
    records: Iterable[Record],
    *,
    first: int | None = None,
    last: int | None = None,
    events: int = EVENTS,
    size: int = BYTES,
) -> Part:
    """Read all ``records``; keep those numbered ``first`` to ``last`` (inclusive), within the bounds.

    ``events``: steps in all; ``size``: bytes in all. When they do not suffice, the largest run gives way.
    """
    part = Part()
    run = None
    for record in records:
        if MAGIC in record:
            run = Run(record)
            if len(part.runs) < RUNS:
                part.runs.append(run)
            else:
                part.more += 1
            continue
        assert run is not None, "the reader lets no record pass before a header"
        run.count(clip(record["name"]))
        if part.more:
            continue
        number = record["n"]
        if (first is not None and number < first) or (last is not None and number > last):
            run.outside += 1
            if first is not None and number < first and record.get("s"):
                run.before(Step.of(record).state)
            continue
        run.add(Step.of(record))
        while sum(each.kept for each in part.runs) > events:
            max(part.runs, key=lambda each: each.kept).drop()
        while sum(each.size for each in part.runs) > size:
            max(part.runs, key=lambda each: each.size).drop()
    return part
