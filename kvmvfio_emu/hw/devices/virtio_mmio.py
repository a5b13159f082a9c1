"""A virtio-mmio frame without a device behind it, as boards have many: it says what it is, and that it is empty."""

from __future__ import annotations

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.hw.board import DeviceSpec
from kvmvfio_emu.hw.devices.base import Device, Line
from kvmvfio_emu.hw.registers import Action, Register, RegisterBank


class VirtioMmioRegisters(RegisterBank):
    """What a driver looks at before it finds device id 0 and leaves."""

    MAGIC = Register(0x00, Action.RO, reset=int.from_bytes(b"virt", "little"))
    VERSION = Register(0x04, Action.RO, reset=1)
    DEVICE_ID = Register(0x08, Action.RO, reset=0)
    VENDOR_ID = Register(0x0C, Action.RO, reset=int.from_bytes(b"QEMU", "little"))


class VirtioMmio(Device):
    """One empty frame. It never interrupts."""

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        super().__init__(spec, lines, clock)
        self.registers = VirtioMmioRegisters(self)

    def read(self, region: int, offset: int, size: int) -> int:
        """As `Device`."""
        return self.registers.read(offset, size)

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        """As `Device`."""
        self.registers.write(offset, size, value)
