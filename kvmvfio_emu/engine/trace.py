"""The event stream: every step of the model, counted always, handed to listeners when there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvmvfio_emu.engine.clock import Clock


@dataclass(frozen=True, slots=True)
class Event:
    """One step. ``time`` is virtual, in nanoseconds; ``fields`` depend on ``name``."""

    time: int
    name: str
    fields: dict[str, Any]


class Trace:
    """Counts events by name and shows them to listeners.

    The counters are the model's only statistics: nothing else increments them.
    """

    __slots__ = ("_clock", "_listeners", "counters")

    def __init__(self, clock: Clock) -> None:
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._listeners: list[Callable[[Event], None]] = []

    def event(self, name: str, **fields: Any) -> None:
        """Say that ``name`` happened."""
        self.counters[name] += 1
        if self._listeners:
            event = Event(self._clock.now, name, fields)
            for listener in tuple(self._listeners):
                listener(event)

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Show every event from now on to ``listener``; returns the function that ends it."""
        self._listeners.append(listener)

        def stop() -> None:
            self._listeners.remove(listener)

        return stop
