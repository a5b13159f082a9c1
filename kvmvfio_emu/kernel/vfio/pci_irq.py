"""VFIO_DEVICE_SET_IRQS on PCI devices: what is judged, and which interrupt acts; models vfio_pci_intrs.c."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import pci as regs
from kvmvfio_emu.hw import pci_caps as caps
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.task import UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.pci import VfioPciDevice

INTX, MSI, MSIX, ERR, REQ = (
    uapi.VFIO_PCI_INTX_IRQ_INDEX,
    uapi.VFIO_PCI_MSI_IRQ_INDEX,
    uapi.VFIO_PCI_MSIX_IRQ_INDEX,
    uapi.VFIO_PCI_ERR_IRQ_INDEX,
    uapi.VFIO_PCI_REQ_IRQ_INDEX,
)
NUM_IRQS: int = uapi.VFIO_PCI_NUM_IRQS
_NONE, _BOOL, _EVENTFD = (
    uapi.VFIO_IRQ_SET_DATA_NONE,
    uapi.VFIO_IRQ_SET_DATA_BOOL,
    uapi.VFIO_IRQ_SET_DATA_EVENTFD,
)
_MASK, _UNMASK, _TRIGGER = (
    uapi.VFIO_IRQ_SET_ACTION_MASK,
    uapi.VFIO_IRQ_SET_ACTION_UNMASK,
    uapi.VFIO_IRQ_SET_ACTION_TRIGGER,
)
_HEADER = 20
_U32_MAX = 0xFFFFFFFF
_ELEMENT = {_NONE: 0, _BOOL: 1, _EVENTFD: 4}


def irq_count(device: VfioPciDevice, index: int) -> int:
    """How many interrupts index ``index`` has, whether in use or not; models vfio_pci_get_irq_count."""
    function = device.function
    if index == INTX:
        return int(bool(function.read(regs.INTERRUPT_PIN, 1)))
    if index == MSI:
        at = function.find(caps.MSI)
        return 1 << (function.read(at + caps.CONTROL, 2) >> 1 & 7) if at else 0
    if index == MSIX:
        at = function.find(caps.MSIX)
        return (function.read(at + caps.CONTROL, 2) & 0x7FF) + 1 if at else 0
    if index == ERR:
        return int(function.is_express)
    return int(index == REQ)


def irq_flags(index: int) -> int:
    """VFIO_IRQ_INFO_*."""
    if index == INTX:
        return int(uapi.VFIO_IRQ_INFO_EVENTFD | uapi.VFIO_IRQ_INFO_MASKABLE | uapi.VFIO_IRQ_INFO_AUTOMASKED)
    return int(uapi.VFIO_IRQ_INFO_EVENTFD | uapi.VFIO_IRQ_INFO_NORESIZE)


class _Request:
    """One SET_IRQS that has passed the general checks."""

    def __init__(self, device: VfioPciDevice, header: Any, data: bytearray) -> None:
        self.device = device
        self.index = int(header.index)
        self.start = int(header.start)
        self.count = int(header.count)
        self.kind = int(header.flags & uapi.VFIO_IRQ_SET_DATA_TYPE_MASK)
        self.data = data

    @property
    def fds(self) -> list[int]:
        return [fd for (fd,) in struct.iter_unpack("=i", self.data)]

    def wanted(self, vector: int = 0) -> bool:
        """Whether NONE or BOOL data says yes to the ``vector``-th of the range."""
        return self.kind == _NONE or bool(self.data[vector])

    @property
    def disables(self) -> bool:
        return self.kind == _NONE and not self.count

    def one(self) -> None:
        if self.start != 0 or self.count != 1:
            raise KernelError(errno.EINVAL, f"start {self.start}, count {self.count}: there is one, number 0")


def set_irqs(device: VfioPciDevice, header: Any, arg: UserPtr) -> None:
    """The whole request; ``header`` is its first part, ``arg`` where it came from."""
    size = _data_size(device, header)
    data = device.host.current.copy_from_user(arg, size, _HEADER) if size else bytearray()
    action = header.flags & uapi.VFIO_IRQ_SET_ACTION_TYPE_MASK
    handler = _HANDLERS.get((header.index, action))
    if handler is None:
        raise KernelError(errno.ENOTTY, f"action {action:#x} on interrupt index {header.index}")
    handler(_Request(device, header, data))


def _data_size(device: VfioPciDevice, header: Any) -> int:
    """Judge the header; the number of data bytes to copy in. EINVAL."""
    if header.index >= NUM_IRQS:
        raise KernelError(errno.EINVAL, f"a PCI device has {NUM_IRQS} interrupt indexes, not {header.index}")
    if header.count >= _U32_MAX - header.start:
        raise KernelError(errno.EINVAL, f"start {header.start} + count {header.count} wraps")
    if header.flags & ~(uapi.VFIO_IRQ_SET_DATA_TYPE_MASK | uapi.VFIO_IRQ_SET_ACTION_TYPE_MASK):
        raise KernelError(errno.EINVAL, f"unknown flags in {header.flags:#x}")
    limit = irq_count(device, header.index)
    if header.start >= limit or header.start + header.count > limit:
        raise KernelError(errno.EINVAL, f"start {header.start}, count {header.count} of {limit}")
    element = _ELEMENT.get(header.flags & uapi.VFIO_IRQ_SET_DATA_TYPE_MASK)
    if element is None:
        raise KernelError(errno.EINVAL, "the data must be of one type")
    size = int(header.count) * element
    if header.argsz - _HEADER < size:
        raise KernelError(errno.EINVAL, f"argsz {header.argsz} leaves no room for {size} bytes of data")
    return size


# -- INTx ----------------------------------------------------------------------------------------------------


def _intx_in_use(request: _Request) -> None:
    if not request.device.intx.enabled:
        raise KernelError(errno.EINVAL, "INTx has no trigger set up")
    request.one()


def _intx_mask(request: _Request) -> None:
    _intx_in_use(request)
    if request.kind == _EVENTFD:
        raise KernelError(errno.ENOTTY, "INTx cannot be masked by an eventfd")
    if request.wanted():
        request.device.intx.mask()


def _intx_unmask(request: _Request) -> None:
    _intx_in_use(request)
    intx = request.device.intx
    if request.kind == _EVENTFD:
        fd = request.fds[0]
        if fd >= 0:
            intx.unmask_eventfd.enable(fd)
        else:
            intx.unmask_eventfd.disable()
    elif request.wanted():
        intx.unmask()


def _intx_trigger(request: _Request) -> None:
    intx, vectors = request.device.intx, request.device.vectors
    if intx.enabled and request.disables:
        intx.disable()
        return
    if vectors.index is not None:
        raise KernelError(errno.EINVAL, "MSI or MSI-X is in use")
    request.one()
    if request.kind == _EVENTFD:
        intx.set_trigger(request.fds[0])
        return
    _intx_in_use(request)
    if request.wanted():
        intx.send()


# -- MSI and MSI-X -------------------------------------------------------------------------------------------


def _vectors_trigger(request: _Request) -> None:
    intx, vectors = request.device.intx, request.device.vectors
    in_use = vectors.index == request.index
    if in_use and request.disables:
        vectors.disable()
        return
    if intx.enabled or (vectors.index is not None and not in_use):
        raise KernelError(errno.EINVAL, "another kind of interrupt is in use")
    if request.kind == _EVENTFD:
        vectors.set_triggers(request.index, request.start, request.fds)
        return
    if not in_use:
        raise KernelError(errno.EINVAL, "these vectors have no trigger set up")
    if request.device.host.profile.pci_msi_range_checked and request.start + request.count > vectors.allocated:
        raise KernelError(errno.EINVAL, f"{vectors.allocated} vectors are allocated")
    for number in range(request.count):
        if request.wanted(number):
            vectors.signal(request.start + number)


# -- error and request ---------------------------------------------------------------------------------------


def _notice_trigger(request: _Request) -> None:
    """One eventfd that the driver itself signals. Older kernels take a loopback without it for done."""
    device, index, profile = request.device, request.index, request.device.host.profile
    notice = device.notices.get(index)
    if request.kind == _NONE:
        if notice is None:
            if profile.pci_notice_checked:
                raise KernelError(errno.EINVAL, "no eventfd is set")
        elif request.count or not profile.pci_notice_checked:
            device.signal(notice)
        else:
            device.set_notice(index, None)
    elif not request.count:
        raise KernelError(errno.EINVAL, "data for no interrupt")
    elif request.kind == _BOOL:
        if notice is not None and request.wanted():
            device.signal(notice)
    else:
        fd = request.fds[0]
        if fd >= 0:
            device.set_notice(index, device.host.current.eventfd(fd))
        elif fd == -1:
            device.set_notice(index, None)
        elif not profile.pci_notice_ignores_bad_fd:
            raise KernelError(errno.EINVAL, f"{fd} is no descriptor, and only -1 removes")


_HANDLERS = {
    (INTX, _MASK): _intx_mask,
    (INTX, _UNMASK): _intx_unmask,
    (INTX, _TRIGGER): _intx_trigger,
    (MSI, _TRIGGER): _vectors_trigger,
    (MSIX, _TRIGGER): _vectors_trigger,
    (ERR, _TRIGGER): _notice_trigger,
    (REQ, _TRIGGER): _notice_trigger,
}
