"""Drawn machine code under the supervisor: the exits are those in process, whether memory is private or a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import a32, a64
from programs.budget import budget
from programs.compare import lasting_difference
from programs.judge import Judge
from programs.model import PROFILE, Steps
from programs.players import IN_PROCESS, Player

STRATEGIES = {"A64": a64.programs(), "A32 and T32": a32.programs()}
RUN = (sys.executable, "-m", "kvmvfio_emu.cli.main", "run", "--profile", PROFILE, "--machine", "oracle-virt")


@pytest.fixture(scope="module")
def players(build: Callable[..., str], supervised: object) -> Iterator[Callable[..., Player]]:
    """``players()``: in process; ``players(memory, gic)``: under the supervisor. Each stays."""
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    started: dict[tuple[str, ...], Player] = {}

    def find(memory: str | None = None, gic: int = 3) -> Player:
        command = IN_PROCESS if memory is None else (*RUN, "--gic", f"v{gic}", "--", build("program"), memory)
        return started.setdefault(command, Player(*command))

    yield find
    assert {player.close() for player in started.values()} <= {0, None}


@pytest.mark.parametrize("memory", ["private", "file"])
@pytest.mark.parametrize("instructions", STRATEGIES)
@given(data=st.data())
@budget(20)
def test_exits_are_those_in_process(
    instructions: str, memory: str, players: Callable[..., Player], data: st.DataObject
) -> None:
    program: Steps = data.draw(STRATEGIES[instructions])
    supervised = players(memory, program.gic)

    def judged() -> list[str]:
        answers = supervised.play(program)
        Judge(program).follow(answers)
        return answers

    assert lasting_difference(lambda: players().play(program), judged) is None
