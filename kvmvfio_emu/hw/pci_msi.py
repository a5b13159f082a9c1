"""Message signalled interrupts of a PCI function: MSI and MSI-X, their masks and pending bits (PCI 3.0, 6.8).

A message is a memory write to a doorbell; the doorbell here is `Messages.on_message`, which gets the vector.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu.hw import pci_caps as caps

if TYPE_CHECKING:
    from kvmvfio_emu.hw.pci import PciFunction

_ENTRY = 16  #: bytes of a vector in the MSI-X table: address, data, control
_CONTROL = 12
_FRESH = struct.pack("<QII", 0, 0, 1)  #: after a reset every vector is masked


class Messages:
    """Both mechanisms of one function; ``msi`` and ``msix`` are where its capabilities are, 0 for none."""

    def __init__(self, function: PciFunction, msi: int, msix: int) -> None:
        self.on_message: Callable[[int], None] = lambda vector: None
        self._function = function
        self._msi = msi
        self._msix = msix
        found = function.capabilities.get(msix)
        self.msix = found if isinstance(found, caps.MsiX) else None
        self.table = bytearray(_FRESH * self.msix.vectors if self.msix else b"")
        self._pending: set[int] = set()  #: MSI-X; those of MSI are in configuration space

    # -- enabled or not -------------------------------------------------------------------------------------

    def _flags(self, at: int) -> int:
        return self._function.read(at + caps.CONTROL, 2) if at else 0

    @property
    def msi_enabled(self) -> bool:
        """MSI is what the function signals with."""
        return bool(self._flags(self._msi) & caps.MSI_ENABLE)

    @property
    def msix_enabled(self) -> bool:
        """MSI-X is."""
        return bool(self._flags(self._msix) & caps.MSIX_ENABLE)

    @property
    def enabled(self) -> bool:
        """Either; then the pin is quiet."""
        return self.msi_enabled or self.msix_enabled

    # -- sending --------------------------------------------------------------------------------------------

    def send(self, vector: int) -> bool:
        """Signal ``vector``. False when neither mechanism is on, and the function has its pin to use.

        With fewer MSI vectors granted than the function has, those beyond share the last bits, as PCI has it.
        """
        if self.msix_enabled:
            assert self.msix is not None
            if vector < self.msix.vectors:
                if self._msix_masked(vector):
                    self._pending.add(vector)
                else:
                    self._deliver(vector)
            return True
        if self.msi_enabled:
            vector &= (1 << (self._flags(self._msi) >> 4 & 7)) - 1
            if self._msi_masks() >> vector & 1:
                self._set_msi_pending(self._msi_pending() | 1 << vector)
            else:
                self._deliver(vector)
            return True
        return False

    def flush(self) -> None:
        """Send what waited for a mask that is gone."""
        if self.msix_enabled:
            for vector in sorted(self._pending):
                if not self._msix_masked(vector):
                    self._pending.discard(vector)
                    self._deliver(vector)
        elif self.msi_enabled and (ready := self._msi_pending() & ~self._msi_masks()):
            self._set_msi_pending(self._msi_pending() & ~ready)
            for vector in range(32):
                if ready >> vector & 1:
                    self._deliver(vector)

    def _deliver(self, vector: int) -> None:
        if self._function.is_master:
            self.on_message(vector)

    def _msix_masked(self, vector: int) -> bool:
        if self._flags(self._msix) & caps.MSIX_MASK_ALL:
            return True
        return bool(self.table[vector * _ENTRY + _CONTROL] & 1)

    # -- MSI's mask and pending bits, which are optional ----------------------------------------------------

    def _mask_at(self) -> int:
        msi = self._function.capabilities.get(self._msi)
        return self._msi + msi.mask_offset if isinstance(msi, caps.Msi) and msi.maskable else 0

    def _msi_masks(self) -> int:
        at = self._mask_at()
        return self._function.read(at, 4) if at else 0

    def _msi_pending(self) -> int:
        at = self._mask_at()
        return self._function.read(at + 4, 4) if at else 0

    def _set_msi_pending(self, bits: int) -> None:
        self._function.poke(self._mask_at() + 4, struct.pack("<I", bits))

    # -- MSI-X's part of the BARs ---------------------------------------------------------------------------

    def overlay(self, bar: int, offset: int, size: int) -> int | None:
        """A read of the table or the pending bits; None when the access touches neither."""
        if self.msix is None:
            return None
        if self._in_table(bar, offset):
            at = offset - self.msix.table
            return int.from_bytes(self.table[at : at + size], "little")
        pba_bar = self.msix.bar if self.msix.pba_bar is None else self.msix.pba_bar
        length = -(-self.msix.vectors // 64) * 8
        if bar == pba_bar and 0 <= (at := offset - self.msix.pba) < length:
            return sum(1 << vector for vector in self._pending) >> 8 * at & (1 << 8 * size) - 1
        return None

    def store(self, bar: int, offset: int, size: int, value: int) -> bool:
        """A write into the table (the pending bits ignore theirs); False when it touches neither."""
        if self._in_table(bar, offset):
            assert self.msix is not None
            at = offset - self.msix.table
            self.table[at : at + size] = value.to_bytes(size, "little")[: len(self.table) - at]
            self._function.update()
            return True
        return self.overlay(bar, offset, size) is not None

    def _in_table(self, bar: int, offset: int) -> bool:
        msix = self.msix
        return msix is not None and bar == msix.bar and 0 <= offset - msix.table < msix.table_size

    def reset(self) -> None:
        """All vectors masked, nothing pending."""
        if self.msix is not None:
            self.table[:] = _FRESH * self.msix.vectors
        self._pending.clear()

    # -- the host's driver ----------------------------------------------------------------------------------

    def enable(self, kind: int, vectors: int) -> None:
        """Program ``vectors`` messages and switch them on; models what drivers/pci/msi does to the hardware."""
        if kind == caps.MSIX:
            for vector in range(vectors):
                at = vector * _ENTRY
                self.table[at : at + _ENTRY] = struct.pack("<QII", 0, vector, 0)
            self._function.write(self._msix + caps.CONTROL, 2, caps.MSIX_ENABLE)
        else:
            granted = (vectors - 1).bit_length()
            self._function.write(self._msi + caps.CONTROL, 2, granted << 4 | caps.MSI_ENABLE)

    def disable(self) -> None:
        """Both off, every MSI-X vector masked again."""
        for at in (self._msi, self._msix):
            if at:
                self._function.write(at + caps.CONTROL, 2, 0)
        self.reset()
