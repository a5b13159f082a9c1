"""A device for the supervised clients: plain storage that tells of each access on stderr."""

from __future__ import annotations

import sys

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.hw.board import DeviceSpec
from kvmvfio_emu.hw.devices import Device, Line

#: A store here is a mark in the log; a load says how many stores there were to the register before it.
MARK, COUNTED, COUNT = 0xFF0, 0xFD0, 0xFD8
QUIET = 0xFC0  #: a store here ends the log


class Recorder(Device):
    """Two pages of storage; each byte that was never written reads as the low byte of its offset."""

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        super().__init__(spec, lines, clock)
        self._bytes = bytearray(at & 0xFF for at in range(0x2000))
        self._count = 0
        self._quiet = False

    def read(self, region: int, offset: int, size: int) -> int:
        """As `Device`."""
        value = self._count if offset == COUNT else int.from_bytes(self._bytes[offset : offset + size], "little")
        self._tell("load", offset, size, value)
        return value

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        """As `Device`."""
        self._tell("store", offset, size, value)
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")
        self._count += offset == COUNTED
        self._quiet |= offset == QUIET

    def generation(self) -> int | None:
        """As `Device`: what a copy shows is a picture of now, not of a load."""
        return None

    def peek(self, region: int, offset: int, size: int) -> int:
        """As `Device`."""
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def _tell(self, what: str, offset: int, size: int, value: int) -> None:
        if not self._quiet:
            print(f"access {what} {offset:#x} {size} {value:#x}", file=sys.stderr)
