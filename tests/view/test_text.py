"""The text of a trace: its grammar, held to a whole demo, and what hostile strings do to it (nothing)."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Client
from view.golden import normal

from kvmvfio_emu import uapi
from kvmvfio_emu.cli.main import main
from kvmvfio_emu.view.sink import MAGIC, Record
from kvmvfio_emu.view.text import TextSink, value
from kvmvfio_emu.view.tracing import Tracing

GOLDEN = Path(__file__).with_name("demo.txt")
HEADER: Record = {MAGIC: 1, "profile": "rfc-2014", "machine": "board", "gic": 2, "mode": None}


def lines(*records: Record) -> list[str]:
    """What `TextSink` makes of them, without the header's line."""
    stream = io.StringIO()
    sink = TextSink(stream, owned=False)
    sink.begin(HEADER)
    for record in records:
        sink.record(record)
    sink.close()
    return stream.getvalue().splitlines()[1:]


def ioctl(number: int = 1, **fields: Any) -> Record:
    fields = {"task": 7, "fd": 5, "file": "vm", "request": "KVM_IRQFD", **fields}
    return {"n": number, "t": 0, "name": "ioctl", "actor": "user", "f": fields}


def returns(number: int = 2, cause: int = 1, **fields: Any) -> Record:
    fields = {"fd": 5, "file": "vm", "request": "KVM_IRQFD", "result": 0, **fields}
    return {"n": number, "t": 0, "name": "ioctl_return", "actor": "user", "cause": cause, "f": fields}


def step(number: int, **more: Any) -> Record:
    return {"n": number, "t": 9, "name": "work", "actor": "irqfd", "f": {"gsi": 80}, **more}


def test_the_demo_is_as_it_was(tmp_path: Path) -> None:
    """tests/view/demo.txt: `kvmvfio-emu demo --trace`, normalised. A change of the grammar shows here first."""
    path = tmp_path / "demo.txt"
    assert main(["demo", "--json", "-o", str(path)]) == 0
    assert normal(path.read_text()) == GOLDEN.read_text()


def test_a_call_that_returns_at_once_is_one_line() -> None:
    record = ioctl(**{"in": {"fd": {"fd": 9, "is": "eventfd 12"}, "gsi": 80, "flags": "RESAMPLE"}})
    assert lines(record, returns()) == [
        "[7] vm(5) ioctl KVM_IRQFD({fd=9<eventfd:12>, gsi=80, flags=RESAMPLE}) = 0 (#1)"
    ]


def test_a_call_that_something_comes_between_is_unfinished_and_resumed() -> None:
    assert lines(ioctl(arg=0), step(2, cause=1), returns(3, out={"a": 1})) == [
        "[7] vm(5) ioctl KVM_IRQFD(0 <unfinished ...> (#1)",
        " t=9 irqfd     deferred work injects gsi 80 (#2 <- #1)",
        "[7] vm(5) ioctl <... KVM_IRQFD resumed> => {a=1}) = 0 (#3 <- #1)",
    ]


def test_a_call_that_never_returns_is_shown_at_the_end() -> None:
    assert lines(ioctl(arg=0)) == ["[7] vm(5) ioctl KVM_IRQFD(0 <unfinished ...> (#1)"]


def test_the_return_of_a_call_that_was_not_seen() -> None:
    assert lines(returns(5, 4)) == ["vm(5) ioctl <... KVM_IRQFD resumed>) = 0 (#5 <- #4)"]


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"result": 16, "is": "vcpu 0"}, "16<vcpu:0>"),
        ({"result": -1, "errno": "EBUSY", "reason": "it is taken"}, "-1 EBUSY (it is taken)"),
        ({"result": -1, "errno": "EBUSY", "reason": "x (INJECTED)", "injected": "error"}, "-1 EBUSY (x) (INJECTED)"),
        ({"result": 5, "injected": "retval"}, "5 (INJECTED)"),
        ({"result": 0, "injected": "delay"}, "0 (DELAYED)"),
    ],
)
def test_results(fields: dict[str, Any], shown: str) -> None:
    assert lines(ioctl(arg=0), returns(**fields)) == [f"[7] vm(5) ioctl KVM_IRQFD(0) = {shown} (#1)"]


def test_state_is_a_line_of_its_own() -> None:
    state = {"gic.112.line": True, "lr.0.0.0": "112 pending EOI", "rbtree.0": None}
    assert lines(step(1, s=state))[1] == '    gic.112.line=true, lr.0.0.0="112 pending EOI", rbtree.0=null'


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ([1, {"a": "B|C"}], "[1, {a=B|C}]"),
        ("two words", '"two words"'),
        ("x\n[1] y", '"x\\n[1] y"'),
        ("", '""'),
        ({"fd": 3, "is": "vfio-device a b"}, "3<vfio-device:a b>"),
        (True, "true"),
    ],
)
def test_values(what: object, shown: str) -> None:
    assert value(what) == shown


def test_hostile_strings_make_no_lines_and_reach_no_terminal() -> None:
    evil = "\x1b[2J\n[1] kvm(3) ioctl KVM_CREATE_VM(0) = 0\u202e"
    (line,) = lines({**step(1), "name": "release", "f": {"file": evil}})
    assert line.isprintable()
    assert "\\u001b[2J\\n[1] kvm" in line


def test_a_device_attribute_by_its_names_on_stderr(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    end = client.kernel.trace(None, ["trace=KVM_SET_DEVICE_ATTR"])
    client.machine()
    end()
    shown = normal(capsys.readouterr().err)
    assert "attr=KVM_VGIC_V2_ADDR_TYPE_DIST, addr=PTR, value=0x8000000}) = 0 (#" in shown
    assert len(shown.splitlines()) > 2
    assert all("KVM_SET_DEVICE_ATTR" in line for line in shown.splitlines()[1:])


# -- filters ---------------------------------------------------------------------------------------------------------


def events(expressions: list[str]) -> set[str]:
    """The names in a trace of the demo that is narrowed so."""
    names: set[str] = set()

    def take(record: Record) -> None:
        fields = record.get("f", {})
        names.add(str(fields.get("request") or fields.get("call") or record.get("name", "")))

    from kvmvfio_emu import Kernel
    from kvmvfio_emu.cli.story import tell

    with Kernel() as kernel:
        kernel.trace(take, expressions)
        tell(kernel, forward=False, interrupts=1)
    return names - {""}


ALL = events([])


@pytest.mark.parametrize(
    ("expressions", "kept"),
    [
        (["trace=KVM_IRQFD,KVM_RUN"], {"KVM_IRQFD", "KVM_RUN"}),
        (["KVM_IRQFD"], {"KVM_IRQFD"}),
        (["trace=host_irq,%file"], {"host_irq", "open", "mmap"}),
        (["trace=none"], set()),
        (["trace=all"], ALL),
        (["trace=!KVM_RUN,host_irq"], ALL - {"KVM_RUN", "host_irq"}),
        (["trace=%kvm"], {name for name in ALL if name.startswith("KVM_")}),
        (["trace=%vfio,%kvm"], {name for name in ALL if name.startswith(("KVM_", "VFIO_"))}),
        (["trace=!%ioctl,%file"], {name for name in ALL if name.islower()} - {"open", "mmap"}),
        (["trace=%guest"], {name for name in ALL if name.startswith("guest_")}),
        (["trace=%exit"], {name for name in ALL if name.startswith(("vmexit_", "vmentry"))}),
        (["actor=VGIC"], {"vgic_init", "lr_queued"}),
        (["actor=host irq"], {"host_irq", "host_irq_lazy"}),
        (["actor=host-irq,GIC"], {"host_irq", "host_irq_lazy", "gicd_mask", "gicd_unmask"}),
        (["actor=VGIC", "trace=lr_queued,host_irq"], {"lr_queued"}),
        (["trace=KVM_RUN", "trace=KVM_IRQFD"], {"KVM_IRQFD"}),
    ],
)
def test_filters(expressions: list[str], kept: set[str]) -> None:
    assert events(expressions) == kept


def test_interrupt_steps_are_a_class() -> None:
    steps = events(["trace=%irq"])
    assert {"line_up", "host_irq", "eventfd_trigger", "work", "set_irq", "lr_queued", "guest_eoi"} <= steps
    assert not any(name.isupper() or name.startswith("vmentry") for name in steps)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-e", "trace=KVM_IRQF"], "-e trace=KVM_IRQF: unknown call or event 'KVM_IRQF'; did you mean KVM_IRQFD"),
        (["-e", "trace=%nvme"], "unknown call or event '%nvme'; classes are %exit, %file"),
        (["-e", "actor=gest"], "unknown actor 'gest'; did you mean guest?"),
        (["-e", "colour=red"], "'colour' is none of trace, actor, inject"),
        (["-e", "inject=KVM_IRQF:error=EBUSY"], "unknown ioctl or call 'KVM_IRQF'; did you mean KVM_IRQFD"),
        (["-o", "/no/such/directory/x.jsonl"], "trace /no/such/directory/x.jsonl: No such file or directory"),
        (["-o", "/dev/full"], "trace /dev/full: No space left on device; it ends early"),
        (["-o", "x.log"], "no format has the suffix .log"),
        (["--trace-format", "perfetto"], "a perfetto trace needs a file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--json", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("kvmvfio-emu: ")
    assert says in shown
    assert shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away_ends_the_trace_not_the_demo() -> None:
    """`demo --trace 2>&1 >/dev/null | head -1`: our stderr is a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "kvmvfio_emu.cli.main", "demo", "--json", "--trace"]
    done = subprocess.run(command, stderr=writer, stdout=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, b'"forwarded"' in done.stdout) == (0, True)


def test_the_trace_goes_on_with_the_next_kernel() -> None:
    """One file, two runs: each has its header, and numbers from 1."""
    from kvmvfio_emu import Kernel

    seen: list[Record] = []
    tracing = Tracing(seen.append)
    for _ in range(2):
        with Kernel() as kernel:
            stop = tracing.attach(kernel.host, "forwarded")
            kernel.close(kernel.open("/dev/kvm"))
            stop()
            kernel.ioctl(kernel.open("/dev/kvm"), uapi.KVM_GET_API_VERSION)  # not seen
    tracing.close()
    runs = [MAGIC in record for record in seen]
    assert runs == [True, False, False, False] * 2
    assert [record["n"] for record in seen if "n" in record] == [1, 2, 3] * 2
    assert seen[0]["mode"] == "forwarded"
