"""The VFIO driver of PCI devices; models drivers/vfio/pci/vfio_pci_core.c."""

from __future__ import annotations

import errno
import struct
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import pci as regs
from kvmvfio_emu.hw.devices.pci import PciDevice
from kvmvfio_emu.kernel.errors import KernelError, KvmVfioEmuError
from kvmvfio_emu.kernel.eventfd import EventFd
from kvmvfio_emu.kernel.file import ioctl
from kvmvfio_emu.kernel.task import UserPtr
from kvmvfio_emu.kernel.vfio.device import VfioDevice, VfioDeviceFile
from kvmvfio_emu.kernel.vfio.mapping import OFFSET_MASK, REGION_SHIFT
from kvmvfio_emu.kernel.vfio.pci_access import check_mmap, mappable, msix_table, read_bar, write_bar
from kvmvfio_emu.kernel.vfio.pci_config import VirtualConfig
from kvmvfio_emu.kernel.vfio.pci_intx import Intx
from kvmvfio_emu.kernel.vfio.pci_ioeventfd import IoEventFds
from kvmvfio_emu.kernel.vfio.pci_irq import ERR, INTX, NUM_IRQS, REQ, irq_count, irq_flags, set_irqs
from kvmvfio_emu.kernel.vfio.pci_reset import hot_reset, hot_reset_info, reset_function
from kvmvfio_emu.kernel.vfio.pci_vectors import Vectors

_INFO_MIN, _REGION_SIZE, _IRQ_MIN, _SET_MIN, _HOT_RESET_MIN, _IOEVENTFD_MIN = 16, 32, 16, 20, 12, 28
_CAP_OFFSET_END = 20  #: of struct vfio_device_info
_CONFIG, _ROM = uapi.VFIO_PCI_CONFIG_REGION_INDEX, uapi.VFIO_PCI_ROM_REGION_INDEX
_CAPABILITY = struct.Struct("=HHI")  #: struct vfio_info_cap_header
_LOW_POWER = range(uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, uapi.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT + 1)


class PciDeviceFile(VfioDeviceFile):
    """An open PCI device."""

    variant = "pci"

    device: VfioPciDevice

    @ioctl(uapi.VFIO_DEVICE_GET_INFO, "struct vfio_device_info", minsz=_INFO_MIN, argsz=True, out=True, tail=True)
    def get_info(self, info: Any, arg: UserPtr) -> int:
        """What it is; the numbers of regions and interrupts are the same for all PCI devices. EINVAL (argsz)."""
        info.flags = uapi.VFIO_DEVICE_FLAGS_PCI
        if self.device.reset_works:
            info.flags |= uapi.VFIO_DEVICE_FLAGS_RESET
        info.num_regions = uapi.VFIO_PCI_NUM_REGIONS
        info.num_irqs = NUM_IRQS
        size = min(info.argsz, self.host.profile.pci_device_info_size)
        if self.host.profile.pci_device_info_size == _CAP_OFFSET_END and size < _CAP_OFFSET_END:
            size = _INFO_MIN
        if size > _INFO_MIN:
            self.host.current.copy_to_user(arg, bytes(size - _INFO_MIN), _INFO_MIN)  # no capabilities
        return 0

    @ioctl(
        uapi.VFIO_DEVICE_GET_REGION_INFO,
        "struct vfio_region_info",
        minsz=_REGION_SIZE,
        argsz=True,
        out=True,
        tail=True,
    )
    def get_region_info(self, info: Any, arg: UserPtr) -> int:
        """Size, place in the file and abilities of a region. EINVAL (argsz, index)."""
        index = int(info.index)
        if index > _CONFIG:
            raise KernelError(errno.EINVAL, f"{self.device.name} has no region {index} (8 is VGA)")
        info.offset, info.flags, info.size = index << REGION_SHIFT, 0, 0
        if index == _CONFIG:
            info.size = self.device.config.size
        elif index in self.device.function.bars:
            info.size = self.device.function.bars[index].size
        if info.size:
            info.flags = uapi.VFIO_REGION_INFO_FLAG_READ | uapi.VFIO_REGION_INFO_FLAG_WRITE
        if mappable(self.device, index):
            info.flags |= uapi.VFIO_REGION_INFO_FLAG_MMAP
            if self.host.profile.pci_msix_mappable and msix_table(self.device, index):
                self._add_msix_mappable(info, arg)
        return 0

    def _add_msix_mappable(self, info: Any, arg: UserPtr) -> None:
        info.flags |= uapi.VFIO_REGION_INFO_FLAG_CAPS
        if info.argsz < _REGION_SIZE + _CAPABILITY.size:
            info.argsz = _REGION_SIZE + _CAPABILITY.size
            info.cap_offset = 0
        else:
            header = _CAPABILITY.pack(uapi.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 1, 0)
            self.host.current.copy_to_user(arg, header, _REGION_SIZE)
            info.cap_offset = _REGION_SIZE

    @ioctl(uapi.VFIO_DEVICE_GET_IRQ_INFO, "struct vfio_irq_info", minsz=_IRQ_MIN, argsz=True, out=True)
    def get_irq_info(self, info: Any) -> int:
        """Abilities and number of one kind of interrupt. EINVAL (argsz, index; errors only with PCI Express)."""
        if info.index >= NUM_IRQS or (info.index == ERR and not self.device.function.is_express):
            raise KernelError(errno.EINVAL, f"{self.device.name} has no interrupt index {info.index}")
        info.flags = irq_flags(info.index)
        info.count = irq_count(self.device, info.index)
        return 0

    @ioctl(uapi.VFIO_DEVICE_SET_IRQS, "struct vfio_irq_set", minsz=_SET_MIN, argsz=True, tail=True)
    def set_irqs(self, header: Any, arg: UserPtr) -> int:
        """Mask, unmask, trigger interrupts, or let eventfds do so. EINVAL, ENOTTY, EFAULT, EBADF, EBUSY, ERANGE."""
        set_irqs(self.device, header, arg)
        return 0

    @ioctl(uapi.VFIO_DEVICE_RESET)
    def reset(self, _arg: UserPtr) -> int:
        """Reset the function alone. EINVAL when it has no way."""
        if not self.device.reset_works:
            raise KernelError(errno.EINVAL, f"{self.device.name} cannot be reset alone")
        self.device.reset_function()
        return 0

    @ioctl(
        uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
        "struct vfio_pci_hot_reset_info",
        minsz=_HOT_RESET_MIN,
        argsz=True,
        tail=True,
    )
    def get_hot_reset_info(self, info: Any, arg: UserPtr) -> int:
        """The devices that a bus reset takes along. EINVAL (argsz), ENODEV, ENOSPC."""
        return hot_reset_info(self.device, info, arg)

    @ioctl(uapi.VFIO_DEVICE_PCI_HOT_RESET, "struct vfio_pci_hot_reset", minsz=_HOT_RESET_MIN, argsz=True, tail=True)
    def hot_reset(self, request: Any, arg: UserPtr) -> int:
        """Reset the whole bus, all of whose groups the caller names. EINVAL, ENODEV, EFAULT, EBADF."""
        return hot_reset(self.device, request, arg)

    @ioctl(
        uapi.VFIO_DEVICE_IOEVENTFD,
        "struct vfio_device_ioeventfd",
        minsz=_IOEVENTFD_MIN,
        tail=True,
        when="pci_ioeventfd",
    )
    def ioeventfd(self, request: Any, _arg: UserPtr) -> int:
        """Let an eventfd write to a BAR. EINVAL, EEXIST, ENODEV, ENOSPC."""
        if request.argsz < _IOEVENTFD_MIN:
            raise KernelError(errno.EINVAL, f"argsz {request.argsz} is below {_IOEVENTFD_MIN}")
        self.device.ioeventfds.set(request)
        return 0

    @ioctl(uapi.VFIO_DEVICE_FEATURE, when="device_feature")
    def device_feature(self, arg: UserPtr) -> int:
        """The low power features can be set, with no effect here; others as for any device. ENOTTY, EINVAL."""
        argsz, flags = struct.unpack("<II", self.host.current.copy_from_user(arg, 8))
        verbs = uapi.VFIO_DEVICE_FEATURE_GET | uapi.VFIO_DEVICE_FEATURE_SET
        known = uapi.VFIO_DEVICE_FEATURE_MASK | uapi.VFIO_DEVICE_FEATURE_PROBE | verbs
        wanted = flags & uapi.VFIO_DEVICE_FEATURE_MASK in _LOW_POWER
        if wanted and argsz >= 8 and not flags & ~known:
            probes = flags & uapi.VFIO_DEVICE_FEATURE_PROBE
            if flags & uapi.VFIO_DEVICE_FEATURE_GET or not (probes or flags & uapi.VFIO_DEVICE_FEATURE_SET):
                raise KernelError(errno.EINVAL, "a low power feature can only be set")
            return 0
        return super().device_feature(arg)

    # -- registers ------------------------------------------------------------------------------------------

    def read(self, size: int, offset: int | None) -> bytes:
        """Configuration space or a BAR. EINVAL outside a region, EFAULT beyond the end of configuration space, EIO."""
        self.require_granted()
        start = self.position if offset is None else offset
        index, at = start >> REGION_SHIFT, start & OFFSET_MASK
        if not size:
            return b""
        data = self.device.config.read(at, size) if index == _CONFIG else read_bar(self.device, index, at, size)
        if offset is None:
            self.position = start + len(data)
        return data

    def write(self, data: bytes, offset: int | None) -> int:
        """As `read`, the other way."""
        self.require_granted()
        start, done = self.position if offset is None else offset, len(data)
        index, at = start >> REGION_SHIFT, start & OFFSET_MASK
        if not data:
            return 0
        if index == _CONFIG:
            self.device.config.write(at, data)
        else:
            done = write_bar(self.device, index, at, data)
        if offset is None:
            self.position = start + done
        return done

    def mmap(self, offset: int, length: int, *, write: bool, shared: bool) -> None:
        """Map whole pages of one BAR, shared. EINVAL for anything else."""
        self.require_granted()
        length = check_mmap(self.device, offset >> REGION_SHIFT, offset & OFFSET_MASK, length, shared=shared)
        self.window.add(offset, length)


class VfioPciDevice(VfioDevice):
    """A device bound to vfio-pci. ``intx_disabled``: the user's view of the interrupt disable bit."""

    file_type = PciDeviceFile
    config: VirtualConfig  #: while it is open

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if not isinstance(self.hw, PciDevice):
            raise KvmVfioEmuError(f"vfio-pci does not bind to {self.name}, which is no PCI function")
        self.pci: PciDevice = self.hw
        self.function = self.hw.function
        self.masks_intx = self.function.masks_intx
        self.intx_disabled = False
        self.intx = Intx(self)
        self.vectors = Vectors(self)
        self.ioeventfds = IoEventFds(self)
        self.notices: dict[int, EventFd] = {}  #: of errors and of requests for the device
        self._saved: tuple[bytes, bytes] = (b"", b"")

    @property
    def map_size(self) -> int:
        """One place of 2^40 bytes for each BAR."""
        return regs.BARS << REGION_SHIFT

    def masks(self) -> dict[int, bool]:
        """INTx, while it is the interrupt in use: messages are not masked here."""
        return {INTX: self.intx.masked} if self.intx.enabled else {}

    @property
    def reset_works(self) -> bool:
        """Whether the function can be reset alone."""
        return self.function.can_reset or self.device.spec.has_reset

    def reset_function(self) -> None:
        """Reset it; its configuration survives."""
        reset_function(self.pci)

    def signal(self, trigger: EventFd) -> None:
        """Signal an eventfd of the user's from a handler."""
        self.vfio.handlers += 1
        try:
            trigger.signal()
        finally:
            self.vfio.handlers -= 1

    def set_notice(self, index: int, eventfd: EventFd | None) -> None:
        """Replace the eventfd of the error or the request interrupt; takes over the reference."""
        old = self.notices.pop(index, None)
        if eventfd is not None:
            self.notices[index] = eventfd
        if old is not None:
            old.put()

    def request(self) -> None:
        """The driver is being unbound: ask the user to let go."""
        if REQ in self.notices:
            self.signal(self.notices[REQ])

    def report_error(self) -> None:
        """The device reports an uncorrectable error; models vfio_pci_core_aer_err_detected."""
        if ERR in self.notices:
            self.signal(self.notices[ERR])

    # -- opening --------------------------------------------------------------------------------------------

    def enable(self) -> None:
        """First opening: decode, no bus mastering, start from a known state if the function can be reset."""
        function = self.function
        function.wake()
        decoding = regs.COMMAND_IO if any(bar.kind == "io" for bar in function.bars.values()) else 0
        decoding |= regs.COMMAND_MEMORY if any(bar.kind != "io" for bar in function.bars.values()) else 0
        function.command = function.command & ~regs.COMMAND_MASTER | decoding
        if self.reset_works:
            self.reset_function()
        self._saved = function.save()
        if self.masks_intx:
            function.command &= ~regs.COMMAND_INTX_DISABLE
        self.config = VirtualConfig(self)

    def disable(self) -> None:
        """Last close: no DMA, no interrupts, then back to how it was."""
        function = self.function
        function.wake()
        function.command &= ~regs.COMMAND_MASTER
        self.intx.disable()
        self.vectors.disable()
        self.ioeventfds.clear()
        self.intx_disabled = False
        if self.reset_works:
            self.pci.reset()
        function.restore(self._saved)
        function.command &= ~(regs.COMMAND_MASTER | regs.COMMAND_IO | regs.COMMAND_MEMORY)
        for index in (ERR, REQ):
            self.set_notice(index, None)

    def check(self) -> None:
        """Raise AssertionError when its interrupts contradict each other or the device."""
        self.intx.check()
        self.vectors.check()
        assert not (self.intx.enabled and self.vectors.index is not None), f"{self}: INTx and messages at once"
        used = self.intx.enabled or self.vectors.index is not None or self.notices
        assert self.open_count or not used, f"{self}: interrupts without an opener"
