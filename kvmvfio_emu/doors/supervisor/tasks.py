"""The supervised threads that have called us, and the address spaces they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.doors.supervisor.target import TargetTask
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.doors.descriptors import Descriptors
    from kvmvfio_emu.doors.supervisor.notify import Listener
    from kvmvfio_emu.kernel.host import Host

#: Threads of which we keep a /proc directory open; the oldest unused one is let go beyond that.
_KEPT = 512


class Tasks:
    """`TargetTask` of each thread, by its number."""

    def __init__(self, host: Host, descriptors: Descriptors, listener: Listener) -> None:
        self._host = host
        self._descriptors = descriptors
        self._listener = listener
        self._tasks: dict[int, TargetTask] = {}
        self._memory: dict[int, UserMemory] = {}

    def find(self, tid: int, notification: int) -> TargetTask:
        """The task of thread ``tid``, which waits in call ``notification``. ProcessLookupError when it is gone.

        A number that is in use again for another thread shows when the task's descriptors are looked up.
        """
        task = self._tasks.get(tid) or self._adopt(tid)
        task.notification = notification
        # Any thread of a process reaches its memory; the one that is calling is surely there.
        task.mm.pid = tid
        return task

    def _adopt(self, tid: int) -> TargetTask:
        if len(self._tasks) >= _KEPT:
            self._sweep()
        task = TargetTask(tid, self._host, self._descriptors, self._listener)
        task.mm = self._memory.setdefault(task.tgid, task.mm)
        self._tasks[tid] = task
        return task

    def _sweep(self) -> None:
        """Let go of threads that are dead, or else of the ones longest known."""
        for tid in [tid for tid, task in self._tasks.items() if not task.alive()]:
            self.forget(tid)
        for tid in list(self._tasks)[: max(0, len(self._tasks) - _KEPT // 2)]:
            self.forget(tid)

    def forget(self, tid: int) -> None:
        """The thread is gone, or not needed for now."""
        task = self._tasks.pop(tid)
        task.close()
        if not any(other.tgid == task.tgid for other in self._tasks.values()):
            del self._memory[task.tgid]

    def close(self) -> None:
        """Give all our descriptors of them back."""
        for tid in list(self._tasks):
            self.forget(tid)
