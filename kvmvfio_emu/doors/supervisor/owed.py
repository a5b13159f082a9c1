"""Calls that were done, but whose thread was interrupted before it could be told: hosts before Linux 5.19.

There a signal ends the wait for our answer (-ERESTARTSYS): the same call comes again, by SA_RESTART or because the
program repeats it after EINTR, and must not be executed again. It is the same call if it has the same arguments, the
same bytes behind its pointer, and is made from the same place on the stack; what a signal handler calls in between is
made from further down.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.notify import Notification

#: More of an argument than this is not compared; VFIO's say themselves how long they are.
_MOST = 4096
#: Threads with something owed, before we look which of them are dead.
_MANY = 256
_LOOKS = 100
_IOC_READ = 2
_KVM_TYPE = 0xAE


class Ticket(NamedTuple):
    """What makes a call the one that was interrupted. ``stack`` is 0 where the kernel does not tell."""

    number: int
    arguments: tuple[int, ...]
    stack: int
    content: bytes


class Owed:
    """The answers that could not be delivered, by thread."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._ioctl, self._pwrite = numbers["ioctl"], numbers["pwrite64"]
        self._kinds = (self._ioctl, self._pwrite, numbers["pread64"])
        self._answers: dict[int, list[tuple[Ticket, bytes, int]]] = {}

    def ticket(self, notification: Notification) -> Ticket | None:
        """To be taken before the call is executed. None for calls that may as well be done twice."""
        _, tid, number, arguments = notification
        if number not in self._kinds:
            return None
        return Ticket(number, arguments, _stack_pointer(tid), self._content(tid, number, arguments))

    def remember(self, tid: int, ticket: Ticket, value: int) -> None:
        """The call was executed, returned ``value``, and nobody waited for it any more."""
        if len(self._answers) >= _MANY:
            self._answers = {tid: all_ for tid, all_ in self._answers.items() if _is_alive(tid)}
        after = ticket.content
        if ticket.number == self._ioctl and ticket.arguments[1] >> 30 & _IOC_READ:
            after = self._content(tid, ticket.number, ticket.arguments)  # we have written into its struct
        self._answers.setdefault(tid, []).append((ticket, after, value))

    def claim(self, tid: int, ticket: Ticket) -> int | None:
        """The answer, if this is a call that was executed already; whatever it makes obsolete is forgotten."""
        answers = self._answers.get(tid)
        while answers:
            old, after, value = answers[-1]
            if old._replace(content=b"") == ticket._replace(content=b"") and ticket.content in (old.content, after):
                answers.pop()
                return value
            if ticket.stack and ticket.stack < old.stack:
                return None  # a signal handler's own
            answers.pop()  # the program has gone on without repeating it
        self._answers.pop(tid, None)
        return None

    def _content(self, tid: int, number: int, arguments: tuple[int, ...]) -> bytes:
        memory = UserMemory(tid)
        try:
            if number == self._ioctl:
                request, address = arguments[1] & 0xFFFFFFFF, arguments[2]
                size = request >> 16 & 0x3FFF
                if request >> 8 & 0xFF != _KVM_TYPE:
                    # A VFIO struct's first word is its size; what is no such struct is a descriptor or a short name.
                    size = min(int.from_bytes(memory.read(address, 4), "little"), _MOST) if address else 0
                return bytes(memory.read(address, size))
            if number == self._pwrite:
                return bytes(memory.read(arguments[1], min(arguments[2], _MOST)))
        except KernelError:
            pass  # EFAULT is what the call itself will say
        return b""


def _stack_pointer(tid: int) -> int:
    """Of a thread in a system call. It may tell us of its call before it has gone to sleep, and is then "running"."""
    for _ in range(_LOOKS):
        try:
            with open(f"/proc/{tid}/syscall", encoding="ascii") as file:
                words = file.read().split()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EPERM, errno.EACCES):
                raise
            return 0
        if len(words) > 2:
            return int(words[-2], 16)
        os.sched_yield()
    return 0


def _is_alive(tid: int) -> bool:
    try:
        with open(f"/proc/{tid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
