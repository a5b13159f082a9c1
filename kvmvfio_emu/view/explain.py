"""Why a call was refused: the clause, what of Linux it is, what brings a program there, what to do instead."""

from __future__ import annotations

import errno as _errno
import os
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view import catalogue
from kvmvfio_emu.view.catalogue import Attribute, Handled, Said
from kvmvfio_emu.view.clauses import Clause
from kvmvfio_emu.view.describe import UnknownError
from kvmvfio_emu.view.requests import by_name, close_to, names

#: The calls whose refusals are, for the most part, those of what they are told to do to a device.
ATTRIBUTE_CALLS = ("KVM_SET_DEVICE_ATTR", "KVM_GET_DEVICE_ATTR", "KVM_HAS_DEVICE_ATTR")


class NothingToExplainError(KvmVfioEmuError):
    """There is no refusal where one was asked for."""


@cache
def _advice() -> dict[str, dict[str, dict[str, str]]]:
    return tomllib.loads(files("kvmvfio_emu.view").joinpath("advice.toml").read_text("utf-8"))


def advice(errno: str, *subjects: str) -> dict[str, str] | None:
    """``cause`` and ``do`` of an errno, of the first subject (ioctl, attribute group) that has any, or in general."""
    for subject in (*subjects, "any"):
        found = _advice().get(subject, {}).get(errno)
        if found is not None:
            return found
    return None


def errno_name(word: str) -> str:
    """``EBUSY``, ``ebusy``, ``16`` or ``-16`` -> EBUSY."""
    name = word.upper()
    if word.lstrip("-").isdigit():
        name = _errno.errorcode.get(abs(int(word)), word)
    if not name.startswith("E") or not hasattr(_errno, name):
        close = close_to(word, _errno.errorcode.values())
        raise UnknownError(f"no errno is called {word!r}" + (f"; perhaps {' or '.join(close)}?" if close else ""))
    return name


def is_subject(word: str) -> bool:
    """Whether ``word`` is something that can be explained in general, not a file."""
    return bool(by_name(word.upper())) or bool(list(_attributes(word.upper())))


def in_general(word: str, errno: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
    """What an ioctl or an attribute (or its group) is refused with; one entry for each handler or device type."""
    name = word.upper()
    found = [_of_attribute(one, name, errno) for one in _attributes(name)]
    for one in catalogue.handled():
        if one.name == name and kind in (None, one.kind):
            found.append(_of_request(one, errno))
            if name in ATTRIBUTE_CALLS and one.kind == "device":
                found += [_of_attribute(row, row.row.group, errno) for row in catalogue.attributes()]
    if found:
        return _with_something(found, name, errno)
    if by_name(name):
        where = f" on a {kind} file" if kind else ""
        raise NothingToExplainError(f"{name} is not answered{where} here: see the reference of what is")
    every = {*names(), *(n for one in catalogue.attributes() for n in (one.row.group, *one.row.names))}
    close = close_to(word, every)
    raise UnknownError(
        f"no request or attribute is called {word!r}" + (f"; perhaps {' or '.join(close)}?" if close else "")
    )


def _with_something(found: list[dict[str, Any]], name: str, errno: str | None) -> list[dict[str, Any]]:
    """Without those that do not know the errno."""
    if errno is None:
        return found
    kept = [entry for entry in found if entry["errors"]]
    if kept:
        return kept
    known = sorted({code for entry in in_general(name) for code in entry["errors"]})
    raise NothingToExplainError(f"{name} is not refused with {errno} here, but with {', '.join(known)}")


def _attributes(name: str) -> Iterator[Attribute]:
    return (one for one in catalogue.attributes() if name == one.row.group or name in one.row.names)


def _of_request(one: Handled, errno: str | None) -> dict[str, Any]:
    errors: dict[str, Any] = {}
    for said in catalogue.said(one):
        _entry(errors, said.errno, errno, one.name)
        if said.errno in errors:
            _add_said(errors[said.errno], said)
    for clause in catalogue.clauses(one):
        # Where the profile chooses the errno, the docstring says which ones there are.
        if clause.errno:
            _entry(errors, clause.errno, errno, one.name)
        for code in [clause.errno] if clause.errno else list(errors):
            if code in errors and (clause.errno or one.name not in ATTRIBUTE_CALLS):
                errors[code]["clauses"].append(_clause(clause))
    return {
        "request": one.name,
        "file": one.kind,
        "models": catalogue.models(one.handler),
        "errors": dict(sorted(errors.items())),
    }


def _of_attribute(one: Attribute, name: str, errno: str | None) -> dict[str, Any]:
    errors: dict[str, Any] = {}
    for said in catalogue.attribute_errors(one):
        _entry(errors, said.errno, errno, name, one.row.group)
        if said.errno in errors:
            _add_said(errors[said.errno], said)
    return {
        "attribute": name,
        "group": one.row.group,
        "device": one.device,
        "what": one.row.what,
        "models": catalogue.models(one.cls),
        "errors": dict(sorted(errors.items())),
    }


def _entry(errors: dict[str, Any], code: str, wanted: str | None, *subjects: str) -> None:
    if code not in errors and (wanted is None or getattr(_errno, wanted) == getattr(_errno, code)):
        errors[code] = {"text": os.strerror(getattr(_errno, code)), "said": [], "clauses": []}
        found = advice(code, *subjects)
        if found is not None:
            errors[code]["advice"] = found


def _add_said(entry: dict[str, Any], said: Said) -> None:
    if said.text and said.text not in entry["said"]:
        entry["said"].append(said.text)


def _clause(clause: Clause) -> dict[str, Any]:
    return {
        "reason": clause.reason,
        "file": clause.file,
        "function": clause.function,
        "line": clause.line,
        "models": clause.models,
    }


assert set(ATTRIBUTE_CALLS) <= {row.name for row in uapi.IOCTLS.values()}
