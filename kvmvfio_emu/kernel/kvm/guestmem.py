"""The host's own accesses to guest memory, by guest physical address (virt/kvm/kvm_main.c: kvm_read_guest)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.memory import PAGE_SIZE, Slot

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vm import Vm


def read_guest(vm: Vm, gpa: int, size: int) -> bytes:
    """``size`` bytes at ``gpa``. EFAULT where there is no memory slot, or the user's mapping behind it is gone."""
    return b"".join(bytes(vm.mm.read(slot.hva + at - slot.gpa, length)) for slot, at, length in _pages(vm, gpa, size))


def write_guest(vm: Vm, gpa: int, data: bytes) -> None:
    """Write ``data``. EFAULT as `read_guest`, or a read-only slot; the pages before it are written."""
    done = 0
    for slot, at, length in _pages(vm, gpa, len(data)):
        if slot.readonly:
            raise KernelError(errno.EFAULT, f"guest address {at:#x} is read-only")
        vm.mm.write(slot.hva + at - slot.gpa, data[done : done + length])
        vm.memory.mark_dirty(slot, at)
        done += length


def visible(vm: Vm, gpa: int) -> bool:
    """Whether there is a memory slot at ``gpa``; models kvm_is_visible_gfn."""
    return vm.memory.find(gpa) is not None


def _pages(vm: Vm, gpa: int, size: int) -> Iterator[tuple[Slot, int, int]]:
    while size:
        slot = vm.memory.find(gpa)
        if slot is None:
            raise KernelError(errno.EFAULT, f"no guest memory at {gpa:#x}")
        length = min(size, PAGE_SIZE - gpa % PAGE_SIZE)
        yield slot, gpa, length
        gpa, size = gpa + length, size - length
