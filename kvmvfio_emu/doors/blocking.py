"""Signals during a call that takes long: as for a system call, one ends it even if Python's handler returns.

Python itself goes on waiting after a signal (PEP 475), and most of a call is Python code anyway; so the interpreter is
asked to tell, through its wakeup descriptor.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from os import close, read, write  # bound here: not what `Kernel.installed` may put in their place

from kvmvfio_emu.engine.poller import Poller


class Signals:
    """While it is entered: the signals that came and that Python has a handler for (`heard`, numbers).

    Python handles signals in its main thread only; in another one nothing is heard.
    """

    def __init__(self, poller: Poller) -> None:
        self.heard: set[int] = set()
        self._depth = 0
        self._before: int | None = None
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        poller.register(self._read, self._listen)
        self._late = select.poll()
        self._late.register(self._read, select.POLLIN)

    def close(self) -> None:
        """Give the descriptors back."""
        close(self._read)
        close(self._write)

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            try:
                self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            except ValueError:  # not the main thread
                self._before = None

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if not self._depth:
            if self._before is not None:
                signal.set_wakeup_fd(self._before)
                if self._late.poll(0):  # after the call has looked last
                    self._listen()
                self._before = None
            self.heard.clear()

    def _listen(self) -> None:
        try:
            numbers = read(self._read, 4096)
        except BlockingIOError:
            return
        self.heard.update(numbers)
        if self._before is not None and self._before >= 0:
            with suppress(OSError):
                write(self._before, numbers)  # an event loop of the program's has it, as without us
