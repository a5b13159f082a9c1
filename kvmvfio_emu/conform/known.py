"""Differences that were looked at and are known, with the reason: a TOML file.

[[difference]]
cases = "guest/*"             # a pattern, as of fnmatch: "*" also matches slashes
profiles = ["linux-6.1"]      # those that it is for; all if absent
gics = [2]                    # the same for the host's GIC
reason = "why it differs"
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from kvmvfio_emu.conform.answers import section
from kvmvfio_emu.view.rules import read_rules

#: The reviewed ones, which come with the package.
REVIEWED = Path(__file__).with_name("known.toml")
_KEYS = {"cases": str, "profiles": list, "gics": list, "reason": str}


@dataclass(frozen=True)
class Known:
    """One entry; an empty tuple stands for all."""

    cases: str
    reason: str
    profiles: tuple[str, ...] = ()
    gics: tuple[int, ...] = ()

    def is_for(self, profile: str, gic: int) -> bool:
        """Whether it says anything of that kernel on such a host."""
        return (not self.profiles or profile in self.profiles) and (not self.gics or gic in self.gics)

    def matches(self, case: str) -> bool:
        """Whether it says anything of that case."""
        return fnmatchcase(case, self.cases)


def load(path: Path, profile: str, gic: int) -> list[Known]:
    """The entries for one kernel. KvmVfioEmuError for a file that is not as above."""
    entries = [Known(**table) for table in read_rules(path, _KEYS, ("cases", "reason"))]
    return [entry for entry in entries if entry.is_for(profile, gic)]


def explain(case: str, entries: Iterable[Known]) -> Known | None:
    """The first entry that says why ``case`` differs."""
    return next((entry for entry in entries if entry.matches(case)), None)


def stale(entries: Iterable[Known], asked: Iterable[str], different: Iterable[str]) -> list[Known]:
    """The entries that match cases that were ``asked``, but none that is ``different``.

    One that matches nothing at all, while its section was asked, is stale too.
    """
    asked, different = list(asked), list(different)
    sections = {section(case) for case in asked}
    return [
        entry
        for entry in entries
        if not any(entry.matches(case) for case in different)
        and (any(entry.matches(case) for case in asked) or section(entry.cases) in sections)
    ]
