"""Register frames as tables of regions, and what an access to them means (vgic-mmio.c, vgic-mmio.h).

A region is declared once: name, offset, access widths, what the guest's load and store do, and what userspace's do if
that is something else. What is in no region, misaligned, too wide or beyond the VGIC's interrupts reads as zero and
ignores writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.core import VgicCore
    from kvmvfio_emu.kernel.kvm.vgic.modern.cpu import VgicCpu
    from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq

#: (VGIC, the accessing or named vCPU, offset in the frame, bytes) -> value. The VGIC is that of the frame's version.
Read = Callable[[Any, Any, int, int], int]
Write = Callable[[Any, Any, int, int, int], None]

#: Access widths in bytes.
W8, W32, W64 = frozenset({1}), frozenset({4}), frozenset({8})
_IRQS = 1024


@dataclass(frozen=True, slots=True)
class Region:
    """Registers from ``offset`` on: ``bits`` for each interrupt, or ``length`` bytes that are nobody's."""

    name: str
    offset: int
    read: Read
    write: Write
    length: int = 0
    bits: int = 0
    access: frozenset[int] = W32
    user_read: Read | None = None
    user_write: Write | None = None

    @property
    def end(self) -> int:
        """The first offset behind it."""
        return self.offset + (self.length or self.bits * _IRQS // 8)


class Frame:
    """The registers of one frame, for every VGIC of its version."""

    def __init__(self, regions: Iterable[Region]) -> None:
        self.regions = sorted(regions, key=lambda one: one.offset)
        for one, following in zip(self.regions, self.regions[1:], strict=False):
            if one.end > following.offset:
                raise ValueError(f"{one.name} reaches into {following.name}")

    def find(self, core: VgicCore, offset: int, size: int) -> Region | None:
        """The region that an access of ``size`` bytes finds; models vgic_get_mmio_region."""
        region = next((one for one in self.regions if one.offset <= offset < one.end), None)
        if region is None or size not in region.access or offset % size:
            return None
        if region.bits and first_intid(offset, region.bits) >= core.nr_irqs:
            return None
        return region

    def has(self, core: VgicCore, offset: int) -> bool:
        """Whether userspace finds 32 bits at ``offset``."""
        return self.find(core, offset, 4) is not None

    def read(self, core: VgicCore, cpu: VgicCpu, offset: int, size: int) -> int:
        """A guest's load."""
        region = self.find(core, offset, size)
        return 0 if region is None else region.read(core, cpu, offset, size)

    def write(self, core: VgicCore, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
        """A guest's store."""
        region = self.find(core, offset, size)
        if region is not None:
            region.write(core, cpu, offset, size, value & (1 << 8 * size) - 1)

    def user_read(self, core: VgicCore, cpu: VgicCpu, offset: int) -> int:
        """What userspace gets of the 32 bits at ``offset``; models vgic_uaccess."""
        region = self.find(core, offset, 4)
        return 0 if region is None else (region.user_read or region.read)(core, cpu, offset, 4)

    def user_write(self, core: VgicCore, cpu: VgicCpu, offset: int, value: int) -> None:
        """What userspace sets. EINVAL where the register refuses the value."""
        region = self.find(core, offset, 4)
        if region is not None:
            (region.user_write or region.write)(core, cpu, offset, 4, value)


def first_intid(offset: int, bits: int) -> int:
    """The interrupt whose bits start at ``offset`` (of a region of 1024 interrupts, aligned to its size)."""
    return offset % (bits * _IRQS // 8) * 8 // bits


def interrupts(core: VgicCore, cpu: VgicCpu, offset: int, size: int, bits: int) -> Iterator[tuple[int, Irq]]:
    """(bit position, interrupt) of what an access reaches."""
    first = first_intid(offset, bits)
    for number in range(size * 8 // bits):
        irq = core.irq(cpu, first + number)
        if irq is not None:
            yield number * bits, irq


# -- what most registers are ----------------------------------------------------------------------------------------


def raz(core: VgicCore, cpu: VgicCpu, offset: int, size: int) -> int:
    """Read as zero."""
    return 0


def wi(core: VgicCore, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
    """Write ignored."""


def each(bits: int, get: Callable[[Any, Any, Irq], int]) -> Read:
    """Loads that put together ``get`` of each interrupt."""

    def read(core: VgicCore, cpu: VgicCpu, offset: int, size: int) -> int:
        return sum(int(get(core, cpu, irq)) << at for at, irq in interrupts(core, cpu, offset, size, bits))

    return read


def ones(put: Callable[[Any, Any, Irq], None]) -> Write:
    """Stores that do ``put`` to the interrupt of each bit that is set: GICD_IS* and GICD_IC*."""

    def write(core: VgicCore, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
        for at, irq in interrupts(core, cpu, offset, size, 1):
            if value >> at & 1:
                put(core, cpu, irq)

    return write


def fields(bits: int, put: Callable[[Any, Any, Irq, int], None]) -> Write:
    """Stores that ``put`` each interrupt's field."""

    def write(core: VgicCore, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
        for at, irq in interrupts(core, cpu, offset, size, bits):
            put(core, cpu, irq, value >> at & (1 << bits) - 1)

    return write
