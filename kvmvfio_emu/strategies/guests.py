"""Guest programs: a main routine of drawn operations, and a handler that completes what it acknowledges."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from kvmvfio_emu.guest.script import Cpu, Operation, Read, Routine, Script, WaitForInterrupt, Work, Write

_WORDS = st.integers(0, (1 << 32) - 1)
_SPURIOUS = 1020


class DrawnGuest(Script):
    """A `Script` that prints what it was drawn as. ``acknowledged``: the interrupts that its handler took, in order."""

    def __init__(self, spis: Sequence[int], operations: Sequence[Operation]) -> None:
        self.spis = tuple(spis)
        self.operations = tuple(operations)
        self.acknowledged: list[int] = []
        super().__init__(self._routine, self._take)

    def __repr__(self) -> str:
        return f"DrawnGuest({list(self.spis)}, {list(self.operations)})"

    def _routine(self, cpu: Cpu) -> Routine:
        yield from cpu.enable_gic()
        for spi in self.spis:
            yield from cpu.enable_irq(spi)
        for operation in self.operations:  # noqa: UP028 - an iterator takes nothing that is sent
            yield operation

    def _take(self, cpu: Cpu) -> Routine:
        irq = (yield cpu.acknowledge()) & 0x3FF
        if irq < _SPURIOUS:
            self.acknowledged.append(irq)
            yield cpu.end_of_interrupt(irq)


def guest_programs(
    spis: Sequence[int] = (32, 33, 34),
    *,
    memory: tuple[int, int] | None = None,
    outside: tuple[int, int] | None = None,
    max_size: int = 20,
) -> st.SearchStrategy[DrawnGuest]:
    """Guests that enable ``spis`` (GIC ids), or some of them, then compute and wait, and then power off.

    ``memory``: (start, size) where they also load and store; ``outside``: where that leaves for userspace.
    """
    options: list[st.SearchStrategy[Operation]] = [
        st.builds(Work, st.integers(1, 1000)),
        st.just(WaitForInterrupt()),
        *(_disabling(spi) for spi in spis),
    ]
    for window in (memory, outside):
        if window is not None:
            start, size = window
            address = st.integers(0, size // 4 - 1).map(lambda word, start=start: start + 4 * word)  # type: ignore[misc]
            options += [st.builds(Write, address, _WORDS), st.builds(Read, address)]
    return st.builds(
        DrawnGuest,
        st.lists(st.sampled_from(list(spis)), unique=True, min_size=1) if spis else st.just([]),
        st.lists(st.one_of(options), max_size=max_size),
    )


def _disabling(spi: int) -> st.SearchStrategy[Operation]:
    cpu = Cpu(0x08000000, 0x08010000)
    register = cpu.disable_irq(spi)
    enable = Write(register.address - 0x80, register.value)
    return st.sampled_from([register, enable])
