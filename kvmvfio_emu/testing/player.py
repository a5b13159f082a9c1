"""Sequences of calls as plain data, and what plays them: on a `Kernel`, or (run as a program) by system calls.

As a program it reads a sequence a line from stdin and prints what came of it, a line each and an empty one at the end,
under the supervisor or on the host's own kernel. So it is stand-alone: the standard library only, and nothing of the
package.

A call names its file by kind and place among the open ones of that kind, as no two runs share descriptor numbers.
An argument is bytes in the arena, memory at an address that all players have; descriptors are put in where it says so.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

ARENA, ARENA_SIZE, _PAGE = 0x6000_0000_0000, 16 * 4096, 4096
_MAP_FIXED_NOREPLACE = 0x100000
#: Descriptors that no file has.
NOWHERE = {"minus": -1, "closed": 0x7FFF, "huge": 0x7FFFFFFF}

Call = dict[str, Any]
#: (result, errno's name, what changed in the arena)
Outcome = list[Any]


class Door(Protocol):
    """The way into a kernel."""

    def open(self, path: str) -> int: ...
    def ioctl(self, fd: int, request: int, argument: int) -> int: ...
    def close(self, fd: int) -> None: ...
    def settle(self) -> None: ...


class SystemCalls:
    """The calls themselves. ``pause``: seconds in which a kernel that nobody supervises is done with what it defers."""

    def __init__(self, pause: float = 0.0) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._pause = pause

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        result: int = self._libc.ioctl(ctypes.c_int(fd), ctypes.c_ulong(request), ctypes.c_ulong(argument))
        if result < 0:
            raise OSError(ctypes.get_errno(), "ioctl")
        return result

    def close(self, fd: int) -> None:
        os.close(fd)

    def settle(self) -> None:
        """What is under way is done before the next call that the kernel sees is answered."""
        os.stat("/dev/kvm")
        if self._pause:
            time.sleep(self._pause)


class Arena:
    """Memory at the same address everywhere."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
        size, place = ctypes.c_size_t(ARENA_SIZE), ctypes.c_void_p(ARENA)
        got = libc.mmap(place, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, ctypes.c_size_t(0))
        assert got == ARENA, f"the arena is taken: {ctypes.get_errno()}"
        self._bytes = (ctypes.c_char * ARENA_SIZE).from_address(ARENA)

    def close(self) -> None:
        """Give the memory back, so that another one can be made."""
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.munmap(ctypes.c_void_p(ARENA), ctypes.c_size_t(ARENA_SIZE)) == 0

    def put(self, offset: int, data: bytes) -> None:
        ctypes.memmove(ARENA + offset, data, len(data))

    def get(self) -> bytes:
        return self._bytes.raw


class Player:
    """Plays one sequence after another; between two of them everything is closed."""

    def __init__(self, door: Door, arena: Arena) -> None:
        self._door = door
        self._arena = arena
        self._files: dict[str, list[int]] = {}

    def play(self, calls: list[Call]) -> list[Outcome]:
        """What each call came to, and at the end what the eventfds count."""
        return list(self.steps(calls))

    def steps(self, calls: list[Call]) -> Iterator[Outcome]:
        """The same, one after the other."""
        try:
            for call in calls:
                yield self.one(call)
            self._door.settle()
            for fd in self._files.get("eventfd", []):
                yield self._answer(lambda fd=fd: os.eventfd_read(fd))
        finally:
            for fds in self._files.values():
                for fd in fds:
                    self._door.close(fd)
            self._files.clear()
            self._door.settle()

    def one(self, call: Call) -> Outcome:
        """What one call comes to."""
        outcome: Outcome = getattr(self, f"_{call['do']}")(**{key: value for key, value in call.items() if key != "do"})
        return outcome

    def _answer(self, act: Any, gives: str | None = None) -> Outcome:
        try:
            result = act()
        except OSError as error:
            return [-1, errno.errorcode.get(error.errno or 0, str(error.errno))]
        if gives is not None:
            self._files.setdefault(gives, []).append(result)
            result = "new"
        return [result, "0"]

    def _find(self, kind: str, place: int) -> int:
        """A descriptor; one that is closed when there is none of that kind."""
        if kind in NOWHERE:
            return NOWHERE[kind]
        fds = self._files.get(kind, [])
        return fds[place % len(fds)] if fds else NOWHERE["closed"]

    # -- the calls -----------------------------------------------------------------------------------------------

    def _open(self, path: str, kind: str) -> Outcome:
        return self._answer(lambda: self._door.open(path), kind)

    def _eventfd(self, count: int) -> Outcome:
        return self._answer(lambda: os.eventfd(count, os.EFD_NONBLOCK | os.EFD_CLOEXEC), "eventfd")

    def _signal(self, place: int) -> Outcome:
        fds = self._files.get("eventfd")
        if not fds:
            return [-1, "none"]
        outcome = self._answer(lambda: os.eventfd_write(fds[place % len(fds)], 1))
        self._door.settle()
        return outcome

    def _count(self, place: int) -> Outcome:
        fds = self._files.get("eventfd")
        if not fds:
            return [-1, "none"]
        self._door.settle()
        return self._answer(lambda: os.eventfd_read(fds[place % len(fds)]))

    def _dup(self, kind: str, place: int) -> Outcome:
        return self._answer(lambda: os.dup(self._find(kind, place)), kind)

    def _close(self, kind: str, place: int) -> Outcome:
        fds = self._files.get(kind)
        if not fds:
            return [-1, "none"]
        fd = fds.pop(place % len(fds))
        outcome = self._answer(lambda: self._door.close(fd))
        self._door.settle()
        return outcome

    def _ioctl(
        self,
        on: list[Any],
        number: int,
        argument: int | None = None,
        memory: list[list[Any]] = [],  # noqa: B006 - never changed
        fds: list[list[Any]] = [],  # noqa: B006
        gives: str | None = None,
        fd_at: int | None = None,
    ) -> Outcome:
        """``memory``: [offset, hex] into the arena; ``fds``: [offset, kind, place] over that.

        ``argument``: a number or address; the arena's start without.
        ``gives``: the kind of file that a result, or with ``fd_at`` what is written at that offset, is a descriptor of.
        """
        self._arena.put(0, bytes(ARENA_SIZE))  # no descriptors of earlier calls
        for offset, data in memory:
            self._arena.put(offset, bytes.fromhex(data))
        for offset, kind, place in fds:
            self._arena.put(offset, self._find(kind, place).to_bytes(4, "little", signed=True))
        before = self._arena.get()
        outcome = self._answer(
            lambda: self._door.ioctl(self._find(*on), number, ARENA if argument is None else argument),
            gives if fd_at is None else None,
        )
        after = self._arena.get()
        if fd_at is not None and outcome[1] == "0":
            written = after[fd_at : fd_at + 4]
            if written != before[fd_at : fd_at + 4]:
                self._files.setdefault(gives or "", []).append(int.from_bytes(written, "little", signed=True))
                after = after[:fd_at] + b"\xfd\xfd\xfd\xfd" + after[fd_at + 4 :]
        # Words, since a descriptor beside what was written has another number in each player.
        pages = [at for at in range(0, ARENA_SIZE, _PAGE) if before[at : at + _PAGE] != after[at : at + _PAGE]]
        words = [at for page in pages for at in range(page, page + _PAGE, 4)]
        changed = [at for at in words if before[at : at + 4] != after[at : at + 4]]
        return [*outcome, [[at, after[at : at + 4].hex()] for at in changed]]


def main() -> None:
    """Argument: the pause of `SystemCalls`."""
    player = Player(SystemCalls(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0), Arena())
    for line in sys.stdin:
        for outcome in player.steps(json.loads(line)):
            print(json.dumps(outcome), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
