"""A picture of a trace: a column for each actor, a row for each event, an arrow from each cause to its effect.

One SVG element without colours of its own (``currentColor``), so that it fits a light page and a dark one; with a
title, and a description for those who do not see it. For a few dozen events, as one interrupt has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from kvmvfio_emu.view.actors import ACTORS, actor, sentence
from kvmvfio_emu.view.sink import MAGIC, Record

_ROW, _LANE, _TOP, _LEFT = 23, 26, 80, 4
_TEXT, _LETTER, _COLUMN = 12, 6.4, 14
_LONGEST = 50
#: How far to the side an arrow within one lane bulges.
_BULGE = 12


class _Row(NamedTuple):
    """One event, where it stands, and what of the watched state it changed."""

    record: Record
    lane: int
    y: float
    text: str
    state: dict[str, str]

    @property
    def number(self) -> int:
        return int(self.record["n"])


def timeline_svg(
    records: Iterable[Record],
    *,
    at: int | None = None,
    title: str = "What happens, and why",
    watch: Mapping[str, str] | None = None,
    ident: str = "timeline",
) -> str:
    """The ``<svg>`` of ``records`` (one run's, as `Kernel.trace` gives them; headers are passed over).

    ``at``: the number of an event to mark, with its causes and effects. ``watch``: heading -> path of a piece of state
    (as in the records' ``s``) that gets a column. ``ident``: for the element ids, different in each picture of a page.
    ValueError: there is nothing to draw, or no event ``at``.
    """
    events = [record for record in records if MAGIC not in record]
    if not events:
        raise ValueError("no event to draw")
    if at is not None and all(event["n"] != at for event in events):
        raise ValueError(f"no event {at} in the picture")
    used = {_lane(event) for event in events}
    lanes = [*(name for name in ACTORS if name in used), *sorted(used - set(ACTORS))]
    rows = _rows(events, lanes, watch or {})
    by_number = {row.number: row for row in rows}
    marked = set() if at is None else {at, *_causes(at, by_number), *_effects(at, rows)}
    text_x = _LEFT + _LANE * len(lanes) + 6
    state_x = text_x + _LETTER * max(len(row.text) for row in rows) + _COLUMN
    places = _columns(rows, watch or {}, state_x)
    width = (places[-1][1] + places[-1][2] if places else state_x) + 4
    height = _TOP + _ROW * len(rows) + 6
    parts = [
        f'<svg class="kvmvfio-timeline" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-labelledby="{ident}-title {ident}-desc" '
        f'font-family="ui-sans-serif, system-ui, sans-serif" font-size="{_TEXT}" fill="currentColor">',
        f'<title id="{ident}-title">{escape(title)}</title>',
        f'<desc id="{ident}-desc">{escape(_description(rows, by_number))}</desc>',
        f'<defs><marker id="{ident}-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0.5 L8 4 L0 7.5 z" fill="currentColor"/></marker></defs>',
        *_heads(lanes, places, height),
    ]
    for row in rows:
        cause = by_number.get(row.record.get("cause", 0))
        if cause is not None:
            parts.append(_arrow(cause, row, strong=at is None or {cause.number, row.number} <= marked, ident=ident))
    for row in rows:
        parts += _event(row, text_x, places, here=row.number == at, faint=bool(marked) and row.number not in marked)
    return "".join([*parts, "</svg>"])


# ---- what is drawn ---------------------------------------------------------------------------------------------


def _lane(record: Record) -> str:
    return str(record.get("actor") or actor(record["name"]))


def _rows(events: Sequence[Record], lanes: Sequence[str], watch: Mapping[str, str]) -> list[_Row]:
    rows = []
    for number, event in enumerate(events):
        changed = event.get("s", {})
        state = {head: _value(changed[path]) for head, path in watch.items() if path in changed}
        text = sentence(event["name"], event.get("f", {}))
        text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
        rows.append(_Row(event, lanes.index(_lane(event)), _TOP + _ROW * (number + 0.5), text, state))
    return rows


def _value(value: Any) -> str:
    names = {None: "none", True: "yes", False: "no"}
    return names[value] if value is None or isinstance(value, bool) else str(value)


def _causes(number: int, rows: Mapping[int, _Row]) -> set[int]:
    """The events that led to ``number``."""
    found: set[int] = set()
    while number in rows and (number := rows[number].record.get("cause", 0)) in rows:
        found.add(number)
    return found


def _effects(number: int, rows: Iterable[_Row]) -> set[int]:
    """The events that ``number`` led to; a cause comes before its effects."""
    found = {number}
    for row in rows:
        if row.record.get("cause", 0) in found:
            found.add(row.number)
    return found - {number}


def _description(rows: Sequence[_Row], by_number: Mapping[int, _Row]) -> str:
    """The picture in words: each event with its actor, its cause and what it changed."""
    lines = []
    for row in rows:
        cause = row.record.get("cause", 0)
        because = f", because of {cause}" if cause in by_number else ""
        changes = "".join(f"; {head}: {value}" for head, value in row.state.items())
        lines.append(f"{row.number}. {_lane(row.record)} {row.text}{because}{changes}.")
    return " ".join(lines)


# ---- as SVG ------------------------------------------------------------------------------------------------------


def _columns(rows: Sequence[_Row], watch: Mapping[str, str], x: float) -> list[tuple[str, float, float]]:
    """(heading, left edge, width) of each column of state."""
    places = []
    for head in watch:
        width = _LETTER * max([len(head), *(len(row.state.get(head, "")) for row in rows)]) + _COLUMN
        places.append((head, x, width))
        x += width
    return places


def _heads(lanes: Sequence[str], places: Sequence[tuple[str, float, float]], height: float) -> list[str]:
    parts = []
    for number, name in enumerate(lanes):
        x = _x(number)
        parts.append(f'<text transform="translate({x + 4} {_TOP - 10}) rotate(-60)">{escape(name)}</text>')
        parts.append(f'<path d="M{x} {_TOP - 4} V{height - 4}" stroke="currentColor" stroke-opacity="0.2"/>')
    parts += [f'<text x="{x:.0f}" y="{_TOP - 10}" font-weight="bold">{escape(head)}</text>' for head, x, _ in places]
    return parts


def _event(
    row: _Row, text_x: float, places: Sequence[tuple[str, float, float]], *, here: bool, faint: bool
) -> list[str]:
    base = row.y + 4
    weight = ' font-weight="bold"' if here else ""
    parts = [f'<g class="event" opacity="{0.5 if faint else 1}"{weight}>']
    parts.append(f'<circle cx="{_x(row.lane)}" cy="{row.y}" r="{6 if here else 4}"/>')
    parts.append(f'<text x="{text_x}" y="{base}">{escape(row.text)}</text>')
    for head, x, _ in places:
        if head in row.state:
            parts.append(f'<text x="{x:.0f}" y="{base}" font-style="italic">{escape(row.state[head])}</text>')
    return [*parts, "</g>"]


def _arrow(cause: _Row, effect: _Row, *, strong: bool, ident: str) -> str:
    """From the cause's dot to the effect's, ending at its edge."""
    x, y, to_x, to_y = _x(cause.lane), cause.y, _x(effect.lane), effect.y
    if cause.lane == effect.lane:
        path = f"M{x} {y + 4} C{x - _BULGE} {y + 10} {to_x - _BULGE} {to_y - 10} {to_x - 3} {to_y - 5}"
    else:
        side = -5 if to_x > x else 5
        path = f"M{x} {y} C{x} {(y + to_y) / 2} {to_x + 4 * side} {to_y} {to_x + side} {to_y}"
    opacity = 0.8 if strong else 0.25
    head = f'marker-end="url(#{ident}-head)"'
    return f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity="{opacity}" {head}/>'


def _x(lane: int) -> float:
    return _LEFT + _LANE * (lane + 0.5)
