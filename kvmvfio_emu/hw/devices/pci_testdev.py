"""QEMU's pci-testdev (docs/specs/pci-testdev.rst there): counts writes that a test program was told to make.

BAR 0 is memory, BAR 1 ports. Each offers numbered tests; writing a number to the first byte selects one and shows its
header: where to write, how wide, what value, and how many such writes arrived. Its "eventfd" tests wait for the host's
doorbells in QEMU; here the writes reach the device itself and are counted as well.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.hw.board import BarSpec, DeviceSpec
from kvmvfio_emu.hw.devices.base import Line
from kvmvfio_emu.hw.devices.pci import PciDevice
from kvmvfio_emu.hw.pci import PciIds

#: test, width, padding, offset, data, padding, count; then the name, ended by a zero.
_HEADER = struct.Struct("<BB2xIB3xI")
#: Each test has a word of its own, behind the header.
_FIRST_TARGET, _MAGIC = 0x80, 0xFA


class Test(NamedTuple):
    """One test of a BAR. ``matches``: only a write of that width and value counts."""

    name: str
    width: int
    matches: bool


TESTS = tuple(
    Test(name, 1, name.startswith("datamatch")) for name in ("no-eventfd", "wildcard-eventfd", "datamatch-eventfd")
)


class PciTestdev(PciDevice):
    """One pci-testdev; it has no interrupt."""

    IDS = PciIds(0x1B36, 0x0005, 0x00FF00, 0, 0x1AF4, 0x1100)
    BARS = (BarSpec(0, 0x1000), BarSpec(1, 0x100, "io"))

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        super().__init__(spec, lines, clock)
        self._selected: tuple[int, int] | None = None  # (BAR, test)
        self.count = 0

    def reset(self) -> None:
        """No test is selected."""
        self._selected, self.count = None, 0
        super().reset()

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """The selected test's header; zero where nothing is, and while no test of this BAR is selected."""
        return int.from_bytes(self._header(bar)[offset : offset + size], "little")

    def bar_peek(self, bar: int, offset: int, size: int) -> int:
        """As `PciDevice`: reading has no side effects."""
        return self.bar_read(bar, offset, size)

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Offset 0 selects a test; a write where the selected one wants it counts."""
        if offset == 0:
            if value < len(TESTS):
                self._selected, self.count = (bar, value), 0
            return
        if self._selected is None or self._selected[0] != bar:
            return
        number = self._selected[1]
        test = TESTS[number]
        if offset == self._target(number) and (not test.matches or (size == test.width and value == _MAGIC)):
            self.count = self.count + 1 & 0xFFFFFFFF

    @staticmethod
    def _target(number: int) -> int:
        return _FIRST_TARGET + 4 * number

    def _header(self, bar: int) -> bytes:
        if self._selected is None or self._selected[0] != bar:
            return b""
        number = self._selected[1]
        test = TESTS[number]
        name = f"{'portio' if self.function.bars[bar].kind == 'io' else 'mmio'}-{test.name}"
        return _HEADER.pack(number, test.width, self._target(number), _MAGIC, self.count) + name.encode() + b"\0"
