"""Every door leads into the same kernel: random sequences of calls come to the same, in process and supervised.

The calls are made from the declarations of the ioctls: each kind of file, each request that it takes, arguments of the
declared layout, with values that the fields' names suggest (`kvmvfio_emu.strategies`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.strategies import Setting, beginning, sequences
from kvmvfio_emu.testing.player import Arena, Call
from kvmvfio_emu.testing.targets import InProcess, Supervised

BOARD = "oracle-virt"
BEGINNING = beginning(Setting("linux-6.12", BOARD))


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    arena = Arena()
    yield arena
    arena.close()


@pytest.fixture(scope="module", params=["rfc-2014", "linux-6.12"])
def doors(request: pytest.FixtureRequest, arena: Arena) -> Iterator[tuple[InProcess, Supervised]]:
    try:
        supervised = Supervised(request.param, BOARD)
    except KvmVfioEmuError as error:
        if "seccomp" not in str(error):
            raise
        pytest.skip(f"cannot supervise here: {error}")
    yield InProcess(request.param, BOARD, arena=arena), supervised
    supervised.close()


@given(calls=sequences(Setting("linux-6.12", BOARD), every_kernel=True))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=settings().max_examples // 2,
)
def test_a_sequence_of_calls_comes_to_the_same(calls: list[Call], doors: tuple[InProcess, Supervised]) -> None:
    ours, theirs = (door.play(calls).outcomes for door in doors)
    for call, one, other in zip(calls, ours, theirs, strict=False):
        assert one == other, call
    assert ours == theirs  # and the counts at the end


def test_the_beginning_gets_through(arena: Arena) -> None:
    """So that what follows it meets files that exist and a VGIC that is initialised."""
    outcomes = InProcess("linux-6.12", BOARD, arena=arena).play(BEGINNING).outcomes
    assert [call for call, outcome in zip(BEGINNING, outcomes, strict=False) if outcome[1] != "0"] == []
