"""Eventfds that write to a BAR; models vfio_pci_ioeventfd of drivers/vfio/pci/vfio_pci_rdwr.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.vfio.mapping import OFFSET_MASK, REGION_SHIFT
from kvmvfio_emu.kernel.vfio.pci_access import find_bar, msix_table
from kvmvfio_emu.kernel.vfio.virqfd import Virqfd

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.pci import VfioPciDevice

_LIMIT = 1000
_Key = tuple[int, int, int, int]  #: BAR, offset, width, value


class IoEventFds:
    """Those of one open device."""

    def __init__(self, device: VfioPciDevice) -> None:
        self._device = device
        self._found: dict[_Key, Virqfd] = {}

    def set(self, request: Any) -> None:
        """Add or, with descriptor -1, remove one. EINVAL, EEXIST, ENODEV, ENOSPC, EBADF."""
        device, width = self._device, int(request.flags)
        if width not in (1, 2, 4, 8) or request.fd < -1:
            raise KernelError(errno.EINVAL, f"flags {width:#x} are not one size, or {request.fd} is no descriptor")
        index, offset = request.offset >> REGION_SHIFT, request.offset & OFFSET_MASK
        if offset + width > find_bar(device, index).size:
            raise KernelError(errno.EINVAL, f"{offset:#x} is not inside BAR {index}")
        table = msix_table(device, index)
        if offset < table.stop and table.start < offset + width:
            raise KernelError(errno.EINVAL, "the MSI-X table is not written by eventfds")
        key = (index, offset, width, int(request.data))
        if key in self._found:
            if request.fd != -1:
                raise KernelError(errno.EEXIST, "there is one for this write")
            self._found.pop(key).disable()
            return
        if request.fd < 0:
            raise KernelError(errno.ENODEV, "there is none for this write")
        if len(self._found) >= _LIMIT:
            raise KernelError(errno.ENOSPC, f"a device has at most {_LIMIT}")
        virqfd = Virqfd(device.host, lambda: self._write(key))
        virqfd.enable(request.fd)
        self._found[key] = virqfd

    def _write(self, key: _Key) -> None:
        index, offset, width, value = key
        if self._device.config.memory_enabled:
            self._device.hw.write(index, offset, width, value & (1 << 8 * width) - 1)

    def clear(self) -> None:
        """The device is closed."""
        for virqfd in self._found.values():
            virqfd.disable()
        self._found.clear()


SIZE_MASK: int = uapi.VFIO_DEVICE_IOEVENTFD_SIZE_MASK
