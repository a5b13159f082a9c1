"""One refused call of a trace: what it asked, what came before it, the state that it met, and why it was refused."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import Any

from kvmvfio_emu.view.clauses import source
from kvmvfio_emu.view.explain import NothingToExplainError, _clause, advice
from kvmvfio_emu.view.read import read
from kvmvfio_emu.view.sink import MAGIC, Record

_CALLS = {"ioctl": "ioctl_return", "call": "call_return"}
_RETURNS = tuple(_CALLS.values())
_MOST_OPEN = 4096  #: calls in progress, and things with a history
_REMEMBERED = 4  #: earlier calls of each thing
_MOST_STATE = 12
_FIRST_SPI = 32


class _Seen:
    """What a reader of the trace knows at one place of it."""

    def __init__(self) -> None:
        self.run = 0
        self.header: Record = {}
        self.open: dict[int, Record] = {}
        self.state: dict[str, Any] = {}
        self.history: dict[str, deque[tuple[Record, Record]]] = {}

    def begin(self, header: Record) -> None:
        self.run += 1
        self.header = header
        self.open, self.state, self.history = {}, {}, {}

    def event(self, record: Record) -> tuple[Record, Record] | None:
        """Take an event; a call and its return when it is the latter."""
        for path, value in record.get("s", {}).items():
            if value is None:
                self.state.pop(path, None)
            else:
                self.state[path] = value
        if record["name"] in _CALLS:
            self.open[record["n"]] = record
            _bound(self.open)
        elif record["name"] in _RETURNS:
            call = self.open.pop(record.get("cause", 0), None)
            return (call or {"n": record["n"], "t": record["t"], "f": record.get("f", {})}), record
        return None

    def remember(self, call: Record, returned: Record) -> None:
        """A call succeeded: it may be the reason for a later refusal."""
        for thing in _things(call):
            self.history.setdefault(thing, deque(maxlen=_REMEMBERED)).append((call, returned))
            _bound(self.history)

    def before(self, call: Record) -> list[tuple[Record, Record]]:
        """Earlier calls about the same things, oldest first."""
        found = {past[0]["n"]: past for thing in _things(call) for past in self.history.get(thing, ())}
        return [found[number] for number in sorted(found)]

    def relevant_state(self, call: Record) -> dict[str, Any]:
        """What the state says of the numbers in the call."""
        wanted = set()
        for value in _numbers(call.get("f", {}).get("in", {})):
            wanted |= {str(value), str(value + _FIRST_SPI)}
        paths = [path for path in self.state if wanted & set(path.split("."))]
        return {path: self.state[path] for path in paths[:_MOST_STATE]}


def from_trace(path: str | os.PathLike[str], number: int | None = None, run: int | None = None) -> dict[str, Any]:
    """Explain call ``number`` (that of the call or of its return) of a run (default: the first that has it).

    Without a number: the last call of the trace, or of the run, that was refused. `TraceError` for what is no trace.
    """
    seen = _Seen()
    found: dict[str, Any] | None = None
    for record in read(path):
        if MAGIC in record:
            seen.begin(record)
            continue
        if run not in (None, seen.run):
            continue
        if number is not None and record["n"] == number and record["name"] not in (*_CALLS, *_RETURNS):
            raise NothingToExplainError(f"{path}: event {number} of run {seen.run} is {record['name']}, no call")
        done = seen.event(record)
        if done is None:
            continue
        call, returned = done
        refused = "errno" in returned.get("f", {})
        if number is not None and number in (call["n"], returned["n"]):
            if not refused:
                result = returned.get("f", {}).get("result")
                raise NothingToExplainError(f"{path}: {_name(call)}, event {call['n']}, was not refused: {result}")
            return _explained(seen, call, returned)
        if refused and number is None:
            found = _explained(seen, call, returned)
        if not refused:
            seen.remember(call, returned)
    if found is None:
        where = f"run {run} of " if run is not None else ""
        what = "no call was refused" if number is None else f"no call {number} that returned"
        raise NothingToExplainError(f"{path}: {what} in {where}{seen.run} runs")
    return found


def _explained(seen: _Seen, call: Record, returned: Record) -> dict[str, Any]:
    fields, result = call.get("f", {}), returned.get("f", {})
    errno, reason = str(result["errno"]), str(result.get("reason", ""))
    inside = fields.get("in", {})
    group = inside.get("group") if isinstance(inside, dict) else None
    found: dict[str, Any] = {
        "run": seen.run,
        "mode": seen.header.get("mode"),
        "profile": seen.header.get("profile"),
        "n": call["n"],
        "time": call["t"],
        "call": _name(call),
        "file": " ".join(str(fields[key]) for key in ("file", "detail") if key in fields),
        "fd": fields.get("fd"),
        "in": inside,
        "errno": errno,
        "reason": reason,
    }
    if "injected" in result:
        found["injected"] = result["injected"]
        return found
    found["clauses"] = [_clause(clause) for clause in source().matching(errno, reason)]
    found["before"] = [
        {"n": past["n"], "call": _name(past), "in": past.get("f", {}).get("in", {}), "result": after["f"].get("result")}
        for past, after in seen.before(call)
    ]
    found["state"] = seen.relevant_state(call)
    found["advice"] = advice(errno, *([str(group)] if group else []), _name(call))
    return found


def _name(call: Record) -> str:
    fields = call.get("f", {})
    return str(fields.get("request") or fields.get("call") or "?")


def _things(call: Record) -> Iterator[str]:
    """What a call is about: descriptors in its argument, the gsi, else the same request on the same file."""
    fields = call.get("f", {})
    inside = fields.get("in", {})
    yield from _descriptors(inside)
    if isinstance(inside, dict) and "gsi" in inside:
        yield f"{fields.get('file')} {fields.get('detail')} gsi {inside['gsi']}"
    yield f"{fields.get('file')} {fields.get('detail')} {fields.get('fd')} {_name(call)}"


def _descriptors(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("is"), str):
            yield value["is"]
        for item in value.values():
            yield from _descriptors(item)
    elif isinstance(value, list):
        for item in value:
            yield from _descriptors(item)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("gsi", "irq", "index", "value"):
                yield from _numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif type(value) is int:
        yield value


def _bound(table: dict[Any, Any]) -> None:
    if len(table) > _MOST_OPEN:
        del table[next(iter(table))]
