"""The directive ``kvmvfio-man``: synopsis, commands and options of the man page, from the argument parser."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from kvmvfio_emu_written import Written
from sphinx.application import Sphinx

from kvmvfio_emu.cli.main import parser


class Man(Written):
    """A section for each command. Written as reStructuredText, like its page."""

    def markdown(self) -> str:
        """The page's middle; reStructuredText, whatever the name says."""
        top = parser()
        lines: list[str] = []
        for name, sub in _commands(top):
            lines += ["", name, "~" * len(name), "", *_command(sub)]
        return "\n".join(lines)


def _commands(of: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _command(sub: argparse.ArgumentParser) -> list[str]:
    lines = [*_usage(sub), "", _escaped(sub.description or ""), "", *_definitions(sub)]
    for _, operation in _commands(sub):
        lines += [
            *(line.removeprefix("| ") for line in _usage(operation)),
            *(f"   {line}" for line in [_escaped(_help_of(sub, operation)), ""]),
        ]
        lines += [f"   {line}" for line in _definitions(operation)]
    return lines


def _usage(of: argparse.ArgumentParser) -> list[str]:
    """A line block: one line for each way to call it."""
    text = " ".join(of.format_usage().removeprefix("usage: ").split())
    return [f"| ``{way}``" for way in re.split(r" (?=kvmvfio-emu )", text)]


def _help_of(parent: argparse.ArgumentParser, operation: argparse.ArgumentParser) -> str:
    """What the parent's help says of one of its commands."""
    for action in parent._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            name = next(name for name, sub in action.choices.items() if sub is operation)
            return operation.description or helps.get(name, "")
    return ""


def _definitions(of: argparse.ArgumentParser) -> list[str]:
    """The arguments of a parser that need a word, as a definition list."""
    formatter = of._get_formatter()
    lines: list[str] = []
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            continue
        if not action.help or action.help == argparse.SUPPRESS:
            continue
        what = formatter._expand_help(action)
        metavar = formatter._metavar_formatter(action, action.dest)(1)[0]
        takes = "" if action.nargs == 0 else f" {formatter._format_args(action, action.dest.upper())}"
        names = ", ".join(name + takes for name in action.option_strings) or metavar
        lines += [f"``{names}``", f"   {_escaped(what)}", ""]
    return lines


def _escaped(text: str) -> str:
    """Plain text that reStructuredText leaves alone, but for `code`."""
    text = text.replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|").replace("_ ", "\\_ ")
    parts = text.split("`")
    return "".join(f"``{part}``" if number % 2 else part for number, part in enumerate(parts))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("kvmvfio-man", Man)
    return {"parallel_read_safe": True}
