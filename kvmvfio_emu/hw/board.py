"""What machine the emulated kernel runs on: a description, read from TOML, that every other room only reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """One memory window of a device, at host physical ``address``, ``size`` bytes."""

    address: int
    size: int
    writable: bool = True
    mappable: bool = True  #: a driver may let userspace map it, if it is made of whole pages


@dataclass(frozen=True, slots=True)
class InterruptSpec:
    """One wired interrupt: shared peripheral interrupt ``spi`` (GIC id minus 32)."""

    spi: int
    level: bool = True

    @property
    def hwirq(self) -> int:
        """The identifier in the GIC."""
        return self.spi + 32


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One device of the board. ``model`` names the class that behaves like it; ``parameters`` go to that class."""

    name: str
    model: str
    group: int  #: its IOMMU group
    bus: str = "platform"
    driver: str = "vfio-platform"  #: the host driver that is bound; "" for none
    compatible: tuple[str, ...] = ()
    regions: tuple[RegionSpec, ...] = ()
    interrupts: tuple[InterruptSpec, ...] = ()
    has_reset: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IommuSpec:
    """The IOMMU in front of the devices."""

    page_sizes: tuple[int, ...] = (0x1000, 0x200000, 0x40000000)
    coherent: bool = True
    interrupt_remapping: bool = True
    address_bits: int = 48


@dataclass(frozen=True, slots=True)
class Board:
    """A machine. ``split_eoi``: the host booted in HYP mode, so its GIC driver can use EOImode 1."""

    name: str
    description: str = ""
    cpus: int = 1
    gic_version: int = 2
    list_registers: int = 4
    split_eoi: bool = True
    #: What vCPUs execute unless the user says so: ``module:function``, called with the vCPU's number.
    guest: str = ""
    iommu: IommuSpec = field(default_factory=IommuSpec)
    devices: tuple[DeviceSpec, ...] = ()
