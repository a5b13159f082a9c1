"""Devices as the driver core knows them; models ``struct device`` (drivers/base) and platform_get_irq.

They exist whether or not a driver is bound; `VfioDevice` is what a VFIO driver puts on top of one.
"""

from __future__ import annotations

import errno

from kvmvfio_emu.hw.board import DeviceSpec
from kvmvfio_emu.hw.devices.base import Device
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.irq import IrqDesc, IrqSubsystem

#: The drivers that make a device usable through VFIO.
VFIO_DRIVERS = frozenset({"vfio-platform", "vfio-amba", "vfio-pci"})
#: Drivers that own a device but never touch it, so its group stays viable.
HARMLESS_DRIVERS = frozenset({"pci-stub"})


class BusDevice:
    """One device of the machine. ``driver`` is the host driver that is bound now, "" for none."""

    def __init__(self, hw: Device, irqs: tuple[IrqDesc, ...]) -> None:
        self.hw = hw
        self.irqs = irqs
        self.driver = hw.spec.driver

    @property
    def spec(self) -> DeviceSpec:
        """The board's description of it."""
        return self.hw.spec

    @property
    def name(self) -> str:
        """Its name on the bus, which is also its name for VFIO."""
        return self.hw.spec.name

    @property
    def bus(self) -> str:
        """ "platform", "amba", "pci": decides which driver core calls make sense for it."""
        return self.hw.spec.bus

    def irq(self, index: int) -> IrqDesc:
        """The descriptor behind interrupt ``index``; EINVAL when there is none. Models platform_get_irq."""
        if not 0 <= index < len(self.irqs):
            raise KernelError(errno.EINVAL, f"{self.name} has no interrupt {index}")
        return self.irqs[index]

    @property
    def harmless(self) -> bool:
        """Whether its group may be given to userspace as far as this device is concerned."""
        return not self.driver or self.driver in VFIO_DRIVERS or self.driver in HARMLESS_DRIVERS

    def __repr__(self) -> str:
        return f"<BusDevice {self.name} driver {self.driver or 'none'}>"


def enumerate_devices(devices: dict[str, Device], irqs: IrqSubsystem) -> dict[str, BusDevice]:
    """All devices of a machine, their interrupts mapped to Linux numbers; sharers have one descriptor."""
    descs: dict[int, IrqDesc] = {}
    found: dict[str, BusDevice] = {}
    for name, hw in devices.items():
        for index, interrupt in enumerate(hw.spec.interrupts):
            if interrupt.hwirq not in descs:
                label = name if len(hw.spec.interrupts) == 1 else f"{name}:{index}"
                descs[interrupt.hwirq] = irqs.create_mapping(interrupt.hwirq, level=interrupt.level, name=label)
        found[name] = BusDevice(hw, tuple(descs[interrupt.hwirq] for interrupt in hw.spec.interrupts))
    return found
