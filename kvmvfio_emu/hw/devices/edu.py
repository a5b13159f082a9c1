"""QEMU's educational PCI device (docs/specs/edu.rst there): a factorial unit, a DMA engine, one interrupt.

Registers in BAR 0: identification, liveness check, factorial and its status, interrupt status, raise and
acknowledge, DMA source, destination, count and command. Below 0x80 only 4-byte accesses work, above also 8-byte
ones; what is not there reads all ones. The 4 KiB at 0x40000 are the DMA engine's side of a transfer.

Decisions of ours: a transfer that leaves the buffer moves nothing (QEMU gives up there), one that faults leaves
its target as it was; both end like any other and count in `faults`. Without the parameter ``delay`` the units
finish before the register write that started them returns; QEMU's take a thread and a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmvfio_emu.engine.clock import Clock, Timer
from kvmvfio_emu.hw import pci_caps as caps
from kvmvfio_emu.hw.board import BarSpec, DeviceSpec
from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices.base import DmaFault, Line
from kvmvfio_emu.hw.devices.pci import PciDevice
from kvmvfio_emu.hw.pci import PciIds

IDENTIFICATION, LIVENESS, FACTORIAL, STATUS = 0x00, 0x04, 0x08, 0x20
INTERRUPT_STATUS, INTERRUPT_RAISE, INTERRUPT_ACKNOWLEDGE = 0x24, 0x60, 0x64
DMA_SOURCE, DMA_DESTINATION, DMA_COUNT, DMA_COMMAND = 0x80, 0x88, 0x90, 0x98
BUFFER, BUFFER_SIZE = 0x40000, 0x1000
STATUS_COMPUTING, STATUS_INTERRUPT = 0x01, 0x80
COMMAND_START, COMMAND_TO_MEMORY, COMMAND_INTERRUPT = 0x1, 0x2, 0x4
#: Causes in the interrupt status that the device sets by itself.
CAUSE_FACTORIAL, CAUSE_DMA = 0x001, 0x100

_ID = 0x010000ED  # version 1.0
_DMA_MASK = (1 << 28) - 1
_WORD, _LONG = (1 << 32) - 1, (1 << 64) - 1


class Edu(PciDevice):
    """One edu. Parameter ``delay``: nanoseconds of virtual time that the factorial and a transfer take."""

    IDS = PciIds(0x1234, 0x11E8, 0x00FF00, 0x10, 0x1AF4, 0x1100)
    BARS = (BarSpec(0, 0x100000),)
    CAPABILITIES = (caps.Msi(),)

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        super().__init__(spec, lines, clock)
        delay = spec.parameters.get("delay", 0)
        if type(delay) is not int or delay < 0:
            raise BoardError(f"device {spec.name}: parameter delay is {delay!r}, not nanoseconds")
        if unknown := spec.parameters.keys() - {"delay"}:
            raise BoardError(f"device {spec.name}: an edu has no parameter {min(unknown)!r}")
        self._delay = delay
        self._running: list[Timer] = []
        self.faults = 0  #: transfers that moved nothing
        self.reset()

    def reset(self) -> None:
        """As after power-on. QEMU's cannot be reset, so the kernel never asks."""
        for timer in self._running:
            timer.cancel()
        self._running.clear()
        self.buffer = bytearray(BUFFER_SIZE)
        self._liveness = self._factorial = self._status = self._causes = 0
        self._dma = dict.fromkeys((DMA_SOURCE, DMA_DESTINATION, DMA_COUNT, DMA_COMMAND), 0)
        super().reset()

    # -- registers ------------------------------------------------------------------------------------------

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """As `PciDevice`."""
        return self._register(offset, size) & (1 << 8 * size) - 1

    def _register(self, offset: int, size: int) -> int:
        if size == 4 or (size == 8 and offset >= DMA_SOURCE):
            if offset in self._dma:
                return self._dma[offset]
            return {
                IDENTIFICATION: _ID,
                LIVENESS: self._liveness,
                FACTORIAL: self._factorial,
                STATUS: self._status,
                INTERRUPT_STATUS: self._causes,
            }.get(offset, _LONG)
        return _LONG

    def bar_peek(self, bar: int, offset: int, size: int) -> int:
        """As `PciDevice`: all registers are in the first page."""
        if offset > DMA_COMMAND:
            return (1 << 8 * size) - 1
        return super().bar_peek(bar, offset, size)

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """As `PciDevice`."""
        if size != 4 and not (size == 8 and offset >= DMA_SOURCE):
            return
        if offset == LIVENESS:
            self._liveness = ~value & _WORD
        elif offset == FACTORIAL:
            self._start_factorial(value)
        elif offset == STATUS:
            self._status = self._status & ~STATUS_INTERRUPT | value & STATUS_INTERRUPT
        elif offset == INTERRUPT_RAISE:
            self._raise(value)
        elif offset == INTERRUPT_ACKNOWLEDGE:
            self._causes &= ~value
            if not self._causes:
                self.interrupt(False)
        elif offset in self._dma and not self._dma[DMA_COMMAND] & COMMAND_START:
            if offset != DMA_COMMAND:
                self._dma[offset] = value
            elif value & COMMAND_START:
                self._dma[offset] = value
                self._later(self._transfer)

    # -- what they set off ----------------------------------------------------------------------------------

    def _later(self, finish: Callable[[], None]) -> None:
        if self._delay:
            self._running = [timer for timer in self._running if timer.callback is not None]
            self._running.append(self.clock.after(self._delay, finish))
        else:
            finish()

    def _raise(self, causes: int) -> None:
        self._causes |= causes & _WORD
        if self._causes:
            self.interrupt(True)

    def _start_factorial(self, number: int) -> None:
        if not self._status & STATUS_COMPUTING:
            self._status |= STATUS_COMPUTING
            self._factorial = number & _WORD
            self._later(self._finish_factorial)

    def _finish_factorial(self) -> None:
        # From 34! on the product has 32 factors of two: zero in 32 bits, without four thousand million rounds.
        number = self._factorial
        result = int(number < 34)
        for factor in range(2, number + 1 if result else 0):
            result = result * factor & _WORD
        self._factorial = result
        self._status &= ~STATUS_COMPUTING
        if self._status & STATUS_INTERRUPT:
            self._raise(CAUSE_FACTORIAL)

    def _transfer(self) -> None:
        command, count = self._dma[DMA_COMMAND], self._dma[DMA_COUNT]
        to_memory = bool(command & COMMAND_TO_MEMORY)
        own = self._dma[DMA_SOURCE if to_memory else DMA_DESTINATION] - BUFFER
        address = self._dma[DMA_DESTINATION if to_memory else DMA_SOURCE] & _DMA_MASK
        try:
            if own < 0 or own + count > BUFFER_SIZE:
                raise DmaFault(address, f"{count:#x} bytes at {own + BUFFER:#x} are not inside the buffer")
            if to_memory:
                self.dma_write(address, bytes(self.buffer[own : own + count]))
            else:
                self.buffer[own : own + count] = self.dma_read(address, count)
        except DmaFault:
            self.faults += 1
        self._dma[DMA_COMMAND] = command & ~COMMAND_START
        if command & COMMAND_INTERRUPT:
            self._raise(CAUSE_DMA)
