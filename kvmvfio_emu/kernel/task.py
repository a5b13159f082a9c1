"""Who is calling; models ``current``: its memory, its file descriptors, its signals.

A door implements this once; the kernel rooms know callers only through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.eventfd import EventFd
    from kvmvfio_emu.kernel.file import File

#: A user pointer: an address, or (in process only) the buffer object that the caller handed over.
UserPtr = int | bytearray | memoryview

__all__ = ["KernelError", "Task", "UserPtr"]


class Task(ABC):
    """One caller. All methods raise `KernelError` with the errno that Linux gives."""

    #: The address space; two tasks of one process share the same object.
    mm: UserMemory
    #: The thread's number, as the trace shows it; in process the process's.
    tid: int = 0

    def copy_from_user(self, pointer: UserPtr, size: int, offset: int = 0) -> bytearray:
        """``size`` bytes at ``pointer + offset``, copied once. EFAULT."""
        assert isinstance(pointer, int)
        return self.mm.read(pointer + offset, size)

    def copy_to_user(self, pointer: UserPtr, data: bytes | bytearray | memoryview, offset: int = 0) -> None:
        """Store ``data`` at ``pointer + offset``. EFAULT."""
        assert isinstance(pointer, int)
        self.mm.write(pointer + offset, data)

    @abstractmethod
    def fget(self, fd: int) -> File | None:
        """The open file behind ``fd`` (any Python int); None when it is open but not one of ours. EBADF."""

    def fdget(self, fd: int) -> File | None:
        """As `fget`, for what a call's argument names: also EBADF for a descriptor that is only a path (O_PATH)."""
        return self.fget(fd)

    @abstractmethod
    def eventfd(self, fd: int) -> EventFd:
        """The eventfd behind ``fd``, with a reference for the caller (`EventFd.put` drops it).

        EBADF when not open, EINVAL when it is something else. Models eventfd_ctx_fdget.
        """

    @abstractmethod
    def abandoned(self, eventfd: EventFd) -> bool:
        """Whether no process has ``eventfd`` open any more. Looks far and wide: only for when it matters."""

    @abstractmethod
    def install(self, file: File) -> int:
        """A new O_RDWR | O_CLOEXEC descriptor for ``file``. EMFILE."""

    @abstractmethod
    def uninstall(self, fd: int) -> None:
        """Take back a descriptor that `install` gave, before the caller could see it."""

    @abstractmethod
    def signal_pending(self, blocked: int | None = None) -> bool:
        """Whether a signal waits for this task that is not in ``blocked``, a mask with bit 0 for signal 1.

        None means the task's own mask. Models signal_pending, under the mask that KVM_RUN sets.
        """
