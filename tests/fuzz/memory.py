"""The memory that the emulated kernel may touch while it is fuzzed: the arena, and nothing else of this process.

A fuzzer learns addresses from the comparisons that it watches, and the emulated kernel writes where it is told to. It
also counts accesses, so that the memory can go away at any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from kvmvfio_emu.doors.supervisor import userpath
from kvmvfio_emu.kernel import usercopy
from kvmvfio_emu.testing.player import ARENA, ARENA_SIZE, Arena


@cache
def arena() -> Arena:
    """The only one of this process, until `release`."""
    return Arena()


def release() -> None:
    """Others may have one."""
    arena().close()
    arena.cache_clear()


class Fence:
    """Calls of process_vm_readv and process_vm_writev as the host's kernel would answer them of a bare program.

    ``before`` is called at each of them.
    """

    def __init__(self) -> None:
        self.before: Callable[[], None] = lambda: None

    @contextmanager
    def around(self) -> Iterator[Fence]:
        """While it lasts."""
        with (
            mock.patch.object(usercopy, "process_vm_readv", self._guard(usercopy.process_vm_readv)),
            mock.patch.object(usercopy, "_process_vm_writev", self._guard(usercopy._process_vm_writev)),
            mock.patch.object(userpath, "process_vm_readv", self._guard(userpath.process_vm_readv)),
        ):
            yield self

    def _guard(self, call: Callable[..., int]) -> Callable[..., int]:
        def guarded(pid: int, local: Any, local_count: int, remote: Any, remote_count: int, flags: int) -> int:
            self.before()
            base = remote.base or 0
            if not (base >= ARENA and base + remote.length <= ARENA + ARENA_SIZE):
                return -1
            return call(pid, local, local_count, remote, remote_count, flags)

        return guarded
