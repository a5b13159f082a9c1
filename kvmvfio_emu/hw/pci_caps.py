"""PCI capabilities, declared: what each holds, and which of its bits software can write (PCI 3.0, 6.7 and 6.8).

A capability is the bytes that follow its id and the pointer to the next one, and a mask of the same length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

PM, MSI, VENDOR, EXPRESS, MSIX, ADVANCED_FEATURES = 0x01, 0x05, 0x09, 0x10, 0x11, 0x13
#: Offsets and bits that others than the capability itself need.
PM_CONTROL, PM_STATE = 4, 0x3
CONTROL = 2  #: of MSI, MSI-X and (as "flags") most others
MSI_ENABLE, MSI_64BIT, MSI_MASKABLE = 0x0001, 0x0080, 0x0100
MSIX_ENABLE, MSIX_MASK_ALL = 0x8000, 0x4000
EXPRESS_CONTROL, EXPRESS_FLR = 8, 0x8000
AF_CONTROL, AF_FLR = 4, 0x01


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One entry of the list. ``offset`` is its place in configuration space, 0 for the next free one."""

    ID: ClassVar[int]
    offset: int = 0

    def body(self) -> bytes:
        """What it reads after a reset."""
        raise NotImplementedError

    def writable(self) -> bytes:
        """The bits that a write changes; by default none."""
        return bytes(len(self.body()))


@dataclass(frozen=True, kw_only=True)
class PowerManagement(Capability):
    """Power states D0 and D3hot. Without ``no_soft_reset``, coming back from D3hot resets the function."""

    ID = PM
    no_soft_reset: bool = True

    def body(self) -> bytes:
        """Version 3, no PME, D0."""
        return struct.pack("<HHBB", 0x0003, 0x0008 if self.no_soft_reset else 0, 0, 0)

    def writable(self) -> bytes:
        """The state, and PME enable."""
        return struct.pack("<HHBB", 0, PM_STATE | 0x0100, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Msi(Capability):
    """Message signalled interrupts: 1 to 32 ``vectors``, a power of two; ``wide``: 64-bit addresses."""

    ID = MSI
    vectors: int = 1
    wide: bool = True
    maskable: bool = False

    def __post_init__(self) -> None:
        if self.vectors not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"MSI has 1, 2, 4, 8, 16 or 32 vectors, not {self.vectors}")

    @property
    def mask_offset(self) -> int:
        """Of the mask bits, from the start of the capability; the pending bits follow."""
        return 16 if self.wide else 12

    def body(self) -> bytes:
        """Control word, address, data, then mask and pending bits."""
        flags = (self.vectors.bit_length() - 1) << 1
        flags |= (MSI_64BIT if self.wide else 0) | (MSI_MASKABLE if self.maskable else 0)
        return struct.pack("<H", flags).ljust(self._length - 2, b"\0")

    def writable(self) -> bytes:
        """Enable, how many vectors, address, data, masks; pending bits are the function's."""
        mask = struct.pack("<HI", 0x0071, 0xFFFFFFFC)
        mask += struct.pack("<I", 0xFFFFFFFF) if self.wide else b""
        mask += struct.pack("<H", 0xFFFF)
        if self.maskable:
            mask += bytes(2) + struct.pack("<II", (1 << self.vectors) - 1, 0)
        return mask

    @property
    def _length(self) -> int:
        return 10 + (4 if self.wide else 0) + (10 if self.maskable else 0)


@dataclass(frozen=True, kw_only=True)
class MsiX(Capability):
    """MSI-X: 1 to 2048 ``vectors``; 16 bytes each in BAR ``bar`` at ``table``, pending bits at ``pba``."""

    ID = MSIX
    vectors: int
    bar: int
    table: int = 0
    pba_bar: int | None = None  #: None: the same
    pba: int = 0x800

    def __post_init__(self) -> None:
        if not 1 <= self.vectors <= 2048 or self.table % 8 or self.pba % 8:
            raise ValueError(f"MSI-X with {self.vectors} vectors at {self.table:#x}, {self.pba:#x}: 1 to 2048, by 8")

    @property
    def table_size(self) -> int:
        """In bytes."""
        return self.vectors * 16

    def body(self) -> bytes:
        """Control word, table, pending bits."""
        pba_bar = self.bar if self.pba_bar is None else self.pba_bar
        return struct.pack("<HII", self.vectors - 1, self.table | self.bar, self.pba | pba_bar)

    def writable(self) -> bytes:
        """Enable and the mask for all."""
        return struct.pack("<HII", MSIX_ENABLE | MSIX_MASK_ALL, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Express(Capability):
    """PCI Express, version 2, of an endpoint (``kind`` 0) or one integrated in the root complex (9)."""

    ID = EXPRESS
    kind: int = 0
    flr: bool = True  #: function level reset

    def body(self) -> bytes:
        """Flags, device capabilities and what follows; everything that is not modelled reads zero."""
        return struct.pack("<HI", self.kind << 4 | 2, 1 << 28 if self.flr else 0).ljust(58, b"\0")

    def writable(self) -> bytes:
        """Device control and link control as a driver knows them."""
        return struct.pack("<HIHHIH", 0, 0, 0x7FFF, 0, 0, 0x01FF).ljust(58, b"\0")


@dataclass(frozen=True, kw_only=True)
class AdvancedFeatures(Capability):
    """The conventional function's way to a function level reset."""

    ID = ADVANCED_FEATURES

    def body(self) -> bytes:
        """Length, transactions pending and FLR offered."""
        return bytes((6, 0x03, 0, 0))


@dataclass(frozen=True, kw_only=True)
class Vendor(Capability):
    """Vendor-specific: ``data`` follows the length byte and is writable where ``mask`` has ones."""

    ID = VENDOR
    data: bytes = b""
    mask: bytes = b""

    def body(self) -> bytes:
        """Length of the whole capability, then the data."""
        return bytes((3 + len(self.data),)) + self.data

    def writable(self) -> bytes:
        """As declared."""
        return b"\0" + self.mask.ljust(len(self.data), b"\0")


@dataclass(frozen=True, kw_only=True)
class Raw(Capability):
    """Any other capability, by its number: ``data`` is read-only."""

    number: int = 0
    data: bytes = b"\0\0"

    def body(self) -> bytes:
        """As declared."""
        return self.data


def number_of(capability: Capability) -> int:
    """The capability's id."""
    return capability.number if isinstance(capability, Raw) else capability.ID
