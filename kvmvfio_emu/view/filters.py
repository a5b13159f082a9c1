"""What of a trace is wanted, and which faults: the ``-e`` expressions of a command line, after strace's.

``trace=SET`` (or just ``SET``) names calls and events, ``actor=SET`` who acts, ``inject=...`` is a fault. A later
``trace=`` or ``actor=`` replaces an earlier one; a record has to be in both. The grammar is in docs/reference/trace.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvmvfio_emu.kernel.commands import CLASSES, COMMANDS, name_set
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.faults import parse as parse_fault
from kvmvfio_emu.view.actors import ACTORS, EVENTS, INTERRUPT_STEPS

#: These events are calls, which are named by their command.
_CALLS = frozenset(("ioctl", "ioctl_return", "call", "call_return"))
EVENT_NAMES = frozenset(EVENTS) - _CALLS

#: Class -> its calls and events.
TRACE_CLASSES: Mapping[str, frozenset[str]] = {
    **CLASSES,
    "%irq": INTERRUPT_STEPS,
    "%exit": frozenset(name for name in EVENT_NAMES if name.startswith(("vmexit_", "vmentry"))),
    "%guest": frozenset(name for name in EVENT_NAMES if EVENTS[name][0] == "guest"),
}
_ACTORS = {actor.replace(" ", "-"): actor for actor in ACTORS}


class Selection:
    """What some ``-e`` expressions ask for. KvmVfioEmuError names what is wrong with one."""

    def __init__(self, expressions: Iterable[str] = ()) -> None:
        self._names: frozenset[str] | None = None
        self._actors: frozenset[str] | None = None
        self.faults: list[str] = []  #: for `Host.inject`
        for expression in expressions:
            self._add(expression)

    @property
    def narrows(self) -> bool:
        """Whether anything is left out."""
        return self._names is not None or self._actors is not None

    def accepts(self, name: str, actor: str, command: str) -> bool:
        """Whether event ``name`` of ``actor`` is wanted; ``command`` is the call's that it is about, if any."""
        if self._actors is not None and actor not in self._actors:
            return False
        return self._names is None or (command or name) in self._names

    def _add(self, expression: str) -> None:
        kind, equals, value = expression.partition("=")
        if kind == "inject" and equals:
            parse_fault(value)
            self.faults.append(value)
            return
        if kind == "actor" and equals:
            given = _wanted(expression, value.replace(" ", "-"), _ACTORS, {}, "actor")
            self._actors = frozenset(_ACTORS[name] for name in given)
            return
        if equals and kind != "trace":
            raise KvmVfioEmuError(f"-e {expression}: {kind!r} is none of trace, actor, inject")
        text = value if equals else expression
        self._names = _wanted(expression, text, COMMANDS | EVENT_NAMES, TRACE_CLASSES, "call or event")


def _wanted(
    expression: str, text: str, names: Iterable[str], classes: Mapping[str, frozenset[str]], what: str
) -> frozenset[str]:
    try:
        return name_set(text, names, classes, what)
    except KvmVfioEmuError as error:
        raise KvmVfioEmuError(f"-e {expression}: {error}") from None
