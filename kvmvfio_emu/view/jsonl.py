"""Records as JSON Lines: one object a line, as docs/reference/trace.md declares them."""

from __future__ import annotations

import json
from typing import IO

from kvmvfio_emu.view.sink import Record

#: Characters that are kept back, at most, before the file gets them.
_HELD = 1 << 16


class JsonlSink:
    """Writes to ``file`` (text), which ``close`` closes if ``owned``."""

    def __init__(self, file: IO[str], *, owned: bool = True) -> None:
        self._file = file
        self._owned = owned
        self._encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
        self._lines: list[str] = []
        self._held = 0

    def begin(self, header: Record) -> None:
        """A new run."""
        self.record(header)

    def record(self, record: Record) -> None:
        """One line."""
        line = self._encode(record)
        self._lines.append(line)
        self._held += len(line)
        if self._held > _HELD:
            self.flush()

    def flush(self) -> None:
        """Give all lines to the file."""
        if self._lines:
            self._lines.append("")
            self._file.write("\n".join(self._lines))
            self._lines.clear()
            self._held = 0
        self._file.flush()

    def close(self) -> None:
        """The trace is complete."""
        self.flush()
        if self._owned:
            self._file.close()
