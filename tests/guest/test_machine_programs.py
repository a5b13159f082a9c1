"""Drawn machine code in process: KVM_RUN answers as KVM does, the same each time, and the emulator lives on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from programs import a32, a64
from programs.budget import budget
from programs.compare import comparable, difference
from programs.judge import Judge
from programs.model import MAILBOX, PC, PSTATE, RAM, Steps, X
from programs.players import IN_PROCESS, Died, Player

STRATEGIES = {"A64": a64.programs(), "A32 and T32": a32.programs()}


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    player = Player(*IN_PROCESS)
    yield player
    assert player.close() in (0, None)


@pytest.mark.parametrize("instructions", STRATEGIES)
@given(data=st.data())
@budget(4)
def test_kvm_run_answers_as_kvm_does(instructions: str, player: Player, data: st.DataObject) -> None:
    program: Steps = data.draw(STRATEGIES[instructions])
    answers = player.play(program)
    judge = Judge(program)
    judge.follow(answers)
    event(f"accesses: {judge.accesses}")
    event("compared to the end" if len(comparable(answers)) == len(answers) - 1 else "compared in part")
    assert difference(answers, player.play(program)) is None


#: A store or a load and where its access is seen: width, instruction, PSTATE, then size, write and data.
ACCESSES = [
    (64, 0x39000001, 0x3C5, 1, True, 0x88),  # strb w1, [x0]
    (64, 0xF9000001, 0x3C5, 8, True, 0x1122334455667788),  # str x1, [x0]
    (64, 0x79800001, 0x3C5, 2, False, 0),  # ldrsh x1, [x0]
    (32, 0xE1C010B0, 0x1D3, 2, True, 0x7788),  # strh r1, [r0]
    (32, 0xE7FE6001, 0x1F3, 4, True, 0x55667788),  # str r1, [r0] in T32
]


@pytest.mark.parametrize(("width", "code", "state", "size", "write", "data"), ACCESSES)
def test_the_judge_knows_an_access(
    player: Player, width: int, code: int, state: int, size: int, write: bool, data: int
) -> None:
    """It looks at a real exit, and refuses each one that is a little different."""
    program = Steps(width)
    program.poke(0, code.to_bytes(4, "little"))
    program.put(0, X[0], MAILBOX)
    program.put(0, X[1], 0x1122334455667788)
    if width == 32:
        program.put(0, X[1], 0x55667788)
    program.put(0, PSTATE, state)
    program.put(0, PC, RAM)
    program.run(0, 0x8877665544338281)
    program.complete(0)
    *answers, _, _ = player.play(program)
    judge = Judge(program)
    judge.follow(answers)
    assert (judge.accesses, judge.completed) == (1, 1)
    words = answers[-2].split()
    assert words[:9] == ["run", "0", "0", "0", "6", f"{MAILBOX:x}", f"{size:x}", f"{write:x}", f"{data:x}"]
    for place, wrong in ((5, f"{MAILBOX + 8:x}"), (6, f"{3 - size if size < 3 else 2:x}"), (7, f"{not write:x}")):
        other = [*words[:place], wrong, *words[place + 1 :]]
        with pytest.raises(AssertionError):
            Judge(program).follow([*answers[:-2], " ".join(other)])
    with pytest.raises(AssertionError):
        Judge(program).follow([*answers[:-1], answers[-1].replace(" 0 -1 EINTR ", " 0 -1 EFAULT ")])


def test_a_player_that_dies_is_told_with_its_program() -> None:
    player = Player("sh", "-c", "read line; exit 3")
    with pytest.raises(Died, match=r"ended with 3(?s:.*)new 64 1 3 0"):
        player.play(Steps(64))
    player.close()
