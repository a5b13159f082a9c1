"""ioeventfd: a guest's write that signals an eventfd instead of leaving to userspace (virt/kvm/eventfd.c)."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFd
from kvmvfio_emu.kernel.task import Task

_LENGTHS = (0, 1, 2, 4, 8)
_FAST_MMIO = 1 << 4  #: counted among the flags, without a name for userspace


@dataclass(slots=True)
class IoEventFd:
    """One doorbell: ``length`` 0 matches any access width, ``datamatch`` None any value."""

    space: int
    address: int
    length: int
    datamatch: int | None
    eventfd: EventFd

    def hangup(self, eventfd: EventFd) -> None:
        """A doorbell outlives its eventfd; it just rings for nobody."""

    def collides(self, other: IoEventFd) -> bool:
        """Whether both could be meant by one write."""
        return (
            self.space == other.space
            and self.address == other.address
            and (not self.length or not other.length or self.length == other.length)
            and (self.datamatch is None or other.datamatch is None or self.datamatch == other.datamatch)
        )


class IoBus:
    """The doorbells of a virtual machine."""

    def __init__(self) -> None:
        self._doorbells: list[IoEventFd] = []

    def control(self, args: Any, task: Task, *, fast_flag: bool = False) -> None:
        """KVM_IOEVENTFD. EINVAL bad length, wrap or flags; EBADF, EINVAL the eventfd; EEXIST; ENOENT at DEASSIGN.

        ``fast_flag``: the kernel lets its own flag for fast doorbells pass.
        """
        known = (
            uapi.KVM_IOEVENTFD_FLAG_DATAMATCH
            | uapi.KVM_IOEVENTFD_FLAG_PIO
            | uapi.KVM_IOEVENTFD_FLAG_DEASSIGN
            | uapi.KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY
            | (_FAST_MMIO if fast_flag else 0)
        )
        space = args.flags & (uapi.KVM_IOEVENTFD_FLAG_PIO | uapi.KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY)
        datamatch = int(args.datamatch) if args.flags & uapi.KVM_IOEVENTFD_FLAG_DATAMATCH else None
        if args.flags & uapi.KVM_IOEVENTFD_FLAG_DEASSIGN:
            self._deassign(space, args, datamatch, task)
            return
        if args.len not in _LENGTHS:
            raise KernelError(errno.EINVAL, f"a doorbell of {args.len} bytes")
        if args.addr + args.len >= 1 << 64:
            raise KernelError(errno.EINVAL, "the doorbell's address wraps")
        if args.flags & ~known:
            raise KernelError(errno.EINVAL, f"unknown KVM_IOEVENTFD flags {args.flags & ~known:#x}")
        if not args.len and datamatch is not None:
            raise KernelError(errno.EINVAL, "a doorbell of any length cannot match data")
        eventfd = task.eventfd(args.fd & 0xFFFFFFFF)
        new = IoEventFd(space, args.addr, args.len, datamatch, eventfd)
        if any(new.collides(other) for other in self._doorbells):
            eventfd.put()
            raise KernelError(errno.EEXIST, "another doorbell answers that write")
        self._doorbells.append(new)

    def _deassign(self, space: int, args: Any, datamatch: int | None, task: Task) -> None:
        eventfd = task.eventfd(args.fd & 0xFFFFFFFF)
        try:
            for doorbell in self._doorbells:
                if (
                    doorbell.space,
                    doorbell.address,
                    doorbell.length,
                    doorbell.datamatch,
                    doorbell.eventfd,
                ) == (
                    space,
                    args.addr,
                    args.len,
                    datamatch,
                    eventfd,
                ):
                    self._doorbells.remove(doorbell)
                    doorbell.eventfd.put()
                    return
        finally:
            eventfd.put()
        raise KernelError(errno.ENOENT, "no such doorbell")

    def write(self, address: int, size: int, value: int) -> bool:
        """A guest's MMIO write; True when a doorbell took it."""
        for doorbell in self._doorbells:
            if (
                not doorbell.space
                and doorbell.address == address
                and doorbell.length in (0, size)
                and doorbell.datamatch in (None, value)
            ):
                doorbell.eventfd.signal()
                return True
        return False

    def clear(self) -> None:
        """The virtual machine goes."""
        for doorbell in self._doorbells:
            doorbell.eventfd.put()
        self._doorbells.clear()
