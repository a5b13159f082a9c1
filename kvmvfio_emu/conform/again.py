"""Asks again what may only have come too late.

The probe looks at an effect 30 ms after its cause, which a busy machine does not always keep. So a section with a
difference that nobody knows is asked once more, alone; a real difference is there again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from kvmvfio_emu.conform.answers import Answers, section
from kvmvfio_emu.conform.compare import compare
from kvmvfio_emu.conform.known import Known, explain
from kvmvfio_emu.conform.probe import Target, ask

#: How often at most.
_TIMES = 3


def ask_until_sure(
    program: Path,
    target: Target,
    kernel: Answers,
    sections: Sequence[str],
    entries: Iterable[Known],
    *,
    at_a_time: int = 4,
) -> tuple[Answers, list[str]]:
    """As `probe.ask`; also returns the sections that were asked again. Raises what `ask` does."""
    entries = list(entries)
    ours = ask(program, target, sections, at_a_time=at_a_time)
    again: list[str] = []
    for _ in range(_TIMES):
        different = (one.case for one in compare(kernel, ours, sections).differences)
        doubtful = list(dict.fromkeys(section(case) for case in different if explain(case, entries) is None))
        if not doubtful:
            break
        again += doubtful
        second = ask(program, target, doubtful, at_a_time=1)
        ours.cases.update(second.cases)
        ours.reasons.update(second.reasons)
    return ours, list(dict.fromkeys(again))
