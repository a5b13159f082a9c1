"""Which answers of two players have to be the same."""

from __future__ import annotations

from collections.abc import Callable


def comparable(answers: list[str]) -> list[str]:
    """Those up to the first that real time has a part in: the end of a time slice, or of patience."""
    *answers, ticks = answers
    late = (at for at, answer in enumerate(answers) if answer.split()[2:3] == ["late"])
    return answers[: min((*late, *map(int, ticks.split()[1:])), default=len(answers))]


def difference(one: list[str], other: list[str]) -> str | None:
    """The first answer that is not the same."""
    for number, (ours, theirs) in enumerate(zip(comparable(one), comparable(other), strict=False)):
        if ours != theirs:
            return f"step {number}: {ours}\nand: {theirs}"
    return None


def lasting_difference(one: Callable[[], list[str]], other: Callable[[], list[str]]) -> str | None:
    """The same of two that play it now, where one does not tell of its time slices: what is there three times."""
    found = None
    for _ in range(3):
        found = difference(one(), other())
        if found is None:
            return None
    return found
