"""Calls that take long (KVM_RUN), run in slices by one thread: repeatable, and nothing else is starved."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Turn(Enum):
    """How a slice ended."""

    RUNNABLE = "runnable"  #: there is more to do
    BLOCKED = "blocked"  #: only an event from elsewhere helps
    DONE = "done"  #: the call has returned


class Call(Protocol):
    """A call in progress."""

    def advance(self) -> Turn:
        """One slice."""


class Scheduler:
    """All calls in progress, each given a slice in turn."""

    __slots__ = ("calls", "slice")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.slice = 64  #: how many operations a call may do before others get their turn

    def add(self, call: Call) -> None:
        """A call begins."""
        self.calls.append(call)

    def remove(self, call: Call) -> None:
        """A call has returned."""
        self.calls.remove(call)

    def round(self) -> bool:
        """One slice for every call. False when all of them are blocked (or there is none)."""
        moved = False
        for call in tuple(self.calls):
            if call.advance() is not Turn.BLOCKED:
                moved = True
        return moved
