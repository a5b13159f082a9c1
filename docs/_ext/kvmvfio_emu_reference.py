"""Directives that write the reference from the code: profiles, ioctls, and the command line's help.

Each makes Markdown text and lets the page's own parser read it.
"""

from __future__ import annotations

import argparse
import errno
import inspect
import os
import re
from dataclasses import MISSING, fields
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import kvmvfio_emu.kernel.boot  # noqa: F401 - imports every kind of file
from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.cli.main import parser
from kvmvfio_emu.kernel.file import File, IoctlDecl

_ERRNO = re.compile(r"\bE[A-Z0-9]{2,}\b")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return f"`{value}`" if value != "" else "absent"


class Written(SphinxDirective):
    """A directive whose content `markdown` returns."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)

    def markdown(self) -> str:
        raise NotImplementedError


# ---- profiles ----------------------------------------------------------------------------------------------


class Profiles(Written):
    """Each profile, in what they differ, and what every field means."""

    def markdown(self) -> str:
        known = [profiles.load(name) for name in profiles.names()]
        known.sort(key=lambda profile: profile.name != profiles.DEFAULT)
        declared = [
            field for field in fields(profiles.Profile) if field.name not in ("name", "summary", "capabilities")
        ]
        lines = ["## The profiles", ""]
        for profile in known:
            default = " (the default)" if profile.name == profiles.DEFAULT else ""
            lines.append(f"* `{profile.name}`{default}: {profile.summary}")
        lines += ["", "## What they differ in", ""]
        lines += self._table(known, [f.name for f in declared], getattr)
        names = sorted({name for profile in known for name in profile.capabilities})
        differing = self._table(known, names, lambda profile, name: profile.capability(name))
        lines += ["", "## Capabilities", "", "What `KVM_CHECK_EXTENSION` answers; what is not listed is 0.", ""]
        lines += [f"* `{name}`: {known[0].capability(name)}" for name in names if self._same(known, name)]
        if len(differing) > 2:
            lines += ["", *differing]
        lines += ["", "## Every field", ""]
        analyzer = ModuleAnalyzer.for_module("kvmvfio_emu.profiles")
        comments = analyzer.find_attr_docs()
        for field in declared:
            meaning = " ".join(comments.get(("Profile", field.name), ["the processor architecture."])).strip()
            default = field.default_factory() if field.default is MISSING else field.default  # type: ignore[misc]
            lines.append(f"* `{field.name}` (default {_value(default)}): {meaning}")
        return "\n".join(lines)

    @staticmethod
    def _same(known: list[profiles.Profile], capability: str) -> bool:
        return len({profile.capability(capability) for profile in known}) == 1

    @staticmethod
    def _table(known: list[profiles.Profile], names: list[str], get: Any) -> list[str]:
        """Rows for those names in which the profiles differ."""
        lines = [
            "| | " + " | ".join(f"`{profile.name}`" for profile in known) + " |",
            "|---|" + "---|" * len(known),
        ]
        for name in names:
            values = [_value(get(profile, name)) for profile in known]
            if len(set(values)) > 1:
                lines.append(f"| `{name}` | " + " | ".join(_cell(value) for value in values) + " |")
        return lines


# ---- ioctls --------------------------------------------------------------------------------------------------


def _kinds() -> dict[str, type[File]]:
    """Kind of file -> the most derived class of it."""
    found: dict[str, type[File]] = {}

    def walk(cls: type[File]) -> None:
        if cls.ioctls:
            found[cls.kind] = cls
        for child in cls.__subclasses__():
            walk(child)

    walk(File)
    return {kind: found[kind] for kind in uapi.KINDS if kind in found}


class Ioctls(Written):
    """Each kind of file with its ioctls, from their declarations."""

    def markdown(self) -> str:
        lines: list[str] = []
        for kind, cls in _kinds().items():
            unknown = errno.errorcode[cls.unknown_errno]
            lines += ["", f"## {kind}", "", _docstring(cls), ""]
            lines += [f"A number that it does not know is `{unknown}`.", ""]
            if any(decl.argsz for decl in cls.ioctls.values()):
                lines += ["Structs marked † begin with `argsz`; one below the size given here is `EINVAL`.", ""]
            lines += ["| ioctl | number | argument | errno | |", "|---|---|---|---|---|"]
            for number in sorted(cls.ioctls):
                lines.append(self._row(kind, cls, cls.ioctls[number]))
            listed = [row for (where, _), row in uapi.IOCTLS.items() if where == kind]
            missing = ", ".join(f"`{row.name}`" for row in listed if row.number not in cls.ioctls)
            if missing:
                lines += ["", f"In the headers, but not answered (`{unknown}`): {missing}"]
        return "\n".join(lines)

    @staticmethod
    def _row(kind: str, cls: type[File], decl: IoctlDecl) -> str:
        doc = _docstring(getattr(cls, decl.handler))
        errors = set(_ERRNO.findall(doc)) & set(errno.errorcode.values())
        if decl.struct:
            errors.add("EFAULT")
        if decl.argsz:
            errors.add("EINVAL")
        argument = "a number, or none"
        if decl.struct:
            way = "in, out" if decl.out else "in"
            argument = f"`{decl.struct}`, {decl.minsz} bytes{'†' if decl.argsz else ''}, {way}"
            argument += ", and what follows" if decl.tail else ""
        name = uapi.ioctl_name(decl.number, kind)
        codes = ", ".join(f"`{code}`" for code in sorted(errors))
        return f"| `{name}` | `{decl.number:#010x}` | {argument} | {codes} | {_cell(doc)} |"


def _docstring(documented: Any) -> str:
    text = inspect.getdoc(documented) or ""
    return re.sub(r"``([^`]+)``", r"`\1`", text)


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
    app.add_directive("kvmvfio-command-line", CommandLine)
    return {"parallel_read_safe": True}
