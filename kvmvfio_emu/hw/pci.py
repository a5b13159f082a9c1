"""A PCI function's configuration space: type 0 header, BARs, capabilities, INTx (PCI 3.0, chapter 6).

The function as the bus sees it. What it does is a device model's business, see `kvmvfio_emu.hw.devices.pci`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kvmvfio_emu.hw import pci_caps as caps
from kvmvfio_emu.hw.board import BarSpec
from kvmvfio_emu.hw.devices.base import Line
from kvmvfio_emu.hw.pci_msi import Messages

# Offsets in the header.
VENDOR, COMMAND, STATUS, REVISION, BAR0, SUBSYSTEM = 0x00, 0x04, 0x06, 0x08, 0x10, 0x2C
ROM, CAPABILITIES, INTERRUPT_LINE, INTERRUPT_PIN = 0x30, 0x34, 0x3C, 0x3D
HEADER_SIZE, CONVENTIONAL_SIZE, EXPRESS_SIZE = 0x40, 0x100, 0x1000
BARS = 6
# The command register, and two bits of the status register.
COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER, COMMAND_INTX_DISABLE = 0x1, 0x2, 0x4, 0x400
STATUS_INTERRUPT, STATUS_CAP_LIST = 0x08, 0x10

#: Where the host bridge of QEMU's virt machine has its windows: memory below 4 GiB, memory above, ports.
MEMORY_WINDOW, MEMORY64_WINDOW, IO_WINDOW = 0x1000_0000, 0x80_0000_0000, 0x1000


@dataclass(frozen=True, slots=True)
class PciIds:
    """What a function is, as the header tells."""

    vendor: int
    device: int
    class_code: int = 0xFF0000
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0


class PciFunction:
    """The registers that the bus reads and writes. ``line`` is the wire that INTx drives, None for no pin.

    ``masks_intx``: the function has the interrupt disable bit, and the status that goes with it (PCI 2.3). `on_reset`
    runs when software resets the function through its configuration space.
    """

    def __init__(
        self,
        ids: PciIds,
        bars: Sequence[BarSpec] = (),
        capabilities: Iterable[caps.Capability] = (),
        *,
        line: Line | None = None,
        masks_intx: bool = True,
    ) -> None:
        self.capabilities: dict[int, caps.Capability] = {}  #: by offset
        capabilities = tuple(capabilities)
        self.is_express = any(isinstance(capability, caps.Express) for capability in capabilities)
        self.size = EXPRESS_SIZE if self.is_express else CONVENTIONAL_SIZE
        self.bars: dict[int, BarSpec] = {}
        self.addresses: dict[int, int] = {}  #: as the host assigned them, which writes to the BARs do not change
        self.masks_intx = masks_intx
        self.on_reset: Callable[[], None] = self.reset
        self._line = line
        self._intx = False
        self._reset_image = bytearray(self.size)
        self._writable = bytearray(self.size)
        self._place(VENDOR, struct.pack("<HH", ids.vendor, ids.device))
        self._place(REVISION, struct.pack("<I", ids.class_code << 8 | ids.revision))
        self._place(SUBSYSTEM, struct.pack("<HH", ids.subsystem_vendor, ids.subsystem))
        self._place(INTERRUPT_PIN, bytes((line is not None,)))
        command = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | 0x0140  # parity and SERR: stored only
        self._allow(COMMAND, struct.pack("<H", command | (COMMAND_INTX_DISABLE if masks_intx else 0)))
        self._allow(0x0C, b"\xff\xff")  # cache line size, latency timer
        self._allow(INTERRUPT_LINE, b"\xff")
        for bar in bars:
            self._add_bar(bar)
        self._chain(capabilities)
        self._data = bytearray(self._reset_image)
        self.messages = Messages(self, self.find(caps.MSI), self.find(caps.MSIX))

    # -- declaring ------------------------------------------------------------------------------------------

    def _place(self, offset: int, data: bytes) -> None:
        self._reset_image[offset : offset + len(data)] = data

    def _allow(self, offset: int, mask: bytes) -> None:
        self._writable[offset : offset + len(mask)] = mask

    def _add_bar(self, bar: BarSpec) -> None:
        smallest, width = (4, 1) if bar.kind == "io" else (16, 2 if bar.kind == "mem64" else 1)
        if bar.kind not in ("mem32", "mem64", "io") or not 0 <= bar.index <= BARS - width:
            raise ValueError(f"BAR {bar.index}, {bar.kind!r}: mem32, mem64 or io, index 0 to 5 and room for 64 bits")
        if bar.size < smallest or bar.size & bar.size - 1:
            raise ValueError(f"BAR {bar.index}: {bar.size:#x} is not a power of two from {smallest} up")
        if {bar.index, bar.index + width - 1} & self._taken():
            raise ValueError(f"BAR {bar.index} is taken")
        self.bars[bar.index] = bar
        flags = 1 if bar.kind == "io" else (4 if bar.kind == "mem64" else 0) | (8 if bar.prefetchable else 0)
        mask = ~(bar.size - 1) & (1 << width * 32) - 1
        self._place(BAR0 + 4 * bar.index, struct.pack("<I", flags))
        self._allow(BAR0 + 4 * bar.index, mask.to_bytes(4 * width, "little"))

    def _taken(self) -> set[int]:
        return set(self.bars) | {bar.index + 1 for bar in self.bars.values() if bar.kind == "mem64"}

    def _chain(self, capabilities: tuple[caps.Capability, ...]) -> None:
        free, link = HEADER_SIZE, CAPABILITIES
        for capability in capabilities:
            body = capability.body()
            at = capability.offset or free
            if at % 4 or at < HEADER_SIZE or at + 2 + len(body) > CONVENTIONAL_SIZE:
                raise ValueError(f"{capability} does not fit at {at:#x}")
            self.capabilities[at] = capability
            self._place(link, bytes((at,)))
            self._place(at, bytes((caps.number_of(capability), 0)) + body)
            self._allow(at + 2, capability.writable())
            link, free = at + 1, max(free, at + 2 + len(body) + 3 & ~3)
        if self.capabilities:
            self._place(STATUS, bytes((STATUS_CAP_LIST,)))

    def find(self, number: int) -> int:
        """Where the capability with that id is, 0 when there is none."""
        return next((at for at, item in self.capabilities.items() if caps.number_of(item) == number), 0)

    # -- the bus's side -------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """``size`` bytes of configuration space, little endian."""
        value = int.from_bytes(self._data[offset : offset + size], "little")
        if self._intx and self.masks_intx and offset <= STATUS < offset + size:
            value |= STATUS_INTERRUPT << 8 * (STATUS - offset)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Store what can be written, with its effects."""
        before = self.power_state
        self.store(offset, value.to_bytes(size, "little"))
        self.update()
        if self._asks_reset(offset, size, value) or (before == 3 and self.power_state == 0 and self.resets_by_power):
            kept = self.save()
            self.on_reset()
            if before == 3:  # the host's PCI core writes the header back
                self.restore(kept)

    def store(self, offset: int, data: bytes) -> None:
        """As `write`, without effects."""
        for at, byte in enumerate(data, offset):
            mask = self._writable[at]
            self._data[at] = self._data[at] & ~mask | byte & mask

    def poke(self, offset: int, data: bytes) -> None:
        """The function itself changes its registers, writable or not."""
        self._data[offset : offset + len(data)] = data

    def _asks_reset(self, offset: int, size: int, value: int) -> bool:
        for at, capability in self.capabilities.items():
            if isinstance(capability, caps.Express) and capability.flr:
                byte, bit = at + caps.EXPRESS_CONTROL + 1, caps.EXPRESS_FLR >> 8
            elif isinstance(capability, caps.AdvancedFeatures):
                byte, bit = at + caps.AF_CONTROL, caps.AF_FLR
            else:
                continue
            if offset <= byte < offset + size and value >> 8 * (byte - offset) & bit:
                return True
        return False

    # -- registers with a meaning ---------------------------------------------------------------------------

    @property
    def command(self) -> int:
        """The command register."""
        return self.read(COMMAND, 2)

    @command.setter
    def command(self, value: int) -> None:
        self.write(COMMAND, 2, value)

    @property
    def power_state(self) -> int:
        """0 (D0) to 3 (D3hot)."""
        at = self.find(caps.PM)
        return self._data[at + caps.PM_CONTROL] & caps.PM_STATE if at else 0

    def wake(self) -> None:
        """Back to D0."""
        if self.power_state:
            at = self.find(caps.PM) + caps.PM_CONTROL
            self.write(at, 2, self.read(at, 2) & ~caps.PM_STATE)

    @property
    def resets_by_power(self) -> bool:
        """Whether coming back from D3hot resets it."""
        found = self.capabilities.get(self.find(caps.PM))
        return isinstance(found, caps.PowerManagement) and not found.no_soft_reset

    @property
    def can_reset(self) -> bool:
        """Whether the function alone can be reset, by one of the ways that it offers."""
        flr = any(
            (isinstance(item, caps.Express) and item.flr) or isinstance(item, caps.AdvancedFeatures)
            for item in self.capabilities.values()
        )
        return flr or self.resets_by_power

    def decodes(self, index: int) -> bool:
        """Whether accesses to BAR ``index`` reach the function: it is enabled, and in D0."""
        bar = self.bars.get(index)
        bit = COMMAND_IO if bar is not None and bar.kind == "io" else COMMAND_MEMORY
        return bar is not None and bool(self.command & bit) and self.power_state == 0

    @property
    def is_master(self) -> bool:
        """Whether it may access memory, which messages do too."""
        return bool(self.command & COMMAND_MASTER)

    # -- interrupts -----------------------------------------------------------------------------------------

    def set_intx(self, level: bool) -> None:
        """Ask for the pin; the wire follows unless software disabled it."""
        self._intx = bool(level)
        self.update()

    def update(self) -> None:
        """Drive the wire and send the messages that the registers now allow."""
        if self._line is not None:
            quiet = self.command & COMMAND_INTX_DISABLE or self.messages.enabled
            self._line.set(self._intx and not quiet)
        self.messages.flush()

    # -- state ----------------------------------------------------------------------------------------------

    def assign(self, index: int, address: int) -> None:
        """The host gives BAR ``index`` its address."""
        self.addresses[index] = address
        width = 8 if self.bars[index].kind == "mem64" else 4
        self.store(BAR0 + 4 * index, address.to_bytes(width, "little"))

    def save(self) -> tuple[bytes, bytes]:
        """What `restore` puts back; models pci_save_state."""
        return bytes(self._data), bytes(self.messages.table)

    def restore(self, saved: tuple[bytes, bytes]) -> None:
        """Write back header and capabilities; models pci_restore_state."""
        self.store(0, saved[0])
        self.messages.table[:] = saved[1]
        self.update()

    def reset(self) -> None:
        """Back to power-on, the pin low. BARs read zero until they are written again."""
        self._data[:] = self._reset_image
        self._intx = False
        self.messages.reset()
        self.update()


def assign_bars(functions: Iterable[PciFunction]) -> None:
    """Give every BAR an address of its own, as firmware would: naturally aligned, in the order of the functions."""
    free = {"mem32": MEMORY_WINDOW, "mem64": MEMORY64_WINDOW, "io": IO_WINDOW}
    for function in functions:
        for bar in function.bars.values():
            size = max(bar.size, 0x20 if bar.kind == "io" else 0x1000)  # no two share a page
            address = -(-free[bar.kind] // size) * size
            free[bar.kind] = address + size
            function.assign(bar.index, address)
