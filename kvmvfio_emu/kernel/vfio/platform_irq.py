"""Interrupts of platform devices as userspace drives them; models vfio_platform_irq.c.

A level-sensitive interrupt is "automasked": its handler disables it before it tells userspace, and userspace
unmasks it. A forwarded one is not: the guest's own completion lets it come again.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.engine.clock import Timer
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFd
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.irq import IrqDesc
from kvmvfio_emu.kernel.task import UserPtr
from kvmvfio_emu.kernel.vfio.virqfd import Virqfd

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.platform import VfioPlatformDevice

_HEADER = 20
#: Bytes of one element of each kind of data.
_ELEMENT: dict[int, int] = {
    uapi.VFIO_IRQ_SET_DATA_NONE: 0,
    uapi.VFIO_IRQ_SET_DATA_BOOL: 1,
    uapi.VFIO_IRQ_SET_DATA_EVENTFD: 4,
}
#: How long one round of an interrupt takes that its own signal unmasks.
_STORM_ROUND = 10_000
#: After so many rounds without anybody else's doing, the interrupt stays masked: nothing here could end it.
_STORM_LIMIT = 1_000


class PlatformIrq:
    """One interrupt of an open device, ``struct vfio_platform_irq``."""

    def __init__(self, device: VfioPlatformDevice, index: int, desc: IrqDesc) -> None:
        self.device = device
        self.index = index
        self.desc = desc
        self.automasked = desc.level
        self.flags: int = uapi.VFIO_IRQ_INFO_EVENTFD
        if self.automasked:
            self.flags |= uapi.VFIO_IRQ_INFO_MASKABLE | uapi.VFIO_IRQ_INFO_AUTOMASKED
        self.masked = False
        self.signals = 0  #: how often userspace was told of it
        self.trigger: EventFd | None = None
        self.mask_eventfd = Virqfd(device.host, self.mask)
        self.unmask_eventfd = Virqfd(device.host, self._unmask_signalled)
        self._irqs = device.host.irqs
        self._later: Timer | None = None
        self._rounds = 0

    # -- the handler -------------------------------------------------------------------------------

    def handle(self) -> bool:
        """The interrupt came, or userspace pretends so (loopback). False (IRQ_NONE) when it is masked."""
        if self.automasked:
            if self.masked:
                return False
            if not self.desc.forwarded:
                self._disable()
        self._signal()
        return True

    def _signal(self) -> None:
        if self.trigger is None:
            return
        trace = self.device.host.trace
        before = trace.begin("eventfd_trigger", irq=self.desc.hwirq, device=self.device.name, index=self.index)
        self.signals += 1
        self.device.vfio.handlers += 1
        try:
            self.trigger.signal()
        finally:
            self.device.vfio.handlers -= 1
            trace.end(before)

    # -- masking -----------------------------------------------------------------------------------

    def mask(self) -> None:
        """Disable the interrupt; nothing if it is masked."""
        self._forget_later()
        if not self.masked:
            self._disable()

    def unmask(self) -> None:
        """Enable it again; nothing if it is not masked. A level that is still high comes at once."""
        self._rounds = 0
        self._forget_later()
        self._enable()

    def _enable(self) -> None:
        if self.masked:
            self.masked = False
            if self.desc.handler is not None:
                self._irqs.enable_irq(self.desc)

    def _disable(self) -> None:
        self.masked = True
        # Without a trigger the line is off anyway, and installing one sets the depth afresh.
        if self.desc.handler is not None:
            self._irqs.disable_irq_nosync(self.desc)

    def _unmask_signalled(self) -> None:
        """The unmask eventfd was signalled.

        By a handler that has just masked, with the line still high, this is an interrupt storm. Each round takes
        time on a machine, so it does here, where it would never end otherwise.
        """
        if not (self.masked and self.device.vfio.handlers and self._irqs.gic.is_pending(self.desc.hwirq)):
            self.unmask()
            return
        self._forget_later()
        self._rounds += 1
        if self._rounds <= _STORM_LIMIT:
            self._later = self.device.host.clock.after(_STORM_ROUND, self._enable)
        else:
            self.device.host.event("irq_storm", irq=self.desc.hwirq)

    def _forget_later(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    # -- the trigger -------------------------------------------------------------------------------

    def set_trigger(self, fd: int) -> None:
        """Signal eventfd ``fd`` of the caller from now on, nothing when negative. EBADF, EINVAL, EBUSY.

        The old trigger goes first and does not come back when the new one is bad. Masking survives.
        """
        if self.trigger is not None:
            self._irqs.free_irq(self.desc)
            old, self.trigger = self.trigger, None
            old.put()
        if fd < 0:
            return
        trigger = self.device.host.current.eventfd(fd)
        if self.desc.handler is not None:
            trigger.put()
            raise KernelError(errno.EBUSY, f"interrupt {self.desc.irq} is in use and cannot be shared")
        self.trigger = trigger
        self._irqs.request_irq(self.desc, self.handle, autoenable=False)
        if not self.masked:
            self._irqs.enable_irq(self.desc)

    def shutdown(self) -> None:
        """The device is closed: no trigger, no eventfds."""
        self.mask_eventfd.disable()
        self.unmask_eventfd.disable()
        self.set_trigger(-1)
        self._forget_later()

    def check(self) -> None:
        """Raise AssertionError when descriptor and driver disagree."""
        if self.trigger is not None:
            assert self.desc.handler is not None, f"{self.desc} has a trigger but no handler"
            assert self.desc.disabled == self.masked, f"{self.desc}: masked is {self.masked}"


# -- VFIO_DEVICE_SET_IRQS --------------------------------------------------------------------------


def set_irqs(irqs: list[PlatformIrq], host: Host, header: Any, arg: UserPtr) -> None:
    """The whole request; ``header`` is its first part, ``arg`` where it came from."""
    size = _data_size(header, len(irqs), range_checked=host.profile.irq_set_range_checked)
    data = host.current.copy_from_user(arg, size, _HEADER) if size else bytearray()
    action = header.flags & uapi.VFIO_IRQ_SET_ACTION_TYPE_MASK
    irq, kind, start, count = (
        irqs[header.index],
        header.flags & uapi.VFIO_IRQ_SET_DATA_TYPE_MASK,
        header.start,
        header.count,
    )
    if action == uapi.VFIO_IRQ_SET_ACTION_TRIGGER:
        if not count and kind == uapi.VFIO_IRQ_SET_DATA_NONE:
            irq.set_trigger(-1)
            return
        _one(start, count)
        if kind == uapi.VFIO_IRQ_SET_DATA_EVENTFD:
            irq.set_trigger(_fd(data))
        elif kind == uapi.VFIO_IRQ_SET_DATA_NONE or data[0]:
            irq.handle()
    elif action in (uapi.VFIO_IRQ_SET_ACTION_MASK, uapi.VFIO_IRQ_SET_ACTION_UNMASK):
        _one(start, count)
        if not irq.flags & uapi.VFIO_IRQ_INFO_MASKABLE:
            raise KernelError(errno.EINVAL, f"interrupt {header.index} is edge-triggered and cannot be masked")
        masking = action == uapi.VFIO_IRQ_SET_ACTION_MASK
        if kind == uapi.VFIO_IRQ_SET_DATA_EVENTFD:
            _set_virqfd(irq.mask_eventfd if masking else irq.unmask_eventfd, _fd(data))
        elif kind == uapi.VFIO_IRQ_SET_DATA_NONE or data[0]:
            (irq.mask if masking else irq.unmask)()
    else:
        raise KernelError(errno.ENOTTY, f"{action:#x} is not one action")


def _data_size(header: Any, num_irqs: int, *, range_checked: bool) -> int:
    """Judge the header; the number of data bytes to copy in. EINVAL."""
    if header.index >= num_irqs:
        raise KernelError(errno.EINVAL, f"the device has {num_irqs} interrupts, not {header.index}")
    if header.flags & ~(uapi.VFIO_IRQ_SET_DATA_TYPE_MASK | uapi.VFIO_IRQ_SET_ACTION_TYPE_MASK):
        raise KernelError(errno.EINVAL, f"unknown flags in {header.flags:#x}")
    element = _ELEMENT.get(header.flags & uapi.VFIO_IRQ_SET_DATA_TYPE_MASK)
    if element is None:
        raise KernelError(errno.EINVAL, "the data must be of one type")
    if range_checked:
        # Newer kernels bound start and count by the number of indexes, though each index is one interrupt.
        if header.start >= num_irqs or header.start + header.count > num_irqs:
            raise KernelError(errno.EINVAL, f"start {header.start}, count {header.count} of {num_irqs}")
        element *= header.count
    if header.argsz - _HEADER < element:
        raise KernelError(errno.EINVAL, f"argsz {header.argsz} leaves no room for {element} bytes of data")
    return element


def _one(start: int, count: int) -> None:
    if start != 0 or count != 1:
        raise KernelError(errno.EINVAL, f"start {start}, count {count}: an index has one interrupt, number 0")


def _fd(data: bytearray) -> int:
    return int.from_bytes(data[:4], "little", signed=True)


def _set_virqfd(virqfd: Virqfd, fd: int) -> None:
    if fd >= 0:
        virqfd.enable(fd)
    else:
        virqfd.disable()
