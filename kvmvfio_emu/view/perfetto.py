"""Traces for Perfetto's user interface and trace processor (protos/perfetto/trace/track_event/).

Each run is a process, so that two modes in one trace stand side by side. In it each actor has a track, in the order of
the lanes, and one more for each task that calls and each vCPU. What lasts is a slice: an ioctl, the time in the guest,
a guest's interrupt handler. Everything else is an instant. An arrow leads from each cause to each effect; it is a flow
of its own, as Perfetto draws a flow that several events share as a chain through all of them. Recorded state is a
counter where it is a number, and a slice of its own where it is a word.

The arrow is written with its cause, which is why the last `_WINDOW` events are held back. An effect of an older one has
no arrow; its field ``cause`` still names it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from kvmvfio_emu.view.actors import ACTORS
from kvmvfio_emu.view.extra import load
from kvmvfio_emu.view.sink import Record

_WINDOW = 16384
_SEQUENCE = 1
_RETURNS = ("ioctl_return", "call_return")
_LONGEST_NAME = 120  #: characters; a name is drawn, the fields have the rest
_DEEPEST = 8
_MIN, _MAX, _UNSIGNED = -(1 << 63), 1 << 63, 1 << 64


class PerfettoSink:
    """Writes TracePackets to ``file``, which `close` closes if ``owned``. Timestamps are the model's nanoseconds."""

    def __init__(self, file: BinaryIO, *, owned: bool = True) -> None:
        what = "a Perfetto trace"
        self._proto = load("perfetto.protos.perfetto.trace.perfetto_trace_pb2", what, "trace")
        builder = load("perfetto.trace_builder.proto_builder", what, "trace")
        self._file = file
        self._owned = owned
        self._builder = builder.StreamingTraceProtoBuilder(file)
        self._waiting: deque[Any] = deque()
        self._run: _Run | None = None
        self._runs = 0
        self._uuids = 0
        self._flows = 0
        self._held = 0  # packets so far
        self._written = 0

    def begin(self, header: Record) -> None:
        """A new run: a process of its own."""
        self._runs += 1
        self._run = _Run(self, self._runs, header)

    def record(self, record: Record) -> None:
        """One event."""
        if self._run is None:
            self.begin({})
        assert self._run is not None
        self._run.record(record)

    def close(self) -> None:
        """What did not end stays open: Perfetto shows it up to the trace's end."""
        while self._waiting:
            self._write(self._waiting.popleft())
        self._file.flush()
        if self._owned:
            self._file.close()

    # -- for the runs -----------------------------------------------------------------------------------------

    def track(self, parent: int, name: str, rank: int, setup: Callable[[Any], object] | None = None) -> int:
        """Declare a track; returns its id."""
        self._uuids += 1
        packet = self._packet()
        descriptor = packet.track_descriptor
        descriptor.uuid, descriptor.name, descriptor.sibling_order_rank = self._uuids, _name(name), rank
        if parent:
            descriptor.parent_uuid = parent
        descriptor.child_ordering = self._proto.TrackDescriptor.EXPLICIT
        if setup is not None:
            setup(descriptor)
        self._hold(packet)
        return self._uuids

    def event(self, time: int, kind: str, track: int, name: str = "", category: str = "") -> _Step:
        """A track event of TYPE_``kind`` to fill in; written later."""
        packet = self._packet()
        packet.timestamp = time
        event = packet.track_event
        event.type = getattr(self._proto.TrackEvent, f"TYPE_{kind}")
        event.track_uuid = track
        if name:
            event.name = _name(name)
        if category:
            event.categories.append(_name(category))
        self._hold(packet)
        return _Step(event, self._held, kind != "SLICE_END")

    def arrow(self, cause: _Step, effect: _Step) -> None:
        """From one event to another, unless the first is written already. The end of a slice has none."""
        if cause.serial > self._written and cause.has_arrows and effect.has_arrows:
            self._flows += 1
            cause.event.flow_ids.append(self._flows)
            effect.event.terminating_flow_ids.append(self._flows)

    def _packet(self) -> Any:
        packet = self._builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        if not self._held:
            packet.sequence_flags = self._proto.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
            packet.first_packet_on_sequence = True
        return packet

    def _hold(self, packet: Any) -> None:
        self._waiting.append(packet)
        self._held += 1
        if len(self._waiting) > _WINDOW:
            self._write(self._waiting.popleft())

    def _write(self, packet: Any) -> None:
        self._written += 1
        self._builder.write_packet(packet)


class _Step(NamedTuple):
    """A track event, and the how manyeth packet it is."""

    event: Any
    serial: int
    has_arrows: bool


class _Run:
    """One run's tracks, and what is open on them."""

    def __init__(self, sink: PerfettoSink, number: int, header: Record) -> None:
        self._sink = sink
        kernel = ", ".join(str(header[key]) for key in ("profile", "machine") if header.get(key))
        name = str(header.get("mode") or f"run {number}") + (f" ({kernel})" if kernel else "")

        def process(descriptor: Any) -> None:
            descriptor.process.pid = number
            descriptor.process.process_name = _name(name)
            descriptor.process.process_labels.extend(_name(f"{key}: {value}") for key, value in header.items())

        self._process = sink.track(0, name, number, process)
        self._state_track = 0
        self._tracks: dict[tuple[str, ...], int] = {}
        self._recent: dict[int, _Step] = {}  # n -> event that an arrow can start from
        self._open: dict[int, int] = {}  # track -> number of open slices
        self._calls: dict[int, int] = {}  # n of an ioctl -> its track
        self._words: set[str] = set()  # state tracks with an open slice
        self._kinds: dict[str, bool] = {}  # state path -> whether it is a counter

    def record(self, record: Record) -> None:
        name, time, fields = str(record["name"]), int(record["t"]), record.get("f", {})
        event = self._event(name, time, str(record.get("actor", "")), fields, record)
        self._recent[record["n"]] = event
        if len(self._recent) > _WINDOW:
            del self._recent[next(iter(self._recent))]
        cause = record.get("cause")
        if cause is not None and name not in _RETURNS and cause in self._recent:
            self._sink.arrow(self._recent[cause], event)
        for path, value in record.get("s", {}).items():
            self._state(time, path, value)

    def _event(self, name: str, time: int, actor: str, fields: Record, record: Record) -> _Step:
        """The event of one record, and what it begins or ends."""
        if name in ("ioctl", "call"):
            track = self._lane("user", "task", fields)
            self._end_all(time, track)  # a task makes one call at a time: the return was not recorded
            event = self._begin(time, track, _call(name, fields), actor)
            self._calls[record["n"]] = track
        elif name in _RETURNS:
            called = self._calls.pop(record.get("cause", 0), None)
            if called is None or not self._open.get(called):
                track = self._lane("user", "task", fields)
                event = self._instant(time, track, f"{_call(name, fields)} returns", actor)
            else:
                event = self._end(time, called)
        elif name == "vmentry":
            track = self._lane("CPU", "vcpu", fields)
            self._end_all(time, track)
            event = self._begin(time, track, "in the guest", actor)
        elif name.startswith("vmexit_"):
            track = self._lane("CPU", "vcpu", fields)
            event = self._instant(time, track, name, actor)
            self._end_all(time, track)
        elif name == "guest_irq":
            event = self._begin(time, self._lane("guest", "vcpu", fields), "interrupt handler", actor)
        elif name == "guest_eret" and self._open.get(self._lane("guest", "vcpu", fields)):
            event = self._end(time, self._lane("guest", "vcpu", fields))
        else:
            which = {"user": "task", "CPU": "vcpu", "guest": "vcpu"}.get(actor, "")
            event = self._instant(time, self._lane(actor, which, fields), name, actor)
        self._annotate(event.event, fields, record)
        return event

    # -- tracks ----------------------------------------------------------------------------------------------

    def _lane(self, actor: str, which: str, fields: Record) -> int:
        """The track of an actor; where ``which`` is a field of the event, that of this task or vCPU."""
        own = fields.get(which)
        key = (actor,) if own is None else (actor, str(own))
        if key not in self._tracks:
            rank = ACTORS.index(actor) if actor in ACTORS else len(ACTORS)
            label = actor if own is None else f"{actor} {which} {own}"
            self._tracks[key] = self._sink.track(self._process, label, rank)
        return self._tracks[key]

    def _state(self, time: int, path: str, value: Any) -> None:
        """What changed of the state. A track is a counter or has words, as its first value says."""
        if path not in self._kinds:
            self._kinds[path] = isinstance(value, int)  # bools, too
        is_counter = self._kinds[path]
        key = ("", path)
        if key not in self._tracks:
            if not self._state_track:
                self._state_track = self._sink.track(self._process, "state", len(ACTORS) + 1)
            setup = (lambda descriptor: descriptor.counter.SetInParent()) if is_counter else None
            self._tracks[key] = self._sink.track(self._state_track, path, len(self._tracks), setup)
        track = self._tracks[key]
        if is_counter:
            counter = self._sink.event(time, "COUNTER", track).event
            counter.counter_value = int(value) if isinstance(value, int) and _MIN <= value < _MAX else 0
            return
        if path in self._words:
            self._sink.event(time, "SLICE_END", track)
            self._words.discard(path)
        if value is not None:
            self._sink.event(time, "SLICE_BEGIN", track, _word(value), "state")
            self._words.add(path)

    # -- events ----------------------------------------------------------------------------------------------

    def _begin(self, time: int, track: int, name: str, category: str) -> _Step:
        self._open[track] = self._open.get(track, 0) + 1
        return self._sink.event(time, "SLICE_BEGIN", track, name, category)

    def _end(self, time: int, track: int) -> _Step:
        self._open[track] -= 1
        return self._sink.event(time, "SLICE_END", track)

    def _end_all(self, time: int, track: int) -> None:
        while self._open.get(track):
            self._end(time, track)

    def _instant(self, time: int, track: int, name: str, category: str) -> _Step:
        return self._sink.event(time, "INSTANT", track, name, category)

    @staticmethod
    def _annotate(event: Any, fields: Record, record: Record) -> None:
        own = {"n": record["n"]} | ({"cause": record["cause"]} if "cause" in record else {})
        for name, value in {**own, **fields}.items():
            annotation = event.debug_annotations.add()
            annotation.name = _name(name)
            _fill(annotation, value)


def _call(name: str, fields: Record) -> str:
    return str(fields.get("request") or fields.get("call") or name)


def _fill(annotation: Any, value: Any, depth: int = 0) -> None:
    """A JSON value as a debug annotation."""
    if isinstance(value, bool):
        annotation.bool_value = value
    elif isinstance(value, int) and _MIN <= value < _MAX:
        annotation.int_value = value
    elif isinstance(value, int) and 0 <= value < _UNSIGNED:
        annotation.uint_value = value
    elif isinstance(value, float):
        annotation.double_value = value
    elif isinstance(value, dict) and value and depth < _DEEPEST:
        for name, item in value.items():
            entry = annotation.dict_entries.add()
            entry.name = _name(name)
            _fill(entry, item, depth + 1)
    elif isinstance(value, list) and value and depth < _DEEPEST:
        for item in value:
            _fill(annotation.array_values.add(), item, depth + 1)
    else:
        annotation.string_value = _word(value)


def _name(text: str) -> str:
    return _word(text[:_LONGEST_NAME])


def _word(value: Any) -> str:
    """A value as text. Protobuf's strings are UTF-8, which lone surrogates are not."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()
