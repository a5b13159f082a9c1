"""The program that the supervisor serves in `fuzz.notifications`: its calls, made of an input's bytes one by one."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any

from fuzz.calls import KINDS, POINTERS, TABLE, read_memory, write_memory
from fuzz.fakeseccomp import Caller, Child, FakeSeccomp, Thread, Wait
from fuzz.memory import Fence, arena
from fuzz.taken import Taken
from kvmvfio_emu.doors.supervisor.notify import Notification
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.testing.player import ARENA, ARENA_SIZE, NOWHERE, Call

#: The calls and their arguments: f descriptor, r request, p pointer, s string, d directory, n number.
CALLS = {
    "ioctl": "frp",
    "pread64": "fpnn",
    "pwrite64": "fpnn",
    "read": "fpn",
    "lseek": "fnn",
    "fcntl": "fnn",
    "mmap": "nnnnfn",
    "ftruncate": "fn",
    "fallocate": "fnnn",
    "open": "snn",
    "creat": "sn",
    "openat": "dsnn",
    "openat2": "dspn",
    "stat": "sp",
    "lstat": "sp",
    "newfstatat": "dspn",
    "statx": "dsnnp",
    "access": "sn",
    "faccessat": "dsn",
    "faccessat2": "dsnn",
    "readlink": "spn",
    "readlinkat": "dspn",
    "rename": "ss",
    "umount2": "sn",
}
NAMES = tuple(CALLS)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
#: What paths are made of; each byte below their number is one, others stand for themselves.
PARTS = tuple(
    text.encode()
    for text in (
        *("/", "..", ".", "/dev", "/dev/kvm", "/dev/vfio", "/dev/vfio/vfio", "/dev/vfio/5", "/dev/vfio/devices/vfio0"),
        *("/dev/iommu", "/proc/self/fd/", "/proc/self/", "/proc/thread-self/fd/", "/dev/fd/", "cwd", "root", "/proc/"),
        *("/sys", "/sys/bus/platform/devices", "/sys/bus/pci/devices", "/sys/kernel/iommu_groups/5", "/devices"),
        *(
            "/iommu_group",
            "fff51000.ethernet",
            "/sys/devices/platform/",
            "/sys/class/vfio-dev",
            "/type",
            "0000:00:01.0",
        ),
        *("/config", "/proc/device-tree", "/dev/vfio/0", "vfio"),
    )
)
#: Numbers that say something to one call or another.
SPECIAL = (
    *(os.O_RDWR, os.O_CREAT | os.O_EXCL, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH, os.O_TRUNC | os.O_WRONLY),
    *(os.O_CLOEXEC, 0x100, 0x1000, 0x2000, 0xFFFFFFFF, (1 << 64) - 1, 1 << 63, 1 << 31, 1 << 32, 4096, 1 << 20),
)
STRING = 0x3000  #: where in the arena paths are
MOST = 16  #: calls of one input
_REFUSALS = (errno.EMFILE, errno.ENOENT, errno.ESRCH, errno.EINTR)
_FILES = (*KINDS, "directory")
_AT_FDCWD = (1 << 64) - 100
_ALL = (1 << 64) - 1
# Who calls, in the low bits of a byte, and what becomes of it meanwhile in the next ones.
_THREAD, _CHILD, _GONE = 1, 2, 3
_DIES, _LEAVES, _REFUSED, _UNHEARD = 1, 2, 3, 4
# What a program does beside trapped calls.
_BESIDE = ("close", "dup", "signal")


class Program:
    """Its calls are made up when they are asked for, with the descriptors that there are by then."""

    def __init__(self, host: Host, data: Taken, start: list[Call], fence: Fence, *, killable: bool) -> None:
        self._host, self._data, self._fence, self._killable = host, data, fence, killable
        self._start = [call for call in start if call["do"] != "eventfd"]
        eventfds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2)]
        self._fds: dict[str, list[int]] = {"eventfd": eventfds}
        self._given: list[int] = []
        self._count = 0
        self._most = len(self._start) + MOST
        self._strings = 0
        self._main, self._thread, self._child = Caller(os.getpid()), None, None
        self._dead = 0
        self.kernel = FakeSeccomp(self._more, self._next, self._given.append)

    def end(self) -> None:
        """All of its threads end, and so its descriptors are closed."""
        self._end_child()
        if self._thread is not None:
            self._thread.end()
        self._sort()
        for fds in self._fds.values():
            for fd in fds:
                os.close(fd)
        self._fds.clear()

    def _more(self) -> bool:
        return self._count < self._most and bool(self._start or self._data)

    # -- one call ------------------------------------------------------------------------------------------------------

    def _next(self) -> Wait:
        self._end_child()
        self._sort()
        self._strings = 0
        self._count += 1
        arena().put(0, bytes(ARENA_SIZE))
        if self._start:
            number, arguments = self._begin(self._start.pop(0))
            return Wait(self._made(self._main, number, arguments))
        op = self._data.number() % (len(NAMES) + len(_BESIDE))
        if op >= len(NAMES):
            self._beside(_BESIDE[op - len(NAMES)], self._data.number())
            raise OSError(errno.EINTR, "it calls nothing")
        how = self._data.number()
        who, fate, turn = how & 3, how >> 2 & 7, how >> 5
        if fate == _UNHEARD:
            raise OSError(errno.ENOENT, "it was killed before we heard of it")
        arguments = [self._argument(letter) for letter in CALLS[NAMES[op]]]
        made = self._made(self._who(who), op, arguments)
        gone = who == _GONE
        if fate in (_DIES, _LEAVES):
            if turn:
                self._fence.before = Countdown(turn, self, made.id, dies=fate == _DIES)
            else:
                gone = True
                if fate == _DIES:
                    self._end_child()
        return Wait(made, _REFUSALS[turn % len(_REFUSALS)] if fate == _REFUSED else 0, gone)

    def _made(self, caller: Caller, number: int, arguments: list[int]) -> Notification:
        """A thread has one call at a time: if it makes another one, a signal has ended the one before."""
        for other, wait in list(self.kernel.waiting.items()):
            if wait.notification.tid == caller.tid:
                if self._killable:
                    raise OSError(errno.ENOENT, "that thread is in KVM_RUN until it is killed")
                self.kernel.leave(other)
        return Notification(self._count, caller.tid, number, tuple((*arguments, *([0] * 6))[:6]))

    def _who(self, who: int) -> Caller:
        if who == _THREAD:
            self._thread = self._thread or Thread()
            return self._thread
        if who == _CHILD or (who == _GONE and not self._dead):
            self._child = Child(self.kernel.writer)
            if who == _CHILD:
                return self._child
            self._end_child()
        return Caller(self._dead) if who == _GONE else self._main

    def leaves(self, identifier: int, *, dies: bool) -> None:
        """The thread waits no more for that call's answer, since it was killed if it is a child's."""
        self.kernel.leave(identifier)
        if dies:
            self._end_child()

    def _end_child(self) -> None:
        self._fence.before = lambda: None
        if self._child is not None:
            self._child.end()
            self._dead, self._child = self._child.tid, None

    # -- what the program has ------------------------------------------------------------------------------------------

    def _sort(self) -> None:
        """What it was given, by kind."""
        for fd in self._given:
            status = os.fstat(fd)
            file = self._host.inodes.get((status.st_dev, status.st_ino))
            self._fds.setdefault("directory" if file is None else file.kind, []).append(fd)
        self._given.clear()

    def _beside(self, what: str, choice: int) -> None:
        fds = self._fds.get(_FILES[(choice & 0xF) % len(_FILES)], [])
        if not fds:
            return
        place = (choice >> 4) % len(fds)
        if what == "close":
            os.close(fds.pop(place))
        elif what == "dup":
            fds.append(os.dup(fds[place]))
        elif fds is self._fds["eventfd"]:
            with suppress(BlockingIOError):
                os.eventfd_write(fds[place], 1)

    def _find(self, kind: str, place: int) -> int:
        if kind in NOWHERE:
            return NOWHERE[kind]
        fds = self._fds.get(kind, [])
        return fds[place % len(fds)] if fds else NOWHERE["closed"]

    # -- arguments -----------------------------------------------------------------------------------------------------

    def _begin(self, call: Call) -> tuple[int, list[int]]:
        if call["do"] == "open":
            return NUMBERS["openat"], [_AT_FDCWD, self._string(os.fsencode(call["path"])), os.O_RDWR]
        memory = [(at, bytes.fromhex(text)) for at, text in call.get("memory", [])]
        self._fill(memory, call.get("fds", []))
        argument = call.get("argument")
        fd = self._find(*call["on"])
        return NUMBERS["ioctl"], [fd & _ALL, call["number"], ARENA if argument is None else argument]

    def _argument(self, letter: str) -> int:
        first = self._data.number()
        made: int = {
            "f": self._descriptor,
            "d": lambda first: _AT_FDCWD if first < 0x40 else self._descriptor(first),
            "r": lambda first: TABLE[first % len(TABLE)][1] if first < 0xF0 else self._data.number(4),
            "p": self._pointer,
            "s": self._path,
            "n": self._number,
        }[letter](first)
        return made

    def _descriptor(self, first: int) -> int:
        return self._find(_FILES[(first & 0xF) % len(_FILES)], first >> 4) & _ALL

    def _number(self, first: int) -> int:
        if first < 0x80:
            return first
        if first < 0xC0:
            return SPECIAL[first % len(SPECIAL)]
        return self._data.number(8) if first == 0xFF else (first & 0x3F) << 12

    def _pointer(self, first: int) -> int:
        if first < 0x80:
            self._fill(*read_memory(self._data, first >> 4, behind=bool(first & 8)))
            return ARENA
        return self._data.number(8) if first == 0xFF else POINTERS[first % len(POINTERS)]

    def _path(self, first: int) -> int:
        if first >= 0xF0:
            return POINTERS[first % len(POINTERS)]
        characters = self._data.bytes(first & 0x3F)
        text = b"".join(PARTS[one] if one < len(PARTS) else bytes([one]) for one in characters)
        if first & 0x40:  # long
            text *= 64
        if first & 0x80:  # with nothing behind it, not even its end
            arena().put(ARENA_SIZE - len(text), text)
            return ARENA + ARENA_SIZE - len(text)
        return self._string(text)

    def _string(self, text: bytes) -> int:
        at = STRING + 0x1800 * self._strings
        self._strings += 1
        arena().put(at, text[:0x17FF] + b"\0")
        return ARENA + at

    def _fill(self, memory: list[tuple[int, bytes]], fds: list[list[Any]]) -> None:
        for at, data in memory:
            arena().put(at, data)
        for at, kind, place in fds:
            arena().put(at, self._find(kind, place).to_bytes(4, "little", signed=True))


class Countdown:
    """After so many accesses to the program's memory its thread is gone."""

    def __init__(self, turn: int, program: Program, identifier: int, *, dies: bool) -> None:
        self._turn, self._program, self._identifier, self._dies = turn, program, identifier, dies

    def __call__(self) -> None:
        self._turn -= 1
        if self._turn <= 0:
            self._program.leaves(self._identifier, dies=self._dies)


def written_ioctl(call: Call) -> bytes:
    """Bytes of an ioctl of this process that a player's call is."""
    kind, place = call["on"]
    head = bytes([NUMBERS["ioctl"], 0, KINDS.index(kind) | (place & 0xF) << 4, 0xF0]) + call["number"].to_bytes(
        4, "little"
    )
    if call.get("argument") is not None:
        return head + b"\xff" + call["argument"].to_bytes(8, "little")
    patches, behind, text = write_memory(call)
    return head + bytes([patches << 4 | behind << 3]) + text
