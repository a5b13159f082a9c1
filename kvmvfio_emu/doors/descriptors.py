"""Real file descriptors for emulated files: a sealed memfd each, known by its inode, its last close by inotify.

dup, fork, mmap, SCM_RIGHTS and close then work natively. The description a caller gets is a re-opened one, since only
such a one tells inotify of its last close; the event is queued before that close returns.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from builtins import open as open_text
from collections.abc import Callable
from os import close, read  # bound here: not what `Kernel.installed` may put in their place
from os import open as open_

from kvmvfio_emu.doors import inotify
from kvmvfio_emu.engine.poller import Poller
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File

#: The close of a description that may write, and of one that may not.
_IN_CLOSE_WRITE, _IN_CLOSE_NOWRITE, _IN_Q_OVERFLOW = 0x8, 0x10, 0x4000
_EVENT = struct.Struct("iIII")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW  # else a caller could truncate it under our mapping

#: The largest file position: every read and write there is EINVAL, as on a file without those operations.
_NOWHERE = (1 << 63) - 1
#: What an opener's flags say of the description; the others are about opening.
_KEPT_FLAGS = os.O_ACCMODE | os.O_NONBLOCK


def _is_open_elsewhere(memfd: int) -> bool:
    """Whether the file has a writer, or a mapping of one, beside ``memfd`` itself."""
    reader = open_(f"/proc/self/fd/{memfd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return True  # EAGAIN; whatever else, it is not known to be closed
    finally:
        close(reader)  # and the lease goes with it
    return False


class Descriptors:
    """The emulated files that somebody has open.

    In process, a file's descriptors are recognised by a cookie, kept as the position of their open file description,
    so that a look-up is one lseek; where the position was moved, the inode decides. With ``native`` reads and writes
    (nobody asks us about them) the position is one at which the real kernel refuses them, and the inode decides.
    """

    def __init__(self, poller: Poller, inodes: dict[tuple[int, int], File], *, native: bool = False) -> None:
        self._inodes = inodes
        self._native = native
        self._poller = poller
        self._cookies: dict[int, File] = {}
        self._watches: dict[int, tuple[File, tuple[int, int], int]] = {}
        self._backings: dict[int, int] = {}  #: watch -> the memfd that its file keeps, if it does
        self._inotify = inotify.create()
        poller.register(self._inotify, self.drain)
        #: The bare look-up, for callers that cannot afford a frame: cookie -> file.
        self.by_cookie: Callable[[int], File | None] = self._cookies.get

    def install(self, file: File, flags: int = os.O_RDWR) -> int:
        """A new O_CLOEXEC descriptor for ``file``, which is released with the last copy of it.

        Of ``flags`` the access mode and O_NONBLOCK count. EMFILE, ENFILE, ENOMEM.
        """
        try:
            return self._install(file, flags & _KEPT_FLAGS)
        except OSError as error:
            file.put()
            # Linux knows these only; what else our memfds and watches run out of is memory to the caller.
            number = error.errno if error.errno in (errno.EMFILE, errno.ENFILE) else errno.ENOMEM
            raise KernelError(number or errno.ENOMEM, f"no descriptor for a new {file.kind} file") from None

    def _install(self, file: File, flags: int) -> int:
        memfd = os.memfd_create(file.link, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        ours = [memfd]
        try:
            if self._native and file.is_device_memory:
                file.trap_mappings()  # an access has to fault: there is no memory, or only for moments
            else:
                os.ftruncate(memfd, file.map_size)
                fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
            fd = open_(f"/proc/self/fd/{memfd}", flags | os.O_CLOEXEC)
            ours.append(fd)
            if file.map_size:
                file.attach_backing(memfd)
            else:
                close(memfd)
            ours.remove(memfd)
            # Watched only from here on: the close of the first description is not the one to hear of.
            path = f"/proc/self/fd/{fd}".encode()
            # Not for both kinds: we may look at a file ourselves, for reading.
            wanted = _IN_CLOSE_NOWRITE if flags & os.O_ACCMODE == os.O_RDONLY else _IN_CLOSE_WRITE
            watch = inotify.add_watch(self._inotify, path, wanted)
        except OSError:
            for each in ours:
                close(each)
            raise
        status = os.fstat(fd)
        inode = (status.st_dev, status.st_ino)
        cookie = _NOWHERE if self._native else int.from_bytes(os.urandom(8), "little") >> 3 | 1 << 61
        os.lseek(fd, cookie, os.SEEK_SET)
        self._watches[watch] = (file, inode, cookie)
        if file.map_size:
            self._backings[watch] = memfd
        self._inodes[inode] = file
        if not self._native:
            self._cookies[cookie] = file
        return fd

    def find(self, fd: int) -> File | None:
        """The emulated file behind ``fd``; None when ``fd`` is open but something else. OSError EBADF."""
        try:
            found = self._cookies.get(os.lseek(fd, 0, os.SEEK_CUR))
        except OSError as error:
            if error.errno != errno.ESPIPE:
                raise
            return None  # pipes, sockets and eventfds cannot seek; ours can
        if found is None:
            status = os.fstat(fd)
            found = self._inodes.get((status.st_dev, status.st_ino))
        return found

    def drain(self) -> None:
        """Release every file whose last descriptor was closed since the last look."""
        while True:
            try:
                events = read(self._inotify, inotify.BATCH)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(events):
                watch, mask, _, length = _EVENT.unpack_from(events, offset)
                offset += _EVENT.size + length
                if mask & (_IN_CLOSE_WRITE | _IN_CLOSE_NOWRITE) and watch in self._watches:
                    self._release(watch)
                elif mask & _IN_Q_OVERFLOW:
                    self._recount()

    def _release(self, watch: int) -> None:
        file, inode, cookie = self._watches.pop(watch)
        self._backings.pop(watch, None)
        del self._inodes[inode]
        self._cookies.pop(cookie, None)
        file.put()

    def _recount(self) -> None:
        """So many were closed at once that events were lost: look which files are still open.

        A memfd that nobody has is gone, and its watch with it; one that its file keeps can be leased for reading if
        nobody else has it open.
        """
        with open_text(f"/proc/self/fdinfo/{self._inotify}") as info:
            alive = {int(line.split()[1][3:], 16) for line in info if line.startswith("inotify")}
        for watch in list(self._watches):
            backing = self._backings.get(watch)
            if watch not in alive if backing is None else not _is_open_elsewhere(backing):
                self._release(watch)

    def forked(self) -> None:
        """In the child of a fork, after `Poller.forked`: what it closes is not ours to release, the parent does."""
        fresh = inotify.fresh()
        self._poller.unregister(self._inotify)
        os.dup2(fresh, self._inotify, inheritable=False)
        close(fresh)
        self._poller.register(self._inotify, self.drain)

    def close(self) -> None:
        """Shut the door: files that are still open stay as they are, and are ours no more."""
        self._poller.unregister(self._inotify)
        inotify.give_back(self._inotify, self._watches)
        for _, inode, _ in self._watches.values():
            del self._inodes[inode]
        self._watches.clear()
        self._backings.clear()
        self._cookies.clear()
