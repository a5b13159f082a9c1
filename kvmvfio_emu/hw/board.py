"""What machine the emulated kernel runs on: a description, read from TOML, that every other room only reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class RegionSpec(NamedTuple):
    """One memory window of a device, at host physical ``address``, ``size`` bytes."""

    address: int
    size: int
    writable: bool = True
    mappable: bool = True  #: a driver may let userspace map it, if it is made of whole pages


class InterruptSpec(NamedTuple):
    """One wired interrupt: shared peripheral interrupt ``spi`` (GIC id minus 32)."""

    spi: int
    level: bool = True

    @property
    def hwirq(self) -> int:
        """The identifier in the GIC."""
        return self.spi + 32


@dataclass(frozen=True, slots=True)
class BarSpec:
    """One base address register of a PCI function; the host chooses the address."""

    index: int  #: 0 to 5; a 64-bit one takes the next index too
    size: int
    kind: str = "mem32"  #: "mem32", "mem64" or "io"
    prefetchable: bool = False


class MsixSpec(NamedTuple):
    """MSI-X of a PCI function: ``vectors``, and where in which BAR its table and its pending bits are."""

    vectors: int
    bar: int
    table: int = 0
    pba: int = 0x800


class PciSpec(NamedTuple):
    """What the configuration space of a PCI function says. An id that is None is the model's own.

    BARs and capabilities are for the model "none"; a model that knows its device brings its own.
    """

    vendor: int | None = None
    device: int | None = None
    subsystem_vendor: int | None = None
    subsystem: int | None = None
    class_code: int | None = None  #: 24 bits: class, subclass, programming interface
    revision: int | None = None
    bars: tuple[BarSpec, ...] = ()
    msi: int = 0  #: how many MSI vectors, 0 for no such capability
    msix: MsixSpec | None = None
    express: bool = False  #: PCI Express: 4 KiB of configuration space, function level reset
    power_management: bool = False


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
    pci: PciSpec = field(default_factory=PciSpec)  #: only means something on bus "pci"


class IommuSpec(NamedTuple):
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
    #: What vCPUs execute under `kvmvfio-emu run`: ``module:function``, called with the vCPU's number.
    guest: str = ""
    iommu: IommuSpec = field(default_factory=IommuSpec)
    devices: tuple[DeviceSpec, ...] = ()
