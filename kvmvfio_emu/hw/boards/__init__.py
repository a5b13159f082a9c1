"""Board files: the TOML form of `kvmvfio_emu.hw.board`, checked so that a mistake is named and not met later.

The keys are the names of the dataclasses' fields; ``calxeda-midway.toml``, in this directory, explains each.
Boards in this directory are loaded by name, others by path.
"""

from __future__ import annotations

import os

from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, IommuSpec, PciSpec, RegionSpec
from kvmvfio_emu.hw.boards.pci import check_pci, read_pci
from kvmvfio_emu.hw.boards.table import BoardError, Table

__all__ = ["BUSES", "MAX_SPI", "BoardError", "load", "names"]

#: What ``bus`` of a device can be.
BUSES = ("platform", "amba", "pci")
#: The last shared peripheral interrupt: GIC id 1019.
MAX_SPI = 987

_HERE = os.path.dirname(__file__)


def names() -> list[str]:
    """The boards that `load` knows by name."""
    return sorted(name.removesuffix(".toml") for name in os.listdir(_HERE) if name.endswith(".toml"))


def load(name_or_path: str | os.PathLike[str]) -> Board:
    """The board of that name, or of the file at that path (anything with a ``/`` or ending in ``.toml``).

    Raises `BoardError`.
    """
    import tomllib  # here, as it would be a good part of the time to import the package

    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and "/" not in text and not text.endswith(".toml"):
        if text not in names():
            raise BoardError(f"no board {text!r}; known: {', '.join(names())}; a path has a / or ends in .toml")
        path = os.path.join(_HERE, f"{text}.toml")
    else:
        path = text
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise BoardError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BoardError(f"{path}: not TOML: {error}") from error
    return _board(Table(path, table))


def _board(table: Table) -> Board:
    gic_version = table.integer("gic_version", 2, 3, 2)
    board = Board(
        name=table.string("name"),
        description=table.string("description", ""),
        cpus=table.integer("cpus", 1, 8 if gic_version == 2 else 512, 1),
        gic_version=gic_version,
        list_registers=table.integer("list_registers", 1, 64 if gic_version == 2 else 16, 4),
        split_eoi=table.boolean("split_eoi", True),
        guest=table.string("guest", ""),
        iommu=_iommu(Table(f"{table.where}: iommu", table.table("iommu"))),
        devices=_devices(table),
    )
    table.close()
    return board


def _iommu(table: Table) -> IommuSpec:
    default = IommuSpec()
    iommu = IommuSpec(
        page_sizes=table.items("page_sizes", int, list(default.page_sizes)),
        coherent=table.boolean("coherent", default.coherent),
        interrupt_remapping=table.boolean("interrupt_remapping", default.interrupt_remapping),
        address_bits=table.integer("address_bits", 32, 64, default.address_bits),
    )
    for size in iommu.page_sizes:
        if size < 0x1000 or size & size - 1:
            raise table.error("page_sizes", f"{size:#x} is not a power of two from 0x1000 up")
    if not iommu.page_sizes or len(set(iommu.page_sizes)) < len(iommu.page_sizes):
        raise table.error("page_sizes", "must list at least one size, each once")
    table.close()
    return iommu


def _devices(board: Table) -> tuple[DeviceSpec, ...]:
    devices: list[DeviceSpec] = []
    spis: dict[int, str] = {}
    windows: list[tuple[RegionSpec, str]] = []
    for table in board.tables("devices"):
        name = table.string("name")
        table.where = f"{board.where}: device {name}"
        if any(name == device.name for device in devices):
            raise table.error("name", "another device has it already")
        device = _device(name, table)
        for interrupt in device.interrupts:
            if interrupt.spi in spis:
                raise table.error("interrupts", f"SPI {interrupt.spi} is taken by {spis[interrupt.spi]}")
            spis[interrupt.spi] = name
        for region in device.regions:
            for other, owner in windows:
                if region.address < _end(other) and other.address < _end(region):
                    raise table.error("regions", f"{_span(region)} overlaps {_span(other)} of {owner}")
            windows.append((region, name))
        devices.append(device)
    return tuple(devices)


def _device(name: str, table: Table) -> DeviceSpec:
    bus = table.string("bus", "platform")
    device = DeviceSpec(
        name=name,
        model=table.string("model"),
        group=table.integer("group", 0, 0x7FFFFFFF),
        bus=bus,
        driver=table.string("driver", "vfio-pci" if bus == "pci" else "vfio-platform"),
        compatible=table.items("compatible", str, []),
        regions=tuple(_region(part) for part in table.tables("regions")),
        interrupts=tuple(_interrupt(part) for part in table.tables("interrupts")),
        has_reset=table.boolean("has_reset", False),
        parameters=table.table("parameters"),
        pci=read_pci(Table(f"{table.where}: pci", table.table("pci"))) if bus == "pci" else PciSpec(),
    )
    if device.bus not in BUSES:
        raise table.error("bus", f"{device.bus!r} is none of {', '.join(BUSES)}")
    if device.bus == "pci":
        check_pci(device, table)
    if (device.driver == "vfio-pci") != (device.bus == "pci") and device.driver in ("vfio-pci", "vfio-platform"):
        raise table.error("driver", f"{device.driver} does not bind to bus {device.bus}")
    table.close()
    return device


def _region(table: Table) -> RegionSpec:
    region = RegionSpec(
        address=table.integer("address", 0, 2**64 - 1),
        size=table.integer("size", 1, 2**64),
        writable=table.boolean("writable", True),
        mappable=table.boolean("mappable", True),
    )
    for key, value in (("address", region.address), ("size", region.size)):
        if value % 4:
            raise table.error(key, f"{value:#x} is not a multiple of 4")
    if _end(region) > 2**64:
        raise table.error("size", f"{_span(region)} ends beyond 64 bits")
    table.close()
    return region


def _interrupt(table: Table) -> InterruptSpec:
    interrupt = InterruptSpec(spi=table.integer("spi", 0, MAX_SPI), level=table.boolean("level", True))
    table.close()
    return interrupt


def _end(region: RegionSpec) -> int:
    return region.address + region.size


def _span(region: RegionSpec) -> str:
    return f"{region.address:#x}..{_end(region) - 1:#x}"
