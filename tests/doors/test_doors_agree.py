"""Every door leads into the same kernel: random sequences of calls come to the same, in process and supervised.

The calls are made from the declarations of the ioctls: each kind of file, each request that it takes, arguments of the
declared layout, with values that the fields' names suggest (`kvmvfio_emu.strategies`).
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from kvmvfio_emu import Kernel
from kvmvfio_emu.strategies import Setting, beginning, sequences
from kvmvfio_emu.testing import player
from kvmvfio_emu.testing.player import Arena, Call, Outcome, Player

BOARD = "oracle-virt"
SECONDS = 60
BEGINNING = beginning(Setting("linux-6.12", BOARD))


# ---- the two doors -------------------------------------------------------------------------------------------------


class InProcess:
    """`Kernel` as the player wants it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.open, self.ioctl, self.close = kernel.open, kernel.ioctl, kernel.close

    def settle(self) -> None:
        self.kernel.open_files()


class Supervised:
    """The player as a program of its own under `kvmvfio-emu run`."""

    def __init__(self, profile: str) -> None:
        run = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run", "--profile", profile, "--machine", BOARD, "--"]
        first = subprocess.run([*run, "true"], capture_output=True, text=True, timeout=SECONDS)
        if first.returncode and "seccomp" in first.stderr:
            pytest.skip(f"cannot supervise here: {first.stderr.strip()}")
        program = [sys.executable, "-S", str(Path(player.__file__))]
        self._process = subprocess.Popen([*run, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def play(self, calls: list[Call]) -> list[Outcome]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(calls) + "\n")
            self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], SECONDS)[0], "no answer"
        line = self._process.stdout.readline()
        assert line, f"the player ended: {self._process.wait(SECONDS)}"
        outcomes: list[Outcome] = json.loads(line)
        return outcomes

    def close(self) -> int:
        self._process.communicate(timeout=SECONDS)
        return self._process.returncode


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    arena = Arena()
    yield arena
    arena.close()


@pytest.fixture(scope="module", params=["rfc-2014", "linux-6.12"])
def doors(request: pytest.FixtureRequest) -> Iterator[tuple[str, Supervised]]:
    supervised = Supervised(request.param)
    yield request.param, supervised
    assert supervised.close() == 0


@given(calls=sequences(Setting("linux-6.12", BOARD), every_kernel=True))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=settings().max_examples // 2,
)
def test_a_sequence_of_calls_comes_to_the_same(calls: list[Call], doors: tuple[str, Supervised], arena: Arena) -> None:
    profile, supervised = doors
    with Kernel(profile, BOARD) as kernel:
        ours = Player(InProcess(kernel), arena).play(calls)
        assert kernel.open_files() == []
    theirs = supervised.play(calls)
    for call, one, other in zip(calls, ours, theirs, strict=False):
        assert one == other, call
    assert ours == theirs  # and the counts at the end


def test_the_beginning_gets_through(arena: Arena) -> None:
    """So that what follows it meets files that exist and a VGIC that is initialised."""
    with Kernel("linux-6.12", BOARD) as kernel:
        outcomes = Player(InProcess(kernel), arena).play(BEGINNING)
    assert [call for call, outcome in zip(BEGINNING, outcomes, strict=False) if outcome[1] != "0"] == []
