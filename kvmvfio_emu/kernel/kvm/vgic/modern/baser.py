"""Registers that say where tables lie: what KVM makes of an address, of shareability and of cacheability.

Models the sanitising functions of arch/arm64/kvm/vgic/vgic-mmio-v3.c and vgic-its.c: four base registers with the same
three attribute fields at different places.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvmvfio_emu.hw import gicv3

TABLE_PAGE = 0x10000
#: Bits 51:12 and 51:16 of a register are an address.
ADDRESS_4K = (1 << 52) - (1 << 12)
ADDRESS_64K = (1 << 52) - (1 << 16)


def extract(value: int, offset: int, size: int) -> int:
    """The ``size`` bytes of a 64-bit register from byte ``offset``."""
    return value >> 8 * offset & (1 << 8 * size) - 1


def update(value: int, offset: int, size: int, part: int) -> int:
    """A 64-bit register after a write of ``size`` bytes to its lower (bit 2 of ``offset`` clear) or upper half."""
    shift = 8 * (offset & 4)
    mask = (1 << 8 * size) - 1
    return value & ~(mask << shift) & (1 << 64) - 1 | (part & mask) << shift


@dataclass(frozen=True, slots=True)
class Attributes:
    """Where the attribute fields of one base register are, and which bits of it KVM keeps at zero."""

    inner_shift: int
    outer_shift: int
    zero: int = 0
    shareability_shift: int = 10

    @property
    def initial(self) -> int:
        """Inner shareable, read-allocate write-back, outer the same."""
        return (
            gicv3.SHAREABILITY_INNER << self.shareability_shift
            | gicv3.CACHE_READ_ALLOCATE_WRITE_BACK << self.inner_shift
        )

    def sanitise(self, value: int) -> int:
        """What the register holds after a write of ``value``: no outer sharing, no uncached inner mapping."""
        shareability = value >> self.shareability_shift & 3
        if shareability == gicv3.SHAREABILITY_OUTER:
            shareability = gicv3.SHAREABILITY_INNER
        inner = value >> self.inner_shift & 7
        if inner in (gicv3.CACHE_DEVICE, gicv3.CACHE_NONE):
            inner = gicv3.CACHE_READ_ALLOCATE_WRITE_BACK
        outer = value >> self.outer_shift & 7
        if outer != gicv3.CACHE_NONE:
            outer = gicv3.OUTER_CACHE_SAME_AS_INNER
        fields = 3 << self.shareability_shift | 7 << self.inner_shift | 7 << self.outer_shift
        value = value & ~fields | shareability << self.shareability_shift
        return (value | inner << self.inner_shift | outer << self.outer_shift) & ~self.zero


def _bits(*ranges: tuple[int, int]) -> int:
    return sum((1 << high + 1) - (1 << low) for high, low in ranges)


PROPBASER = Attributes(inner_shift=7, outer_shift=56, zero=_bits((63, 59), (55, 52), (6, 5)))
PENDBASER = Attributes(inner_shift=7, outer_shift=56, zero=_bits((63, 63), (61, 59), (55, 52), (15, 12), (6, 0)))
#: The queue's address becomes 64 KiB aligned.
ITS_CBASER = Attributes(inner_shift=59, outer_shift=53, zero=_bits((15, 12)))
ITS_BASER = Attributes(inner_shift=59, outer_shift=53)


def table_pages(baser: int) -> int:
    """Size of a GITS_BASER's table in 64 KiB pages."""
    return (baser & 0xFF) + 1


def table_address(baser: int) -> int:
    """Guest address of a GITS_BASER's table: bits 47:16, and 51:48 of it in bits 15:12."""
    return baser & ((1 << 48) - (1 << 16)) | (baser >> 12 & 0xF) << 48


def entry_size(baser: int) -> int:
    """Bytes of one entry of a GITS_BASER's table."""
    return (baser >> gicv3.GITS_BASER_ENTRY_SIZE_SHIFT & 0x1F) + 1


def table_type(baser: int) -> int:
    """What a GITS_BASER's table holds."""
    return baser >> gicv3.GITS_BASER_TYPE_SHIFT & 7
