"""The trapped calls on paths: opening, stat, access, readlink of what the emulated kernel shows.

Those that may make a known path lead somewhere else are trapped, too, only to hear of them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.supervisor.reply import CONTINUE, NewFd, Reply, Value
from kvmvfio_emu.doors.supervisor.statbuf import pack_stat, pack_statx
from kvmvfio_emu.doors.supervisor.vfs import AT_FDCWD, Vfs
from kvmvfio_emu.kernel.calltrace import watched_call
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.sysfs import VFIO_DEV_MAJOR

if TYPE_CHECKING:
    from kvmvfio_emu.doors.descriptors import Descriptors
    from kvmvfio_emu.doors.supervisor.target import TargetTask
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.host import Host

_AT_SYMLINK_NOFOLLOW = 0x100
_O_PATH = 0o10000000
#: Of fs/open.c; the same on all machines, though some flags have other places in it. open(2) overlooks all others.
_VALID_OPEN_FLAGS = 0o37777703
_HOW = struct.Struct("<QQQ")  # of openat2: flags, mode, resolve
_MOST_HOW, _RESOLVE = 4096, 0x3F
_CREATES = os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: What makes another file appear where one was, or where a link leads.
_RENAMES = ("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat")
_MOUNTS = ("mount", "move_mount", "umount2")
_FD_LINK = re.compile(rb"/(?:proc/(?:self|thread-self|(\d+))|dev)/fd/(\d+)")
#: Device numbers as udev sees them; groups get dynamic ones from VFIO's own major.
_NUMBERS = {"/dev/kvm": (10, 232), "/dev/vfio/vfio": (10, 196), "/dev/iommu": (10, 125)}
_VFIO_MAJOR = 511
_OWN_NODE = "/dev/vfio/devices/vfio"

Arguments = tuple[int, ...]


class PathCalls:
    """The handlers, by the name of their system call. Paths that are not owned go on to the real kernel."""

    def __init__(self, host: Host, descriptors: Descriptors, vfs: Vfs) -> None:
        self._host = host
        self._descriptors = descriptors
        self._vfs = vfs
        self.handlers: dict[str, Callable[[TargetTask, Arguments], Reply]] = {
            "open": lambda task, a: self._open(task, AT_FDCWD, a[0], a[1] & _VALID_OPEN_FLAGS),
            "creat": lambda task, a: self._open(task, AT_FDCWD, a[0], os.O_CREAT | os.O_WRONLY | os.O_TRUNC),
            "openat": lambda task, a: self._open(task, _signed(a[0]), a[1], a[2] & _VALID_OPEN_FLAGS),
            "openat2": self._openat2,
            "stat": lambda task, a: self._stat(task, AT_FDCWD, a[0], a[1], follow=True),
            "lstat": lambda task, a: self._stat(task, AT_FDCWD, a[0], a[1], follow=False),
            "newfstatat": lambda task, a: self._stat(task, _signed(a[0]), a[1], a[2], follow=_follows(a[3])),
            "statx": lambda task, a: self._stat(task, _signed(a[0]), a[1], a[4], follow=_follows(a[2]), extended=True),
            "access": lambda task, a: self._access(task, AT_FDCWD, a[0], a[1], follow=True),
            "faccessat": lambda task, a: self._access(task, _signed(a[0]), a[1], a[2], follow=True),
            "faccessat2": lambda task, a: self._access(task, _signed(a[0]), a[1], a[2], follow=_follows(a[3])),
            "readlink": lambda task, a: self._readlink(task, AT_FDCWD, a[0], a[1], a[2]),
            "readlinkat": lambda task, a: self._readlink(task, _signed(a[0]), a[1], a[2], a[3]),
            **dict.fromkeys((*_RENAMES, *_MOUNTS), self._move),
        }

    # -- opening ----------------------------------------------------------------------------------------------

    def _open(self, task: TargetTask, dirfd: int, path: int, flags: int) -> Reply:
        follow = not flags & os.O_NOFOLLOW
        text = task.read_path(path)
        file = None if flags & _O_PATH else self._linked_file(task, text)
        if file is not None:
            # Opened natively it would be a second way to the same memfd, whose close would seem to be the last one.
            if not self._vfs.is_node(file.link):
                raise OSError(errno.ENXIO, "what has no name cannot be opened")
            return self._node(task, file.link, os.O_RDWR, cloexec=bool(flags & os.O_CLOEXEC))
        virtual = self._vfs.translate(task, dirfd, text, follow_last=follow)
        if virtual is None:
            return CONTINUE
        cloexec = bool(flags & os.O_CLOEXEC)
        if self._vfs.is_node(virtual) and not flags & _O_PATH:
            if flags & os.O_DIRECTORY:
                raise OSError(errno.ENOTDIR, "a device node is no directory")
            if flags & os.O_CREAT and flags & os.O_EXCL:
                raise OSError(errno.EEXIST, "the device node exists")
            return self._node(task, virtual, flags, cloexec=cloexec)
        self._check_exists(virtual)
        if not flags & _O_PATH and (flags & os.O_ACCMODE != os.O_RDONLY or flags & _CREATES):
            status = os.stat(self._vfs.mirror(virtual))  # ENOENT comes first
            error = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EACCES
            raise OSError(error, "the emulated sysfs is read-only")
        return NewFd(os.open(self._vfs.mirror(virtual), flags & ~_CREATES | os.O_CLOEXEC), cloexec)

    def _openat2(self, task: TargetTask, arguments: Arguments) -> Reply:
        """What is wrong with its ``struct open_how``, the real kernel finds before it looks at the path."""
        dirfd, path, address, size = arguments[:4]
        if not _HOW.size <= size <= _MOST_HOW:
            return CONTINUE
        how = task.mm.read(address, size)
        flags, mode, resolve = _HOW.unpack_from(how)
        unknown = flags & ~_VALID_OPEN_FLAGS or resolve & ~_RESOLVE or any(how[_HOW.size :])
        if unknown or (mode and not flags & (os.O_CREAT | os.O_TMPFILE)):
            return CONTINUE
        return self._open(task, _signed(dirfd), path, flags)

    def _node(self, task: TargetTask, virtual: str, flags: int, *, cloexec: bool) -> Reply:
        """Open a device node of the emulated kernel's."""
        if not self._host.trace.calls:
            return NewFd(self._descriptors.install(self._host.open(virtual), flags), cloexec)

        def install() -> int:
            return task.install(self._host.open(virtual), flags, cloexec=cloexec)

        # Who looks on wants the number, so the descriptor is given first and the answer after it, as ioctls do.
        return Value(watched_call(self._host, "open", install, path=virtual))

    def _move(self, task: TargetTask, arguments: Arguments) -> Reply:
        self._vfs.forget()
        return CONTINUE

    # -- looking ------------------------------------------------------------------------------------------------

    def _stat(
        self, task: TargetTask, dirfd: int, path: int, buffer: int, *, follow: bool, extended: bool = False
    ) -> Reply:
        virtual = self._vfs.translate(task, dirfd, task.read_path(path), follow_last=follow)
        if virtual is None:
            return CONTINUE
        result = self._status(virtual, follow=follow)
        task.mm.write(buffer, pack_statx(result) if extended else pack_stat(result))
        return Value(0)

    def _status(self, virtual: str, *, follow: bool) -> os.stat_result:
        self._check_exists(virtual)
        real = os.stat(self._vfs.mirror(virtual), follow_symlinks=follow)
        mode, device = real.st_mode, 0
        if self._vfs.is_node(virtual):
            # Readable and writable for all: whoever may run us may use our kernel.
            mode, device = stat.S_IFCHR | 0o666, self._device_number(virtual)
        elif stat.S_ISREG(mode):
            mode = stat.S_IFREG | 0o444
        fields = list(real)[:10]
        fields[stat.ST_MODE], fields[stat.ST_UID], fields[stat.ST_GID] = mode, 0, 0
        extra = {name: getattr(real, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")}
        sizes = {"st_blksize": 4096, "st_blocks": real.st_blocks, "st_rdev": device}
        return os.stat_result(fields, {**extra, **sizes})

    def _device_number(self, virtual: str) -> int:
        number = _NUMBERS.get(virtual)
        if number is None and virtual.startswith(_OWN_NODE):
            number = (VFIO_DEV_MAJOR, int(virtual.removeprefix(_OWN_NODE)))
        if number is None:
            tail = virtual.rpartition("/")[2]
            number = (_VFIO_MAJOR, int(tail) if tail.isdecimal() else 0)
        return os.makedev(*number)

    def _access(self, task: TargetTask, dirfd: int, path: int, mode: int, *, follow: bool) -> Reply:
        if mode & ~(os.R_OK | os.W_OK | os.X_OK) & 0xFFFFFFFF:
            raise OSError(errno.EINVAL, "no such access")
        virtual = self._vfs.translate(task, dirfd, task.read_path(path), follow_last=follow)
        if virtual is None:
            return CONTINUE
        granted = self._status(virtual, follow=follow).st_mode
        if mode & os.W_OK and not stat.S_ISCHR(granted):
            raise OSError(errno.EACCES, "the emulated sysfs is read-only")
        if mode & os.X_OK and not stat.S_ISDIR(granted):
            raise OSError(errno.EACCES, "not executable")
        return Value(0)

    def _readlink(self, task: TargetTask, dirfd: int, path: int, buffer: int, size: int) -> Reply:
        text = task.read_path(path)
        target = self._descriptor_link(task, text)
        if target is None:
            virtual = self._vfs.translate(task, dirfd, text, follow_last=False)
            if virtual is None:
                return CONTINUE
            self._check_exists(virtual)
            target = os.readlink(self._vfs.mirror(virtual))
        size = _signed(size)
        if size <= 0:
            raise OSError(errno.EINVAL, "a buffer of no size")
        data = os.fsencode(target)[:size]
        task.mm.write(buffer, data)
        return Value(len(data))

    def _descriptor_link(self, task: TargetTask, path: bytes) -> str | None:
        """What /proc/PID/fd/N of one of ours would say on a real kernel."""
        number = self._linked_number(task, path)
        if number is None:
            return None
        file = self._linked_file(task, path)
        if file is not None:
            return file.link
        try:
            return self._vfs.virtual(os.readlink(f"fd/{number}", dir_fd=task.proc))
        except OSError:  # not open: the real kernel says so, too
            return None

    def _linked_file(self, task: TargetTask, path: bytes) -> File | None:
        """The file of ours that /proc/PID/fd/N leads to."""
        number = self._linked_number(task, path)
        try:
            return None if number is None else task.fget(number)
        except KernelError:
            return None

    @staticmethod
    def _linked_number(task: TargetTask, path: bytes) -> int | None:
        found = _FD_LINK.fullmatch(path)
        if found is None or (found[1] is not None and int(found[1]) not in (task.tgid, task.tid)):
            return None
        return int(found[2])

    def _check_exists(self, virtual: str) -> None:
        if self._vfs.is_gone(virtual):
            raise OSError(errno.ENOENT, "no such device node")


def _signed(value: int) -> int:
    """A register as the C int it holds."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _follows(flags: int) -> bool:
    return not flags & _AT_SYMLINK_NOFOLLOW
