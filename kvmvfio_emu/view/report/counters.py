"""The counters of one or two runs as a table: what a person asks for first, then every event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvmvfio_emu.view.actors import EVENTS

#: Title of a sum -> (what is counted, the events that it is the sum of; a name that ends in _ is a beginning).
SUMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "exits": ("the vCPU leaves the guest", ("vmexit_",)),
    "host interrupts": ("the host's handler runs", ("host_irq", "host_irq_lazy")),
    "eventfd signals": ("trigger and resample", ("eventfd_trigger", "eventfd_resample")),
    "distributor writes": ("the physical GIC's masks", ("gicd_mask", "gicd_unmask")),
    "completions by the hardware": ("no exit, the host does nothing", ("hw_deactivate",)),
}
#: Rows of single events; a trace with more names has the most frequent.
ROWS = 150


@dataclass(frozen=True)
class Row:
    """One line of the table; ``difference`` is empty where there is none, or nothing to compare with."""

    name: str
    values: tuple[int, ...]
    difference: str
    meaning: str
    total: bool = False


def groups(counts: Sequence[Mapping[str, int]]) -> list[list[Row]]:
    """Sums first; then the events that differ; then those that do not."""
    sums = [
        _row(title, [sum(n for name, n in each.items() if _is(name, events)) for each in counts], meaning, total=True)
        for title, (meaning, events) in SUMS.items()
    ]
    names = sorted(
        {name for each in counts for name in each}, key=lambda name: (-max(c.get(name, 0) for c in counts), name)
    )
    order = {name: place for place, name in enumerate(EVENTS)}
    kept = sorted(names[:ROWS], key=lambda name: (order.get(name, len(order)), name))
    rows = [_row(name, [each.get(name, 0) for each in counts], _meaning(name)) for name in kept]
    differ, same = [row for row in rows if row.difference], [row for row in rows if not row.difference]
    return [group for group in ([row for row in sums if any(row.values)], differ, same) if group]


def _row(name: str, values: Sequence[int], meaning: str, *, total: bool = False) -> Row:
    change = values[1] - values[0] if len(values) == 2 else 0
    difference = f"+{change:,}" if change > 0 else f"\N{MINUS SIGN}{-change:,}" if change else ""
    return Row(name, tuple(values), difference, meaning, total)


def _is(name: str, events: Sequence[str]) -> bool:
    return any(name == event or (event.endswith("_") and name.startswith(event)) for event in events)


def _meaning(name: str) -> str:
    """The event's sentence, with its fields as dots."""
    if name not in EVENTS:
        return ""
    actor, sentence = EVENTS[name]
    pieces = [piece.split("}")[-1] if number else piece for number, piece in enumerate(sentence.split("{"))]
    return f"{actor} {'…'.join(pieces)}"
