"""What a response had to wait for: the steps before it, each of which begins where the one that it waited for ends.

These links make a tree. To look far back in it is cheap, however long the backlog of a busy guest is: besides its
parent each step knows a step further up (Myers, "An applicative random-access stack", 1983).
"""

from __future__ import annotations

from kvmvfio_emu.rr.account import Step


class Ways:
    """The ways that end at some of ``steps``; all of them together are `critical`."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._depth: list[int] = []
        self._jump: list[int] = []
        self._unmarked = list(range(len(steps)))  # step -> itself, or one further up, if it is critical
        for index, step in enumerate(steps):
            self._link(index, step.waited_for)

    def first(self, index: int, since: int) -> int:
        """The earliest step, begun at or after ``since``, that step ``index`` waited for; -1 when it began before."""
        if self._steps[index].start < since:
            return -1
        while (parent := self._steps[index].waited_for) >= 0 and self._steps[parent].start >= since:
            further = self._jump[index]
            index = further if self._steps[further].start >= since else parent
        return index

    def mark(self, index: int, since: int) -> None:
        """The way from ``index`` back to ``since`` is critical."""
        index = self._next(index)
        while index >= 0 and self._steps[index].start >= since:
            self._unmarked[index] = self._steps[index].waited_for
            index = self._next(index)

    def critical(self, index: int) -> bool:
        """Whether step ``index`` was marked."""
        return self._unmarked[index] != index

    def _next(self, index: int) -> int:
        passed = []
        while index >= 0 and self._unmarked[index] != index:
            passed.append(index)
            index = self._unmarked[index]
        for one in passed:
            self._unmarked[one] = index
        return index

    def _link(self, index: int, parent: int) -> None:
        if parent < 0:
            self._depth.append(0)
            self._jump.append(index)
            return
        far = self._jump[parent]
        further = self._jump[far]
        equal = self._depth[parent] - self._depth[far] == self._depth[far] - self._depth[further]
        self._depth.append(self._depth[parent] + 1)
        self._jump.append(further if equal else parent)
