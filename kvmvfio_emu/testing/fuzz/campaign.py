"""Draws sequences and plays each on two kernels, until time is up or they differ; then makes it small."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.errors import Flaky

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.strategies import sequences
from kvmvfio_emu.strategies.setting import Setting
from kvmvfio_emu.testing.fuzz.compare import Comparison, Difference, compare
from kvmvfio_emu.testing.fuzz.known import Known
from kvmvfio_emu.testing.fuzz.reached import Reached
from kvmvfio_emu.testing.player import Call
from kvmvfio_emu.testing.targets import Played, Target, dangerous

#: Sequences that Hypothesis draws at a time: after so many it starts anew, with another seed.
_BATCH = 200
#: Seconds for making a sequence small, and how many are tried for it, after which the smallest so far has to do.
_SHRINKING, _SMALLER = 60.0, 400


class _Differs(Exception):
    """Tells Hypothesis of a difference."""


class _EnoughError(BaseException):
    """Ends a batch at once; nobody catches it on the way."""


class _TroubleError(BaseException):
    """So does this: a target cannot go on."""


@dataclass(frozen=True)
class Found:
    """The first difference that nobody knows."""

    calls: list[Call]
    difference: Difference
    played: tuple[Played, Played]


@dataclass
class Campaign:
    """Two targets, and what is drawn for them. ``seconds`` or ``examples`` end it, whichever comes first.

    ``times``: how often a difference must be seen, as a real kernel does some things when it likes.
    """

    targets: tuple[Target, Target]
    setting: Setting
    kinds: frozenset[str] | None = None
    known: Sequence[Known] = ()
    seed: int = 0
    seconds: float | None = None
    examples: int | None = None
    database: Path | None = None
    every_kernel: bool = False
    times: int = 3
    clock: Callable[[], float] = time.monotonic
    # What has come of it.
    reached: Reached = field(default_factory=Reached)
    explained: Counter[Known] = field(default_factory=Counter)
    #: Differences that were not there again.
    unsteady: int = 0
    interrupted: bool = False
    trouble: str = ""
    _small: Found | None = None
    _found_at: float | None = None
    _tried: int = 0

    def run(self) -> Found | None:
        """Search. Ctrl-C (`interrupted`) or a target that cannot go on (`trouble`) ends it; what was reached stays."""
        begun, batch, found = self.clock(), 0, None
        try:
            while found is None and not self._over(begun):
                self._batch(batch, begun)
                found, batch = self._small, batch + 1
            if found is not None:
                found = self.shorten(found.calls)
        except KeyboardInterrupt:
            self.interrupted, found = True, self._small
        except (KvmVfioEmuError, _TroubleError) as error:
            self.trouble, found = str(error), self._small
        self.reached.seconds = self.clock() - begun
        return found

    def _over(self, begun: float) -> bool:
        return (self.seconds is not None and self.clock() - begun >= self.seconds) or (
            self.examples is not None and self.reached.sequences >= self.examples
        )

    def _enough(self) -> bool:
        return self._tried >= _SMALLER or (self._found_at is not None and self.clock() - self._found_at >= _SHRINKING)

    def _batch(self, number: int, begun: float) -> None:
        left = _BATCH if self.examples is None else min(_BATCH, self.examples - self.reached.sequences)

        @settings(  # above the seed, which would switch the database off
            max_examples=left,
            deadline=None,
            database=None if self.database is None else DirectoryBasedExampleDatabase(self.database),
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            print_blob=False,
        )
        @seed(f"{self.seed}.{number}")
        @given(sequences(self.setting, self.kinds, every_kernel=self.every_kernel))
        def play(calls: list[Call]) -> None:
            self._example(calls, begun)

        try:
            play()
        except (_EnoughError, _Differs, Flaky):
            return

    def _example(self, calls: list[Call], begun: float) -> None:
        shrinking = self._found_at is not None
        if self._enough() if shrinking else self._over(begun):
            raise _EnoughError
        self._tried += shrinking
        calls = [call for call in calls if dangerous(call) is None]
        try:
            found = self.steady(calls, count=not shrinking)
        except KvmVfioEmuError as error:
            raise _TroubleError(str(error)) from error
        if found is not None:
            self._found_at = self.clock() if self._found_at is None else self._found_at
            if self._small is None or _size(found.calls) <= _size(self._small.calls):
                self._small = found
            raise _Differs

    # -- one sequence ---------------------------------------------------------------------------------------------

    def once(self, calls: list[Call]) -> tuple[Comparison, tuple[Played, Played]]:
        """Play on both and compare."""
        left, right = (target.play(calls) for target in self.targets)
        return compare(calls, left, right, self.known), (left, right)

    def steady(self, calls: list[Call], *, count: bool = False) -> Found | None:
        """What differs each time that it is played. ``count``: it is one of those that the campaign is about."""
        comparison, played = self.once(calls)
        if count:
            self.reached.add(calls, played[0])
            self.explained.update(comparison.explained)
        for _ in range(self.times - 1):
            if comparison.difference is None:
                return None
            place = comparison.difference.place
            comparison, played = self.once(calls)
            if comparison.difference is None or comparison.difference.place != place:
                self.unsteady += 1
                return None
        return None if comparison.difference is None else Found(calls, comparison.difference, played)

    def shorten(self, calls: list[Call]) -> Found | None:
        """Leave out each call without which the kernels still differ, and what comes after the difference."""
        small, at = self.steady(calls), 0
        if small is None:
            return self._small
        while at < len(small.calls):
            fewer = self.steady(small.calls[:at] + small.calls[at + 1 :])
            if fewer is None:
                at += 1
            else:
                small = fewer
        return small


def _size(calls: list[Call]) -> tuple[int, int]:
    return len(calls), len(repr(calls))
