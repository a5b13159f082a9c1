"""The control channel's requests, without a program."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvmvfio_emu.doors.control import Control
from kvmvfio_emu.kernel.boot import boot
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.view.state import VIEWS

DEVICE = "fff51000.ethernet"


@pytest.fixture
def host() -> Host:
    return boot()


def ask(host: Host, **message: Any) -> Any:
    return json.loads(Control(host, lambda: None).handle(json.dumps(message).encode()))


def test_a_line_is_raised_and_lowered(host: Host) -> None:
    for level in (1, 0):
        assert ask(host, op="line", device=DEVICE, index=1, level=level) == {"ok": True, "result": None}
        assert host.machine.gic.is_line_high(113) == bool(level)


def test_a_models_method_is_called(host: Host) -> None:
    host.machine.devices[DEVICE].write(0, 0xF1C, 4, 1 << 16 | 1 << 6)
    assert ask(host, op="call", device=DEVICE, method="raise_interrupt")["ok"]
    assert host.machine.gic.is_line_high(112)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_plain_data(host: Host, view: str) -> None:
    assert ask(host, op="show", view=view)["ok"]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({}, "op"),
        ({"op": "dance"}, "op"),
        ({"op": "line", "device": "nobody", "level": 1}, "no device"),
        ({"op": "line", "device": DEVICE, "index": 3, "level": 1}, "lines 0 to 2"),
        ({"op": "line", "device": DEVICE, "index": True, "level": 1}, "lines 0 to 2"),
        ({"op": "line", "device": DEVICE, "level": 2}, "level is 0 or 1"),
        ({"op": "call", "device": DEVICE, "method": "__init__"}, "offers"),
        ({"op": "call", "device": DEVICE, "method": "reset", "arguments": [1]}, "reset"),
        ({"op": "show", "view": "nothing"}, "no view"),
    ],
)
def test_a_bad_request_is_refused_by_name(host: Host, message: dict[str, Any], says: str) -> None:
    answer = ask(host, **message)
    assert not answer["ok"]
    assert says in answer["error"]


def test_what_is_not_json_is_refused(host: Host) -> None:
    assert "not JSON" in json.loads(Control(host, lambda: None).handle(b"{"))["error"]


def test_check_names_the_broken_invariant(host: Host) -> None:
    assert ask(host, op="check")["ok"]
    host.machine.gic.enable(112)
    assert "unmasked" in ask(host, op="check")["error"]
