"""What each step of the model costs: a TOML file, checked so that a mistake is named with its place.

Files in ``kvmvfio_emu/costs`` are loaded by name, others by path; ``arm-2014.toml``, there, explains the form.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view.actors import EVENTS

DEFAULT = "arm-2014"
#: Where a figure comes from; what is only ours comes last.
BASES = ("measured", "published", "recalled", "derived", "assumed")
UNITS = ("cycles", "ns", "GHz")
#: Parameters that no event costs, with the unit that they must have.
MACHINE = {"clock": "GHz", "wire": "ns"}
_HERE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "costs")
_TEXTS = ("basis", "source", "what")
#: More cycles, or nanoseconds, than any step takes: about a second.
_MOST = 1e9


class CostError(KvmVfioEmuError):
    """A cost file cannot be used; the text names file, table and key."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One figure. ``unit`` is one of `UNITS`, ``basis`` one of `BASES`."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    basis: str
    source: str
    what: str


@dataclass(frozen=True, slots=True)
class Costs:
    """A cost model: parameters by name, and for each event of the model the names that it costs."""

    name: str
    description: str
    parameters: dict[str, Parameter]
    events: dict[str, tuple[str, ...]]

    def value(self, name: str) -> float:
        """The present value of parameter ``name``."""
        return self.parameters[name].value

    def with_value(self, name: str, value: float) -> Costs:
        """The same costs, but for one parameter."""
        changed = {**self.parameters, name: replace(self.parameters[name], value=value)}
        return replace(self, parameters=changed)

    def at_end(self, *, high: bool) -> Costs:
        """The same costs, with all cycles at the one or the other end of their ranges."""
        changed = {
            name: replace(one, value=one.high if high else one.low) if one.unit == "cycles" else one
            for name, one in self.parameters.items()
        }
        return replace(self, parameters=changed)

    def of(self, event: str, after: str = "") -> tuple[str, ...]:
        """The parameters that ``event`` costs; ``after`` is the last exit of its vCPU. `CostError` if not listed."""
        found = self.events.get(f"{event} after {after}") if after else None
        if found is None:
            found = self.events.get(event)
        if found is None:
            raise CostError(f"costs {self.name}: events: {event} happens in the model but is not listed")
        return found


def names() -> list[str]:
    """The cost models that come with the package."""
    return sorted(name.removesuffix(".toml") for name in os.listdir(_HERE) if name.endswith(".toml"))


def load(name_or_path: str = DEFAULT) -> Costs:
    """The cost model of that name, or of the file at that path (with a ``/`` or ending in ``.toml``). `CostError`."""
    table, where = _read(name_or_path)
    inherited: set[str] = set()
    if "base" in table:
        base = table.pop("base")
        if not isinstance(base, str) or base not in names():
            raise CostError(f"{where}: base: no costs {base!r}; known: {', '.join(names())}")
        below = _read(base)[0]
        inherited = set(below["parameters"])
        table = _merged(below, table, where)
    return _costs(table, inherited, where)


def _read(name_or_path: str) -> tuple[dict[str, Any], str]:
    import tomllib  # here, as in `hw.boards`

    if "/" not in name_or_path and not name_or_path.endswith(".toml"):
        if name_or_path not in names():
            known = ", ".join(names())
            raise CostError(f"no costs {name_or_path!r}; known: {known}; a path has a / or ends in .toml")
        path = os.path.join(_HERE, f"{name_or_path}.toml")
    else:
        path = name_or_path
    try:
        with open(path, "rb") as file:
            return tomllib.load(file), path
    except OSError as error:
        raise CostError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CostError(f"{path}: not TOML: {error}") from error


def _merged(base: dict[str, Any], own: dict[str, Any], where: str) -> dict[str, Any]:
    """``own`` over ``base``, table by table; a parameter may give only some of its keys."""
    parameters, events = _table(own, "parameters", where), _table(own, "events", where)
    merged = dict(base["parameters"])
    for name in parameters:
        merged[name] = _overridden(merged.get(name, {}), _table(parameters, name, f"{where}: parameters"), where)
    return {**base, **own, "parameters": merged, "events": {**base["events"], **events}}


def _overridden(base: dict[str, Any], own: dict[str, Any], where: str) -> dict[str, Any]:
    """A figure that somebody sets is theirs, not any longer that of the base's source; the range makes room for it."""
    merged = {**base, **own}
    if not base:
        return merged
    if own.keys() & {"value", "low", "high"} and "basis" not in own:
        merged.update(basis="assumed", source=own.get("source", where))
    value = own.get("value")
    if isinstance(value, int | float):
        merged.setdefault("low", value)
        merged.setdefault("high", value)
        for key, choose in (("low", min), ("high", max)):
            if key not in own:
                merged[key] = choose(merged[key], value)
    return merged


def _costs(table: dict[str, Any], inherited: set[str], where: str) -> Costs:
    _known(table, ("name", "description", "parameters", "events"), where)
    entries = _table(table, "parameters", where)
    parameters = {
        name: _parameter(name, _table(entries, name, f"{where}: parameters"), f"{where}: parameters.{name}")
        for name in entries
    }
    for name, unit in MACHINE.items():
        if name not in parameters:
            raise CostError(f"{where}: parameters.{name}: missing")
        if parameters[name].unit != unit:
            raise CostError(f"{where}: parameters.{name}: unit: must be {unit!r}")
    if not parameters["clock"].low:
        raise CostError(f"{where}: parameters.clock: low: a clock of 0 GHz stands still")
    known = set(EVENTS)  # a misspelt event would cost nothing, and nobody would notice
    events = {
        event: _event(event, names, parameters, known, f"{where}: events")
        for event, names in _table(table, "events", where).items()
    }
    used = {name for names in events.values() for name in names}
    for name in parameters:
        if name not in used and name not in MACHINE and name not in inherited:
            raise CostError(f"{where}: parameters.{name}: no event costs it")
    return Costs(_text(table, "name", where), _text(table, "description", where), parameters, events)


def _parameter(name: str, table: dict[str, Any], where: str) -> Parameter:
    _known(table, ("value", "low", "high", "unit", *_TEXTS), where)
    value = _number(table, "value", where)
    low, high = (_number(table, key, where) if key in table else value for key in ("low", "high"))
    if not low <= value <= high:
        raise CostError(f"{where}: value: {value:g} is not within low {low:g} and high {high:g}")
    unit = _text({"unit": "cycles", **table}, "unit", where)
    if unit not in UNITS or (unit != "cycles" and name not in MACHINE):
        raise CostError(f"{where}: unit: {unit!r} is none of {', '.join(UNITS)}, or not for this parameter")
    basis, source, what = (_text(table, key, where) for key in _TEXTS)
    if basis not in BASES:
        raise CostError(f"{where}: basis: {basis!r} is none of {', '.join(BASES)}")
    return Parameter(name, value, low, high, unit, basis, source, what)


def _event(event: str, names: object, parameters: dict[str, Parameter], known: set[str], where: str) -> tuple[str, ...]:
    where = f"{where}: {event}"
    if not isinstance(names, list):
        raise CostError(f"{where}: must be an array of parameter names, is {names!r}")
    name, after, exit_ = event.partition(" after ")
    if after and (name != "vmentry" or not exit_.startswith("vmexit_")):
        raise CostError(f"{where}: only a vmentry can be told apart, by a vmexit that it comes after")
    for one in names:
        if not isinstance(one, str) or one not in parameters:
            raise CostError(f"{where}: no parameter {one!r}")
        if one in MACHINE:
            raise CostError(f"{where}: {one} is not a cost of an event")
    for part in (name, exit_):
        if part and part not in known:
            raise CostError(f"{where}: the model has no event {part!r}")
    return tuple(names)


def _known(table: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise CostError(f"{where}: {key}: unknown key; there are {', '.join(keys)}")


def _table(table: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise CostError(f"{where}: {key}: must be a table, is {value!r}")
    return value


def _text(table: dict[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise CostError(f"{where}: {key}: " + ("missing" if value is None else f"must be a text, is {value!r}"))
    return value


def _number(table: dict[str, Any], key: str, where: str) -> float:
    value = table.get(key)
    if value is None:
        raise CostError(f"{where}: {key}: missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CostError(f"{where}: {key}: must be a number, is {value!r}")
    if not math.isfinite(value) or value < 0:
        raise CostError(f"{where}: {key}: must be finite and not negative, is {value}")
    if value > _MOST:
        raise CostError(f"{where}: {key}: {value:g} is more than {_MOST:g}")
    return value
