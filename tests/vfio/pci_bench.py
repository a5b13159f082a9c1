"""A host with PCI functions on the VFIO bench: edu, one with every capability, one from before PCI 2.3."""

from __future__ import annotations

import struct
from typing import Any

from vfio_bench import EVENTFD, Bench

from kvmvfio_emu import uapi
from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.hw import pci_caps as caps
from kvmvfio_emu.hw.board import BarSpec, Board, DeviceSpec, InterruptSpec, MsixSpec, PciSpec
from kvmvfio_emu.hw.devices.base import Line
from kvmvfio_emu.hw.devices.edu import Edu
from kvmvfio_emu.hw.devices.pci import PciDevice
from kvmvfio_emu.hw.pci import PciIds

EDU, FULL, OLD, TWIN, TWIN2 = "0000:00:01.0", "0000:00:02.0", "0000:00:03.0", "0000:01:00.0", "0000:01:00.1"
INTX, MSI, MSIX, ERR, REQ = range(5)
CONFIG = 7 << 40
NEW = {  #: what a recent kernel answers
    "pci_device_info_size": 24,
    "pci_msix_mappable": True,
    "pci_small_bar_mappable": True,
    "pci_memory_checked": True,
    "pci_intx_steady": True,
    "pci_msi_range_checked": False,
    "pci_notice_checked": True,
    "pci_ioeventfd": True,
    "device_feature": True,
    "eventfd_drained": True,
}


class Card(PciDevice):
    """A function with memory in its BARs."""

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        super().__init__(spec, lines, clock)
        self.memory = {bar.index: bytearray(bar.size) for bar in self.function.bars.values()}
        self.accesses: list[tuple[str, int, int, int]] = []
        self.resets = 0

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        self.accesses.append(("r", bar, offset, size))
        return int.from_bytes(self.memory[bar][offset : offset + size], "little")

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        self.accesses.append(("w", bar, offset, size))
        self.memory[bar][offset : offset + size] = value.to_bytes(size, "little")

    def reset(self) -> None:
        super().reset()
        self.resets += 1


class FullCard(Card):
    """Every capability that VFIO knows of, one that it hides, and bytes between them that nobody knows."""

    CAPABILITIES = (
        caps.PowerManagement(),
        caps.Msi(vectors=4, maskable=True, offset=0x50),
        caps.Raw(number=0x0D, data=b"\x11\x22\x33\x44\x55\x66", offset=0x70),
        caps.MsiX(vectors=5, bar=1, table=0x1000, pba=0x2000),
        caps.Vendor(data=b"hello", mask=b"\xff", offset=0x90),
        caps.Express(offset=0xA0),
    )


class OldCard(Card):
    """No interrupt disable bit, no way to reset."""

    IDS = PciIds(0x1111, 0x2222)
    BARS = (BarSpec(0, 0x100),)
    MASKS_INTX = False


def _pci(name: str, model: str, group: int, *spis: int, **more: Any) -> DeviceSpec:
    interrupts = tuple(InterruptSpec(spi) for spi in spis)
    return DeviceSpec(name, model, group, bus="pci", driver="vfio-pci", interrupts=interrupts, **more)


BOARD = Board(
    name="pci-bench",
    devices=(
        _pci(EDU, "edu", 6, 4),
        _pci(
            FULL,
            "pci_bench:FullCard",
            7,
            5,
            pci=PciSpec(
                vendor=0x8086,
                device=0x10D3,
                class_code=0x020000,
                bars=(
                    BarSpec(0, 0x100),
                    BarSpec(1, 0x4000),
                    BarSpec(2, 0x20, kind="io"),
                    BarSpec(4, 0x200000, kind="mem64", prefetchable=True),
                ),
                msix=MsixSpec(5, 1),
            ),
        ),
        _pci(OLD, "pci_bench:OldCard", 8, 6),
        _pci(TWIN, "none", 9, pci=PciSpec(vendor=1, device=2, bars=(BarSpec(0, 0x1000),))),
        _pci(TWIN2, "none", 10, pci=PciSpec(vendor=1, device=3, power_management=True)),
    ),
)


class PciBench(Bench):
    """The bench with that board; ``fd`` is the device that `use` opened last."""

    fd: int

    def __init__(self, **profile: Any) -> None:
        super().__init__(BOARD, **profile)

    def use(self, name: str = EDU) -> int:
        """Open device ``name`` through its group."""
        group = next(spec.group for spec in BOARD.devices if spec.name == name)
        self.container_fd, self.group_fd = self.attached(group)
        self.fd = self.get_device(self.group_fd, name)
        return self.fd

    def card(self, name: str) -> Any:
        return self.machine.devices[name]

    @property
    def edu(self) -> Edu:
        return self.card(EDU)

    def pread(self, size: int, offset: int) -> bytes:
        try:
            return self.task.files[self.fd].read(size, offset)
        finally:
            self.settle()

    def pwrite(self, data: bytes, offset: int) -> int:
        try:
            return self.task.files[self.fd].write(data, offset)
        finally:
            self.settle()

    def config(self, offset: int, size: int = 4) -> int:
        return int.from_bytes(self.pread(size, CONFIG + offset), "little")

    def set_config(self, offset: int, value: int, size: int = 4) -> None:
        assert self.pwrite(value.to_bytes(size, "little"), CONFIG + offset) == size

    def register(self, offset: int) -> int:
        """An edu register, by read."""
        return int.from_bytes(self.pread(4, offset), "little")

    def set_register(self, offset: int, value: int) -> None:
        self.pwrite(value.to_bytes(4, "little"), offset)

    def struct(self, request: int, layout: str, *values: int, room: int = 0) -> tuple[int, ...]:
        """A request whose argument is a struct; the struct afterwards, and in `raw` what follows it."""
        buffer = bytearray(struct.pack(layout, *values)).ljust(struct.calcsize(layout) + room, b"\0")
        try:
            self.ioctl(self.fd, request, uapi.ffi.from_buffer(buffer))
        finally:
            self.raw = buffer
        return struct.unpack_from(layout, buffer)

    def triggers(self, index: int, *eventfds: int, start: int = 0) -> Any:
        data = struct.pack(f"={len(eventfds)}i", *eventfds)
        return self.set_irqs(self.fd, EVENTFD | 32, index, start=start, count=len(eventfds), data=data)

    def finish(self) -> None:
        """Close everything; nothing may be left."""
        import os

        self.close(*sorted(self.task.files))
        for fd in self.eventfds:
            os.close(fd)
        assert self.host.open_files() == []
        assert self.host.eventfds.held() == []
