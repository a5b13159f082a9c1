"""Value change dumps (IEEE 1364) for wave viewers: lines, interrupt states and signals over time.

What a variable is comes from the recorded state; where none was recorded, from the events that speak of a line. Each
run is a scope. A number is an integer, yes and no are a wire, a GIC state is two bits (pending, active), a signal is an
event, anything else a string as GTKWave has them.

The time in nanoseconds is the model's. Much happens in one of them: the steps of a nanosecond are a picosecond apart,
so that their order shows. Variables are declared before the first change, so the changes are kept in memory until
`close`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from kvmvfio_emu.view.extra import load
from kvmvfio_emu.view.sink import Record

_STEPS = 1000  #: picoseconds in a nanosecond
_GIC_STATES = {"I": 0, "P": 1, "A": 2, "AP": 3}
_INTEGER_BITS = 64

#: Events that are a moment -> the variable, by their fields.
_SIGNALS: dict[str, str] = {
    "host_irq": "irq.{irq}.handler",
    "eventfd_trigger": "eventfd.{irq}.trigger",
    "eventfd_resample": "eventfd.gsi.{gsi}.resample",
    "eventfd_write": "eventfd.{eventfd}.write",
    "msi": "msi.{device}.{vector}.message",
    "work": "irqfd.{gsi}.work",
    "resample_ack": "irqfd.{gsi}.ack",
    "guest_iar": "guest.{vcpu}.iar",
    "guest_eoi": "guest.{vcpu}.eoi",
    "hw_deactivate": "gic.{irq}.hw_deactivate",
}
#: Events that say a level -> the variable, and its value by the event's fields. Where state is recorded, as there.
_LEVELS: dict[str, tuple[str, Callable[[Record], Any]]] = {
    "line_up": ("gic.{irq}.line", lambda fields: True),
    "line_down": ("gic.{irq}.line", lambda fields: False),
    "gicd_mask": ("gic.{irq}.enabled", lambda fields: False),
    "gicd_unmask": ("gic.{irq}.enabled", lambda fields: True),
    "set_irq": ("irqfd.{gsi}.level", lambda fields: bool(fields.get("level"))),
    "vmentry": ("guest.{vcpu}.in_guest", lambda fields: True),
    "guest_irq": ("guest.{vcpu}.in_handler", lambda fields: True),
    "guest_eret": ("guest.{vcpu}.in_handler", lambda fields: False),
}


class _Change(NamedTuple):
    time: int  #: picoseconds
    run: int
    path: str
    value: Any  #: None: gone


class VcdSink:
    """Writes to ``file``, which `close` closes if ``owned``."""

    def __init__(self, file: TextIO, *, owned: bool = True) -> None:
        self._vcd = load("vcd", "a value change dump", "trace")
        self._file = file
        self._owned = owned
        self._runs: list[str] = []
        self._headers: list[Record] = []
        self._changes: list[_Change] = []
        self._signals: set[tuple[int, str]] = set()
        self._last: dict[str, Any] = {}
        self._now = -1
        self._step = 0

    def begin(self, header: Record) -> None:
        """A new run: a scope of its own."""
        name = _identifier(str(header.get("mode") or f"run_{len(self._runs) + 1}"))
        self._runs.append(name if name not in self._runs else f"{name}_{len(self._runs) + 1}")
        self._headers.append(header)
        self._last = {}
        self._now = -1

    def record(self, record: Record) -> None:
        """One event: what it says of levels and signals, and what changed of the state."""
        if not self._runs:
            self.begin({})
        time, name, fields = int(record["t"]), str(record["name"]), record.get("f", {})
        if time != self._now:
            self._now, self._step = time, 0
        changed = self._implied(name, fields)
        changed.update(record.get("s", {}))
        run, at = len(self._runs) - 1, time * _STEPS + min(self._step, _STEPS - 1)
        count = len(self._changes)
        signal = _path(_SIGNALS[name], fields) if name in _SIGNALS else None
        if signal is not None:
            self._signals.add((run, signal))
            self._changes.append(_Change(at, run, signal, True))
        for path, value in changed.items():
            if path not in self._last or self._last[path] != value:
                self._last[path] = value
                self._changes.append(_Change(at, run, path, value))
        self._step += len(self._changes) > count

    @staticmethod
    def _implied(name: str, fields: Record) -> dict[str, Any]:
        if name.startswith("vmexit_"):
            path = _path("guest.{vcpu}.in_guest", fields)
            return {} if path is None else {path: False}
        if name not in _LEVELS:
            return {}
        template, value = _LEVELS[name]
        path = _path(template, fields)
        return {} if path is None else {path: value(fields)}

    def close(self) -> None:
        """Write it all."""
        comment = "\n".join(json.dumps(header, sort_keys=True) for header in self._headers)
        with self._vcd.VCDWriter(self._file, timescale="1 ps", comment=_ascii(comment), check_values=True) as writer:
            variables = self._declare(writer)
            for change in sorted(self._changes, key=lambda change: change.time):  # stable: a run's order stays
                variable = variables[change.run, change.path]
                writer.change(variable.handle, change.time, variable.form(change.value))
        self._file.flush()
        if self._owned:
            self._file.close()

    def _declare(self, writer: Any) -> dict[tuple[int, str], _Variable]:
        values: dict[tuple[int, str], set[Any]] = {}
        for change in self._changes:
            values.setdefault((change.run, change.path), set()).add(_hashable(change.value))
        taken: set[tuple[str, ...]] = set()
        variables = {}
        for (run, path), seen in sorted(values.items()):
            *scope, name = _scopes(path)
            place = (self._runs[run], *scope)
            while (*place, name) in taken:  # two paths that differ in what an identifier cannot say
                name += "_"
            taken.add((*place, name))
            kind = _EVENT if (run, path) in self._signals else _kind(path, seen)
            options = {} if kind.size is None else {"size": kind.size}
            handle = writer.register_var(place, name, kind.type, init=kind.init, **options)
            variables[run, path] = _Variable(handle, kind.form)
        return variables


class _Variable(NamedTuple):
    handle: Any
    form: Callable[[Any], Any]


class _Kind(NamedTuple):
    """A type of variable: how its values are written."""

    type: str
    size: int | None
    init: Any
    form: Callable[[Any], Any]


_EVENT = _Kind("event", None, True, lambda value: True)
_WIRE = _Kind("wire", 1, "x", lambda value: "x" if value is None else int(value))
_INTEGER = _Kind("integer", _INTEGER_BITS, "x", lambda value: "x" if value is None else int(value))
_GIC = _Kind("reg", 2, "x", lambda value: "x" if value is None else _GIC_STATES[value])
_STRING = _Kind("string", None, "", lambda value: "" if value is None else _text(value))


def _kind(path: str, values: set[Any]) -> _Kind:
    """What can hold all that a variable was."""
    known = values - {None}
    if all(isinstance(value, bool) for value in known):
        return _WIRE
    limit = 1 << (_INTEGER_BITS - 1)
    if all(isinstance(value, int) and -limit <= value < limit for value in known):
        return _INTEGER
    if path.startswith("gic.") and known <= _GIC_STATES.keys():
        return _GIC
    return _STRING


def _hashable(value: Any) -> Any:
    """A value to collect in a set. True and 1 are one there, but a bool is also a number."""
    return _text(value) if isinstance(value, (dict, list)) else value


def _path(template: str, fields: Record) -> str | None:
    """A template filled in; None when the event lacks a field of it."""
    try:
        return template.format_map(fields)
    except KeyError:
        return None


def _text(value: Any) -> str:
    return _ascii(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))


def _ascii(text: str) -> str:
    """VCD is ASCII; and its reader takes `$end` for an end wherever it stands."""
    return text.encode("ascii", "backslashreplace").decode().replace("$end", "$ end")


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", text) or "_"


def _scopes(path: str) -> list[str]:
    """``gic.112.state`` -> gic_112, state: a number belongs to the word before it."""
    names: list[str] = []
    for part in path.split("."):
        if names and part[:1].isdigit():
            names[-1] += "_" + _identifier(part)
        else:
            names.append(_identifier(part))
    return [name if not name[0].isdigit() else f"_{name}" for name in names]
