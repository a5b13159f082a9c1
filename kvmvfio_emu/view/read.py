"""Reading a trace back: JSON Lines, one record at a time, with the place in every complaint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view.sink import MAGIC, VERSION, Record

#: The longest line that is read: far more than any record, and not the memory of a file without line ends.
LONGEST = 1 << 22

_FIELDS: tuple[tuple[str, type], ...] = (("n", int), ("t", int), ("name", str), ("actor", str))
_OPTIONAL: tuple[tuple[str, type], ...] = (("cause", int), ("f", dict), ("s", dict))
_Wrong = Callable[[str], "TraceError"]


class TraceError(KvmVfioEmuError):
    """A trace that cannot be read; the message begins with the file and the line."""


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Every record of a trace: a header (`is_header`) begins each run, its events follow, their numbers rising.

    In constant memory. `TraceError` when the file cannot be read, is no trace, is cut off or has a broken line; what
    came before that line has been given.
    """
    number = last = 0
    in_run = False
    name = os.fspath(path)

    def wrong(what: str) -> TraceError:
        return TraceError(f"{name}:{number}: {what}")

    try:
        with open(path, "rb") as lines:
            while line := lines.readline(LONGEST):
                number += 1
                record = _parse(line, wrong, first=number == 1)
                if MAGIC in record:
                    if type(record[MAGIC]) is not int or record[MAGIC] != VERSION:
                        raise wrong(f"a trace of version {record[MAGIC]!r:.40}; this program reads version {VERSION}")
                    in_run, last = True, 0
                elif not in_run:
                    raise wrong(f"not a trace: it does not begin with a header, an object that has {MAGIC!r}")
                else:
                    last = _check(record, last, wrong)
                yield record
    except OSError as error:
        raise TraceError(f"{name}: {error.strerror}") from None
    if not in_run:
        raise TraceError(f"{name}: empty, there is no header")


def is_header(record: Record) -> bool:
    """Whether it begins a run."""
    return MAGIC in record


def _parse(line: bytes, wrong: _Wrong, *, first: bool) -> Record:
    whole = line.endswith(b"\n")
    if not whole and len(line) == LONGEST:
        raise wrong(f"a line of more than {LONGEST} bytes" + ("; not a trace" if first else ""))
    try:
        record: Any = json.loads(line)
    except UnicodeDecodeError:
        raise wrong("not a trace: not text" if first else "not UTF-8") from None
    except json.JSONDecodeError as error:
        if not whole:
            raise wrong("the trace is cut off in the middle of this line") from None
        if first:
            raise wrong("not a trace: its first line is not JSON") from None
        raise wrong(f"not JSON at column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        raise wrong(f"not JSON that can be read: {error}") from None
    if not isinstance(record, dict):
        raise wrong("not a trace: not an object" if first else "not an object")
    return record


def _check(record: Record, last: int, wrong: _Wrong) -> int:
    for key, kind in _FIELDS:
        if type(record.get(key)) is not kind:
            raise wrong(f"an event needs {key!r}, of type {kind.__name__}; here is {record.get(key)!r:.40}")
    for key, kind in _OPTIONAL:
        if key in record and type(record[key]) is not kind:
            raise wrong(f"{key!r} of an event is of type {kind.__name__}; here is {record[key]!r:.40}")
    number: int = record["n"]
    if number <= last:
        raise wrong(f"event {number} after event {last}: the numbers of a run go up")
    return number
