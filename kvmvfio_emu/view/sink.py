"""What writes a trace: the one interface that all formats share."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

Record: TypeAlias = dict[str, Any]
"""One line of a trace as docs/reference/trace.md declares it; JSON values only."""

#: The version of the records, in each header under `MAGIC`.
VERSION = 1
#: The key that makes an object a header, and a file a trace.
MAGIC = "kvmvfio_emu_trace"


class Sink(Protocol):
    """Takes the records of one trace, in their order, and writes them in one format.

    Each of the three may raise OSError when the file cannot be written. After `close` nothing is called any more.
    """

    def begin(self, header: Record) -> None:
        """A new run begins; the numbers of its records start again from 1."""

    def record(self, record: Record) -> None:
        """One event of the run. The caller does not change ``record`` afterwards, and neither may the sink."""

    def close(self) -> None:
        """The trace is complete: write what is still held back, give the file back if the sink opened it."""
