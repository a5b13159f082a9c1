"""What every model of a PCI function is: configuration space, BARs that decode, INTx or messages, bus mastering."""

from __future__ import annotations

from typing import ClassVar

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.hw import pci_caps as caps
from kvmvfio_emu.hw.board import BarSpec, DeviceSpec
from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices.base import Device, DmaFault, Line
from kvmvfio_emu.hw.pci import PciFunction, PciIds


class PciDevice(Device):
    """A PCI function; subclass it, say what it is in the class attributes, give it registers.

    A subclass implements `bar_read` and `bar_write`, calls `interrupt`, and reaches memory by `dma_read` and
    `dma_write`. The class itself is a function without registers, whose BARs and capabilities the board lists.
    ``region`` is the number of the BAR everywhere.
    """

    on_pci: ClassVar[bool] = True
    IDS: ClassVar[PciIds | None] = None  #: None: the board must say
    BARS: ClassVar[tuple[BarSpec, ...]] = ()
    CAPABILITIES: ClassVar[tuple[caps.Capability, ...]] = ()
    MASKS_INTX: ClassVar[bool] = True  #: False: from before PCI 2.3, without the interrupt disable bit

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        super().__init__(spec, lines, clock)
        try:
            self.function = PciFunction(
                self._ids(),
                self.BARS or spec.pci.bars,
                self.CAPABILITIES or _board_capabilities(spec),
                line=lines[0] if lines else None,
                masks_intx=self.MASKS_INTX,
            )
        except ValueError as error:
            raise BoardError(f"device {spec.name}: {error}") from error
        if self.BARS and spec.pci.bars:
            raise BoardError(f"device {spec.name}: model {spec.model!r} brings its own BARs")
        self.function.on_reset = self.reset

    def _ids(self) -> PciIds:
        own, said = self.IDS or PciIds(0xFFFE, 0xFFFE), self.spec.pci
        given = {name: value for name in PciIds.__slots__ if (value := getattr(said, name)) is not None}
        return PciIds(**{name: getattr(own, name) for name in PciIds.__slots__} | given)

    # -- for the model --------------------------------------------------------------------------------------

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """The value of ``size`` bytes in BAR ``bar``, little endian."""
        return 0

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Store ``value`` (``size`` bytes)."""

    def bar_peek(self, bar: int, offset: int, size: int) -> int:
        """As `bar_read`, without side effects; ``size`` is any multiple of 4."""
        words = (self.bar_read(bar, at, 4).to_bytes(4, "little") for at in range(offset, offset + size, 4))
        return int.from_bytes(b"".join(words), "little")

    def interrupt(self, level: bool, vector: int = 0) -> None:
        """The cause of an interrupt appears or goes: by message ``vector`` if the host enabled them, else INTx.

        A message is sent for each appearance; the pin has the level.
        """
        if self.function.messages.enabled:
            if level:
                self.function.messages.send(vector)
        else:
            self.function.set_intx(level)

    def dma_read(self, iova: int, size: int) -> bytes:
        """``size`` bytes at bus address ``iova``. `DmaFault`, also while the host has bus mastering off."""
        self._master(iova)
        return self.dma.read(iova, size)

    def dma_write(self, iova: int, data: bytes) -> None:
        """Store ``data`` at bus address ``iova``. `DmaFault`, as `dma_read`."""
        self._master(iova)
        self.dma.write(iova, data)

    def _master(self, iova: int) -> None:
        if not self.function.is_master:
            raise DmaFault(iova, "the function is not a bus master")

    # -- the host's side ------------------------------------------------------------------------------------

    def read(self, region: int, offset: int, size: int) -> int:
        """An access to BAR ``region``: all ones while the function does not decode it."""
        if not self.function.decodes(region):
            return (1 << 8 * size) - 1
        special = self.function.messages.overlay(region, offset, size)
        return self.bar_read(region, offset, size) if special is None else special

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        """An access to BAR ``region``: lost while the function does not decode it."""
        if self.function.decodes(region) and not self.function.messages.store(region, offset, size, value):
            self.bar_write(region, offset, size, value)

    def peek(self, region: int, offset: int, size: int) -> int:
        """As `Device`."""
        if not self.function.decodes(region):
            return (1 << 8 * size) - 1
        msix = self.function.messages.msix
        if msix is None:
            return self.bar_peek(region, offset, size)
        image = bytearray(self.bar_peek(region, offset, size).to_bytes(size, "little"))
        for at in range(0, size, 4):
            special = self.function.messages.overlay(region, offset + at, 4)
            if special is not None:
                image[at : at + 4] = special.to_bytes(4, "little")
        return int.from_bytes(image, "little")

    def reset(self) -> None:
        """As `Device`; the function's registers too."""
        self.function.reset()
        super().reset()


def _board_capabilities(spec: DeviceSpec) -> tuple[caps.Capability, ...]:
    said = spec.pci
    found: list[caps.Capability] = []
    if said.power_management:
        found.append(caps.PowerManagement())
    if said.msi:
        found.append(caps.Msi(vectors=said.msi))
    if said.express:
        found.append(caps.Express())
    if said.msix is not None:
        msix = said.msix
        found.append(caps.MsiX(vectors=msix.vectors, bar=msix.bar, table=msix.table, pba=msix.pba))
    return tuple(found)
