"""Eventfds as the kernel sees them; models fs/eventfd.c and the wait queue that irqfd and virqfd hang on.

The eventfd is a real one of the host. We hold a duplicate to signal it, and hear of the other side's writes through
the poller, at the next entry into the kernel.
"""

from __future__ import annotations

import os
import select
import struct
from os import close  # bound here: not what `Kernel.installed` may put in its place
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.host import Host

_U64 = struct.Struct("<Q")


class Waiter(Protocol):
    """Something on an eventfd's wait queue. The two calls come in the context of whoever signalled."""

    def wakeup(self, eventfd: EventFd) -> None:
        """The counter was raised (EPOLLIN)."""

    def hangup(self, eventfd: EventFd) -> None:
        """The last descriptor was closed (EPOLLHUP)."""


class EventFd:
    """One eventfd, whatever number of descriptors it has. ``fd`` is our own duplicate."""

    def __init__(self, table: EventFdTable, key: int, fd: int) -> None:
        self.key = key
        self.fd = fd
        self.waiters: list[Waiter] = []
        self._table = table
        self._count = 0
        self._hung_up = False
        self._state = select.poll()
        self._state.register(fd, select.POLLIN | select.POLLOUT)

    # -- references -----------------------------------------------------------------------------------------

    def get(self) -> EventFd:
        """One more user of the context; models eventfd_ctx_get."""
        self._count += 1
        return self

    def put(self) -> None:
        """One user less; the last gives the duplicate back. Models eventfd_ctx_put."""
        self._count -= 1
        if not self._count:
            self._table.forget(self)

    # -- the wait queue -----------------------------------------------------------------------------------------

    def add_waiter(self, waiter: Waiter) -> bool:
        """Wait from now on. Returns whether the counter is above zero already."""
        if not self.waiters:
            self._table.host.poller.register(self.fd, self._written)
        self.waiters.append(waiter)
        return self.readable

    def remove_waiter(self, waiter: Waiter) -> None:
        """Wait no more, and take the counter; models eventfd_ctx_remove_wait_queue."""
        self.drain()
        self.waiters.remove(waiter)
        if not self.waiters:
            self._table.host.poller.unregister(self.fd)

    @property
    def readable(self) -> bool:
        """Whether the counter is above zero."""
        return bool(self._poll() & select.POLLIN)

    def drain(self) -> int:
        """Take the counter, 0 when it is zero; models eventfd_ctx_do_read. Never blocks, whatever the flags say."""
        raw = bytearray(8)
        try:
            os.preadv(self.fd, [raw], -1, os.RWF_NOWAIT)
        except BlockingIOError:
            return 0
        return int(_U64.unpack(raw)[0])

    def signal(self) -> None:
        """Add one and wake the waiters; models eventfd_signal. A counter at its maximum stays there."""
        if self._poll() & select.POLLOUT:
            os.eventfd_write(self.fd, 1)
        if self.waiters:
            host = self._table.host
            host.poller.forget(self.fd)  # our own write is no news
            if host.faults is None or not self._lost():
                self._notice()

    def closed(self) -> None:
        """The other side's last descriptor is gone; models eventfd_release."""
        if self._hung_up:
            return
        self._hung_up = True
        for waiter in tuple(self.waiters):
            waiter.hangup(self)

    def _poll(self) -> int:
        return sum(events for _, events in self._state.poll(0))

    def _written(self) -> None:
        """Userspace signalled it, through a descriptor of its own."""
        host = self._table.host
        trace = host.trace
        before = trace.begin("eventfd_write", eventfd=self.key)
        try:
            if host.faults is None or not self._lost():
                self._notice()
        finally:
            trace.end(before)

    def _notice(self) -> None:
        for waiter in tuple(self.waiters):
            waiter.wakeup(self)

    def _lost(self) -> bool:
        """Whether a fault has it that the waiters are not to hear of this signal: the counter alone tells of it."""
        host = self._table.host
        assert host.faults is not None
        if not host.faults.wakeup_lost():
            return False
        host.event("eventfd_lost", eventfd=self.key)
        return True

    def __repr__(self) -> str:
        return f"<EventFd {self.key}>"


class EventFdTable:
    """The eventfds that the kernel holds, by their identity."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._by_key: dict[int, EventFd] = {}

    def find(self, key: int) -> EventFd | None:
        """The eventfd with that identity, if the kernel holds it."""
        return self._by_key.get(key)

    def adopt(self, key: int, fd: int) -> EventFd:
        """One more user of eventfd ``key``; takes over the descriptor ``fd``, closed with the last user."""
        held = self._by_key.get(key)
        if held is not None:
            close(fd)
            return held.get()
        eventfd = self._by_key[key] = EventFd(self, key, fd)
        return eventfd.get()

    def forget(self, eventfd: EventFd) -> None:
        """Nobody in the kernel uses it any more."""
        del self._by_key[eventfd.key]
        close(eventfd.fd)

    def abandon(self) -> None:
        """The kernel is powered off: give all duplicates back."""
        for eventfd in self._by_key.values():
            close(eventfd.fd)
        self._by_key.clear()

    def held(self) -> list[EventFd]:
        """All of them, for `check` and listings."""
        return list(self._by_key.values())
