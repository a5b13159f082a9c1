"""The VFIO driver of platform devices; models drivers/vfio/platform/vfio_platform_common.c."""

from __future__ import annotations

import errno
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.board import RegionSpec
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import ioctl
from kvmvfio_emu.kernel.task import UserPtr
from kvmvfio_emu.kernel.vfio.device import VfioDevice, VfioDeviceFile
from kvmvfio_emu.kernel.vfio.mapping import OFFSET_MASK, PAGE, REGION_SHIFT
from kvmvfio_emu.kernel.vfio.platform_irq import PlatformIrq, set_irqs

_INFO_MIN = 16  #: up to num_irqs: the driver knows nothing of the fields that came later
_REGION_MIN = 32
_IRQ_MIN = 16
_SET_MIN = 20


def region_flags(region: RegionSpec) -> int:
    """VFIO_REGION_INFO_FLAG_*: mapping needs whole pages, lest a neighbour's registers come with them."""
    flags: int = uapi.VFIO_REGION_INFO_FLAG_READ
    if region.writable:
        flags |= uapi.VFIO_REGION_INFO_FLAG_WRITE
    if region.mappable and not (region.address | region.size) % PAGE:
        flags |= uapi.VFIO_REGION_INFO_FLAG_MMAP
    return flags


class PlatformDeviceFile(VfioDeviceFile):
    """An open platform device."""

    variant = "platform"

    device: VfioPlatformDevice

    @ioctl(uapi.VFIO_DEVICE_GET_INFO, "struct vfio_device_info", minsz=_INFO_MIN, argsz=True, out=True)
    def get_info(self, info: Any) -> int:
        """What it is, how many regions and interrupts it has. EINVAL (argsz)."""
        spec = self.device.device.spec
        info.flags = uapi.VFIO_DEVICE_FLAGS_AMBA if spec.bus == "amba" else uapi.VFIO_DEVICE_FLAGS_PLATFORM
        if self.device.reset_works:
            info.flags |= uapi.VFIO_DEVICE_FLAGS_RESET
        info.num_regions = len(spec.regions)
        info.num_irqs = len(self.device.irqs)
        return 0

    @ioctl(uapi.VFIO_DEVICE_GET_REGION_INFO, "struct vfio_region_info", minsz=_REGION_MIN, argsz=True, out=True)
    def get_region_info(self, info: Any) -> int:
        """Size, place in the file and abilities of a region. EINVAL (argsz, index)."""
        region = self.device.region(info.index)
        info.flags = region_flags(region)
        info.size = region.size
        info.offset = info.index << REGION_SHIFT
        return 0

    @ioctl(uapi.VFIO_DEVICE_GET_IRQ_INFO, "struct vfio_irq_info", minsz=_IRQ_MIN, argsz=True, out=True)
    def get_irq_info(self, info: Any) -> int:
        """Abilities of an interrupt; each index is one. EINVAL (argsz, index)."""
        irqs = self.device.irqs
        if info.index >= len(irqs):
            raise KernelError(errno.EINVAL, f"{self.device.name} has {len(irqs)} interrupts, not {info.index}")
        info.flags = irqs[info.index].flags
        info.count = 1
        return 0

    @ioctl(uapi.VFIO_DEVICE_SET_IRQS, "struct vfio_irq_set", minsz=_SET_MIN, argsz=True, tail=True)
    def set_irqs(self, header: Any, arg: UserPtr) -> int:
        """Mask, unmask, trigger an interrupt, or let eventfds do so. EINVAL, ENOTTY, EFAULT, EBADF, EBUSY."""
        set_irqs(self.device.irqs, self.host, header, arg)
        return 0

    @ioctl(uapi.VFIO_DEVICE_RESET)
    def reset(self, _arg: UserPtr) -> int:
        """Reset the device. EINVAL when nobody knows how."""
        if not self.device.reset_works:
            raise KernelError(errno.EINVAL, f"{self.device.name} has no reset function")
        self.device.reset()
        return 0

    # -- registers ---------------------------------------------------------------------------------

    def read(self, size: int, offset: int | None) -> bytes:
        """Registers, in the largest aligned accesses of up to 4 bytes. EINVAL outside a region."""
        self.require_granted()
        start, accesses = self._accesses(size, offset, uapi.VFIO_REGION_INFO_FLAG_READ)
        hw, region = self.device.hw, start >> REGION_SHIFT
        data = b"".join(hw.read(region, at, width).to_bytes(width, "little") for at, width in accesses)
        if offset is None:
            self.position = start + len(data)
        return data

    def write(self, data: bytes, offset: int | None) -> int:
        """As `read`, the other way."""
        self.require_granted()
        start, accesses = self._accesses(len(data), offset, uapi.VFIO_REGION_INFO_FLAG_WRITE)
        done, region = 0, start >> REGION_SHIFT
        for at, width in accesses:
            self.device.hw.write(region, at, width, int.from_bytes(data[done : done + width], "little"))
            done += width
        if offset is None:
            self.position = start + done
        return done

    def _accesses(self, size: int, offset: int | None, need: int) -> tuple[int, list[tuple[int, int]]]:
        start = self.position if offset is None else offset
        region = self.device.region(start >> REGION_SHIFT)
        if not region_flags(region) & need:
            raise KernelError(errno.EINVAL, f"region {start >> REGION_SHIFT} does not allow that access")
        at = start & OFFSET_MASK
        if at >= region.size:
            raise KernelError(errno.EINVAL, f"offset {at:#x} is behind the region's end, {region.size:#x}")
        end = min(at + size, region.size)
        accesses = []
        while at < end:
            width = next(width for width in (4, 2, 1) if not at % width and at + width <= end)
            accesses.append((at, width))
            at += width
        return start, accesses

    def mmap(self, offset: int, length: int, *, write: bool, shared: bool) -> None:
        """Map whole pages of one region, shared. EINVAL for anything else."""
        self.require_granted()
        if not shared:
            raise KernelError(errno.EINVAL, "device registers cannot be mapped privately")
        index, at = offset >> REGION_SHIFT, offset & OFFSET_MASK
        region = self.device.region(index)
        flags = region_flags(region)
        if not flags & uapi.VFIO_REGION_INFO_FLAG_MMAP:
            raise KernelError(errno.EINVAL, f"region {index} cannot be mapped")
        if write and not flags & uapi.VFIO_REGION_INFO_FLAG_WRITE:
            raise KernelError(errno.EINVAL, f"region {index} is read-only")
        length = -(-length // PAGE) * PAGE
        if at % PAGE or at + length > region.size:
            raise KernelError(errno.EINVAL, f"{at:#x} + {length:#x} is not inside region {index}")
        self.window.add(offset, length)


class VfioPlatformDevice(VfioDevice):
    """A device bound to vfio-platform or vfio-amba. Its interrupts exist as such while it is open."""

    file_type = PlatformDeviceFile

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.irqs: list[PlatformIrq] = []

    @property
    def map_size(self) -> int:
        """One place of 2^40 bytes for each region."""
        return len(self.device.spec.regions) << REGION_SHIFT

    def region(self, index: int) -> RegionSpec:
        """The description of region ``index``. EINVAL."""
        regions = self.device.spec.regions
        if index >= len(regions):
            raise KernelError(errno.EINVAL, f"{self.name} has {len(regions)} regions, not {index}")
        return regions[index]

    def masks(self) -> dict[int, bool]:
        """Every interrupt, while the device is open."""
        return {irq.index: irq.masked for irq in self.irqs}

    @property
    def reset_works(self) -> bool:
        """Whether there is a reset function for it: found by its first compatible string, vfio_platform_get_reset."""
        spec = self.device.spec
        return spec.has_reset or bool(set(spec.compatible[:1]) & set(self.host.profile.platform_idle_resets))

    def reset(self) -> None:
        """Call the reset function, if there is one."""
        if self.device.spec.has_reset:
            self.hw.reset()

    def enable(self) -> None:
        """First opening: enumerate, and start from a known state if the device can be reset."""
        self.irqs = [PlatformIrq(self, index, desc) for index, desc in enumerate(self.device.irqs)]
        self.reset()

    def disable(self) -> None:
        """Last close: quiet the device, then give the interrupts back."""
        self.reset()
        for irq in self.irqs:
            irq.shutdown()
        self.irqs = []

    def check(self) -> None:
        """Raise AssertionError when an interrupt's state contradicts the descriptor's."""
        assert bool(self.irqs) == bool(self.open_count and self.device.irqs), f"{self}: interrupts without an opener"
        for irq in self.irqs:
            irq.check()
