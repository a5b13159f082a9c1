"""The part of a board file that describes PCI functions: the table ``pci`` of a device on bus "pci"."""

from __future__ import annotations

import re

from kvmvfio_emu.hw.board import BarSpec, DeviceSpec, MsixSpec, PciSpec
from kvmvfio_emu.hw.boards.table import Table

#: The name of a function: domain, bus, device, function.
_NAME = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")


def check_pci(device: DeviceSpec, table: Table) -> None:
    """Refuse what no PCI function can be. `BoardError`."""
    if not _NAME.fullmatch(device.name):
        raise table.error("name", f"{device.name!r} is not a PCI function's, like 0000:00:01.0")
    if device.regions:
        raise table.error("regions", "a PCI function has BARs: give pci.bars, without addresses")
    if len(device.interrupts) > 1 or not all(interrupt.level for interrupt in device.interrupts):
        raise table.error("interrupts", "a PCI function has one pin, level-triggered, or none")


def read_pci(table: Table) -> PciSpec:
    """The table's content. `BoardError`."""

    def number(key: str, limit: int) -> int | None:
        value = table.integer(key, -1, limit, -1)
        return None if value < 0 else value

    msix = table.table("msix")
    pci = PciSpec(
        vendor=number("vendor", 0xFFFF),
        device=number("device", 0xFFFF),
        subsystem_vendor=number("subsystem_vendor", 0xFFFF),
        subsystem=number("subsystem", 0xFFFF),
        class_code=number("class_code", 0xFFFFFF),
        revision=number("revision", 0xFF),
        bars=tuple(_bar(part) for part in table.tables("bars")),
        msi=table.integer("msi", 0, 32, 0),
        msix=_msix(Table(f"{table.where}: msix", msix)) if msix else None,
        express=table.boolean("express", False),
        power_management=table.boolean("power_management", False),
    )
    if pci.msi & (pci.msi - 1):
        raise table.error("msi", f"{pci.msi} vectors: must be 1, 2, 4, 8, 16 or 32")
    taken: set[int] = set()
    for bar in pci.bars:
        indexes = {bar.index, bar.index + 1} if bar.kind == "mem64" else {bar.index}
        if indexes & taken or max(indexes) > 5:
            raise table.error("bars", f"BAR {bar.index} is given twice, or has no room for 64 bits")
        taken |= indexes
    if pci.msix is not None:
        home = next((bar for bar in pci.bars if bar.index == pci.msix.bar), None)
        room = max(pci.msix.table + 16 * pci.msix.vectors, pci.msix.pba + -(-pci.msix.vectors // 64) * 8)
        if home is None or home.kind == "io" or room > home.size:
            raise table.error("msix", f"needs {room:#x} bytes of a memory BAR {pci.msix.bar}")
    table.close()
    return pci


def _bar(table: Table) -> BarSpec:
    bar = BarSpec(
        index=table.integer("index", 0, 5),
        size=table.integer("size", 4, 2**40),
        kind=table.string("kind", "mem32"),
        prefetchable=table.boolean("prefetchable", False),
    )
    if bar.kind not in ("mem32", "mem64", "io"):
        raise table.error("kind", f"{bar.kind!r} is none of mem32, mem64, io")
    if bar.size & bar.size - 1 or (bar.kind != "io" and bar.size < 16):
        raise table.error("size", f"{bar.size:#x} is not a power of two from 16 (ports: 4) up")
    table.close()
    return bar


def _msix(table: Table) -> MsixSpec:
    msix = MsixSpec(
        vectors=table.integer("vectors", 1, 2048),
        bar=table.integer("bar", 0, 5),
        table=table.integer("table", 0, 2**32 - 8, 0),
        pba=table.integer("pba", 0, 2**32 - 8, 0x800),
    )
    for key, value in (("table", msix.table), ("pba", msix.pba)):
        if value % 8:
            raise table.error(key, f"{value:#x} is not a multiple of 8")
    table.close()
    return msix
