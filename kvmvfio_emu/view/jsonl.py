"""Records as JSON Lines: one object a line, as docs/reference/trace.md declares them."""

from __future__ import annotations

import json
from typing import Any, TextIO

from kvmvfio_emu.view.sink import Record

#: Lines that are kept back, at most, before the file gets them.
_HELD = 256
#: Different fields whose text is kept: those of interrupt steps come again and again.
_KNOWN = 4096
#: Fields of more entries are those of calls, no two of which are the same.
_FEW = 4

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class JsonlSink:
    """Writes to ``file``, which `close` closes if ``owned``: each record as `json.dumps` would, but faster."""

    def __init__(self, file: TextIO, *, owned: bool = True) -> None:
        self._file = file
        self._owned = owned
        self._lines: list[str] = []
        self._heads: dict[tuple[str, str], str] = {}
        self._known: dict[str, str] = {}

    def begin(self, header: Record) -> None:
        """A new run."""
        self._write(_encode(header))

    def record(self, record: Record) -> None:
        """One line."""
        name = record["name"], record["actor"]
        head = self._heads.get(name)
        if head is None:
            head = self._heads[name] = f'"name":{_encode(name[0])},"actor":{_encode(name[1])}'
        line = f'{{"n":{record["n"]},"t":{record["t"]},{head}'
        if "cause" in record:
            line += f',"cause":{record["cause"]}'
        if "f" in record:
            fields = record["f"]
            # The representation says more than equality: 1 is not True.
            text = self._known.get(repr(fields)) if len(fields) <= _FEW else _encode(fields)
            line += f',"f":{text or self._new(fields)}'
        if "s" in record:
            line += f',"s":{_encode(record["s"])}'
        self._write(line + "}")

    def _new(self, fields: dict[str, Any]) -> str:
        if len(self._known) >= _KNOWN:
            self._known.clear()
        text = self._known[repr(fields)] = _encode(fields)
        return text

    def _write(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) > _HELD:
            self.flush()

    def flush(self) -> None:
        """Give all lines to the file."""
        if self._lines:
            self._lines.append("")
            self._file.write("\n".join(self._lines))
            self._lines.clear()
        self._file.flush()

    def close(self) -> None:
        """The trace is complete."""
        self.flush()
        if self._owned:
            self._file.close()
