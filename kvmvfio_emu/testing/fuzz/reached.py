"""What a campaign has reached: ioctls, errnos, clauses by which our own kernel refused, how much succeeded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from kvmvfio_emu.testing.fuzz.compare import name_of
from kvmvfio_emu.testing.player import Call
from kvmvfio_emu.testing.targets import Played

_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")


class Reached:
    """Counts over all sequences of a campaign, by the answers of its first target."""

    def __init__(self) -> None:
        self.sequences = 0
        self.calls = 0
        self.succeeded = 0
        self.seconds = 0.0
        #: Ioctl, with the kind of file -> errno ("0" for success) -> how often.
        self.answers: dict[str, Counter[str]] = {}
        #: Reasons of our own kernel, without their numbers.
        self.reasons: Counter[str] = Counter()

    def add(self, calls: Sequence[Call], played: Played) -> None:
        """One sequence."""
        self.sequences += 1
        for call, outcome in zip(calls, played.outcomes, strict=False):
            self.calls += 1
            self.succeeded += outcome[1] == "0"
            if call["do"] == "ioctl":
                name = f"{name_of(call)} on {call['on'][0]}"
                self.answers.setdefault(name, Counter())[str(outcome[1])] += 1
        for reason in played.reasons.values():
            self.reasons[_NUMBERS.sub("N", reason)] += 1

    @property
    def accepted(self) -> list[str]:
        """The ioctls that succeeded at least once."""
        return sorted(name for name, answers in self.answers.items() if answers["0"])

    @property
    def pairs(self) -> int:
        """How many different (ioctl, errno) there were, success included."""
        return sum(map(len, self.answers.values()))

    @property
    def share(self) -> float:
        """Calls that succeeded, of all."""
        return self.succeeded / self.calls if self.calls else 0.0

    @property
    def rate(self) -> float:
        """Sequences a second."""
        return self.sequences / self.seconds if self.seconds else 0.0

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sequences": self.sequences,
            "calls": self.calls,
            "succeeded": self.succeeded,
            "seconds": round(self.seconds, 3),
            "answers": {name: dict(counts) for name, counts in sorted(self.answers.items())},
            "reasons": dict(self.reasons.most_common()),
        }

    def __str__(self) -> str:
        return (
            f"{self.sequences} sequences, {self.calls} calls in {self.seconds:.0f} s ({self.rate:.1f} sequences/s); "
            f"{100 * self.share:.0f} % of the calls succeeded\n"
            f"{len(self.answers)} ioctls by the kind of file, {len(self.accepted)} of them accepted at least once; "
            f"{self.pairs} different answers (ioctl and errno); {len(self.reasons)} different reasons to refuse"
        )
