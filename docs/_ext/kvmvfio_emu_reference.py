"""Directives that write the reference from the code: profiles, the comparison with real kernels, and the help."""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kvmvfio_emu_written import Written
from sphinx.application import Sphinx

from kvmvfio_emu import profiles
from kvmvfio_emu.cli.main import parser
from kvmvfio_emu.conform import known


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value) or "none"
    return f"`{value}`" if value != "" else "absent"


# ---- profiles ----------------------------------------------------------------------------------------------


class Profiles(Written):
    """Each profile, in what they differ, and what every field means."""

    def markdown(self) -> str:
        known = [profiles.load(name) for name in profiles.names()]
        known.sort(key=lambda profile: profile.name != profiles.DEFAULT)
        declared = list(profiles.differences(profiles.Profile))
        base = known[0]
        lines = []
        for profile in known:
            lines += ["", f"## {profile.name}", "", f"{profile.summary}."]
            if profile is base:
                lines += ["", "The default, and what the others are compared with. Its capabilities:", ""]
                lines += [f"* `{name}`: {value}" for name, value in sorted(profile.capabilities.items())]
            else:
                lines += ["", f"What differs from `{base.name}`:", "", *_differences(profile, base, declared)]
        lines += ["", "## What kernels differ in", "", f"In brackets the value of `{base.name}`.", ""]
        for field in declared:
            changed = f" *{field.since}*" if field.since else ""
            lines.append(f"* `{field.name}` ({_value(getattr(base, field.name))}): {field.what}{changed}")
        return "\n".join(lines)


def _differences(
    profile: profiles.Profile, base: profiles.Profile, declared: Iterable[profiles.Difference]
) -> list[str]:
    """Bullets for what the two answer differently, fields first."""
    lines = []
    for field in declared:
        new, old = _value(getattr(profile, field.name)), _value(getattr(base, field.name))
        if new != old:
            lines.append(f"* `{field.name}`: {new}" + ("" if old in ("yes", "no") else f", not {old}"))
    for name in sorted({*profile.capabilities, *base.capabilities}):
        value, before = profile.capability(name), base.capability(name)
        if value != before:
            lines.append(f"* `{name}`: {value}, not {before}")
    return lines


# ---- compared with real kernels ---------------------------------------------------------------------------------


class Conformance(Written):
    """How many of the recorded answers are equal, as last measured, and the differences that are known."""

    def markdown(self) -> str:
        source = Path(self.env.srcdir) / "explanation" / "conformance.json"
        self.env.note_dependency(str(source))
        runs = json.loads(source.read_text(encoding="utf-8"))
        lines = ["| section | " + " | ".join(self._title(run) for run in runs) + " |", "|---" * (len(runs) + 1) + "|"]
        sections = dict.fromkeys(name for run in runs for name in run["sections"])
        for name in sections:
            lines.append(f"| {name} | " + " | ".join(self._share([run["sections"].get(name)]) for run in runs) + " |")
        lines.append("| **all** | " + " | ".join(self._share(run["sections"].values()) for run in runs) + " |")
        entries = tomllib.loads(known.REVIEWED.read_text(encoding="utf-8")).get("difference", [])
        lines += ["", "Differences that are known:" if entries else "No difference is known.", ""]
        for entry in entries:
            kernels = [*entry.get("profiles", []), *(f"GICv{gic}" for gic in entry.get("gics", []))]
            where = f" ({', '.join(kernels)})" if kernels else ""
            lines.append(f"* `{entry['cases']}`{where}: {entry['reason']}")
        return "\n".join(lines)

    @staticmethod
    def _title(run: dict[str, Any]) -> str:
        return f"{run['profile']}, GICv{run['gic']}" if run["gic"] else str(run["profile"])

    @staticmethod
    def _share(rows: Iterable[dict[str, int] | None]) -> str:
        there = [row for row in rows if row is not None]
        given, equal = sum(row["given"] for row in there), sum(row["equal"] for row in there)
        # Rounded down: 100 % is all of them.
        return f"{equal} of {given}, {int(1000 * equal / given) / 10} %" if given else ""


# ---- the command line ------------------------------------------------------------------------------------------


class CommandLine(Written):
    """The help texts, as the program prints them."""

    def markdown(self) -> str:
        os.environ["COLUMNS"] = "100"
        top = parser()
        lines = ["## kvmvfio-emu", "", "```text", top.format_help(), "```"]
        for action in top._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, sub in action.choices.items():
                    lines += ["", f"## {name}", "", "```text", sub.format_help(), "```"]
        return "\n".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("kvmvfio-profiles", Profiles)
    app.add_directive("kvmvfio-conformance", Conformance)
    app.add_directive("kvmvfio-command-line", CommandLine)
    return {"parallel_read_safe": True}
