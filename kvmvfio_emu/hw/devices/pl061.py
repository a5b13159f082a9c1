"""Arm's PrimeCell general purpose I/O PL061: eight pins, each an interrupt source by level or edge, on one line.

Nothing is wired to the pins, so an input reads as it was driven by `set_input`, low at first. The combined interrupt
output follows the masked status; the interrupt controller it is wired to may take it as a level or as an edge.
"""

from __future__ import annotations

from typing import ClassVar

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.hw.board import DeviceSpec
from kvmvfio_emu.hw.devices.base import Device, Line
from kvmvfio_emu.hw.devices.primecell import identification
from kvmvfio_emu.hw.registers import Action, Register, RegisterBank

PINS = 8
_ALL = (1 << PINS) - 1
#: GPIODATA takes the page's first kilobyte: address bits 2 to 9 say which pins an access means.
_DATA_END = 0x400


class Pl061Registers(RegisterBank):
    """The register map, but for GPIODATA, which is an address range."""

    DIR = Register(0x400, mask=_ALL, on_write="_changed")
    IS = Register(0x404, mask=_ALL, on_write="_changed")
    IBE = Register(0x408, mask=_ALL, on_write="_changed")
    IEV = Register(0x40C, mask=_ALL, on_write="_changed")
    IE = Register(0x410, mask=_ALL, on_write="_changed")
    RIS = Register(0x414, Action.RO)
    MIS = Register(0x418, Action.RO)
    IC = Register(0x41C, Action.WO, mask=_ALL, on_write="_cleared")
    AFSEL = Register(0x420, mask=_ALL)
    IDENTIFICATION = identification(0x061, 0)


class Pl061(Device):
    """One PL061. Its region has one page; its only line is the combined interrupt."""

    controls: ClassVar[tuple[str, ...]] = ("reset", "set_input")

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        super().__init__(spec, lines, clock)
        self._inputs = 0  # what the outside drives
        self._outputs = 0  # what was written to GPIODATA
        self._seen = 0  # the inputs at the last look, for edges
        self.registers = Pl061Registers(self)

    @property
    def pins(self) -> int:
        """The state of all pins: outputs as written, inputs as driven."""
        direction = self.registers.DIR
        return self._outputs & direction | self._inputs & ~direction

    def set_input(self, pin: int, level: bool) -> None:
        """Drive ``pin`` (0 to 7) from outside; shows while the pin is an input. ValueError for another number."""
        if not 0 <= pin < PINS:
            raise ValueError(f"pin {pin}: a PL061 has {PINS}")
        self._inputs = self._inputs & ~(1 << pin) | bool(level) << pin
        self._changed(0)

    def read(self, region: int, offset: int, size: int) -> int:
        """As `Device`."""
        if offset < _DATA_END:
            return self.pins & offset >> 2 & (1 << 8 * size) - 1
        return self.registers.read(offset, size)

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        """As `Device`."""
        if offset < _DATA_END:
            mask = offset >> 2 & self.registers.DIR
            self._outputs = self._outputs & ~mask | value & mask
            self._changed(0)
        else:
            self.registers.write(offset, size, value)

    def reset(self) -> None:
        """As after power-on; what the outside drives stays."""
        self._outputs = 0
        self._seen = self._inputs
        self.registers.reset()
        super().reset()

    # -- interrupts -----------------------------------------------------------------------------------------

    def _changed(self, _: int) -> None:
        registers = self.registers
        pins = self.pins
        changed = (pins ^ self._seen) & ~registers.DIR
        self._seen = pins
        edges = changed & ~registers.IS
        rising_or_both = edges & (registers.IBE | ~(pins ^ registers.IEV))
        levels = ~(pins ^ registers.IEV) & registers.IS
        registers.RIS = (registers.RIS & ~registers.IS | rising_or_both | levels) & _ALL
        self._update()

    def _cleared(self, cleared: int) -> None:
        # A level that is still there is there again at once.
        self.registers.RIS &= ~cleared
        self._changed(0)

    def _update(self) -> None:
        self.registers.MIS = self.registers.RIS & self.registers.IE
        for line in self.lines:
            line.set(bool(self.registers.MIS))
