"""Machine code in KVM_RUN: the guest's memory is the user's, and what happens where the user has none."""

from __future__ import annotations

import errno
import mmap
import os

import machine_code as guest
import pytest
from machine_rig import MAILBOX, PC, RAM, Machine

from kvmvfio_emu import uapi

OTHER = 0x5000_0000


def test_stores_are_in_the_users_memory_and_in_the_dirty_log(machine: Machine) -> None:
    memory = mmap.mmap(-1, 0x4000)
    machine.slot(1, OTHER, 0x4000, memory, uapi.KVM_MEM_LOG_DIRTY_PAGES)
    machine.code(guest.STORE)
    for page in (2, 2, 0):
        machine.put(PC, RAM)
        machine.x(x0=OTHER + page * 0x1000, x1=0xABCD, x9=MAILBOX)
        _run_to_mailbox(machine)
        assert memory[page * 0x1000 : page * 0x1000 + 4] == b"\xcd\xab\0\0"
        assert _dirty(machine) == 1 << page
        assert _dirty(machine) == 0


def _run_to_mailbox(machine: Machine) -> None:
    while machine.written()[0] != MAILBOX:
        pass
    machine.runs[0].immediate_exit = 1  # complete that store, so that the next program starts where it is put
    with pytest.raises(InterruptedError):
        machine.run()
    machine.runs[0].immediate_exit = 0


def _dirty(machine: Machine) -> int:
    bitmap = bytearray(8)
    address = uapi.address(bitmap)
    machine.client.call(machine.vm, uapi.KVM_GET_DIRTY_LOG, "kvm_dirty_log", slot=1, padding2=address)
    return int.from_bytes(bitmap, "little")


def test_a_store_to_a_read_only_slot_exits(machine: Machine) -> None:
    memory = mmap.mmap(-1, 0x1000)
    memory[:4] = b"\x78\x56\x34\x12"
    machine.slot(1, OTHER, 0x1000, memory, uapi.KVM_MEM_READONLY)
    machine.code(guest.STORE)
    machine.x(x0=OTHER, x1=9, x9=MAILBOX)
    assert machine.written() == (OTHER, 4, 9)
    assert machine.written() == (MAILBOX, 4, 9)
    assert memory[:4] == b"\x78\x56\x34\x12"
    machine.code(guest.LOAD, RAM + 0x100)
    machine.put(PC, RAM + 0x100 - 4)
    assert machine.written() == (MAILBOX, 4, 0x12345678)


def test_unmapped_memory_under_a_slot_is_efault(machine: Machine) -> None:
    memory = mmap.mmap(-1, 0x2000)
    machine.slot(1, OTHER, 0x2000, memory)
    machine.code(guest.LOAD)
    machine.x(x0=OTHER + 0x1000, x9=MAILBOX)
    assert machine.written() == (MAILBOX, 4, 0)
    memory.close()
    machine.put(PC, RAM - 4)
    with pytest.raises(OSError, match=os.strerror(errno.EFAULT)):
        machine.run()


def test_slots_may_change_between_runs(machine: Machine) -> None:
    one, two = mmap.mmap(-1, 0x1000), mmap.mmap(-1, 0x1000)
    one[0], two[0] = 1, 2
    machine.code(guest.LOAD)
    machine.x(x0=OTHER, x9=MAILBOX)
    machine.slot(1, OTHER, 0x1000, one)
    assert machine.written() == (MAILBOX, 4, 1)
    machine.slot(1, OTHER, 0, one)
    machine.slot(1, OTHER, 0x1000, two)
    machine.put(PC, RAM - 4)
    assert machine.written() == (MAILBOX, 4, 2)
    machine.slot(1, OTHER, 0, two)
    machine.put(PC, RAM - 4)
    assert machine.read(3) == (OTHER, 4)
    assert machine.written() == (MAILBOX, 4, 3)


def test_the_guest_writes_its_own_code(machine: Machine) -> None:
    machine.code(guest.MODIFY)
    machine.code(guest.RETURN, RAM + 0x100)
    machine.x(x0=RAM + 0x100, x1=guest.SEVEN[0], x9=MAILBOX)
    assert machine.written() == (MAILBOX, 8, 7)


def test_userspace_loads_another_program(machine: Machine) -> None:
    machine.code(guest.LOAD)
    machine.x(x0=MAILBOX, x1=5, x9=MAILBOX + 8)
    assert machine.read(1) == (MAILBOX, 4)
    machine.code(guest.STORE)
    machine.put(PC, RAM - 4)
    machine.x(x1=6)
    assert machine.written()[0] == MAILBOX
