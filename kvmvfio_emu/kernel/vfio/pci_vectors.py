"""MSI and MSI-X of a PCI device; models the MSI part of drivers/vfio/pci/vfio_pci_intrs.c.

A message goes from the device straight to the vector's handler: no doorbell, no interrupt of the GIC in between.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import pci as regs
from kvmvfio_emu.hw import pci_caps as caps
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFd

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.pci import VfioPciDevice

_KIND = {uapi.VFIO_PCI_MSI_IRQ_INDEX: caps.MSI, uapi.VFIO_PCI_MSIX_IRQ_INDEX: caps.MSIX}


class Vectors:
    """The vectors in use. ``index`` is which of the two kinds that is, None for neither."""

    def __init__(self, device: VfioPciDevice) -> None:
        self.index: int | None = None
        self.allocated = 0
        self.triggers: dict[int, EventFd] = {}
        self.msi_limit = 0  #: the most that the user may write as number of vectors, as a power of two
        self._device = device

    def set_triggers(self, index: int, start: int, fds: list[int]) -> None:
        """Signal eventfds of the caller from vector ``start`` on; the first call enables. EBADF, EINVAL, ERANGE.

        A negative one removes the vector's. When one is bad, none from ``start`` up to it is left.
        """
        if self.index is not None:
            self._set_block(start, fds)
            return
        self._enable(index, start + len(fds))
        try:
            self._set_block(start, fds)
        except KernelError:
            self.disable()
            raise

    def _enable(self, index: int, count: int) -> None:
        if not count:
            raise KernelError(errno.ERANGE, "no vectors: the PCI core wants at least one")
        function = self._device.function
        self.index = index
        self.allocated = count
        if index == uapi.VFIO_PCI_MSI_IRQ_INDEX:
            self.msi_limit = (count - 1).bit_length()
        function.command |= regs.COMMAND_INTX_DISABLE
        function.messages.on_message = self._message
        function.messages.enable(_KIND[index], count)

    def _set_block(self, start: int, fds: list[int]) -> None:
        checked = self._device.host.profile.pci_msi_range_checked
        if checked and (start >= self.allocated or start + len(fds) > self.allocated):
            raise KernelError(errno.EINVAL, f"vectors {start} + {len(fds)}: {self.allocated} are allocated")
        for vector, fd in enumerate(fds, start):
            try:
                self._set(vector, fd)
            except KernelError:
                for done in range(start, vector + 1):
                    self._set(done, -1)
                raise

    def _set(self, vector: int, fd: int) -> None:
        old = self.triggers.pop(vector, None)
        if old is not None:
            old.put()
        if fd < 0:
            return
        if vector >= self.allocated:
            raise KernelError(errno.EINVAL, f"vector {vector} has no interrupt, {self.allocated} have")
        self.triggers[vector] = self._device.host.current.eventfd(fd)

    def _message(self, vector: int) -> None:
        trace = self._device.host.trace
        before = trace.begin("msi", device=self._device.name, vector=vector)
        try:
            self.signal(vector)
        finally:
            trace.end(before)

    def signal(self, vector: int) -> None:
        """Tell userspace of ``vector``, if it wants to know."""
        trigger = self.triggers.get(vector)
        if trigger is not None:
            self._device.signal(trigger)

    def disable(self) -> None:
        """Give all vectors back; harmless when there are none."""
        if self.index is None:
            return
        for vector in list(self.triggers):
            self._set(vector, -1)
        function = self._device.function
        function.messages.disable()
        function.messages.on_message = lambda vector: None
        function.command &= ~regs.COMMAND_INTX_DISABLE
        self.index = None
        self.allocated = 0

    def check(self) -> None:
        """Raise AssertionError when driver and device disagree."""
        assert (self.index is None) == (self.allocated == 0), f"{self._device}: {self.allocated} vectors of no kind"
        assert all(vector < self.allocated for vector in self.triggers), f"{self._device}: a trigger beyond the vectors"
        if self.index is not None and self._device.function.power_state == 0:
            assert self._device.function.messages.enabled or self.index == uapi.VFIO_PCI_MSI_IRQ_INDEX, (
                f"{self._device}: vectors in use, but the device has no message enabled"
            )
