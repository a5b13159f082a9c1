"""The trapped file operations that are no ioctl: lseek, fcntl(F_GETFL), mmap, ftruncate, fallocate on our descriptors.

Models fs/read_write.c, fs/fcntl.c, fs/open.c and mm/mmap.c as far as they look at what kind of file it is; a memfd,
which ours are to the real kernel, would answer each of them otherwise. read and write need no trap: see
`Descriptors`.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.supervisor.reply import CONTINUE, Reply, Value
from kvmvfio_emu.kernel.calltrace import watched_call
from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.target import TargetTask
    from kvmvfio_emu.doors.supervisor.tracer import Tracer

_UINT = 0xFFFFFFFF
_SEEK_MAX = 4
#: Of the real kernel's numbers; open sets it by itself for every 64-bit program, anonymous inodes never do.
_O_LARGEFILE = {"x86_64": 0x8000, "aarch64": 0x20000}
_MAP_TYPE, _MAP_SHARED, _MAP_PRIVATE, _MAP_SHARED_VALIDATE = 0xF, 1, 2, 3

Arguments = tuple[int, ...]


class FileOperations:
    """The handlers, by the name of their system call. Descriptors that are not ours go on to the real kernel.

    ``new_tracer`` makes, when first needed, what brings accesses through mappings of registers; None: they show a copy.
    """

    def __init__(self, machine: str, new_tracer: Callable[[], Tracer] | None) -> None:
        self.tracer: Tracer | None = None
        self._new_tracer = new_tracer
        self._largefile = _O_LARGEFILE[machine]
        self.handlers: dict[str, Callable[[TargetTask, Arguments], Reply]] = {
            "lseek": self._lseek,
            "fcntl": self._fcntl,
            "mmap": self._mmap,
            "ftruncate": self._ftruncate,
            "fallocate": self._fallocate,
        }

    @staticmethod
    def _lseek(task: TargetTask, arguments: Arguments) -> Reply:
        file = task.fget(arguments[0] & _UINT)
        if file is None:
            return CONTINUE
        if arguments[2] & _UINT > _SEEK_MAX:
            raise KernelError(errno.EINVAL, f"no whence {arguments[2] & _UINT}")
        if not file.seekable:
            raise KernelError(errno.ESPIPE, f"a {file.kind} file has no position")
        return Value(0)

    def _fcntl(self, task: TargetTask, arguments: Arguments) -> Reply:
        fd = arguments[0] & _UINT
        file = task.fget(fd)  # the filter lets only F_GETFL come here
        if file is None:
            return CONTINUE
        flags = task.description_flags(fd)
        return Value(flags & ~self._largefile if file.link.startswith("anon_inode:") else flags)

    def _mmap(self, task: TargetTask, arguments: Arguments) -> Reply:
        _, length, protection, flags, fd, offset = arguments
        try:
            file = task.fget(fd & _UINT)
        except KernelError:
            return CONTINUE  # what is wrong with the rest of it comes before the bad descriptor
        if self.tracer is not None:
            self.tracer.mapping_changes(task.tgid)
        if file is None or not length or offset % mmap.PAGESIZE:
            return CONTINUE  # EINVAL by the real kernel, for any file
        kind = flags & _MAP_TYPE
        if kind not in (_MAP_SHARED, _MAP_PRIVATE, _MAP_SHARED_VALIDATE):
            return CONTINUE
        how = {"write": bool(protection & mmap.PROT_WRITE), "shared": kind != _MAP_PRIVATE}
        if file.host.trace.calls:
            judge = partial(file.mmap, offset, length, **how)
            watched_call(file.host, "mmap", judge, file=file, fd=fd & _UINT, offset=offset, length=length, **how)
        else:
            file.mmap(offset, length, **how)
        if file.traps_mappings and not self._trace(task.tgid):
            file.show_mappings()
        return CONTINUE

    def _trace(self, tgid: int) -> bool:
        if self._new_tracer is None:
            return False
        if self.tracer is None:
            self.tracer = self._new_tracer()
        return self.tracer.attach(tgid)

    @staticmethod
    def _ftruncate(task: TargetTask, arguments: Arguments) -> Reply:
        file = task.fget(arguments[0] & _UINT)
        if file is None:
            return CONTINUE
        raise KernelError(errno.EINVAL, f"a {file.kind} file has no size")

    @staticmethod
    def _fallocate(task: TargetTask, arguments: Arguments) -> Reply:
        file = task.fget(arguments[0] & _UINT)
        if file is None:
            return CONTINUE
        raise KernelError(errno.ENODEV, f"a {file.kind} file has no space")
