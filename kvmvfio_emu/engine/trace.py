"""The event stream: every step of the model, counted always, handed to listeners when there are any.

Each event knows its cause: the event in whose handling it happened. Where a step is put off (deferred work, an
interrupt that waits for the guest's next entry) the cause is kept beside it, by `Trace.remember`, and found again when
it happens. Without listeners an event is a counter and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from kvmvfio_emu.engine.clock import Clock


class Event(NamedTuple):
    """One step. ``time`` is virtual, in nanoseconds; ``fields`` depend on ``name``.

    ``number`` counts the events that listeners saw, from 1; ``cause`` is the number of another one, 0 for none.
    """

    time: int
    name: str
    fields: dict[str, Any]
    number: int = 0
    cause: int = 0


class Trace:
    """Counts events by name and shows them to listeners.

    The counters are the model's only statistics: nothing else increments them.
    """

    __slots__ = ("_asked", "_clock", "_listeners", "_origins", "calls", "cause", "counters", "listening", "number")

    def __init__(self, clock: Clock) -> None:
        self.counters: Counter[str] = Counter()
        self.listening = False  #: whether anybody sees the events
        #: Whether system calls go the long way round: somebody sees them, or decides about them (`ask`).
        self.calls = False
        self._asked = False
        self.number = 0  #: of the last event that was seen
        self.cause = 0  #: of what happens now
        self._clock = clock
        self._listeners: list[Callable[[Event], None]] = []
        self._origins: dict[Hashable, int] = {}

    def event(self, name: str, **fields: Any) -> int:
        """Say that ``name`` happened. Returns its number, 0 when nobody listens."""
        self.counters[name] += 1
        return self._show(name, fields, self.cause) if self.listening else 0

    def show(self, name: str, **fields: Any) -> int:
        """As `event`, but not counted: what only exists for those who look."""
        return self._show(name, fields, self.cause) if self.listening else 0

    def begin(self, name: str, **fields: Any) -> int:
        """As `event`; what happens until `end` is its effect. Returns what `end` wants."""
        self.counters[name] += 1
        before = self.cause
        if self.listening:
            self.cause = self._show(name, fields, before)
        return before

    def step(self, key: Hashable, name: str, **fields: Any) -> None:
        """As `event`, of something that has a history: an effect of the last step of ``key``, and itself the last."""
        self.counters[name] += 1
        if self.listening:
            self._origins[key] = self._show(name, fields, self.origin(key))

    def begin_step(self, key: Hashable, name: str, **fields: Any) -> int:
        """`step` and `begin` in one."""
        self.counters[name] += 1
        before = self.cause
        if self.listening:
            self.cause = self._origins[key] = self._show(name, fields, self.origin(key))
        return before

    def resume(self, cause: int) -> int:
        """What happens until `end` is an effect of the earlier event ``cause``. Returns what `end` wants."""
        before, self.cause = self.cause, cause
        return before

    def end(self, before: int) -> None:
        """The handling that `begin` or `resume` began is over."""
        self.cause = before

    def remember(self, key: Hashable, number: int | None = None) -> None:
        """Keep event ``number`` (default: the present cause) as the origin of what will happen to ``key`` later."""
        if self.listening:
            self._origins[key] = self.cause if number is None else number

    def origin(self, key: Hashable) -> int:
        """What was kept for ``key``; the present cause if nothing was."""
        return self._origins.get(key, self.cause)

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Show every event from now on to ``listener``; returns the function that ends it."""
        self._listeners.append(listener)
        self.listening = self.calls = True

        def stop() -> None:
            self._listeners.remove(listener)
            self.listening = bool(self._listeners)
            self.calls = self.listening or self._asked
            if not self.listening:
                self.cause = 0
                self._origins.clear()

        return stop

    def ask(self, asked: bool) -> None:
        """Whether somebody wants to decide about system calls, even while nobody listens."""
        self._asked = asked
        self.calls = asked or self.listening

    def _show(self, name: str, fields: dict[str, Any], cause: int) -> int:
        self.number += 1
        number = self.number
        event = Event(self._clock.now, name, fields, number, cause)
        for listener in tuple(self._listeners):
            listener(event)
        return number
