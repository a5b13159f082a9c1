"""A physical CPU as the host kernel runs it: in host or in guest mode, with interrupts on or off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from kvmvfio_emu.hw.gic import CpuInterface


class Guest(Protocol):
    """What may run on a CPU in guest mode."""

    def force_exit(self, why: str) -> None:
        """Leave guest mode at the next boundary; ``why`` is "irq" or "kick"."""

    def give_way(self) -> None:
        """Leave guest mode now: another guest is to run here."""


class HostCpu:
    """CPU ``index``. An interrupt that finds a guest running first takes the guest out; the host handles it after."""

    def __init__(self, interface: CpuInterface, handle_irq: Callable[[CpuInterface], None]) -> None:
        self.interface = interface
        self.guest: Guest | None = None
        self._handle_irq = handle_irq
        self._irqs_off = _IrqsOff(self)
        self._asserted = False

    @property
    def index(self) -> int:
        """The CPU's number."""
        return self.interface.index

    def interrupt(self) -> None:
        """The GIC asserts nIRQ."""
        if self._irqs_off:
            self._asserted = True
        elif self.guest is not None:
            self.guest.force_exit("irq")
        else:
            self.take_irqs()

    def take_irqs(self) -> None:
        """Interrupts are enabled: handle all that is signalled. Models el1_irq and the driver's loop on IAR."""
        if self._irqs_off:
            return
        with self._irqs_off:
            self._asserted = False
            self._handle_irq(self.interface)

    def irqs_disabled(self) -> AbstractContextManager[None]:
        """A stretch of code that no interrupt splits; models local_irq_save/restore."""
        return self._irqs_off

    def irqs_enabled(self) -> None:
        """The outermost stretch has ended."""
        if self._asserted:
            self.interrupt()


class _IrqsOff:
    """How many stretches with interrupts off a CPU is in. One object for all of them: each exit of a guest has two."""

    __slots__ = ("_cpu", "_depth")

    def __init__(self, cpu: HostCpu) -> None:
        self._cpu = cpu
        self._depth = 0

    def __bool__(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._cpu.irqs_enabled()
