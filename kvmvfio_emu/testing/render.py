"""Events as indented text: each under its cause. For reports of failed tests, where nothing else explains an order."""

from __future__ import annotations

from collections.abc import Iterable

from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.kernel.commands import ioctl_command

#: Of a call that succeeded the return says nothing new.
_RETURNS = frozenset({"ioctl_return", "call_return"})
_DEEPEST = 8
#: vCPUs that share a processor.
_NOISE = frozenset({"vmexit_preempt", "vmexit_mmio", "vmentry"})


def render(events: Iterable[Event], limit: int = 200) -> str:
    """At most ``limit`` lines, the last ones; time in virtual nanoseconds."""
    depth: dict[int, int] = {}
    lines = []
    for event in events:
        depth[event.number] = min(depth.get(event.cause, -1) + 1, _DEEPEST)
        text = _text(event)
        if text is not None:
            lines.append(f"{event.time:>9} {'  ' * depth[event.number]}{text}")
    left = len(lines) - limit
    return "\n".join([f"... {left} earlier", *lines[-limit:]] if left > 0 else lines)


def _text(event: Event) -> str | None:
    fields = event.fields
    if event.name == "ioctl":
        return f"{ioctl_command(fields['file'], fields['request'])} on a {fields['file']} file"
    if event.name in _NOISE:
        return None
    if event.name == "call":
        return " ".join([fields["call"], *(f"{name}={_short(value)}" for name, value in fields["arguments"].items())])
    if event.name in _RETURNS:
        return f"refused: {fields['reason']}" if fields.get("reason") else None
    return " ".join([event.name, *(f"{name}={_short(value)}" for name, value in fields.items())])


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
