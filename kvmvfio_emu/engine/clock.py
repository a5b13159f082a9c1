"""Virtual time: a clock that only moves when the model says so, and what is due at which moment."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Timer:
    """Something due at a moment; `cancel` takes it back."""

    __slots__ = ("callback", "due")

    def __init__(self, due: int, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget it; harmless when it has fired."""
        self.callback = None


class Clock:
    """Nanoseconds since boot. Never reads the real time, so a run repeats exactly."""

    __slots__ = ("_heap", "_order", "now")

    def __init__(self) -> None:
        self.now = 0
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = count()

    def after(self, delay: int, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` when ``delay`` (ns, >= 0) has passed."""
        if delay < 0:
            raise ValueError(f"a delay of {delay} ns lies in the past")
        timer = Timer(self.now + delay, callback)
        heapq.heappush(self._heap, (timer.due, next(self._order), timer))
        return timer

    def advance(self, nanoseconds: int) -> None:
        """Let time pass; what falls due on the way happens at its own moment."""
        end = self.now + nanoseconds
        while (due := self.next_due()) is not None and due <= end:
            self._fire(due)
        self.now = max(self.now, end)  # a callback may have let time pass, too

    def jump(self) -> bool:
        """Go to the next due moment and let it happen. False when nothing is due."""
        due = self.next_due()
        if due is None:
            return False
        self._fire(due)
        return True

    def next_due(self) -> int | None:
        """The moment of the next timer, None when there is none."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _fire(self, due: int) -> None:
        timer = heapq.heappop(self._heap)[2]
        self.now = max(self.now, due)
        callback, timer.callback = timer.callback, None
        if callback is not None:
            callback()
