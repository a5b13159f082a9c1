"""The Perfetto sink keeps the rules by which the trace processor imports track events, and says what the trace says.

The processor itself is no package of Python, Debian or npm: the Python package downloads its binary. Where one is in
PATH it judges, too.
"""

from __future__ import annotations

import io
import shutil
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from handmade import HEADER, records, write

from kvmvfio_emu.cli.main import main
from kvmvfio_emu.view import perfetto
from kvmvfio_emu.view.extra import MissingPackageError
from kvmvfio_emu.view.perfetto import PerfettoSink

proto = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
Event = proto.TrackEvent


class Parsed:
    """A trace read back, every rule of the format checked on the way."""

    def __init__(self, data: bytes) -> None:
        trace = proto.Trace()
        trace.ParseFromString(data)
        self.tracks: dict[int, Any] = {}
        self.events: list[tuple[int, Any]] = []
        for packet in trace.packet:
            if packet.HasField("track_descriptor"):
                self._declare(packet.track_descriptor)
            else:
                assert packet.HasField("track_event")
                assert packet.HasField("timestamp")
                assert packet.track_event.track_uuid in self.tracks, "an event before its track"
                self.events.append((packet.timestamp, packet.track_event))
        self._sequence(trace.packet)
        self._slices()
        self._flows()

    def _declare(self, track: Any) -> None:
        assert track.uuid
        assert track.uuid not in self.tracks, "a track twice"
        assert not track.HasField("parent_uuid") or track.parent_uuid in self.tracks, "a child before its parent"
        self.tracks[track.uuid] = track

    @staticmethod
    def _sequence(packets: Any) -> None:
        assert len({packet.trusted_packet_sequence_id for packet in packets}) == 1
        assert packets[0].trusted_packet_sequence_id
        cleared = [bool(packet.sequence_flags & packet.SEQ_INCREMENTAL_STATE_CLEARED) for packet in packets]
        assert cleared == [True] + [False] * (len(packets) - 1)

    def _slices(self) -> None:
        """In the order of time, which is how the processor sorts, each end has its begin."""
        depth: Counter[int] = Counter()
        for _, event in sorted(self.events, key=lambda pair: pair[0]):
            track = self.tracks[event.track_uuid]
            assert (event.type == Event.TYPE_COUNTER) == track.HasField("counter")
            depth[event.track_uuid] += {Event.TYPE_SLICE_BEGIN: 1, Event.TYPE_SLICE_END: -1}.get(event.type, 0)
            assert depth[event.track_uuid] >= 0, f"a slice ends twice on {track.name}"
            assert event.name or event.type in (Event.TYPE_SLICE_END, Event.TYPE_COUNTER)

    def _flows(self) -> None:
        begins: Counter[int] = Counter()
        ends: Counter[int] = Counter()
        for _, event in sorted(self.events, key=lambda pair: pair[0]):
            for flow in event.terminating_flow_ids:
                assert begins[flow], "an arrow ends before it begins"
                ends[flow] += 1
            begins.update(event.flow_ids)
        assert begins == ends
        assert set(begins.values()) <= {1}

    def name(self, event: Any) -> str:
        """The event's name, or which counter it is of."""
        return event.name or self.tracks[event.track_uuid].name

    def arrows(self) -> list[tuple[str, str]]:
        """(cause, effect) by name, of the first run."""
        begins = {flow: event for _, event in self.events for flow in event.flow_ids}
        return [
            (begins[flow].name, event.name)
            for _, event in self.events
            for flow in event.terminating_flow_ids
            if self.run(event) == 1
        ]

    def run(self, event: Any) -> int:
        """Which process an event is of."""
        track = self.tracks[event.track_uuid]
        while track.HasField("parent_uuid"):
            track = self.tracks[track.parent_uuid]
        return int(track.process.pid)

    def slices(self, track: str, run: int = 1) -> list[tuple[int, int | None, str]]:
        """(begin, end, name) on the track of that name."""
        stack: list[list[Any]] = []
        found: list[list[Any]] = []
        for time, event in self.events:
            if self.tracks[event.track_uuid].name != track or self.run(event) != run:
                continue
            if event.type == Event.TYPE_SLICE_BEGIN:
                stack.append([time, None, event.name])
                found.append(stack[-1])
            elif event.type == Event.TYPE_SLICE_END:
                stack.pop()[1] = time
        return [(begin, end, name) for begin, end, name in found]


def exported(*, state: bool = True) -> bytes:
    stream = io.BytesIO()
    write(PerfettoSink(stream, owned=False), state=state)
    return stream.getvalue()


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed(exported())


def test_each_run_is_a_process(parsed: Parsed) -> None:
    processes = [track.process for track in parsed.tracks.values() if track.HasField("process")]
    assert [(process.pid, process.process_name) for process in processes] == [
        (1, "unforwarded (rfc-2014, calxeda-midway)"),
        (2, "forwarded (rfc-2014, calxeda-midway)"),
    ]
    assert "gic: 2" in processes[0].process_labels


def test_tracks_are_in_the_order_of_the_actors(parsed: Parsed) -> None:
    process = next(track for track in parsed.tracks.values() if track.HasField("process"))
    assert process.child_ordering == proto.TrackDescriptor.EXPLICIT
    lanes = [track for track in parsed.tracks.values() if track.parent_uuid == process.uuid]
    lanes.sort(key=lambda track: track.sibling_order_rank)
    names = [track.name for track in lanes]
    assert names == [
        "user task 7",
        "device",
        "host irq",
        "VFIO",
        "irqfd",
        "VGIC",
        "CPU vcpu 0",
        "guest vcpu 0",
        "state",
    ]


def test_calls_guest_time_and_handlers_are_slices(parsed: Parsed) -> None:
    assert parsed.slices("user task 7") == [(0, 0, "KVM_IRQFD"), (1, 5007, "KVM_RUN")]
    assert parsed.slices("CPU vcpu 0") == [(1, 5001, "in the guest"), (5002, 5006, "in the guest")]
    assert parsed.slices("guest vcpu 0") == [(5002, 5005, "interrupt handler")]
    assert parsed.slices("user task 7", run=2) == parsed.slices("user task 7")


def test_causes_are_arrows_one_each(parsed: Parsed) -> None:
    expected = []
    made = {record["n"]: record for record in records()}
    shown = {"vmentry": "in the guest", "guest_irq": "interrupt handler", "ioctl": "KVM_RUN"}
    for record in made.values():
        if "cause" in record and record["name"] != "ioctl_return":
            cause = made[record["cause"]]["name"]
            expected.append((shown.get(cause, cause), shown.get(record["name"], record["name"])))
    assert sorted(parsed.arrows()) == sorted(expected)
    assert ("line_up", "host_irq") in expected


def test_fields_are_annotations_with_their_types(parsed: Parsed) -> None:
    call = next(event for _, event in parsed.events if event.name == "KVM_IRQFD")
    fields = {annotation.name: annotation for annotation in call.debug_annotations}
    assert fields["n"].int_value == 1
    assert fields["file"].string_value == "vm"
    assert {entry.name: entry.int_value for entry in fields["in"].dict_entries} == {"fd": 9, "gsi": 80}
    ended = [event for _, event in parsed.events if event.type == Event.TYPE_SLICE_END]
    assert ("errno", "EBUSY") in {(field.name, field.string_value) for field in ended[0].debug_annotations}


def test_state_is_counters_and_words(parsed: Parsed) -> None:
    lines = [
        (time, event.counter_value)
        for time, event in parsed.events
        if parsed.name(event) == "gic.112.line" and parsed.run(event) == 2
    ]
    assert lines == [(0, 0), (5000, 1)]
    states = [(0, 5000, "I"), (5000, 5001, "P"), (5001, 5005, "AP"), (5005, None, "I")]
    assert parsed.slices("gic.112.state") == states
    assert parsed.slices("lr.0.0.0") == [(0, 5002, "empty"), (5002, 5005, "112 pending EOI")]


def test_no_state_no_state_tracks() -> None:
    assert "state" not in {track.name for track in Parsed(exported(state=False)).tracks.values()}


def test_calls_whose_return_is_missing_do_not_nest() -> None:
    stream = io.BytesIO()
    sink = PerfettoSink(stream, owned=False)
    sink.begin(HEADER)
    for number in (1, 2, 3):
        fields = {"task": 7, "request": f"KVM_{number}"}
        sink.record({"n": number, "t": number, "name": "ioctl", "actor": "user", "f": fields})
    sink.record({"n": 4, "t": 9, "name": "ioctl_return", "actor": "user", "cause": 2, "f": {"request": "KVM_2"}})
    sink.record({"n": 5, "t": 9, "name": "ioctl_return", "actor": "user", "cause": 3, "f": {"request": "KVM_3"}})
    sink.close()
    found = Parsed(stream.getvalue()).slices("user task 7")
    assert [name for _, _, name in found] == ["KVM_1", "KVM_2", "KVM_3"]
    assert [end for _, end, _ in found][:2] == [2, 3]


def test_a_call_that_is_no_ioctl_is_a_slice_too_and_an_owned_file_is_closed() -> None:
    class Kept(io.BytesIO):
        data = b""

        def close(self) -> None:
            self.data = self.getvalue()
            super().close()

    stream = Kept()
    sink = PerfettoSink(stream)
    fields = {"task": 7, "call": "pread64"}
    sink.record({"n": 1, "t": 1, "name": "call", "actor": "user", "f": fields})
    sink.record({"n": 2, "t": 4, "name": "call_return", "actor": "user", "cause": 1, "f": {"call": "pread64"}})
    sink.close()
    assert stream.closed
    assert Parsed(stream.data).slices("user task 7") == [(1, 4, "pread64")]


def test_a_long_trace_is_written_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an effect whose cause is written has no arrow: the one before it has."""
    monkeypatch.setattr(perfetto, "_WINDOW", 64)
    stream = io.BytesIO()
    sink = PerfettoSink(stream, owned=False)
    sink.begin(HEADER)
    for number in range(1, 1001):
        cause = {1000: 1, 999: 998}.get(number)
        record = {"n": number, "t": number, "name": f"e{number}", "actor": "KVM"}
        sink.record(record | ({} if cause is None else {"cause": cause}))
        assert len(sink._waiting) <= 64
    assert stream.tell() > 10_000
    sink.close()
    assert Parsed(stream.getvalue()).arrows() == [("e998", "e999")]


def test_strange_values_are_written_somehow() -> None:
    stream = io.BytesIO()
    sink = PerfettoSink(stream, owned=False)
    nested: Any = 1
    for _ in range(50):
        nested = [nested]
    fields = {"big": 1 << 63, "huge": 1 << 70, "none": None, "deep": nested, "x\udc80": "y\udc80", "real": 0.5}
    state = {"a": 1 << 80, "b": "w\udc80", "c": None}
    sink.record({"n": 1, "t": 0, "name": "odd\udc80" + "x" * 10_000, "actor": "nobody", "f": fields, "s": state})
    sink.record({"n": 2, "t": 1, "name": "odd", "actor": "nobody", "s": {"a": "word", "b": 3}})
    sink.close()
    event = Parsed(stream.getvalue()).events[0][1]
    assert len(event.name) < 200
    values = {annotation.name: annotation for annotation in event.debug_annotations}
    assert values["big"].uint_value == 1 << 63
    assert values["huge"].string_value == str(1 << 70)
    assert values["x?"].string_value == "y?"


def test_without_the_package_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "perfetto.trace_builder.proto_builder", None)
    wanted = r"needs the Python package perfetto.*pip install 'kvmvfio-emu\[trace"
    with pytest.raises(MissingPackageError, match=wanted):
        PerfettoSink(io.BytesIO())


def test_the_demos_trace_has_both_modes_and_the_way_of_the_interrupt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.pftrace"
    assert main(["demo", "--trace", str(path), "--state"]) == 0
    parsed = Parsed(path.read_bytes())
    way = ["line_up", "host_irq", "eventfd_trigger", "work", "set_irq", "lr_queued", "guest_iar", "guest_eoi"]
    assert set(pairwise(way)) <= set(parsed.arrows())
    assert parsed.slices("gic.112.state", run=1)
    assert "hw_deactivate" not in {event.name for _, event in parsed.events if parsed.run(event) == 1}
    assert "hw_deactivate" in {event.name for _, event in parsed.events if parsed.run(event) == 2}


@pytest.mark.skipif(shutil.which("trace_processor_shell") is None, reason="no trace_processor_shell")
def test_the_trace_processor_takes_it(tmp_path: Path) -> None:
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    path = tmp_path / "out.pftrace"
    path.write_bytes(exported())
    config = TraceProcessorConfig(bin_path=shutil.which("trace_processor_shell"))
    with TraceProcessor(trace=str(path), config=config) as processor:
        errors = processor.query("select name, value from stats where severity = 'error' and value > 0")
        assert [(row.name, row.value) for row in errors] == []
        tracks = defaultdict(int)
        for row in processor.query("select track.name as name from slice join track on slice.track_id = track.id"):
            tracks[row.name] += 1
        assert tracks["CPU vcpu 0"] == 8
