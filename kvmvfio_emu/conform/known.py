"""Differences that were looked at and are known, with the reason: a TOML file.

[[difference]]
cases = "guest/*"             # a pattern, as of fnmatch: "*" also matches slashes
profiles = ["linux-6.1"]      # those that it is for; all if absent
gics = [2]                    # the same for the host's GIC
reason = "why it differs"
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kvmvfio_emu.conform.answers import section
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

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
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise KvmVfioEmuError(f"{path}: {error}") from error
    entries = [_entry(path, table) for table in data.pop("difference", [])]
    if data:
        raise KvmVfioEmuError(f"{path}: unknown keys {', '.join(data)}; entries are [[difference]]")
    return [entry for entry in entries if entry.is_for(profile, gic)]


def _entry(path: Path, table: dict[str, Any]) -> Known:
    for key, value in table.items():
        if not isinstance(value, _KEYS.get(key, ())):
            raise KvmVfioEmuError(f"{path}: {key} = {value!r}; an entry has {', '.join(_KEYS)}")
    if not table.get("cases") or not table.get("reason"):
        raise KvmVfioEmuError(f"{path}: an entry needs cases and a reason: {table}")
    fixed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Known(**fixed)


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
