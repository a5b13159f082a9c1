"""The INTx interrupt of a PCI device; models the INTx part of drivers/vfio/pci/vfio_pci_intrs.c.

It is masked in the device (its interrupt disable bit) if that has one, else at the interrupt controller, always by
the handler, before userspace is told. Unmasking while the device still asks tells userspace again and stays masked.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu.engine.clock import Timer
from kvmvfio_emu.engine.work import Work
from kvmvfio_emu.hw import pci as regs
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFd
from kvmvfio_emu.kernel.irq import IrqDesc
from kvmvfio_emu.kernel.vfio.virqfd import Virqfd

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.pci import VfioPciDevice

#: As in platform_irq: one round of an interrupt that its own signal unmasks, and how many there may be.
_STORM_ROUND, _STORM_LIMIT = 10_000, 1_000


class Intx:
    """``ctx[0]`` while INTx is the interrupt in use, and the handler."""

    def __init__(self, device: VfioPciDevice) -> None:
        self.enabled = False
        self.masked = False
        self.trigger: EventFd | None = None
        self._device = device
        self._host = device.host
        self._irqs = device.host.irqs
        self.unmask_eventfd = Virqfd(device.host, self._unmask_signalled)
        self._resend = Work(f"{device.name} INTx", self.send)
        self._later: Timer | None = None
        self._rounds = 0
        #: The handler stays while the trigger changes, and is there without one.
        self._steady = device.host.profile.pci_intx_steady

    @property
    def desc(self) -> IrqDesc:
        """The descriptor of the wire. EINVAL without a pin."""
        return self._device.device.irq(0)

    @property
    def _in_device(self) -> bool:
        return self._device.masks_intx

    def _set_disable_bit(self, disabled: bool) -> None:
        function = self._device.function
        bit = regs.COMMAND_INTX_DISABLE
        function.command = function.command | bit if disabled else function.command & ~bit

    @property
    def _pending(self) -> bool:
        if not self._in_device:
            return self._irqs.gic.is_pending(self.desc.hwirq)
        return bool(self._device.function.read(regs.STATUS, 2) & regs.STATUS_INTERRUPT)

    # -- the handler ----------------------------------------------------------------------------------------

    def handle(self) -> bool:
        """The interrupt came. False (IRQ_NONE) when it is another's, who shares the line."""
        if self._in_device:
            if self.masked or not self._pending:
                return False
            self._set_disable_bit(True)
        else:
            self._irqs.disable_irq_nosync(self.desc)
        self.masked = True
        self.send()
        return True

    def send(self) -> None:
        """Tell userspace, unless it disabled INTx in the command register that it sees."""
        if not self.enabled or self._device.intx_disabled or self.trigger is None:
            return
        trace = self._host.trace
        before = trace.begin("eventfd_trigger", irq=self.desc.hwirq, device=self._device.name, index=0)
        self._device.vfio.handlers += 1
        try:
            self.trigger.signal()
        finally:
            self._device.vfio.handlers -= 1
            trace.end(before)

    # -- masking --------------------------------------------------------------------------------------------

    def mask(self) -> None:
        """Mask; while INTx is not in use only the device's bit follows."""
        if self.enabled and not self.masked:
            if self._in_device:
                self._set_disable_bit(True)
            elif self.desc.handler is not None:
                self._irqs.disable_irq_nosync(self.desc)
            self.masked = True
        elif not self.enabled and self._in_device:
            self._set_disable_bit(True)

    def unmask(self) -> None:
        """Unmask, or tell userspace again if the device still asks."""
        self._rounds = 0
        if self._unmask():
            self.send()

    def _unmask(self) -> bool:
        """Whether it stays masked because there is something to tell."""
        if not self.enabled:
            if self._in_device:
                self._set_disable_bit(False)
            return False
        if not self.masked or self._device.intx_disabled:
            return False
        if self._in_device:
            if self._pending:
                return True
            self.masked = False
            self._set_disable_bit(False)
        else:
            self.masked = False
            if self.desc.handler is not None:
                self._irqs.enable_irq(self.desc)
        return False

    def _unmask_signalled(self) -> None:
        # An unmask that our own signal causes with the level high is a storm: each round takes its time, as on a
        # machine, and after many of them the interrupt stays masked.
        if not (self._device.vfio.handlers and self.masked and self._pending):
            self._rounds = 0
            if self._unmask():
                self._host.work.queue(self._resend)
            return
        self._forget_later()
        self._rounds += 1
        if self._rounds <= _STORM_LIMIT:
            self._later = self._host.clock.after(_STORM_ROUND, self._again)
        else:
            self._host.event("irq_storm", irq=self.desc.hwirq)

    def _again(self) -> None:
        if self._unmask():
            self.send()

    def _forget_later(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    # -- on and off -----------------------------------------------------------------------------------------

    def set_trigger(self, fd: int) -> None:
        """Signal eventfd ``fd`` of the caller, nothing when negative; the first call enables. EBADF, EINVAL, EBUSY.

        A bad eventfd leaves the old one where the handler is steady, else (older kernels) that is gone already.
        """
        if self.enabled and not self._steady:
            self._replace(None)
        trigger = self._host.current.eventfd(fd) if fd >= 0 else None
        if self.enabled:
            self._replace(trigger)
        else:
            self._enable(trigger)

    def _enable(self, trigger: EventFd | None) -> None:
        if self.desc.handler is not None:
            if trigger is not None:
                trigger.put()
            raise KernelError(errno.EBUSY, f"interrupt {self.desc.irq} is in use and cannot be shared")
        self.enabled = True
        self.masked = self._device.intx_disabled
        if self._in_device:
            self._set_disable_bit(self.masked)
        self.trigger = trigger
        if self._steady or trigger is not None:
            self._request()

    def _replace(self, trigger: EventFd | None) -> None:
        old, self.trigger = self.trigger, trigger
        if not self._steady:
            if old is not None:
                self._irqs.free_irq(self.desc)
            if trigger is not None:
                self._request()
        if old is not None:
            old.put()

    def _request(self) -> None:
        self._irqs.request_irq(self.desc, self.handle, autoenable=False)
        if self._in_device or not self.masked:
            self._irqs.enable_irq(self.desc)

    def disable(self) -> None:
        """INTx is no longer used; harmless when it was not."""
        if not self.enabled:
            return
        self.unmask_eventfd.disable()
        self._forget_later()
        self._host.work.cancel(self._resend)
        if self._steady or self.trigger is not None:
            self._irqs.free_irq(self.desc)
        self.enabled = False
        old, self.trigger = self.trigger, None
        if old is not None:
            old.put()

    def check(self) -> None:
        """Raise AssertionError when descriptor, device and driver disagree."""
        if not self.enabled:
            assert self.trigger is None, f"{self._device}: a trigger, but INTx is not in use"
            return
        if self._in_device:
            bit = bool(self._device.function.command & regs.COMMAND_INTX_DISABLE)
            assert bit == self.masked, f"{self._device}: masked is {self.masked}, the device's bit {bit}"
        elif self.desc.handler is not None:
            assert self.desc.disabled == self.masked, f"{self.desc}: masked is {self.masked}"
