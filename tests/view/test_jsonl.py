"""Traces as JSON Lines: what is written, what is read back, and how little memory either takes."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmvfio_emu import Kernel, __version__
from kvmvfio_emu.cli.main import main
from kvmvfio_emu.view.actors import EVENTS
from kvmvfio_emu.view.jsonl import JsonlSink
from kvmvfio_emu.view.read import is_header, read
from kvmvfio_emu.view.sink import MAGIC, VERSION, Record
from kvmvfio_emu.view.text import TextSink

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


class Nowhere(io.TextIOBase):
    """A file that keeps nothing."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, text: str) -> int:
        self.size += len(text)
        return len(text)


def demo(path: Path, *options: str) -> list[Record]:
    assert main(["demo", "--json", "-o", str(path), *options]) == 0
    return list(read(path))


def test_a_demo_is_two_runs_with_headers(tmp_path: Path) -> None:
    records = demo(tmp_path / "demo.jsonl")
    headers = [record for record in records if is_header(record)]
    assert headers == [
        {
            MAGIC: VERSION,
            "package": __version__,
            "profile": "rfc-2014",
            "machine": "calxeda-midway",
            "gic": 2,
            "clock": "ns",
            "mode": mode,
        }
        for mode in ("unforwarded", "forwarded")
    ]
    assert [record["n"] for record in records if "n" in record][:3] == [1, 2, 3]


def test_every_record_is_as_the_schema_says(tmp_path: Path) -> None:
    last = 0
    for record in demo(tmp_path / "demo.jsonl", "--state"):
        if is_header(record):
            last = 0
            continue
        assert list(record) == [key for key in ("n", "t", "name", "actor", "cause", "f", "s") if key in record]
        assert record["n"] == last + 1
        last = record["n"]
        assert record["actor"] == EVENTS[record["name"]][0]
        assert 0 < record.get("cause", 1) < record["n"] or record["n"] == 1
        assert record.get("f") != {}
        assert record.get("s") != {}


def test_causes_lead_from_the_guests_eoi_to_the_line(tmp_path: Path) -> None:
    run = [record for record in demo(tmp_path / "demo.jsonl", "-e", "trace=%irq") if not is_header(record)]
    numbers = {
        record["n"]: record for record in run[: next(i for i, r in enumerate(run) if r["name"] == "guest_eoi") + 1]
    }
    step, way = next(record for record in numbers.values() if record["name"] == "guest_eoi"), []
    while "cause" in step:
        way.append(step["name"])
        step = numbers[step["cause"]]
    assert [*way, step["name"]] == [
        "guest_eoi",
        "guest_iar",
        "lr_queued",
        "set_irq",
        "work",
        "eventfd_trigger",
        "host_irq",
        "line_up",
    ]


@given(st.lists(st.dictionaries(st.text(), JSON, min_size=1, max_size=5), max_size=6))
def test_lines_are_what_json_would_write(fields: list[Record]) -> None:
    """Whatever the fast way does, and whatever it remembers of earlier records."""
    stream = io.StringIO()
    sink = JsonlSink(stream, owned=False)
    records = [
        {"n": n, "t": 5, "name": "né\n", "actor": '"', "cause": n, "f": f} for n, f in enumerate([*fields, *fields], 1)
    ]
    for record in records:
        sink.record(record)
    sink.close()
    lines = stream.getvalue().splitlines()
    assert lines == [json.dumps(record, separators=(",", ":")) for record in records]


def test_one_is_not_true() -> None:
    stream = io.StringIO()
    sink = JsonlSink(stream, owned=False)
    for value in (1, True, 1.0):
        sink.record({"n": 1, "t": 0, "name": "a", "actor": "KVM", "f": {"level": value}})
    sink.close()
    levels = [line.rpartition(":")[2] for line in stream.getvalue().splitlines()]
    assert levels == ["1}}", "true}}", "1.0}}"]


def test_a_function_gets_the_same_records(tmp_path: Path) -> None:
    taken: list[Record] = []
    path = tmp_path / "x.jsonl"
    with Kernel() as kernel:
        kernel.trace(taken.append)
        kernel.trace(path)
        kernel.close(kernel.open("/dev/kvm"))
    assert list(read(path)) == taken
    assert len(taken) == 4


def test_an_ended_trace_is_complete_and_sees_no_more(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with Kernel() as kernel:
        end = kernel.trace(path)
        kernel.close(kernel.open("/dev/kvm"))
        end()
        before = path.read_bytes()
        kernel.close(kernel.open("/dev/kvm"))
        end()
        assert not kernel.host.trace.calls
    assert path.read_bytes() == before
    assert len(list(read(path))) == 4


def test_a_kernel_that_nobody_refers_to_leaves_a_whole_trace(tmp_path: Path) -> None:
    kernel = Kernel()
    kernel.trace(tmp_path / "x.jsonl")
    kernel.close(kernel.open("/dev/kvm"))
    del kernel
    assert len(list(read(tmp_path / "x.jsonl"))) == 4


@pytest.mark.parametrize("kind", [JsonlSink, TextSink])
def test_a_long_trace_is_written_in_constant_memory(kind: type[JsonlSink] | type[TextSink]) -> None:
    sink = kind(Nowhere(), owned=False)  # type: ignore[arg-type]

    def write(first: int, count: int) -> None:
        for n in range(first, first + count, 2):
            fields = {"task": n, "fd": 5, "file": "vm", "request": "KVM_IRQFD", "in": {"gsi": n}}
            sink.record({"n": n, "t": n, "name": "ioctl", "actor": "user", "f": fields})
            sink.record({"n": n + 1, "t": n, "name": "ioctl_return", "actor": "user", "cause": n, "f": {"result": n}})

    write(1, 20_000)
    tracemalloc.start()
    write(20_001, 40_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000, "what is written is kept"
