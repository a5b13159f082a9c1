"""The configuration space that a user of a PCI device sees; models drivers/vfio/pci/vfio_pci_config.c.

For each byte there are two masks: which bits are virtual (kept here), which the user may write. What is writable and
not virtual goes to the hardware. Some registers have effects of their own, carried out after the store.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import pci as regs
from kvmvfio_emu.hw import pci_caps as caps
from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.pci import VfioPciDevice

_ALL, _NONE = 0xFFFFFFFF, 0
_UNASSIGNED, _EXTENDED = -1, -2  #: marks of bytes that belong to no capability; the header's is 0
#: Lengths of the capabilities that have one. AGP, VPD, PCI-X and those below are shown, any other is hidden.
_LENGTHS = {caps.PM: 8, 0x02: 12, 0x03: 8, 0x07: 8, caps.MSIX: 12, caps.ADVANCED_FEATURES: 6}
_EXPRESS_V1, _EXPRESS_V2 = 20, 60
_ROOT_COMPLEX, _ROOT_COMPLEX_V1, _ROOT_COMPLEX_V2 = 9, 12, 44  #: an integrated endpoint has no link registers
#: (offset, bytes, virtual bits, writable bits) of the header. What is not listed is the hardware's, read-only.
_HEADER = (
    (regs.VENDOR, 2, _ALL, _NONE),
    (regs.VENDOR + 2, 2, _ALL, _NONE),
    (regs.COMMAND, 2, regs.COMMAND_INTX_DISABLE, _ALL),
    (regs.STATUS, 2, regs.STATUS_CAP_LIST, _NONE),
    (0x0C, 1, _NONE, _ALL),  # cache line size, latency timer, self test: no harm to write
    (0x0D, 1, _NONE, _ALL),
    (0x0F, 1, _NONE, _ALL),
    *((regs.BAR0 + 4 * bar, 4, _ALL, _ALL) for bar in range(regs.BARS)),
    (regs.ROM, 4, _ALL, _ALL),
    (regs.CAPABILITIES, 1, _ALL, _NONE),
    (regs.INTERRUPT_LINE, 1, _ALL, _ALL),
    (regs.INTERRUPT_PIN, 1, _ALL, _NONE),
)


class VirtualConfig:
    """``vconfig`` and its permissions, for one opening of a device."""

    def __init__(self, device: VfioPciDevice) -> None:
        self._device = device
        self._function = device.function
        self.size = self._function.size
        self.values = bytearray(self._physical(0, regs.HEADER_SIZE).ljust(self.size, b"\0"))
        self._virtual = bytearray(self.size)
        self._writable = bytearray(self.size)
        self._start = [0] * regs.HEADER_SIZE  #: of each byte's capability, or a mark
        self._start += [_UNASSIGNED] * (regs.CONVENTIONAL_SIZE - regs.HEADER_SIZE)
        self._start += [_EXTENDED] * (self.size - regs.CONVENTIONAL_SIZE)
        self._bars_written = True
        for offset, width, virtual, writable in _HEADER:
            self._permit(offset, width, virtual, writable)
        # Between capabilities there may be anything that the device's driver knows of.
        self._permit(regs.HEADER_SIZE, regs.CONVENTIONAL_SIZE - regs.HEADER_SIZE, _NONE, -1)
        self._walk()

    def _permit(self, offset: int, width: int, virtual: int, writable: int) -> None:
        every = (1 << 8 * width) - 1
        self._virtual[offset : offset + width] = (virtual & every).to_bytes(width, "little")
        self._writable[offset : offset + width] = (writable & every).to_bytes(width, "little")

    def _physical(self, offset: int, size: int) -> bytes:
        return self._function.read(offset, size).to_bytes(size, "little")

    # -- capabilities ---------------------------------------------------------------------------------------

    def _walk(self) -> None:
        """Take in the list; what has no known length is hidden by leading the list around it."""
        link, at, shown = regs.CAPABILITIES, self._function.read(regs.CAPABILITIES, 1), 0
        for _ in range((regs.CONVENTIONAL_SIZE - regs.HEADER_SIZE) // 4):
            if not at:
                break
            number, following = self._function.read(at, 1), self._function.read(at + 1, 1)
            length = self._length(number, at)
            if length:
                self._start[at : at + length] = [at] * length
                self.values[at : at + length] = self._physical(at, length)
                self._permit(at, length, _NONE, _NONE)
                self._permit_capability(number, at)
                link, shown = at + 1, shown + 1
            else:
                self.values[link] = following
            at = following
        if not shown:
            self.values[regs.STATUS] &= ~regs.STATUS_CAP_LIST

    def _length(self, number: int, at: int) -> int:
        flags = self._function.read(at + caps.CONTROL, 2)
        if number == caps.MSI:
            return 10 + (4 if flags & caps.MSI_64BIT else 0) + (10 if flags & caps.MSI_MASKABLE else 0)
        if number == caps.VENDOR:
            return flags & 0xFF
        if number == caps.EXPRESS:
            in_root_complex = flags >> 4 & 0xF == _ROOT_COMPLEX
            if flags & 0xF == 1:
                return _ROOT_COMPLEX_V1 if in_root_complex else _EXPRESS_V1
            return _ROOT_COMPLEX_V2 if in_root_complex else _EXPRESS_V2
        return _LENGTHS.get(number, 0)

    def _permit_capability(self, number: int, at: int) -> None:
        self._permit(at, 2, _ALL, _NONE)  # the list is virtual
        if number == caps.PM:
            # No wake-up events; the state changes by the effect of the write, not by the write.
            self._permit(at + caps.PM_CONTROL, 4, _NONE, ~0x8103)
        elif number == caps.MSI:
            flags = self._function.read(at + caps.CONTROL, 2)
            wide = bool(flags & caps.MSI_64BIT)
            self._permit(at + caps.CONTROL, 1, _ALL, _ALL)
            self._permit(at + 4, 10 if wide else 6, -1, -1)
            if flags & caps.MSI_MASKABLE:
                self._permit(at + (16 if wide else 12), 8, _NONE, -1)
        elif number == caps.EXPRESS:
            # Reset, payload and read request size are virtual; phantom functions would confuse the IOMMU.
            self._permit(at + caps.EXPRESS_CONTROL, 2, 0xF0E0, ~0x0200)
            if self._start[at + 40] == at:
                self._permit(at + 40, 2, _NONE, ~0x0020)  # ARI forwarding is the host's
        elif number == caps.ADVANCED_FEATURES:
            self._permit(at + caps.AF_CONTROL, 1, caps.AF_FLR, caps.AF_FLR)
        elif number == caps.VENDOR:
            self._permit(at + 2, self._length(number, at) - 2, _NONE, -1)

    # -- access ---------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset``. EFAULT beyond the end."""
        return b"".join(self._read(at, width) for at, width in self._pieces(offset, size))

    def write(self, offset: int, data: bytes) -> None:
        """Store ``data`` at ``offset``, with its effects. EFAULT beyond the end."""
        done = 0
        for at, width in self._pieces(offset, len(data)):
            self._store(at, int.from_bytes(data[done : done + width], "little"), width)
            done += width

    def _pieces(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Aligned pieces of up to 4 bytes that each lie in one capability."""
        end = offset + size
        if end > self.size:
            raise KernelError(errno.EFAULT, f"configuration space ends at {self.size:#x}, the access at {end:#x}")
        while offset < end:
            same = 1
            while (offset + same) % 4 and self._start[offset + same] == self._start[offset]:
                same += 1
            room = min(end - offset, same)
            width = next(width for width in (4, 2, 1) if width <= room and not offset % width)
            yield offset, width
            offset += width

    def _read(self, at: int, width: int) -> bytes:
        if self._bars_written and at in _BAR_BYTES:
            self._shape_bars()
        own = int.from_bytes(self.values[at : at + width], "little")
        virtual = int.from_bytes(self._virtual[at : at + width], "little")
        value = own & virtual | self._function.read(at, width) & ~virtual
        return value.to_bytes(width, "little")

    def _store(self, at: int, value: int, width: int) -> None:
        start = self._start[at]
        if at == regs.COMMAND:
            self._before_command(value)
        writable = int.from_bytes(self._writable[at : at + width], "little")
        virtual = int.from_bytes(self._virtual[at : at + width], "little")
        if own := writable & virtual:
            kept = int.from_bytes(self.values[at : at + width], "little") & ~own
            self.values[at : at + width] = (kept | value & own).to_bytes(width, "little")
        if through := writable & ~virtual:
            kept = self._function.read(at, width) & ~through
            self._function.write(at, width, kept | value & through)
        if start == 0:
            self._header_written(at, value)
        elif start > 0:
            self._capability_written(start, at, value)

    # -- effects --------------------------------------------------------------------------------------------

    def _word(self, at: int) -> int:
        return int.from_bytes(self.values[at : at + 2], "little")

    def _set_word(self, at: int, value: int) -> None:
        self.values[at : at + 2] = value.to_bytes(2, "little")

    @property
    def memory_enabled(self) -> bool:
        """Whether the user has memory decoding on, and the function is in D0."""
        return bool(self._word(regs.COMMAND) & regs.COMMAND_MEMORY) and self._function.power_state == 0

    def _before_command(self, value: int) -> None:
        decoding = regs.COMMAND_MEMORY | regs.COMMAND_IO
        # On for the user, off in the hardware: a reset behind our back, which also took the BARs.
        if value & self._word(regs.COMMAND) & ~self._function.command & decoding:
            for index, address in self._function.addresses.items():
                self._function.assign(index, address)

    def _header_written(self, at: int, value: int) -> None:
        device = self._device
        if at == regs.COMMAND:
            decoding = regs.COMMAND_MEMORY | regs.COMMAND_IO
            self._set_word(at, self._word(at) & ~decoding | value & decoding)
        if at in (regs.COMMAND, regs.COMMAND + 1):
            disabled = bool(self._word(regs.COMMAND) & regs.COMMAND_INTX_DISABLE)
            if disabled != device.intx_disabled:
                device.intx_disabled = disabled
                (device.intx.mask if disabled else device.intx.unmask)()
        if at in _BAR_BYTES:
            self._bars_written = True

    def _shape_bars(self) -> None:
        """What was written, with the bits that a BAR of that size and kind cannot hold forced."""
        self._bars_written = False
        shaped = bytearray(4 * regs.BARS)
        for index, bar in self._function.bars.items():
            width = 8 if bar.kind == "mem64" else 4
            at = regs.BAR0 + 4 * index
            value = int.from_bytes(self.values[at : at + width], "little") & ~(bar.size - 1)
            flags = 1 if bar.kind == "io" else (4 if width == 8 else 0) | (8 if bar.prefetchable else 0)
            shaped[4 * index : 4 * index + width] = (value | flags).to_bytes(width, "little")
        self.values[regs.BAR0 : regs.BAR0 + len(shaped)] = shaped
        self.values[regs.ROM : regs.ROM + 4] = bytes(4)  # no model has one

    def _capability_written(self, start: int, at: int, value: int) -> None:
        number, device = self.values[start], self._device
        if number == caps.PM and at == start + caps.PM_CONTROL:
            self._function.write(at, 2, self._function.read(at, 2) & ~caps.PM_STATE | value & caps.PM_STATE)
        elif number == caps.MSI and at == start + caps.CONTROL:
            self._msi_written(at)
        elif number == caps.EXPRESS and self._word(start + caps.EXPRESS_CONTROL) & caps.EXPRESS_FLR:
            control = start + caps.EXPRESS_CONTROL
            self._set_word(control, self._word(control) & ~caps.EXPRESS_FLR)
            if self._function.can_reset:
                device.reset_function()
        elif number == caps.ADVANCED_FEATURES and self.values[start + caps.AF_CONTROL] & caps.AF_FLR:
            self.values[start + caps.AF_CONTROL] &= ~caps.AF_FLR
            device.reset_function()

    def _msi_written(self, at: int) -> None:
        """The user may not enable more than SET_IRQS allocated; what is left goes to the hardware too."""
        flags = self._word(at)
        if self._device.vectors.index != uapi.VFIO_PCI_MSI_IRQ_INDEX:
            flags &= ~caps.MSI_ENABLE
        if flags >> 4 & 7 > self._device.vectors.msi_limit:
            flags = flags & ~0x70 | self._device.vectors.msi_limit << 4
        self._set_word(at, flags)
        self._function.write(at, 2, flags)


_BAR_BYTES = frozenset((*range(regs.BAR0, regs.BAR0 + 4 * regs.BARS), *range(regs.ROM, regs.ROM + 4)))
