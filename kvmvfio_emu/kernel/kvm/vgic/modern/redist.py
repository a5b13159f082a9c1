"""Redistributor regions: where the frames of which vCPUs are (arch/arm64/kvm/vgic/vgic-mmio-v3.c, vgic_redist_region).

Either one region of old style (count 0), as large as there are vCPUs, or several of a fixed number of redistributors.
vCPUs take the slots in the order of their creation.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.api import UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.modern.core import check_iorange

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.v3 import VgicCpuV3, VgicV3

DIST_SIZE = uapi.KVM_VGIC_V3_DIST_SIZE
FRAMES_SIZE = uapi.KVM_VGIC_V3_REDIST_SIZE
FRAME_ALIGNMENT = 0x10000
_SPACE = 1 << 64


@dataclass(slots=True, eq=False)
class Region:
    """One region of ``count`` redistributors (0: as many as vCPUs) at guest address ``base``."""

    index: int
    base: int
    count: int
    used: int = 0

    def size(self, vcpus: int) -> int:
        """Bytes, when there are ``vcpus`` vCPUs."""
        return (self.count or vcpus) * FRAMES_SIZE

    @property
    def full(self) -> bool:
        """Whether no slot is left. A region of old style never is."""
        return bool(self.count) and self.used >= self.count


class Redistributors:
    """The regions of one virtual machine, and which vCPU has which slot of them."""

    def __init__(self, core: VgicV3) -> None:
        self._core = core
        self.regions: list[Region] = []

    def set_base(self, index: int, base: int, count: int) -> None:
        """Add region ``index`` and place the vCPUs that have no slot.

        EEXIST a second region of old style; E2BIG beyond the guest's address space; EINVAL index, alignment, overlap.
        """
        region = self._new(index, base, count)
        self.regions.append(region)
        cpus = self._core.cpus
        for number, cpu in enumerate(cpus):
            try:
                self.place(cpu)
            except KernelError:
                # The kernel takes the frames of every vCPU before this one off its bus, also those placed long ago.
                for earlier in cpus[:number]:
                    earlier.frames_mapped = False
                self.regions.remove(region)
                raise

    def _new(self, index: int, base: int, count: int) -> Region:
        def need(condition: bool, reason: str) -> None:
            if not condition:
                raise KernelError(errno.EINVAL, reason)

        region = Region(index, base, count)
        size = region.size(self._online)
        need(base + size < _SPACE, "the region wraps")
        if not self.regions:
            need(index == 0, "the first region has index 0")
        else:
            last = self.regions[-1]
            need(bool(count) or not last.count, "there are regions with a count already")
            if not count:
                raise KernelError(errno.EEXIST, "the redistributors have an address")
            need(index == last.index + 1, f"the next region is {last.index + 1}")
        dist = self._core.dist_base
        if not count and dist != UNDEFINED_ADDRESS:
            need(not _overlap(base, size, dist, DIST_SIZE), "the distributor is there")
        need(not self.overlaps(base, size), "another region is there")
        check_iorange(self._core.vm, UNDEFINED_ADDRESS, base, FRAME_ALIGNMENT, size)
        return region

    @property
    def _online(self) -> int:
        return len(self._core.vm.vcpus)

    def place(self, cpu: VgicCpuV3) -> None:
        """Give ``cpu`` the next free slot, if there is one and it has none. EINVAL frames overlap."""
        if cpu.region is not None:
            return
        region = next((one for one in self.regions if not one.full), None)
        if region is None:
            return
        self.check_base()
        cpu.region, cpu.region_index, cpu.frames_mapped = region, region.used, True
        region.used += 1

    def overlaps(self, base: int, size: int) -> bool:
        """Whether a region has a byte in common with ``size`` bytes at ``base``."""
        return any(_overlap(base, size, one.base, one.size(self._online)) for one in self.regions)

    def check_base(self) -> None:
        """EINVAL when a region leaves the guest's address space or meets the distributor; models vgic_v3_check_base."""
        for region in self.regions:
            try:
                check_iorange(self._core.vm, UNDEFINED_ADDRESS, region.base, FRAME_ALIGNMENT, region.size(self._online))
            except KernelError as refused:
                raise KernelError(errno.EINVAL, refused.reason) from refused
        dist = self._core.dist_base
        if dist != UNDEFINED_ADDRESS and self.overlaps(dist, DIST_SIZE):
            raise KernelError(errno.EINVAL, "distributor and redistributors overlap")

    def region(self, index: int) -> Region | None:
        """Region ``index``, if there is one."""
        return next((one for one in self.regions if one.index == index), None)

    def is_last(self, cpu: VgicCpuV3) -> bool:
        """GICR_TYPER.Last: no redistributor follows that of ``cpu`` in adjacent frames."""
        region = cpu.region
        if region is None or cpu.region_index < region.used - 1:
            return False
        if region.count and cpu.region_index == region.count - 1:
            end = region.base + region.count * FRAMES_SIZE
            return not any(one.base == end and one.used for one in self.regions)
        return True


def _overlap(base: int, size: int, other: int, other_size: int) -> bool:
    return base + size > other and base < other + other_size
