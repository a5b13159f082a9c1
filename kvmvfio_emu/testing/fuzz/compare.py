"""Where two kernels answer a sequence differently for the first time, past what is known to differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kvmvfio_emu import uapi
from kvmvfio_emu.testing.fuzz.known import Known
from kvmvfio_emu.testing.player import Call, Outcome
from kvmvfio_emu.testing.targets import ENDED, Played

#: What a difference can be in; `Known.differs` names one of them.
ERRNO, VALUE = "errno", "value"


class Difference(NamedTuple):
    """``place``: of the call; beyond the calls it is of the eventfd that is counted. None: no answer was left."""

    place: int
    left: Outcome | None
    right: Outcome | None

    @property
    def kind(self) -> str:
        """`VALUE` when both succeeded and the sequence can go on, else `ERRNO`."""
        succeeded = all(one is not None and one[1] == "0" for one in (self.left, self.right))
        return VALUE if succeeded else ERRNO


class Comparison(NamedTuple):
    """``difference`` is the first that nobody knows; ``explained``: the entry for each one before it."""

    difference: Difference | None
    explained: list[Known]


def compare(calls: Sequence[Call], left: Played, right: Played, known: Iterable[Known] = ()) -> Comparison:
    """Compare answer by answer. After a known difference in errnos the two kernels are in different states: no more is
    compared then."""
    entries = list(known)
    explained: list[Known] = []
    for found in _differences(left.outcomes, right.outcomes):
        call = calls[found.place] if found.place < len(calls) else None
        entry = None if _ended(found) else next((one for one in entries if one.matches(call, found)), None)
        if entry is None:
            return Comparison(found, explained)
        explained.append(entry)
        if found.kind == ERRNO:
            break
    return Comparison(None, explained)


def _differences(left: Sequence[Outcome], right: Sequence[Outcome]) -> Iterator[Difference]:
    for place in range(max(len(left), len(right))):
        one, other = (played[place] if place < len(played) else None for played in (left, right))
        if one != other:
            yield Difference(place, one, other)


def _ended(found: Difference) -> bool:
    """Whether one of the two did not get any further: never known."""
    return any(one is None or one[0] in ENDED for one in (found.left, found.right))


def name_of(call: Call | None) -> str:
    """The ioctl's name, or what else is done; "count" for the counts at the end."""
    if call is None:
        return "count"
    return uapi.ioctl_name(call["number"], call["on"][0]) if call["do"] == "ioctl" else str(call["do"])
