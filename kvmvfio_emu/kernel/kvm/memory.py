"""Memory slots: which guest physical addresses are which user addresses (virt/kvm/kvm_main.c)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.task import Task

PAGE_SIZE = 4096
PAGE_SHIFT = 12
#: Guest physical addresses have 40 bits unless KVM_CREATE_VM was asked for another size (stage-2 tables).
PHYS_BITS = 40
#: The end of user addresses, as access_ok sees it.
USER_END = 1 << 47
_MAX_PAGES = (1 << 31) - 1


class Slot(NamedTuple):
    """One memory slot; sizes and addresses in bytes."""

    number: int
    gpa: int
    size: int
    hva: int
    flags: int

    @property
    def readonly(self) -> bool:
        """Guest writes exit as MMIO."""
        return bool(self.flags & uapi.KVM_MEM_READONLY)

    @property
    def logs_dirty(self) -> bool:
        """The pages that the guest writes are noted."""
        return bool(self.flags & uapi.KVM_MEM_LOG_DIRTY_PAGES)

    @property
    def pages(self) -> int:
        """Its size in pages."""
        return self.size >> PAGE_SHIFT


class Memory:
    """The slots of one virtual machine. A refused change leaves them as they were."""

    def __init__(self, slots: int, phys_bits: int = PHYS_BITS, beyond: int = errno.EFAULT) -> None:
        self.phys_bits = phys_bits
        #: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, as enabled: reading the log leaves it, a new log starts all dirty.
        self.manual_protect = self.initially_set = False
        self.ring_size = 0  #: bytes of each vCPU's ring of dirty pages, in place of the slots' logs
        self._limit = slots
        self._beyond = beyond  #: the errno for memory beyond `phys_bits`
        self._slots: dict[int, Slot] = {}
        self._dirty: dict[int, set[int]] = {}
        #: Guest page -> what device the user mapped there, if any: the stage-2 table, forgotten with every change.
        self.stage2: dict[int, tuple[File, int] | None] = {}
        self.generation = 0  #: counts the changes

    def set_region(self, region: Any) -> None:
        """KVM_SET_USER_MEMORY_REGION with a ``struct kvm_userspace_memory_region``. EINVAL, EEXIST, EFAULT."""
        new = Slot(
            region.slot,
            region.guest_phys_addr,
            region.memory_size,
            region.userspace_addr,
            region.flags,
        )
        self._check_arguments(new)
        self.stage2.clear()
        self.generation += 1
        old = self._slots.get(new.number)
        if not new.size:
            if old is None:
                raise KernelError(errno.EINVAL, f"slot {new.number} does not exist, so it cannot be deleted")
            del self._slots[new.number]
            self._dirty.pop(new.number, None)
            return
        if old is not None:
            self._check_change(old, new)
        if old is None or old.gpa != new.gpa:
            for other in self._slots.values():
                overlaps = other.gpa < new.gpa + new.size and new.gpa < other.gpa + other.size
                if other.number != new.number and overlaps:
                    raise KernelError(errno.EEXIST, f"slot {new.number} overlaps slot {other.number}")
        if new.gpa + new.size > 1 << self.phys_bits:
            raise KernelError(self._beyond, f"guest memory beyond the {self.phys_bits}-bit physical space")
        self._slots[new.number] = new
        self._start_log(old, new)

    def _start_log(self, old: Slot | None, new: Slot) -> None:
        if not new.logs_dirty:
            self._dirty.pop(new.number, None)
        elif self.initially_set and (old is None or not old.logs_dirty):
            self._dirty[new.number] = set(range(new.pages))

    def _check_arguments(self, new: Slot) -> None:
        def need(condition: bool, reason: str) -> None:
            if not condition:
                raise KernelError(errno.EINVAL, reason)

        known = uapi.KVM_MEM_LOG_DIRTY_PAGES | uapi.KVM_MEM_READONLY
        need(not new.flags & ~known, f"unknown memory flags {new.flags & ~known:#x}")
        need(not new.size % PAGE_SIZE, "memory_size is not a multiple of the page size")
        need(not new.gpa % PAGE_SIZE, "guest_phys_addr is not page aligned")
        need(not new.hva % PAGE_SIZE, "userspace_addr is not page aligned")
        need(new.hva + new.size <= USER_END, "userspace_addr is not in user space")
        need(new.number < self._limit, f"slot {new.number}: there are {self._limit}")
        need(new.gpa + new.size < 1 << 64, "the guest range wraps")
        need(new.size >> PAGE_SHIFT <= _MAX_PAGES, "a slot has at most 2^31 - 1 pages")

    @staticmethod
    def _check_change(old: Slot, new: Slot) -> None:
        if new.hva != old.hva or new.size != old.size or new.readonly != old.readonly:
            raise KernelError(errno.EINVAL, "a slot's address, size and read-only flag cannot change; delete it first")

    def slot(self, number: int) -> Slot | None:
        """The slot with that number, if it is set."""
        return self._slots.get(number)

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    def find(self, gpa: int) -> Slot | None:
        """The slot that holds guest address ``gpa``, if any."""
        for slot in self._slots.values():
            if slot.gpa <= gpa < slot.gpa + slot.size:
                return slot
        return None

    # -- the dirty log ----------------------------------------------------------------------------------------

    def mark_dirty(self, slot: Slot, gpa: int) -> None:
        """The guest wrote to ``gpa`` in ``slot``."""
        if slot.logs_dirty:
            self._dirty.setdefault(slot.number, set()).add(gpa - slot.gpa >> PAGE_SHIFT)

    def enable_ring(self, size: int, largest: int, *, has_vcpus: bool) -> None:
        """KVM_CAP_DIRTY_LOG_RING: each vCPU gets a ring of ``size`` bytes in place of the slots' logs.

        EINVAL no power of two, less than a page, there is one already, or too late; E2BIG."""
        if size < PAGE_SIZE or size & size - 1:
            raise KernelError(errno.EINVAL, f"a ring of {size} bytes is no power of two of at least a page")
        if size > largest:
            raise KernelError(errno.E2BIG, f"a ring has at most {largest} bytes")
        if self.ring_size or has_vcpus:
            raise KernelError(errno.EINVAL, "the rings have their size already, or there are vCPUs")
        self.ring_size = size

    def _logged(self, number: int) -> Slot:
        """ENXIO dirty pages go to rings, EINVAL no such number, ENOENT no slot there or one that does not log."""
        if self.ring_size:
            raise KernelError(errno.ENXIO, "dirty pages are told by the vCPUs' rings")
        if number >= self._limit:
            raise KernelError(errno.EINVAL, f"slot {number}: there are {self._limit}")
        slot = self._slots.get(number)
        if slot is None or not slot.logs_dirty:
            raise KernelError(errno.ENOENT, f"slot {number} does not log dirty pages")
        return slot

    def read_log(self, number: int) -> bytes:
        """KVM_GET_DIRTY_LOG: the bitmap of pages written, whole 64-bit words, one bit a page. EINVAL, ENOENT.

        The log starts anew, unless the user clears it by hand.
        """
        slot = self._logged(number)
        bitmap = bytearray(-(-slot.pages // 64) * 8)
        for page in self._dirty.get(number, ()):
            bitmap[page >> 3] |= 1 << (page & 7)
        if not self.manual_protect:
            self._dirty.pop(number, None)
        return bytes(bitmap)

    def clear_log(self, log: Any, task: Task) -> None:
        """KVM_CLEAR_DIRTY_LOG with a ``struct kvm_clear_dirty_log``: forget those pages whose bits are set.

        EINVAL no such slot number, not whole words of pages (but for the slot's last), or pages beyond its end; ENOENT;
        EFAULT.
        """
        first, count = int(log.first_page), int(log.num_pages)
        if not self.ring_size and log.slot < self._limit and first % 64:
            raise KernelError(errno.EINVAL, f"the first page, {first}, does not start a word of the bitmap")
        slot = self._logged(log.slot)
        rest = slot.pages - first
        if rest < 0 or count > rest or (count < rest and count % 64):
            raise KernelError(errno.EINVAL, f"{count} pages from {first} of {slot.pages}: beyond, or no whole words")
        pointer = int(uapi.ffi.cast("uintptr_t", log.dirty_bitmap))
        bitmap = int.from_bytes(task.copy_from_user(pointer, -(-count // 64) * 8), "little")
        dirty = self._dirty.get(slot.number)
        if dirty is not None:
            dirty -= {page for page in dirty if 0 <= page - first < count and bitmap >> (page - first) & 1}

    def clear(self) -> None:
        """Drop all slots: the virtual machine goes away."""
        self._slots.clear()
        self.generation += 1
        self._dirty.clear()
