"""Arm's PrimeCell real time clock PL031: a counter of seconds, and a level interrupt when it reaches the match value.

The counter counts virtual seconds, so a run repeats; the parameter ``start`` is what it shows at power-on. A match
value that equals the counter matches at once, as on QEMU's model; one that lies behind it matches a turn of 2^32
seconds later.
"""

from __future__ import annotations

from kvmvfio_emu.engine.clock import Clock, Timer
from kvmvfio_emu.hw.board import DeviceSpec
from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices.base import Device, Line
from kvmvfio_emu.hw.devices.primecell import identification
from kvmvfio_emu.hw.registers import Action, Register, RegisterBank

_SECOND = 1_000_000_000
_TURN = 1 << 32


class Pl031Registers(RegisterBank):
    """The register map."""

    DR = Register(0x00, Action.RO, on_read="_count_read")
    MR = Register(0x04, on_write="_match_written")
    LR = Register(0x08, on_write="_load_written")
    CR = Register(0x0C, Action.RO, reset=1)  # enabled once and for all
    IMSC = Register(0x10, mask=1, on_write="_update")
    RIS = Register(0x14, Action.RO)
    MIS = Register(0x18, Action.RO)
    ICR = Register(0x1C, Action.WO, on_write="_clear_written")
    IDENTIFICATION = identification(0x031, 1)


class Pl031(Device):
    """One PL031. Its region has one page; its only line is level."""

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        super().__init__(spec, lines, clock)
        start = spec.parameters.get("start", 0)
        if type(start) is not int or not 0 <= start < _TURN:
            raise BoardError(f"device {spec.name}: parameter start is {start!r}, not a number of seconds")
        if unknown := spec.parameters.keys() - {"start"}:
            raise BoardError(f"device {spec.name}: a PL031 has no parameter {min(unknown)!r}")
        self._alarm: Timer | None = None
        self.registers = Pl031Registers(self)
        self._offset = start  # the clock's seconds plus this are the counter

    @property
    def count(self) -> int:
        """The counter, in seconds."""
        return (self.clock.now // _SECOND + self._offset) % _TURN

    def read(self, region: int, offset: int, size: int) -> int:
        """As `Device`."""
        return self.registers.read(offset, size)

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        """As `Device`."""
        self.registers.write(offset, size, value)

    def peek(self, region: int, offset: int, size: int) -> int:
        """As `Device`."""
        self.registers.DR = self.count
        return self.registers.peek(offset, size)

    def reset(self) -> None:
        """The counter goes on; the alarm and the interrupt are gone."""
        self._set_alarm(None)
        self.registers.reset()
        super().reset()

    # -- what the registers do ------------------------------------------------------------------------------

    def _count_read(self, _: int) -> int:
        return self.count

    def _load_written(self, _: int) -> None:
        self._offset = (self.registers.LR - self.clock.now // _SECOND) % _TURN
        self._match_written(0)

    def _match_written(self, _: int) -> None:
        ahead = (self.registers.MR - self.count) % _TURN
        if ahead:
            self._set_alarm(ahead * _SECOND - self.clock.now % _SECOND)
        else:
            self._matched()

    def _set_alarm(self, delay: int | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if delay is None else self.clock.after(delay, self._matched)

    def _matched(self) -> None:
        self._set_alarm(None)
        self.registers.RIS = 1
        self._update(0)

    def _clear_written(self, cleared: int) -> None:
        self.registers.RIS &= ~cleared
        self._update(0)

    def _update(self, _: int) -> None:
        self.registers.MIS = self.registers.RIS & self.registers.IMSC
        for line in self.lines:
            line.set(bool(self.registers.MIS))
