"""Readiness of real descriptors, noticed only when the model asks: there is no background thread."""

from __future__ import annotations

import select
from collections.abc import Callable


class Poller:
    """An epoll set with a callback for each descriptor.

    Edge-triggered: one callback for all that happened to a descriptor since it was last looked at.
    """

    __slots__ = ("_callbacks", "_epoll", "_stash", "look")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._stash: list[int] = []
        #: The bare ``epoll.poll``, for callers that cannot afford a frame when nothing happened.
        self.look = self._epoll.poll

    def register(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` becomes readable, from now on: what is readable already is not news."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        self.forget(fd)

    def unregister(self, fd: int) -> None:
        """End the watch on ``fd``, which must still be open."""
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """Drop the news about ``fd`` that the caller itself has just made; other news is kept."""
        self._stash.extend(ready for ready, _ in self._epoll.poll(0) if ready != fd)

    def poll(self, events: list[tuple[int, int]] | None = None) -> bool:
        """Run the callbacks of all that is news (of ``events`` when they were fetched). False if there was none."""
        if events is None:
            events = self._epoll.poll(0)
        ready = [*self._stash, *(fd for fd, _ in events)]
        self._stash.clear()
        for fd in dict.fromkeys(ready):
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier callback may have ended this watch
                callback()
        return bool(ready)

    @property
    def stashed(self) -> bool:
        """Whether news wait that `look` will not show again."""
        return bool(self._stash)

    def fileno(self) -> int:
        """The epoll descriptor, readable when there is news."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()
