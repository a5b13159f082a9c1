"""Records as lines of text in the manner of strace: calls with their arguments, and what happens because of them.

The grammar is in docs/reference/trace.md and stays as it is, since people write scripts against it.
"""

from __future__ import annotations

import json
import re
from typing import Any, TextIO

from kvmvfio_emu.view.actors import sentence
from kvmvfio_emu.view.sink import Record

#: Characters that are kept back, at most, unless somebody watches.
_HELD = 1 << 16
_BARE = re.compile(r"[A-Za-z0-9_|]+")
_CALLS = ("ioctl", "call")
_RETURNS = ("ioctl_return", "call_return")


class TextSink:
    """Writes to ``file``, which `close` closes if ``owned``. ``live``: each line at once, as for a terminal."""

    def __init__(self, file: TextIO, *, owned: bool = True, live: bool = False) -> None:
        self._file = file
        self._owned = owned
        self._live = live
        self._lines: list[str] = []
        self._held = 0
        self._open: dict[int, Record] = {}  #: calls that have not returned, by their numbers
        self._last: Record | None = None  #: the call whose line is not written yet: it may return at once

    def begin(self, header: Record) -> None:
        """A new run."""
        self._unfinished()
        self._open.clear()
        mode = f", {header['mode']}" if header.get("mode") else ""
        self._write(f"--- {header.get('profile')} on {header.get('machine')}, GICv{header.get('gic')}{mode} ---")

    def record(self, record: Record) -> None:
        """One line, or none for a call that may return at once."""
        name = record["name"]
        if name in _CALLS:
            self._unfinished()
            self._open[record["n"]] = self._last = record
        elif name in _RETURNS:
            self._returned(record)
        else:
            self._unfinished()
            cause = f" <- #{record['cause']}" if "cause" in record else ""
            what = sentence(name, record.get("f", {}))
            self._write(f" t={record['t']} {record['actor']:<9} {what} (#{record['n']}{cause})")
            self._state(record)

    def close(self) -> None:
        """The trace is complete."""
        self._unfinished()
        self._flush()
        if self._owned:
            self._file.close()

    # -- calls ----------------------------------------------------------------------------------------------------

    def _unfinished(self) -> None:
        """Something happens before the last call returns."""
        call, self._last = self._last, None
        if call is not None:
            name, argument = _words(call)
            self._write(f"{_head(call)}{name}({argument} <unfinished ...> (#{call['n']})")
            self._state(call)

    def _returned(self, record: Record) -> None:
        call = self._open.pop(record.get("cause", 0), None)
        fields = record.get("f", {})
        out = f" => {value(fields['out'])}" if fields.get("out") else ""
        result = _result(fields)
        if call is not None and call is self._last:
            self._last = None
            name, argument = _words(call)
            self._write(f"{_head(call)}{name}({(argument + out).lstrip()}) = {result} (#{call['n']})")
            self._state(call)
        else:
            self._unfinished()
            name, _ = _words(record)
            cause = f" <- #{record['cause']}" if "cause" in record else ""
            who = _head(record if call is None else call)
            self._write(f"{who}<... {name} resumed>{out}) = {result} (#{record['n']}{cause})")
        self._state(record)

    # -- lines ----------------------------------------------------------------------------------------------------

    def _state(self, record: Record) -> None:
        if "s" in record:
            self._write("    " + ", ".join(f"{path}={value(what)}" for path, what in record["s"].items()))

    def _write(self, line: str) -> None:
        self._lines.append(printable(line))
        self._held += len(line)
        if self._live or self._held > _HELD:
            self._flush()

    def _flush(self) -> None:
        if self._lines:
            self._file.write("\n".join([*self._lines, ""]))
            self._lines.clear()
            self._held = 0
        self._file.flush()


def _head(record: Record) -> str:
    fields = record.get("f", {})
    task = f"[{fields['task']}] " if "task" in fields else ""
    if "file" not in fields:
        return task
    kind = f"{fields['file']}:{fields['detail']}" if "detail" in fields else fields["file"]
    return f"{task}{kind}({fields.get('fd', '?')}) {'ioctl ' if 'request' in fields else ''}"


def _words(record: Record) -> tuple[str, str]:
    """(name, argument) of a call or a return."""
    fields = record.get("f", {})
    name = str(fields.get("request") or fields.get("call") or "?")
    if "in" in fields:
        return name, value(fields["in"])
    return name, value(fields["arg"]) if "arg" in fields else ""


def _result(fields: dict[str, Any]) -> str:
    result = str(fields.get("result", "?"))
    if "is" in fields:
        result += f"<{fields['is'].replace(' ', ':', 1)}>"
    injected = fields.get("injected")
    if "errno" in fields:
        result += f" {fields['errno']} ({str(fields.get('reason', '')).removesuffix(' (INJECTED)')})"
    return result + (" (DELAYED)" if injected == "delay" else " (INJECTED)" if injected else "")


def value(what: Any) -> str:
    """A value of a record: ``{a=1, b=9<eventfd:12>}``, ``[1, 2]``, a bare word, or a quoted text."""
    if isinstance(what, dict):
        if what.keys() == {"fd", "is"}:
            return f"{what['fd']}<{str(what['is']).replace(' ', ':', 1)}>"
        return "{" + ", ".join(f"{key}={value(part)}" for key, part in what.items()) + "}"
    if isinstance(what, list):
        return "[" + ", ".join(value(part) for part in what) + "]"
    if isinstance(what, str) and _BARE.fullmatch(what):
        return what
    return json.dumps(what)


def printable(line: str) -> str:
    """``line`` with what would act on a terminal, or look like another line, spelled out."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)
