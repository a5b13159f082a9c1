"""A trace of a kernel, from events to a file: which format, what of it, and what becomes of a full disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.view.filters import Selection
from kvmvfio_emu.view.record import Recorder, header
from kvmvfio_emu.view.sink import Record, Sink
from kvmvfio_emu.view.snapshot import Snapshot

#: The formats, and the format of a file by its suffix.
FORMATS = {"": "text", ".txt": "text", ".jsonl": "jsonl", ".pftrace": "perfetto", ".vcd": "vcd"}
_SINKS = {
    "text": "text:TextSink",
    "jsonl": "jsonl:JsonlSink",
    "perfetto": "perfetto:PerfettoSink",
    "vcd": "vcd:VcdSink",
}
_BINARY = ("perfetto",)

Target = str | os.PathLike[str] | Callable[[Record], None] | None


class _Calls:
    """A sink that hands everything to a function."""

    def __init__(self, function: Callable[[Record], None]) -> None:
        self.begin = self.record = function

    def close(self) -> None:
        """Nothing is held back."""


class Tracing:
    """Writes what happens in the kernels that are attached to it, one run after the other, until `close`.

    ``target``: a path, whose suffix says the format (`FORMATS`) unless ``format_`` does; a function, which gets every
    header and record; None: text on stderr. ``selection``: what is wanted. ``state``: records tell what changed in the
    kernel's state. KvmVfioEmuError when the file cannot be written, or the format's package is missing.
    """

    def __init__(
        self,
        target: Target = None,
        *,
        format_: str | None = None,
        selection: Selection | None = None,
        state: bool = False,
    ) -> None:
        self._selection = selection
        self._state = state
        self._stops: list[Callable[[], None]] = []
        self._error: OSError | None = None
        self._resources = ExitStack()
        self._name = "stderr"
        self._stderr = target is None
        if callable(target):
            self._sink: Sink = _Calls(target)
        else:
            self._name = "stderr" if target is None else os.fspath(target)
            self._sink = self._open(target, _format(target, format_))

    def attach(self, host: Host, mode: str | None = None) -> Callable[[], None]:
        """Begin a run: show what happens in ``host`` from now on. Returns the function that ends it."""
        self._write(self._sink.begin, header(host, mode))
        accepts = None if self._selection is None or not self._selection.narrows else self._selection.accepts
        snapshot = Snapshot(host) if self._state else None
        listener = Recorder(host, self._record, accepts, snapshot)
        end = host.trace.listen(listener)

        def stop() -> None:
            if stop in self._stops:
                self._stops.remove(stop)
                end()
                listener.finish()

        self._stops.append(stop)
        return stop

    def close(self) -> None:
        """The trace is complete. KvmVfioEmuError when the file could not take all of it."""
        for stop in tuple(self._stops):
            stop()
        with self._resources:
            if self._error is None:
                self._write(lambda _: self._sink.close(), None)
        gone = self._stderr and isinstance(self._error, BrokenPipeError)  # who could be told?
        if self._error is not None and not gone:
            raise KvmVfioEmuError(f"trace {self._name}: {self._error.strerror}; it ends early") from None

    def _record(self, record: Record) -> None:
        self._write(self._sink.record, record)

    def _write(self, write: Callable[[Any], None], what: Any) -> None:
        """A full disk is not the traced program's business: it goes on, and `close` tells."""
        if self._error is not None:
            return
        try:
            write(what)
        except OSError as error:
            self._error = error

    def _open(self, target: str | os.PathLike[str] | None, format_: str) -> Sink:
        if target is None:
            if format_ in _BINARY:
                raise KvmVfioEmuError(f"a {format_} trace needs a file")
            return _sink(format_, sys.stderr, **({"live": True} if format_ == "text" else {}))
        stream: Any
        try:
            if format_ in _BINARY:
                stream = open(target, "wb")  # noqa: SIM115 - closed by `close`
            else:
                stream = open(target, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        except OSError as error:
            raise KvmVfioEmuError(f"trace {self._name}: {error.strerror}") from None
        try:
            sink = _sink(format_, stream)
        except KvmVfioEmuError:
            stream.close()
            os.unlink(target)  # it is empty, and would look like a trace
            raise
        self._resources.callback(self._close_stream, stream)
        return sink

    def _close_stream(self, stream: Any) -> None:
        try:
            stream.close()
        except OSError as error:
            self._error = self._error or error


def _format(target: str | os.PathLike[str] | None, wanted: str | None) -> str:
    if wanted is not None:
        return wanted
    suffix = "" if target is None else os.path.splitext(target)[1]
    if suffix not in FORMATS:
        known = ", ".join(f"{suffix or 'none'} {name}" for suffix, name in FORMATS.items())
        raise KvmVfioEmuError(f"trace {target}: no format has the suffix {suffix} ({known}); say which one")
    return FORMATS[suffix]


def _sink(format_: str, stream: Any, **options: bool) -> Sink:
    """The sink of a format on a file that `Tracing` closes, whatever happens. Loaded only when it is needed."""
    module, _, name = _SINKS[format_].partition(":")
    sink: Sink = getattr(import_module(f"kvmvfio_emu.view.{module}"), name)(stream, owned=False, **options)
    return sink
