"""A guest in Python: generators that yield what the CPU does next. Enough for a driver with its interrupt handler.

::

    def handler(cpu):                       # runs at the IRQ vector, interrupts masked, ends with ERET
        irq = yield cpu.acknowledge()
        status = yield read(DEVICE + STATUS)
        yield write(DEVICE + STATUS, status)
        yield cpu.end_of_interrupt(irq)

    def main(cpu):
        yield from cpu.enable_gic()
        yield from cpu.enable_irq(112)
        while True:
            yield wait_for_interrupt()
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple

from kvmvfio_emu.guest.base import Exit, GuestBus, Mmio, PowerOff, Wfi

_CTLR, _PMR, _IAR, _EOIR, _DIR = 0x00, 0x04, 0x0C, 0x10, 0x1000
_ISENABLER, _ICENABLER, _ITARGETSR, _ICFGR = 0x100, 0x180, 0x800, 0xC00


class Read(NamedTuple):
    """Load ``size`` bytes; the ``yield`` returns the value."""

    address: int
    size: int = 4


class Write(NamedTuple):
    """Store ``size`` bytes."""

    address: int
    value: int
    size: int = 4


class ReadSystem(NamedTuple):
    """MRS of a system register by its 16-bit encoding; the ``yield`` returns the value."""

    register: int


class WriteSystem(NamedTuple):
    """MSR."""

    register: int
    value: int


class WaitForInterrupt:
    """WFI."""


class Work(NamedTuple):
    """Compute for some virtual time."""

    nanoseconds: int


Operation = Read | Write | ReadSystem | WriteSystem | WaitForInterrupt | Work
Routine = Generator[Operation, int, None]

#: Readable spellings of the operations.
read = Read
write = Write
wait_for_interrupt = WaitForInterrupt
work = Work


class Cpu(NamedTuple):
    """What a script knows of its machine: where the GICv2's frames are, and the idioms of a driver."""

    distributor: int
    interface: int

    def enable_gic(self) -> Routine:
        """Turn on distributor and CPU interface, let all priorities pass."""
        yield Write(self.distributor + _CTLR, 1)
        yield Write(self.interface + _PMR, 0xFF)
        yield Write(self.interface + _CTLR, 1)

    def enable_irq(self, irq: int, *, edge: bool = False, target: int = 0) -> Routine:
        """Configure shared interrupt ``irq`` (GIC id), route it to CPU ``target``, enable it."""
        config = self.distributor + _ICFGR + irq // 16 * 4
        field = 2 << irq % 16 * 2
        value = yield Read(config)
        yield Write(config, value | field if edge else value & ~field)
        yield Write(self.distributor + _ITARGETSR + irq, 1 << target, 1)
        yield Write(self.distributor + _ISENABLER + irq // 32 * 4, 1 << irq % 32)

    def disable_irq(self, irq: int) -> Write:
        """GICD_ICENABLER."""
        return Write(self.distributor + _ICENABLER + irq // 32 * 4, 1 << irq % 32)

    def acknowledge(self) -> Read:
        """GICC_IAR; 1023 when there is nothing."""
        return Read(self.interface + _IAR)

    def end_of_interrupt(self, irq: int) -> Write:
        """GICC_EOIR."""
        return Write(self.interface + _EOIR, irq)

    def deactivate(self, irq: int) -> Write:
        """GICC_DIR, for a guest with EOImode 1."""
        return Write(self.interface + _DIR, irq)


class Script:
    """A program made of generators.

    ``main(cpu)`` starts at the first KVM_RUN; when it ends, the guest powers off. ``handler(cpu)`` runs whenever the
    IRQ input is asserted and interrupts are not masked (they are, inside the handler). Without a handler the
    main routine has to poll.
    """

    def __init__(
        self,
        main: Callable[[Cpu], Routine],
        handler: Callable[[Cpu], Routine] | None = None,
        *,
        distributor: int = 0x08000000,
        interface: int = 0x08010000,
    ) -> None:
        self.cpu = Cpu(distributor, interface)
        self._main = main(self.cpu)
        self._handler = handler
        self._running: Routine | None = None  # the handler, while it runs
        self._results: dict[int, int] = {}  # what the next step of each routine is to be sent
        self._left: dict[int, int] = {}  # computing time still to pass, of each routine
        self._off = False

    @property
    def in_handler(self) -> bool:
        """Whether the interrupt handler runs."""
        return self._running is not None

    def step(self, bus: GuestBus) -> Exit | None:
        """Execute one operation of the handler or of the main routine."""
        if self._off:
            return PowerOff()
        if self._running is None and self._handler is not None and bus.irq_asserted:
            bus.note("guest_irq")
            self._running = self._handler(self.cpu)
        routine = self._running or self._main
        left = self._left.pop(id(routine), 0)
        if left:
            self._compute(left, routine, bus)
            return None
        try:
            sent = self._results.pop(id(routine), None)
            operation = next(routine) if sent is None else routine.send(sent)
        except StopIteration:
            return self._ended(routine, bus)
        return self._execute(operation, routine, bus)

    def complete(self, value: int) -> None:
        """The answer to the last exit."""
        self._results[id(self._running or self._main)] = value

    def _execute(self, operation: Operation, routine: Routine, bus: GuestBus) -> Exit | None:
        if isinstance(operation, Read):
            value = bus.load(operation.address, operation.size)
            if isinstance(value, Mmio):
                return value
            self._results[id(routine)] = value
            return None
        if isinstance(operation, Write):
            return bus.store(operation.address, operation.size, operation.value)
        if isinstance(operation, ReadSystem):
            self._results[id(routine)] = bus.read_system(operation.register)
            return None
        if isinstance(operation, WriteSystem):
            bus.write_system(operation.register, operation.value)
            return None
        if isinstance(operation, WaitForInterrupt):
            return None if bus.irq_asserted else Wfi()
        if isinstance(operation, Work):
            self._compute(operation.nanoseconds, routine, bus)
            return None
        raise TypeError(f"a guest script yielded {operation!r}, which is no operation")

    def _compute(self, nanoseconds: int, routine: Routine, bus: GuestBus) -> None:
        left = bus.pass_time(nanoseconds)
        if left:
            self._left[id(routine)] = left

    def _ended(self, routine: Routine, bus: GuestBus) -> Exit | None:
        self._results.pop(id(routine), None)
        if routine is self._running:
            self._running = None
            bus.note("guest_eret")
            return None
        self._off = True
        return PowerOff()
