"""What the plugin's fixtures are made of: a kernel for one test and the judgement at its end, its interrupts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self, TypeVar

import pytest

from kvmvfio_emu import Kernel, KvmVfioEmuError, profiles
from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.testing import real
from kvmvfio_emu.testing.render import render


class Lent(Protocol):
    """What a fixture lends to a test and takes back itself."""

    def close(self) -> None:
        """Give everything back."""

    def descriptors(self) -> Iterable[int]:
        """What it will close."""


_L = TypeVar("_L", bound=Lent)


def judge_profiles(names: list[str], *, real: bool) -> None:
    """A pytest.UsageError for a profile that does not exist, or that the real kernel cannot serve."""
    from kvmvfio_emu.testing.real import cannot_serve

    for name in names:
        try:
            profiles.load(name)
            reason = cannot_serve(name) if real else None
        except KvmVfioEmuError as error:
            reason = str(error)
        if reason is not None:
            raise pytest.UsageError(f"--kvmvfio-profile: {reason}")


class Session:
    """One test's kernel, and which of its open files are not the test's fault."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self._lent: list[Lent] = []
        self._before = Counter(kernel.open_files())
        self._passed = False

    @classmethod
    def of(cls, request: pytest.FixtureRequest, profile: Any) -> Session:
        """The kernel that a test's markers and the options ask for; skips the test where there is none."""
        marker = request.node.get_closest_marker("real_kvm")
        wanted = request.config.getoption("--kvmvfio-real")
        if marker is not None and (wanted or marker.kwargs.get("only")):
            reason = real.missing() or (real.cannot_serve(profile) if profile is not None else None)
            if reason is not None:
                pytest.skip(reason)
            return cls(real.RealKernel())
        if wanted:
            pytest.skip("not marked real_kvm: it needs the model")
        mark = request.node.get_closest_marker("kvmvfio_profile")
        return cls(Kernel(profile or profiles.DEFAULT, **(mark.kwargs if mark is not None else {})))

    @contextmanager
    def lend(self, thing: _L) -> Iterator[_L]:
        """Files that ``thing`` holds are the fixture's own, whenever they were opened."""
        self._lent.append(thing)
        try:
            yield thing
        finally:
            thing.close()
            self._lent.remove(thing)

    def leaks(self) -> list[str]:
        """Kinds of the files that a test has opened and not closed."""
        lent = Counter(self.kernel.kind(fd) for thing in self._lent for fd in thing.descriptors())
        mine = Counter(self.kernel.open_files()) - self._before - lent
        return sorted(mine.elements())

    def judge(self) -> None:
        """Fail the test that is running, with a list, if it left something open or the state contradicts itself."""
        found = self._faults()
        if found:
            pytest.fail("\n".join(found), pytrace=False)
        self._passed = True

    def _faults(self) -> list[str]:
        found = []
        try:
            self.kernel.check()
        except AssertionError as error:
            found.append(f"the kernel's state contradicts itself: {error}")
        leaks = self.leaks()
        if leaks:
            found.append(f"{len(leaks)} files of the kernel are still open: {', '.join(leaks)}")
        return found

    def __enter__(self) -> Self:
        self.kernel.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            # This is about what the fixtures' own teardown made of it; a test that failed has said enough.
            if self._passed and (found := self._faults()):
                pytest.fail("\n".join(found), pytrace=False)
        finally:
            self.kernel.__exit__(None, None, None)


class IrqTrace:
    """The events of a kernel while it lasts; as text the steps of each interrupt, indented under their causes."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._stop: Callable[[], None] | None = None
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        self._stop = self._kernel.listen(self.events.append)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._stop is not None:
            self._stop()

    def names(self, *only: str) -> list[str]:
        """The names of what happened, in order; only those, if any are given."""
        return [event.name for event in self.events if not only or event.name in only]

    def count(self, name: str) -> int:
        """How often an event happened."""
        return sum(event.name == name for event in self.events)

    def clear(self) -> None:
        """Forget what was."""
        self.events.clear()

    def __str__(self) -> str:
        return render(self.events)
