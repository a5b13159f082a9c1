"""Directives that write the reference from the code: profiles, ioctls, and the command line's help.

Each makes Markdown text and lets the page's own parser read it.
"""

from __future__ import annotations

import argparse
import errno
import inspect
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.cli.main import parser
from kvmvfio_emu.conform import known
from kvmvfio_emu.kernel.file import File, IoctlDecl
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.module import DEVICE_TYPES
from kvmvfio_emu.view.offered import file_attributes, file_classes

_ERRNO = re.compile(r"\bE[A-Z0-9]{2,}\b")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value) or "none"
    return f"`{value}`" if value != "" else "absent"


class Written(SphinxDirective):
    """A directive whose content `markdown` returns."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the page changes when the code does
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)

    def markdown(self) -> str:
        raise NotImplementedError


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


# ---- ioctls --------------------------------------------------------------------------------------------------


def _kernels(when: str) -> str:
    """The profiles that meet a condition, for people; empty when all do."""
    known = [profiles.load(name) for name in profiles.names()]
    having = [profile.name for profile in known if profile.offers(when)]
    return "" if len(having) == len(known) else ", ".join(f"`{name}`" for name in having) or "none"


class Ioctls(Written):
    """Each kind of file with its ioctls, from their declarations."""

    def markdown(self) -> str:
        lines: list[str] = []
        for name, cls in file_classes():
            kind, unknown = cls.kind, errno.errorcode[cls.unknown_errno]
            lines += ["", f"## {name}", "", _docstring(cls), ""]
            having = _kernels(cls.when)
            lines += [f"Kernels: {having}.", ""] if having else []
            lines += [f"A number that it does not know is `{unknown}`.", ""]
            for number in sorted(cls.ioctls):
                lines += self._entry(kind, cls, cls.ioctls[number])
            listed = [row for (where, _), row in uapi.IOCTLS.items() if where == kind]
            missing = ", ".join(f"`{row.name}`" for row in listed if row.number not in cls.ioctls)
            if missing:
                lines += ["", f"In the headers, but not answered (`{unknown}`): {missing}"]
        return "\n".join(lines)

    @staticmethod
    def _entry(kind: str, cls: type[File], decl: IoctlDecl) -> list[str]:
        handler = getattr(cls, decl.handler)
        errors = _errors(handler)
        listed = uapi.IOCTLS.get((kind, decl.number))  # type: ignore[call-overload]
        argument = "Argument: a number, or none."
        if listed is not None and listed.struct:
            argument = f"Argument: a pointer to `{listed.struct}`."
        if decl.struct:
            errors.add("EFAULT")
            way = "in and out" if decl.out else "in"
            argument = f"Argument: `{decl.struct}`, {decl.minsz} bytes, {way}"
            argument += ", and what follows it." if decl.tail else "."
        if decl.argsz:
            errors.add("EINVAL")
            argument += f" `argsz` says how many bytes the caller has; fewer than {decl.minsz} are `EINVAL`."
        having = _kernels(f"{cls.when} {decl.when}")
        if having and decl.when:
            refusal = "unknown" if decl.absent is None else f"`{errno.errorcode[decl.absent]}`"
            argument += f" Kernels: {having}; to others it is {refusal}."
        codes = ", ".join(f"`{code}`" for code in sorted(errors))
        return [
            "",
            f"### {uapi.ioctl_name(decl.number, kind)}",
            "",
            _docstring(handler),
            "",
            f"`{decl.number:#010x}`. {argument}" + (f" Errors: {codes}." if codes else ""),
        ]


def _errors(documented: Any) -> set[str]:
    """The errnos that a docstring names, and those of what it refers to: `module.name` or `Class.name`."""
    text = inspect.getdoc(documented) or ""
    found = set(_ERRNO.findall(text)) & set(errno.errorcode.values())
    package = inspect.getmodule(documented).__package__  # type: ignore[union-attr]
    for place, name in re.findall(r"(?<!`)`(\w+)\.(\w+)`", text):
        target = getattr(_named(package, place), name)
        found |= _errors(target)
        if isinstance(target, type):
            found = found.union(*(_errors(member) for member in vars(target).values() if inspect.isfunction(member)))
    return found


def _named(package: str, place: str) -> Any:
    """The module or the class of that name, in ``package`` or else anywhere in the kernel. StopIteration: none."""
    modules = sorted((name, module) for name, module in sys.modules.items() if name.startswith("kvmvfio_emu.kernel."))
    modules.sort(key=lambda entry: not entry[0].startswith(f"{package}."))
    found = (module if name.endswith(f".{place}") else vars(module).get(place) for name, module in modules)
    return next(one for one in found if inspect.ismodule(one) or inspect.isclass(one))


def _docstring(documented: Any) -> str:
    text = inspect.getdoc(documented) or ""
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(r"^(\d+)\.", r"\1\\.", text)  # else Markdown takes it for a list


# ---- device types and attributes -------------------------------------------------------------------------------


class Attributes(Written):
    """Each type of device with its attributes, from the tables that KVM_HAS_DEVICE_ATTR answers from."""

    def markdown(self) -> str:
        lines: list[str] = []
        for device in DEVICE_TYPES:
            needs = [f"a host with a GICv{device.host_gic}"] if device.host_gic else []
            having = _kernels(device.when)
            needs += [f"one of the kernels {having}"] if having else []
            lines += ["", f"## {device.type_name}", "", _docstring(device)]
            lines += ["", f"It needs {' and '.join(needs)}."] if needs else []
            lines += self._table(device.attributes)
        for name, cls in file_classes():
            rows = file_attributes(cls)
            if rows:
                lines += ["", f"## Attributes of a {name} file", *self._table(rows)]
        return "\n".join(lines)

    @staticmethod
    def _table(rows: Iterable[AttrGroup]) -> list[str]:
        lines = ["", "| group | attribute | kernels |", "|---|---|---|"]
        for row in rows:
            names = ", ".join(f"`{name}`" for name in row.names) or f"the {row.encodes}"
            lines.append(f"| `{row.group}` = {row.number} | {names} | {_kernels(row.when) or 'all'} |")
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
        lines = ["```text", top.format_help(), "```"]
        for action in top._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, sub in action.choices.items():
                    lines += ["", f"## {name}", "", "```text", sub.format_help(), "```"]
        return "\n".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("kvmvfio-profiles", Profiles)
    app.add_directive("kvmvfio-ioctls", Ioctls)
    app.add_directive("kvmvfio-attributes", Attributes)
    app.add_directive("kvmvfio-conformance", Conformance)
    app.add_directive("kvmvfio-command-line", CommandLine)
    return {"parallel_read_safe": True}
