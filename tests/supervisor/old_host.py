"""`kvmvfio-emu` as it is on a host that lacks something: ``python -m supervisor.old_host FEATURES run -- ...``.

FEATURES, comma-separated: "killable" (WAIT_KILLABLE_RECV, Linux 5.19) and "sync" (SYNC_WAKE_UP, 6.6). What is asked of
the real kernel in their place is something that no kernel has, so its refusal is the real one. With "calm" beside it,
nothing else; without, two of three answers and every other descriptor are held back until SIGUSR1 has interrupted the
thread that they are for (of programs with one thread). At the end, a line on stderr says how often, and how many
answers a repeated call got without being executed again.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path

from kvmvfio_emu.cli.main import main
from kvmvfio_emu.doors.supervisor import loop, notify, run
from kvmvfio_emu.doors.supervisor.owed import Owed, Ticket

_NO_SUCH_FLAG = 1 << 30
_NO_SUCH_REQUEST = 0x400821FF
took: Counter[str] = Counter()


class CountedOwed(Owed):
    """Counts what the tests must have provoked to have tested anything."""

    def remember(self, tid: int, ticket: Ticket, value: int) -> None:
        took["remembered"] += 1
        super().remember(tid, ticket, value)

    def claim(self, tid: int, ticket: Ticket) -> int | None:
        value = super().claim(tid, ticket)
        took["claimed"] += value is not None
        return value


class InterruptedLoop(loop.Loop):
    """Lets a signal come between the execution of a call and its answer."""

    _turn = 0

    def _answer(self, identifier: int, tid: int, value: int) -> None:
        self._turn += 1
        if identifier in self._tickets and self._turn % 3:
            interrupt(self._listener, identifier, tid)
        super()._answer(identifier, tid, value)


class InterruptedListener(notify.Listener):
    """Lets a signal come before a descriptor is given."""

    _tid = _turn = 0

    def receive(self) -> notify.Notification | None:
        notification = super().receive()
        self._tid = notification.tid if notification else 0
        return notification

    def add_fd(self, identifier: int, fd: int, *, cloexec: bool, answer: bool = False) -> int:
        self._turn += 1
        if self._turn % 2:
            interrupt(self, identifier, self._tid)
        return super().add_fd(identifier, fd, cloexec=cloexec, answer=answer)


def interrupt(listener: notify.Listener, identifier: int, tid: int) -> None:
    """SIGUSR1 for the thread, and wait until it has got it; not if it has no handler, or is in it."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{tid}/status").read_text().splitlines())
    bit = 1 << signal.SIGUSR1 - 1
    if int(status["SigCgt"], 16) & bit and not int(status["SigBlk"], 16) & bit:
        os.kill(tid, signal.SIGUSR1)
        took["interrupted"] += 1
        while listener.is_waiting(identifier):
            os.sched_yield()


if __name__ == "__main__":
    lacking = sys.argv[1].split(",")
    if "killable" in lacking:
        run._WAIT_KILLABLE_RECV = _NO_SUCH_FLAG  # type: ignore[misc]
    if "killable" in lacking and "calm" not in lacking:
        loop.Owed = CountedOwed  # type: ignore[misc]
        run.Loop = InterruptedLoop  # type: ignore[misc]
        run.Listener = InterruptedListener  # type: ignore[misc]
    if "sync" in lacking:
        notify._SET_FLAGS = _NO_SUCH_REQUEST  # type: ignore[misc]
    status = main(sys.argv[2:])
    print("old host:", *(f"{name}={took[name]}" for name in ("interrupted", "remembered", "claimed")), file=sys.stderr)
    sys.exit(status)
