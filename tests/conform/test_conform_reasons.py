"""Which refusal belongs to which case that the probe printed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator

import pytest

from kvmvfio_emu.conform.worker import Reasons
from kvmvfio_emu.engine.trace import Event


class Probe:
    """What the kernel and the probe do, in their order."""

    def __init__(self) -> None:
        read, self._write = os.pipe()
        self.reasons = Reasons(read)
        self._fds = (read, self._write)

    def refused(self, name: str, reason: str) -> None:
        self.reasons.hear(Event(0, "errno", {"errno": getattr(errno, name), "reason": reason}))

    def prints(self, case: str, name: str = "0") -> None:
        line = json.dumps({"case": case, "ret": -1, "errno": name, "out": {}}) + "\n"
        os.write(self._write, line.encode())

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def found(capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[Probe, Callable[[], dict[str, str | None]]]]:
    probe = Probe()

    def reasons() -> dict[str, str | None]:
        probe.reasons.drain()
        cases = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {case["case"]: case.get("reason") for case in cases}

    yield probe, reasons
    probe.close()


def test_each_refusal_belongs_to_the_line_after_it(found) -> None:
    probe, reasons = found
    probe.prints("kvm/ok")
    probe.refused("EINVAL", "first")
    probe.prints("kvm/a", "EINVAL")
    probe.prints("kvm/ok-again")
    probe.refused("EINVAL", "second")
    probe.prints("kvm/b", "EINVAL")
    assert reasons() == {"kvm/ok": None, "kvm/a": "first", "kvm/ok-again": None, "kvm/b": "second"}


def test_refusals_while_preparing_are_not_the_reason(found) -> None:
    probe, reasons = found
    probe.refused("EBUSY", "preparing")
    probe.refused("EINVAL", "earlier")
    probe.refused("EINVAL", "the one")
    probe.refused("ENXIO", "cleaning")
    probe.prints("kvm/a", "EINVAL")
    assert reasons() == {"kvm/a": "the one"}


def test_a_refusal_with_another_errno_is_no_reason(found) -> None:
    probe, reasons = found
    probe.refused("EINVAL", "ours")
    probe.prints("kvm/host-said", "EPERM")
    probe.prints("kvm/next", "EINVAL")
    assert reasons() == {"kvm/host-said": None, "kvm/next": None}


def test_other_events_are_not_listened_to(found) -> None:
    probe, reasons = found
    probe.reasons.hear(Event(0, "release", {"file": "vm"}))
    probe.prints("kvm/a", "EINVAL")
    assert reasons() == {"kvm/a": None}


def test_a_line_that_comes_in_two_pieces_is_one(found) -> None:
    probe, reasons = found
    probe.refused("EINVAL", "why")
    os.write(probe._write, b'{"case": "kvm/a", "ret": -1,')
    probe.reasons.drain()
    os.write(probe._write, b' "errno": "EINVAL", "out": {}}\n')
    assert reasons() == {"kvm/a": "why"}
