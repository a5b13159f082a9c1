"""Reading traces back: constant memory, and every complaint names the file and the line."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view.read import LONGEST, TraceError, read
from kvmvfio_emu.view.sink import MAGIC, Record

HEADER = f'{{"{MAGIC}":1,"mode":null}}\n'
EVENT = '{"n":1,"t":0,"name":"work","actor":"irqfd","f":{"gsi":80}}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.jsonl"


def complaint(path: Path, content: str | bytes) -> str:
    """What is wrong with it, without the directory."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TraceError) as caught:
        list(read(path))
    assert isinstance(caught.value, KvmVfioEmuError)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text.removeprefix(str(path))


def test_a_trace_is_given_record_by_record(path: Path) -> None:
    path.write_text(HEADER + EVENT + HEADER + EVENT)
    assert [MAGIC in record for record in read(path)] == [True, False, True, False]
    assert next(iter(read(path)))["mode"] is None


def test_the_last_line_may_lack_its_end(path: Path) -> None:
    path.write_text(HEADER + EVENT.rstrip())
    assert len(list(read(path))) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ": empty, there is no header"),
        (EVENT, f":1: not a trace: it does not begin with a header, an object that has '{MAGIC}'"),
        ("[1]\n", ":1: not a trace: not an object"),
        ('execve("/bin/true", ["true"], 0x7ffd) = 0\n', ":1: not a trace: its first line is not JSON"),
        (b"\x7fELF\x02\x01\x01\xff\xfe\n", ":1: not a trace: not text"),
        (gzip.compress(HEADER.encode() * 99, mtime=0), ":1: not a trace: not text"),
        (HEADER.replace("1", "2"), ":1: a trace of version 2; this program reads version 1"),
        (HEADER.replace("1", "true"), ":1: a trace of version True; this program reads version 1"),
        (HEADER + EVENT[:30], ":2: the trace is cut off in the middle of this line"),
        (HEADER + EVENT + "{oops}\n", ":3: not JSON at column 2: "),
        (HEADER + EVENT + "\n", ":3: not JSON at column 1: "),
        (HEADER + "17\n", ":2: not an object"),
        (HEADER + b"\xff\n".decode("latin-1"), ":2: not JSON at column 1: "),
        (HEADER.encode() + b'{"n":\xff}\n', ":2: not UTF-8"),
        (HEADER + EVENT + EVENT, ":3: event 1 after event 1: the numbers of a run go up"),
        (HEADER + '{"t":0,"name":"x","actor":"y"}\n', ":2: an event needs 'n', of type int; here is None"),
        (HEADER + EVENT.replace('"t":0', '"t":true'), ":2: an event needs 't', of type int; here is True"),
        (HEADER + EVENT.replace('{"gsi":80}', "[]"), ":2: 'f' of an event is of type dict; here is []"),
        (HEADER + "[" * 100_000 + "\n", ":2: not JSON that can be read: "),
        (HEADER + '{"n":' + "9" * 5000 + "}\n", ":2: not JSON that can be read: "),
    ],
)
def test_complaints(path: Path, content: str | bytes, says: str) -> None:
    assert complaint(path, content).startswith(says)


def test_what_came_before_a_broken_line_is_given(path: Path) -> None:
    path.write_text(HEADER + EVENT + "{")
    seen: list[Record] = []
    with pytest.raises(TraceError, match="cut off"):
        seen.extend(read(path))
    assert len(seen) == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        list(read(tmp_path / "none"))
    with pytest.raises(TraceError, match="Is a directory"):
        list(read(tmp_path))


def test_a_line_without_end_is_not_read_into_memory(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(HEADER.encode())
        file.seek(8 * LONGEST)
        file.write(b"\n")
    tracemalloc.start()
    with pytest.raises(TraceError, match=f":2: a line of more than {LONGEST} bytes"):
        list(read(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * LONGEST


def test_a_long_trace_is_read_in_constant_memory(path: Path) -> None:
    """Ten times the length takes no more memory."""

    def peak(events: int) -> int:
        with open(path, "w") as file:
            file.write(HEADER)
            for n in range(1, events + 1):
                file.write(json.dumps({"n": n, "t": n, "name": "work", "actor": "irqfd", "f": {"gsi": n}}) + "\n")
        tracemalloc.start()
        assert sum(1 for _ in read(path)) == events + 1
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(30_000) < peak(3_000) + 50_000


@given(st.binary(max_size=200))
def test_rubbish_is_always_a_complaint(content: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with pytest.raises(TraceError):
            list(read(file.name))
