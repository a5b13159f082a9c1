"""Inputs that the strategies draw, always the same, for a fuzzer to start from."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings

from fuzz.calls import FILES, KINDS, PATHS, write_call
from kvmvfio_emu.strategies import Setting, sequences
from kvmvfio_emu.testing.player import Call

MANY = 25


def drawn(which: int, profile: str, machine: str) -> list[bytes]:
    """Sequences of calls for a kernel, without their beginning, for `fuzz.decode`."""
    return [bytes([0, which]) + b"".join(map(write_call, calls)) for calls in drawn_calls(profile, machine)]


def drawn_calls(profile: str, machine: str) -> list[list[Call]]:
    """The last calls of sequences, those that can be written."""
    found: list[list[Call]] = []
    quiet = settings(
        max_examples=MANY,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @quiet
    @given(sequences(Setting(profile, machine), min_size=1, max_size=20))
    def draw(calls: list[Call]) -> None:
        found.append([call for call in calls[-20:] if _writable(call)])

    draw()
    return found


def _writable(call: Call) -> bool:
    if call["do"] == "open":
        return (call["path"], call["kind"]) in PATHS
    if call["do"] == "ioctl":
        return call["on"][0] in FILES and all(kind in KINDS for _, kind, _ in call.get("fds", []))
    return call.get("kind", "eventfd") in (*FILES, "eventfd")
