"""An eventfd that acts on an interrupt when userspace (or KVM) signals it; models drivers/vfio/virqfd.c."""

from __future__ import annotations

import errno
from collections.abc import Callable

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFd
from kvmvfio_emu.kernel.host import Host


class Virqfd:
    """The place for one eventfd of one interrupt and direction; ``handler`` runs where the signal is sent."""

    def __init__(self, host: Host, handler: Callable[[], None]) -> None:
        self.eventfd: EventFd | None = None
        self._host = host
        self._handler = handler

    def enable(self, fd: int) -> None:
        """Let eventfd ``fd`` of the caller act. EBADF, EINVAL (not an eventfd), EBUSY (there is one)."""
        eventfd = self._host.current.eventfd(fd)
        if self.eventfd is not None and self._host.current.abandoned(self.eventfd):
            self.eventfd.closed()  # its last close came to nobody's ears
        if self.eventfd is not None:
            eventfd.put()
            raise KernelError(errno.EBUSY, "an eventfd is registered here; remove it with -1 first")
        self.eventfd = eventfd
        if eventfd.add_waiter(self):
            # Signalled before we listened: act once, but leave the counter, since no wake-up told us.
            self._handler()

    def disable(self) -> None:
        """Act no more; harmless when nothing is registered."""
        eventfd, self.eventfd = self.eventfd, None
        if eventfd is not None:
            eventfd.remove_waiter(self)
            eventfd.put()

    def wakeup(self, eventfd: EventFd) -> None:
        """The eventfd was signalled."""
        if eventfd is not self.eventfd:
            return  # an earlier waiter of the same signal removed us
        if self._host.profile.eventfd_drained:
            eventfd.drain()
        self._handler()

    def hangup(self, eventfd: EventFd) -> None:
        """Userspace closed it for good."""
        if eventfd is self.eventfd:
            self.disable()
