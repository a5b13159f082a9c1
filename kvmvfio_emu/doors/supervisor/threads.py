"""What /proc tells of a thread: its state, its process, whose child it is."""

from __future__ import annotations

import os


def _status(tid: int, name: str) -> str:
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        return next(line.split()[1] for line in status if line.startswith(name + ":"))


def of(tgid: int) -> list[int]:
    """All threads of a process."""
    return [int(tid) for tid in os.listdir(f"/proc/{tgid}/task")]


def state(tid: int) -> str:
    """Its state, a letter as in /proc; X when it is gone."""
    try:
        return _status(tid, "State")
    except OSError:
        return "X"


def tgid_of(tid: int) -> int:
    """The process it belongs to. ProcessLookupError when it is gone."""
    try:
        return int(_status(tid, "Tgid"))
    except OSError:
        raise ProcessLookupError from None


def is_our_child(tid: int) -> bool:
    """Whether its end is heard by whoever of us started it."""
    try:
        return int(_status(tid, "PPid")) == os.getpid() and int(_status(tid, "Tgid")) == tid
    except OSError:
        return False
