"""Readiness of real descriptors, noticed only when the model asks: there is no background thread."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

_NEWS = select.EPOLLIN | select.EPOLLET


class Poller:
    """An epoll set with a callback for each descriptor.

    Edge-triggered: one callback for all that happened to a descriptor since it was last looked at.
    """

    __slots__ = ("_callbacks", "_epoll", "_readable", "look")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._readable = select.poll()
        self._readable.register(self._epoll.fileno(), select.POLLIN)
        #: The bare ``epoll.poll``, for callers that cannot afford a frame when nothing happened.
        self.look = self._epoll.poll

    def register(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` becomes readable, from now on: what is readable already is not news."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, _NEWS)
        self.forget(fd)

    def unregister(self, fd: int) -> None:
        """End the watch on ``fd``, which must still be open."""
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """Drop the news about ``fd`` that the caller itself has just made; other news is kept."""
        for other, _ in self._epoll.poll(0):
            if other != fd:
                self._epoll.modify(other, _NEWS)  # arms it again, so it is news once more

    def poll(self, events: list[tuple[int, int]] | None = None) -> bool:
        """Run the callbacks of all that is news (of ``events`` when they were fetched). False if there was none."""
        if events is None:
            events = self._epoll.poll(0)
        for fd, _ in events:
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier callback may have ended this watch
                callback()
        return bool(events)

    def wait(self, milliseconds: int) -> None:
        """Until there is news, but not longer than that; the news is still there afterwards."""
        self._readable.poll(milliseconds)

    def fileno(self) -> int:
        """The epoll descriptor, readable when there is news."""
        return self._epoll.fileno()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._epoll.closed

    def forked(self) -> None:
        """In the child of a fork: leave the set, which is the parent's, alone. All news is the parent's, too."""
        with select.epoll() as fresh:
            os.dup2(fresh.fileno(), self._epoll.fileno(), inheritable=False)
        for fd in self._callbacks:
            self._epoll.register(fd, 0)

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()
