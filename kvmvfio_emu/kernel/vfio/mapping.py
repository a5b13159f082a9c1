"""What a mapping of a device file shows: in Linux the device's own pages, here a view kept up to date.

A store through a mapping is noticed when the kernel is next entered, and only if it changed the word that the
client could read there. That is enough for registers that read as they were written. A door that can bring each
access to us needs no such view.
"""

from __future__ import annotations

from os import close, ftruncate, pread, pwrite  # bound here: not what `Kernel.installed` may put in their place
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.vfio.device import VfioDevice

PAGE = 4096
_WORD = 4
#: Each region has this many address bits of the file for itself; models VFIO_PLATFORM_OFFSET_SHIFT.
REGION_SHIFT = 40
OFFSET_MASK = (1 << REGION_SHIFT) - 1


class Window:
    """The mapped pages of one open device file, in the memfd that stands for it."""

    def __init__(self, device: VfioDevice) -> None:
        self.fd: int | None = None
        self.trapped = False  #: the door brings each access through a mapping; nothing is shown
        self._device = device
        self._shown: int | None = None  #: the device's generation that the memory shows
        self._ranges: list[tuple[int, int]] = []  #: what was mapped
        self._pages: dict[int, bytes] = {}  #: offset in the file -> what the client saw there last

    def attach(self, fd: int) -> None:
        """``fd`` is the memory that the client maps; closed with the window."""
        assert self.fd is None, "a device file has one backing"
        self.fd = fd

    def add(self, offset: int, length: int) -> None:
        """The client maps ``length`` bytes at ``offset`` (whole pages)."""
        self._ranges.append((offset, length))
        if self.trapped:
            return
        fresh = [page for page in range(offset, offset + length, PAGE) if page not in self._pages]
        if not self._pages and fresh:
            self._device.windows.append(self)
            if self._device not in self._device.host.mirrors:
                self._device.host.mirrors.append(self._device)
        for page in fresh:
            self._pages[page] = bytes(PAGE)
        self._shown = None
        self.pull()

    def show(self, size: int) -> None:
        """The door brings no accesses (any more): have memory, ``size`` bytes, for what was mapped and will be."""
        if self.fd is not None:
            ftruncate(self.fd, size)
        self.trapped = False
        ranges, self._ranges = self._ranges, []
        for offset, length in ranges:
            self.add(offset, length)

    def push(self) -> None:
        """Give the registers what the client stored in memory, in address order."""
        if self.fd is None:
            return
        for page, seen in self._pages.items():
            now = pread(self.fd, PAGE, page)
            if now == seen:
                continue
            region, base = page >> REGION_SHIFT, page & OFFSET_MASK
            for at in range(0, PAGE, _WORD):
                word = now[at : at + _WORD]
                if word != seen[at : at + _WORD]:
                    self._device.hw.write(region, base + at, _WORD, int.from_bytes(word, "little"))
            self._pages[page] = now
            self._shown = None  # what a register made of it may differ from what was stored

    def pull(self) -> None:
        """Show the registers in memory."""
        generation = self._device.hw.generation()
        if self.fd is None or (generation is not None and generation == self._shown):
            return
        self._shown = generation
        for page, seen in self._pages.items():
            region, base = page >> REGION_SHIFT, page & OFFSET_MASK
            now = self._device.hw.peek(region, base, PAGE).to_bytes(PAGE, "little")
            if now != seen:
                pwrite(self.fd, now, page)
                self._pages[page] = now

    def close(self) -> None:
        """The file is gone, and every mapping of it."""
        if self._pages:
            self.push()  # the client's last stores
            self._device.windows.remove(self)
            self._pages.clear()
            if not self._device.windows:
                self._device.host.mirrors.remove(self._device)
        self.detach()

    def detach(self) -> None:
        """Give the memory's descriptor back."""
        if self.fd is not None:
            close(self.fd)
            self.fd = None
