"""The end of a time slice: one thread for all engines that stops whichever runs, every millisecond.

It holds no state of the model, which stays single-threaded: it only calls the engine's own stop.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from kvmvfio_emu.guest.machine import binding

SLICE_NS = 1_000_000
#: After so many slices in which nothing ran the thread waits to be woken.
_IDLE = 50


class Ticker:
    """Stops engines that run. `enter` and `leave` go around a run; ``ticks`` tells whether any was stopped."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """As new, and so for the child of a fork: it has no such thread, and perhaps a lock that nobody gives back."""
        self.ticks = 0
        self._running: dict[int, Any] = {}  # by thread
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self, handle: Any) -> None:
        """The calling thread is about to run an engine."""
        self._running[threading.get_ident()] = handle
        if not self._wake.is_set():
            self._start()

    def leave(self) -> None:
        """It has."""
        with self._lock:  # or the engine may be gone before the thread has stopped it
            del self._running[threading.get_ident()]

    def _start(self) -> None:
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._tick, name="kvmvfio-emu-ticker", daemon=True)
            # Signals are for the others: a supervisor waits for those of its children.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                self._thread.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _tick(self) -> None:
        idle = 0
        while True:
            time.sleep(SLICE_NS / 1e9)
            with self._lock:
                for handle in tuple(self._running.values()):
                    self.ticks += 1
                    binding.stop(handle)
                idle = 0 if self._running else idle + 1
                if idle > _IDLE:
                    self._wake.clear()
                    if self._running:
                        self._wake.set()  # somebody came between
            self._wake.wait()


ticker = Ticker()


os.register_at_fork(after_in_child=ticker.begin)
