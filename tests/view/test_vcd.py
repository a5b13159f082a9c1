"""The VCD sink: what a wave viewer gets, read back with pyvcd's own reader."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from handmade import HEADER, records, write

from kvmvfio_emu.cli.main import main
from kvmvfio_emu.view.extra import MissingPackageError
from kvmvfio_emu.view.vcd import VcdSink

reader = pytest.importorskip("vcd.reader")
Kind = reader.TokenKind


class Waves:
    """A dump read back: declarations, and the changes of each variable by its full name."""

    def __init__(self, text: str) -> None:
        scope: list[str] = []
        names: dict[str, str] = {}
        self.declared: dict[str, Any] = {}
        self.changes: dict[str, list[tuple[int, Any]]] = {}
        self.timescale = ""
        now = 0
        for token in reader.tokenize(io.BytesIO(text.encode("ascii"))):
            if token.kind is Kind.SCOPE:
                scope.append(token.scope.ident)
            elif token.kind is Kind.UPSCOPE:
                scope.pop()
            elif token.kind is Kind.TIMESCALE:
                self.timescale = str(token.timescale)
            elif token.kind is Kind.VAR:
                name = ".".join([*scope, token.var.reference])
                assert name not in self.declared
                self.declared[name] = token.var
                names[token.var.id_code] = name
                self.changes[name] = []
            elif token.kind is Kind.CHANGE_TIME:
                assert token.time_change >= now
                now = token.time_change
            elif token.kind in (Kind.CHANGE_SCALAR, Kind.CHANGE_VECTOR, Kind.CHANGE_STRING):
                change = token.data
                self.changes[names[change.id_code]].append((now, change.value))
        assert not scope

    def after_start(self, name: str) -> list[tuple[float, Any]]:
        """(ns, value) without what $dumpvars says."""
        return [(time / 1000, value) for time, value in self.changes[name] if value not in ("x", "")]


def dumped(*, state: bool = True) -> Waves:
    stream = io.StringIO()
    write(VcdSink(stream, owned=False), state=state)
    return Waves(stream.getvalue())


@pytest.fixture(scope="module")
def waves() -> Waves:
    return dumped()


def test_each_run_is_a_scope(waves: Waves) -> None:
    assert {name.split(".")[0] for name in waves.declared} == {"unforwarded", "forwarded"}
    both = [{name.partition(".")[2] for name in waves.declared if name.startswith(f"{mode}.")} for mode in MODES]
    assert both[0] == both[1]


MODES = ("unforwarded", "forwarded")


@pytest.mark.parametrize("mode", MODES)
def test_lines_and_states_change_when_the_model_says(waves: Waves, mode: str) -> None:
    assert waves.after_start(f"{mode}.gic_112.line") == [(0, "0"), (5000, "1")]
    assert waves.after_start(f"{mode}.gic_112.state") == [(0, 0), (5000, 1), (5001.001, 3), (5005, 0)]
    assert waves.after_start(f"{mode}.guest_0.in_guest") == [(1, "1"), (5001, "0"), (5002.002, "1"), (5006, "0")]
    assert waves.after_start(f"{mode}.lr_0_0_0") == [(0, "empty"), (5002.001, "112\\x20pending\\x20EOI")]
    assert waves.after_start(f"{mode}.irq_112.depth") == [(5001.001, 1), (5007, 0)]


def test_types_suit_the_values(waves: Waves) -> None:
    types = {
        name.partition(".")[2]: (var.type_.value, var.size)
        for name, var in waves.declared.items()
        if name.startswith("forwarded.")
    }
    assert types["gic_112.line"] == ("wire", 1)
    assert types["gic_112.state"] == ("reg", 2)
    assert types["irq_112.depth"] == ("integer", 64)
    assert types["irq_112.handler"][0] == "event"
    assert types["lr_0_0_0"][0] == "string"
    assert types["rbtree_0"][0] == "string"


def test_signals_are_moments(waves: Waves) -> None:
    assert [time for time, _ in waves.after_start("forwarded.eventfd_112.trigger")] == [5001.002]
    assert [time for time, _ in waves.after_start("forwarded.irqfd_80.work")] == [5002]


def test_the_unit_shows_nanoseconds_and_the_order_within(waves: Waves) -> None:
    assert waves.timescale == "1 ps"
    order = ["guest_0.in_guest", "irq_112.handler", "eventfd_112.trigger"]
    times = [next(t for t, _ in waves.after_start(f"forwarded.{name}") if 5001 <= t < 5002) for name in order]
    assert times == sorted(times)
    assert len(set(times)) == len(times)


def test_what_ends_is_unknown_again(waves: Waves) -> None:
    assert waves.changes["forwarded.lr_0_0_0"][-1] == (5_005_000, "")


def test_without_state_the_events_still_tell_the_lines() -> None:
    waves = dumped(state=False)
    assert waves.after_start("forwarded.gic_112.line") == [(5000, "1")]
    assert waves.after_start("forwarded.guest_0.in_handler") == [(5002.002, "1"), (5005.001, "0")]
    assert "forwarded.gic_112.state" not in waves.declared


def test_an_empty_trace_is_a_dump() -> None:
    stream = io.StringIO()
    VcdSink(stream, owned=False).close()
    assert Waves(stream.getvalue()).declared == {}


def test_more_steps_in_a_nanosecond_than_picoseconds_stay_in_order_and_in_it() -> None:
    stream = io.StringIO()
    sink = VcdSink(stream, owned=False)
    sink.begin(HEADER)
    for number in range(1, 3001):
        sink.record({"n": number, "t": 7, "name": "x", "actor": "KVM", "s": {"a.b": number}})
    sink.record({"n": 3001, "t": 8, "name": "x", "actor": "KVM", "s": {"a.b": 0}})
    sink.close()
    changes = Waves(stream.getvalue()).changes["run_1.a.b"]
    assert [value for _, value in changes][1:] == [*range(1, 3001), 0]
    assert changes[-2][0] == 7999
    assert changes[-1][0] == 8000


def test_hostile_names_and_values_are_only_text() -> None:
    stream = io.StringIO()
    sink = VcdSink(stream, owned=False)
    sink.begin({**HEADER, "mode": "a $end $scope", "machine": "x $end\n$enddefinitions $end"})
    state = {"gic.1 2.line\n": "on\n#99", "gic.1_2.line_": True, "é.$end": "ü $end", "": 1, "gic.9.state": "strange"}
    sink.record({"n": 1, "t": 0, "name": "x", "actor": "KVM", "s": state})
    sink.record({"n": 2, "t": 1, "name": "x", "actor": "KVM", "s": {"": 1 << 80, "gic.9.state": "A"}})
    sink.close()
    waves = Waves(stream.getvalue())
    assert len(waves.declared) == len(state)
    assert {name.split(".")[0] for name in waves.declared} == {"a__end__scope"}


def test_without_the_package_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vcd", None)
    with pytest.raises(MissingPackageError, match=r"needs the Python package vcd"):
        VcdSink(io.StringIO())


def test_the_demos_waves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not forwarded, the interrupt is masked until the guest's EOI; forwarded, it stays active until then."""
    path = tmp_path / "out.vcd"
    assert main(["demo", "--trace", str(path), "--state"]) == 0
    waves = Waves(path.read_text())
    values = {
        (mode, name): [value for _, value in waves.after_start(f"{mode}.gic_112.{name}")]
        for mode in MODES
        for name in ("enabled", "state", "line")
    }
    assert values["unforwarded", "line"] == values["forwarded", "line"] == ["0", "1", "0"]
    assert values["unforwarded", "enabled"] == ["0", "1", "0", "1"]
    assert values["forwarded", "enabled"] == ["0", "1"]
    assert values["forwarded", "state"] == [0, 1, 3, 2, 0]
    assert waves.changes["forwarded.gic_112.hw_deactivate"]


def test_the_records_of_the_test_are_as_declared() -> None:
    assert [record["n"] for record in records()] == list(range(1, len(records()) + 1))
