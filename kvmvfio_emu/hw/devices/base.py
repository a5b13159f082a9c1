"""What every device model is: registers, interrupt lines, and DMA through the IOMMU that stands before it."""

from __future__ import annotations

from typing import ClassVar, Protocol

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.board import DeviceSpec
from kvmvfio_emu.hw.gic import Gic


class DmaFault(Exception):
    """A device's access met no mapping, or one that forbids it. ``iova`` is the first address that failed."""

    def __init__(self, iova: int, reason: str) -> None:
        super().__init__(f"DMA to {iova:#x}: {reason}")
        self.iova = iova


class Dma(Protocol):
    """The way from a device to memory. Both raise `DmaFault`."""

    def read(self, iova: int, size: int) -> bytes:
        """``size`` bytes at bus address ``iova``."""

    def write(self, iova: int, data: bytes) -> None:
        """Store ``data`` at bus address ``iova``."""


class NoDma:
    """What a device meets while its IOMMU group is attached to nothing: every access faults."""

    def read(self, iova: int, size: int) -> bytes:
        """Always a `DmaFault`."""
        raise DmaFault(iova, "the device's group is in no IOMMU domain")

    def write(self, iova: int, data: bytes) -> None:
        """Always a `DmaFault`."""
        raise DmaFault(iova, "the device's group is in no IOMMU domain")


class Line:
    """A wired interrupt output of a device, into GIC input ``hwirq``."""

    __slots__ = ("_gic", "_trace", "hwirq", "level", "name")

    def __init__(self, gic: Gic, trace: Trace, hwirq: int, name: str) -> None:
        self.hwirq = hwirq
        self.name = name
        self.level = False
        self._gic = gic
        self._trace = trace

    def set(self, level: bool) -> None:
        """Drive the line; driving it as it is changes nothing."""
        level = bool(level)
        if level != self.level:
            self.level = level
            before = self._trace.begin("line_up" if level else "line_down", irq=self.hwirq, line=self.name)
            self._trace.remember(("hwirq", self.hwirq))
            try:
                self._gic.set_line(self.hwirq, level)
            finally:
                self._trace.end(before)

    def pulse(self) -> None:
        """Up and down again: one edge."""
        self.set(True)
        self.set(False)


class Device:
    """A device model; subclass it, give it registers, drive `lines`.

    The host kernel calls `read` and `write` for accesses to region ``region`` (index) at ``offset``; sizes are 1, 2,
    4 or 8 bytes and stay inside the region. The base class is a device without registers: zeroes, writes ignored.
    """

    #: Methods that somebody outside (the control channel) may call: what happens to the hardware from its other side.
    controls: ClassVar[tuple[str, ...]] = ("reset",)
    #: Whether it is a `kvmvfio_emu.hw.devices.pci.PciDevice`; asked so that boards without PCI need not load that.
    on_pci: ClassVar[bool] = False

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        self.spec = spec
        self.lines = lines
        self.clock = clock
        self.dma: Dma = NoDma()

    def read(self, region: int, offset: int, size: int) -> int:
        """The value of ``size`` bytes, little endian."""
        return 0

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        """Store ``value`` (``size`` bytes)."""

    def generation(self) -> int | None:
        """A number that differs whenever a register's value may have changed; None when the model does not tell."""
        return None

    def peek(self, region: int, offset: int, size: int) -> int:
        """What reads of ``size`` bytes (any multiple of 4) would give, little endian, without their side effects.

        A model whose reads have side effects, or that can show a whole page faster, overrides this.
        """
        words = (self.read(region, at, 4).to_bytes(4, "little") for at in range(offset, offset + size, 4))
        return int.from_bytes(b"".join(words), "little")

    def reset(self) -> None:
        """Back to the state after power-on; all lines low."""
        for line in self.lines:
            line.set(False)
