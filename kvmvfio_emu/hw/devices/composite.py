"""One device node that is several devices: region *n* and interrupt *n* belong to the *n*-th of the parts.

The parameter ``parts`` lists their models, one for each region of the board's entry.
"""

from __future__ import annotations

from dataclasses import replace

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.hw.board import DeviceSpec
from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices import find_model
from kvmvfio_emu.hw.devices.base import Device, Dma, Line


class Composite(Device):
    """The parts see themselves as whole devices with region 0 and at most one line."""

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        names = spec.parameters.get("parts")
        if not isinstance(names, list) or len(names) != len(spec.regions):
            raise BoardError(f"device {spec.name}: parameter parts lists a model for each of the regions")
        if unknown := spec.parameters.keys() - {"parts"}:
            raise BoardError(f"device {spec.name}: a composite has no parameter {min(unknown)!r}")
        self.parts: list[Device] = []
        for index, name in enumerate(names):
            interrupts = spec.interrupts[index : index + 1]
            part = replace(spec, regions=(spec.regions[index],), interrupts=interrupts, parameters={})
            self.parts.append(find_model(name)(part, lines[index : index + 1], clock))
        super().__init__(spec, lines, clock)

    @property
    def dma(self) -> Dma:
        """The way to memory, the same for all parts."""
        return self._dma

    @dma.setter
    def dma(self, dma: Dma) -> None:
        self._dma = dma
        for part in self.parts:
            part.dma = dma

    def read(self, region: int, offset: int, size: int) -> int:
        """As `Device`."""
        return self.parts[region].read(0, offset, size)

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        """As `Device`."""
        self.parts[region].write(0, offset, size, value)

    def peek(self, region: int, offset: int, size: int) -> int:
        """As `Device`."""
        return self.parts[region].peek(0, offset, size)

    def reset(self) -> None:
        """All parts."""
        for part in self.parts:
            part.reset()
        super().reset()
