"""Guest memory as the engine sees it: the user's own pages where they can be shared, else copies kept coherent.

A stretch of a memory slot is *direct* (our own process's memory), *shared* (mapped here, too, by the file behind it) or
*copied* page by page with process_vm_readv: fetched at the first touch, written back when the guest stops, fetched anew
when others may have written. Slots that log dirty pages are mapped page by page, read-only until written to.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import TYPE_CHECKING

from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine.sharing import address_of, share
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.memory import PAGE_SIZE, Slot
from kvmvfio_emu.kernel.usercopy import Vma

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

#: More copied pages than this are dropped, to be fetched again, rather than looked through at each stop.
_MOST_COPIES = 512
_MS_ASYNC = 1
_msync = ctypes.CDLL(None, use_errno=True).msync
_msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _Copy:
    """A page of another process: what the guest has, and what the process had when it was looked at last."""

    __slots__ = ("buffer", "hva", "twin")

    def __init__(self, hva: int, data: bytes) -> None:
        self.hva, self.twin = hva, data
        self.buffer = mmap.mmap(-1, PAGE_SIZE)
        self.buffer[:] = data


class GuestMemory:
    """The physical memory of one vCPU's engine."""

    def __init__(self, vcpu: Vcpu, cpu: b.Cpu) -> None:
        self._vcpu = vcpu
        self._cpu = cpu
        self._slots = vcpu.vm.memory
        self._mm = vcpu.vm.mm
        self._local = self._mm.pid == os.getpid()
        self._seen = -1  #: the slots' generation
        self._mapped: dict[int, int] = {}  #: address -> size, as mapped in the engine
        self._copies: dict[int, _Copy] = {}  #: by guest address of the page
        self._direct: list[tuple[int, int]] = []  #: (user address, size) of our own memory that the engine reads
        self._shared: list[mmap.mmap] = []
        self._logged: set[int] = set()  #: pages of logging slots that are mapped for writing

    def enter(self) -> None:
        """Userspace had its turn: look whether all that is mapped is still there, and what it has written."""
        if self.changed or self._lost():
            self._remap()  # what was unmapped meanwhile will fault
        if self._copies:
            self.refresh()

    def _lost(self) -> bool:
        """Whether memory of our own process that the engine reads is not mapped any more."""
        return any(_msync(address, size, _MS_ASYNC) for address, size in self._direct)

    @property
    def changed(self) -> bool:
        """Whether memory slots were set since."""
        return self._seen != self._slots.generation

    # -- whole stretches --------------------------------------------------------------------------------------

    def _remap(self) -> None:
        self.flush()
        for address in tuple(self._mapped):
            self._unmap(address)
        self._copies.clear()
        self._direct.clear()
        self._shared.clear()
        self._seen = self._slots.generation
        vmas = list(self._mm.vmas())
        for slot in self._slots:
            if not slot.logs_dirty:
                for vma in vmas:
                    self._map_stretch(slot, vma)

    def _map_stretch(self, slot: Slot, vma: Vma) -> None:
        start, end = max(slot.hva, vma.start), min(slot.hva + slot.size, vma.end)
        if start >= end or not vma.readable or self._is_device(vma):
            return
        write = vma.writable and not slot.readonly
        gpa = slot.gpa + start - slot.hva
        if gpa + end - start > self._cpu.memory_end:
            return
        if self._local:
            self._map(gpa, end - start, start, write=write)
            self._direct.append((start, end - start))
            return
        shared = share(self._mm.pid, vma, start, end - start)
        if shared is not None:
            self._shared.append(shared)
            self._map(gpa, end - start, address_of(shared), write=write)

    def _is_device(self, vma: Vma) -> bool:
        file = self._vcpu.host.inodes.get((vma.device, vma.inode))
        return file is not None and file.is_device_memory

    def _map(self, gpa: int, size: int, host: int, *, write: bool) -> None:
        self._cpu.map(gpa, size, host, write=write)
        self._mapped[gpa] = size

    def _unmap(self, gpa: int) -> None:
        self._cpu.unmap(gpa, self._mapped.pop(gpa))

    # -- faults -----------------------------------------------------------------------------------------------

    def fault(self, gpa: int, *, write: bool) -> bool:
        """The guest touched what is not mapped, or not for writing. True: now it is, the access can be done again.

        False: there is no memory for it (no slot, a device, or read-only). EFAULT: there is a slot, but the user's
        mapping behind it is gone, or not writable.
        """
        slot = self._slots.find(gpa)
        if slot is None or (write and slot.readonly) or self._vcpu.bus.is_device(gpa):
            return False
        page = gpa - gpa % PAGE_SIZE
        if page >= self._cpu.memory_end:
            raise KernelError(errno.EFAULT, f"guest page {page:#x} is beyond what the engine can have")
        hva = slot.hva + page - slot.gpa
        vma = self._mm.find_vma(hva)
        if vma is None or not vma.readable or (write and not vma.writable):
            raise KernelError(errno.EFAULT, f"guest page {page:#x} is at {hva:#x}, which is not mapped")
        if self._mapped.get(page) == PAGE_SIZE:
            self._unmap(page)
        elif any(at <= page < at + size for at, size in self._mapped.items()):
            self._remap()  # the user has changed mappings since they were looked at
            return True
        self._map_page(slot, page, hva, write=write)
        return True

    def _map_page(self, slot: Slot, page: int, hva: int, *, write: bool) -> None:
        if self._local:
            self._map(page, PAGE_SIZE, hva, write=write)
            if (hva, PAGE_SIZE) not in self._direct:
                self._direct.append((hva, PAGE_SIZE))
        else:
            copy = self._copies.get(page)
            if copy is None:
                copy = self._copies[page] = _Copy(hva, bytes(self._mm.read(hva, PAGE_SIZE)))
            self._map(page, PAGE_SIZE, address_of(copy.buffer), write=write)
        if write and slot.logs_dirty:
            self._slots.mark_dirty(slot, page)
            self._logged.add(page)

    # -- coherence --------------------------------------------------------------------------------------------

    @property
    def by_pages(self) -> bool:
        """Whether there are pages to `flush`, and perhaps to `refresh`."""
        return bool(self._copies or self._logged)

    def flush(self) -> None:
        """What the guest wrote is in the user's memory; and the next write to a logged page will be noticed."""
        for copy in self._copies.values():
            data = copy.buffer[:]
            if data != copy.twin:
                self._write_back(copy, data)
        for page in self._logged & self._mapped.keys():
            self._unmap(page)
        self._logged.clear()

    def _write_back(self, copy: _Copy, data: bytes) -> None:
        """Byte by byte what differs: others may have written the rest."""
        at, twin = 0, copy.twin
        copy.twin = data
        while at < PAGE_SIZE:
            end = at
            while end < PAGE_SIZE and data[end] != twin[end]:
                end += 1
            if end > at:
                self._mm.write(copy.hva + at, data[at:end])
            at = end + 1

    def refresh(self) -> None:
        """Take in what others wrote to copied pages; after `flush`."""
        if len(self._copies) > _MOST_COPIES:
            for page in self._copies.keys() & self._mapped.keys():
                self._unmap(page)
            self._copies.clear()
        for page, copy in tuple(self._copies.items()):
            try:
                data = bytes(self._mm.read(copy.hva, PAGE_SIZE))
            except KernelError:  # it is unmapped: the guest's next touch is what fails
                if page in self._mapped:
                    self._unmap(page)
                del self._copies[page]
                continue
            if data != copy.twin:
                copy.twin = data
                copy.buffer[:] = data
                self._cpu.forget_code(page, page + PAGE_SIZE)
