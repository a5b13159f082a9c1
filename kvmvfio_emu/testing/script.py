"""Orders as scripts: what a state machine did, as text that can be replayed, shortened, and told with all events."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar

from hypothesis import currently_in_test_context, note

from kvmvfio_emu.testing.render import render
from kvmvfio_emu.testing.world import World

_SHOWN = 60

#: Its name and its arguments.
Step = tuple[str, dict[str, Any]]


class Scripted:
    """Base of a machine that writes each of its steps to ``script``; the first boots ``world``."""

    #: Whether its world keeps the events of what follows its boot.
    watched: ClassVar[bool] = False
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.script: list[str] = []

    def teardown(self) -> None:
        """What is to be done at the end of a script, whether or not it failed."""
        raise NotImplementedError

    def explain(self) -> None:
        """Beside Hypothesis's own account of the steps: a script for `replay`, and what happens inside meanwhile."""
        if currently_in_test_context() and not self.watched:
            note(f"replay with: {type(self).__name__}.replay({'; '.join(self.script)!r})")
            note(_Inside(type(self), tuple(self.script)))

    @classmethod
    def replay(cls, script: str) -> None:
        """Take the steps of a script that a failure has printed, one after the other. Raises what they raise.

        ValueError for what is no step.
        """
        cls().follow([cls._step(line.strip()) for line in script.split(";")])

    def follow(self, steps: Iterable[Step]) -> None:
        """As `replay`, with this machine, which is new."""
        try:
            for name, values in steps:
                getattr(self, name)(**values)
        finally:
            self.teardown()

    @classmethod
    def shorten(cls, script: str) -> str:
        """The steps without which ``script`` does not fail. In seconds, where Hypothesis, which shrinks more, takes a
        minute; ValueError when it does not fail at all.
        """
        steps = [line.strip() for line in script.split(";")]
        wanted = cls._failure(steps)
        if wanted is None:
            raise ValueError("this script does not fail")
        size = len(steps) // 2
        while size:
            at = 1  # the first one boots
            while at < len(steps):
                fewer = steps[:at] + steps[at + size :]
                if cls._failure(fewer) is wanted:
                    steps = fewer
                else:
                    at += size
            size //= 2
        return "; ".join(steps)

    @classmethod
    def _failure(cls, steps: list[str]) -> type[Exception] | None:
        calls = [cls._step(line) for line in steps]
        try:
            cls().follow(calls)
        except Exception as error:
            return type(error)
        return None

    @classmethod
    def _step(cls, line: str) -> Step:
        name, values = _parsed(line)
        if not callable(getattr(cls, name, None)):
            raise ValueError(f"{line!r} is no step")
        return name, values


class _Inside:
    """The events of a script. Found by replaying it when it is printed, as looking at all of them costs time."""

    def __init__(self, machine: type[Scripted], steps: tuple[str, ...]) -> None:
        self._machine = type(machine.__name__, (machine,), {"watched": True})
        self._steps = steps

    def __repr__(self) -> str:
        machine = self._machine()
        with suppress(Exception):  # the failure that is being told
            machine.follow(map(machine._step, self._steps))
        return f"what happened inside:\n{render(machine.world.events, _SHOWN)}"


def _parsed(line: str) -> Step:
    """(name, arguments) of a line of a script, which is not executed. ValueError when it is none."""
    try:
        call = ast.parse(line, mode="eval").body
    except SyntaxError:
        call = None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError(f"{line!r} is no step")
    return call.func.id, {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg}
