"""KVM_SET_USER_MEMORY_REGION and KVM_GET_DIRTY_LOG. Contract 5.4, the oracle's mem/* answers."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import BAD_POINTERS, Client, Edge

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, write
from kvmvfio_emu.guest.script import Routine

PAGE = mmap.PAGESIZE
HVA = 0x10000  # nothing needs to be there
BASE = 0x40000000
LOG, READONLY = uapi.KVM_MEM_LOG_DIRTY_PAGES, uapi.KVM_MEM_READONLY
REGION = "kvm_userspace_memory_region"


@pytest.fixture
def slot(client: Client, vm: int) -> Callable[..., None]:
    """Sets a slot of ``vm``: by default number 0, 64 KiB at 1 GiB."""

    def slot(number: int = 0, gpa: int = BASE, size: int = 0x10000, hva: int = HVA, flags: int = 0) -> None:
        fields = {
            "slot": number,
            "flags": flags,
            "guest_phys_addr": gpa,
            "memory_size": size,
            "userspace_addr": hva,
        }
        client.call(vm, uapi.KVM_SET_USER_MEMORY_REGION, REGION, **fields)

    return slot


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_argument_is_efault(client: Client, vm: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, vm, uapi.KVM_SET_USER_MEMORY_REGION, pointer)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 0x1001},
        {"size": 1},
        {"gpa": BASE + 0x10},
        {"hva": HVA + 0x10},
        {"hva": 0x8000000000000000},
        {"hva": 0xFFFFFFFFFFFFF000},
        {"hva": (1 << 47) - 0x1000},
        {"gpa": 0xFFFFFFFFFFFFF000, "size": 0x2000},
        {"gpa": 0xFFFFFFFFFFFFF000, "size": 0x1000},
        {"size": 1 << 43},
        {"number": 32},
        {"number": 0x10000},
        {"number": 0xFFFFFFFF},
        {"flags": 4},
        {"flags": 0x10},
        {"flags": 0x80},
        {"flags": 0x80000000},
        {"size": 0},
    ],
    ids=lambda fields: "-".join(f"{key}={value:#x}" for key, value in fields.items()),
)
def test_bad_region_is_einval(client: Client, slot: Callable[..., None], fields: dict[str, int]) -> None:
    client.refused("EINVAL", slot, **fields)


@pytest.mark.parametrize(("gpa", "size"), [(1 << 52, PAGE), (1 << 40, PAGE), ((1 << 40) - PAGE, 2 * PAGE)])
def test_beyond_the_40_bit_physical_space_is_efault(
    client: Client, slot: Callable[..., None], gpa: int, size: int
) -> None:
    client.refused("EFAULT", slot, gpa=gpa, size=size)
    slot(gpa=(1 << 40) - PAGE, size=PAGE)


@pytest.mark.parametrize(
    ("gpa", "size"),
    [(BASE, PAGE), (BASE + 0x8000, 0x10000), (BASE - PAGE, 2 * PAGE), (BASE - PAGE, 0x20000), (BASE + 0xF000, PAGE)],
)
def test_overlap_of_two_slots_is_eexist(client: Client, slot: Callable[..., None], gpa: int, size: int) -> None:
    slot(0)
    client.refused("EEXIST", slot, 1, gpa=gpa, size=size)


@pytest.mark.parametrize("gpa", [BASE + 0x10000, BASE - 0x10000])
def test_neighbours_do_not_overlap(slot: Callable[..., None], gpa: int) -> None:
    slot(0)
    slot(1, gpa=gpa)


@pytest.mark.parametrize("change", [{"size": 0x8000}, {"hva": HVA + 0x10000}, {"flags": READONLY}], ids=str)
def test_slot_that_is_set_cannot_change_so_einval(
    client: Client, slot: Callable[..., None], change: dict[str, int]
) -> None:
    slot()
    client.refused("EINVAL", slot, **change)


def test_readonly_cannot_be_taken_back_so_einval(client: Client, slot: Callable[..., None]) -> None:
    slot(flags=READONLY)
    client.refused("EINVAL", slot)


def test_slot_can_be_set_again_moved_and_logged(slot: Callable[..., None]) -> None:
    slot()
    slot()
    slot(gpa=0x50000000)
    slot(gpa=0x50000000, flags=LOG)
    slot()


def test_move_onto_another_slot_is_eexist(client: Client, slot: Callable[..., None]) -> None:
    slot(0)
    slot(1, gpa=0x50000000)
    client.refused("EEXIST", slot, 1, gpa=BASE)


def test_delete_and_delete_again_is_einval(client: Client, slot: Callable[..., None]) -> None:
    before = client.state()
    slot()
    slot(gpa=0, size=0, hva=0)
    assert client.state() == before
    client.refused("EINVAL", slot, gpa=0, size=0, hva=0)


def test_last_slot(slot: Callable[..., None]) -> None:
    slot(31)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), st.integers(0, 3)), max_size=12))
def test_slots_never_overlap(
    client: Client, vm: int, slot: Callable[..., None], steps: list[tuple[int, int, int]]
) -> None:
    for number, gpa, size in steps:
        with suppress(OSError):
            slot(number, gpa=gpa * PAGE, size=size * PAGE)
    taken = [
        page
        for one in client.host.modules["kvm"].vms[0].memory._slots.values()
        for page in range(one.gpa, one.gpa + one.size, PAGE)
    ]
    assert len(taken) == len(set(taken))


# -- the dirty log -------------------------------------------------------------------------------------------------


def _dirty(client: Client, vm: int, slot: int, bitmap: int) -> None:
    log = uapi.pack("struct kvm_dirty_log", slot=slot)
    uapi.view("struct kvm_dirty_log", log).dirty_bitmap = uapi.ffi.cast("void *", bitmap)
    client.ioctl(vm, uapi.KVM_GET_DIRTY_LOG, log)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_dirty_log_with_a_wild_argument_is_efault(client: Client, vm: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, vm, uapi.KVM_GET_DIRTY_LOG, pointer)


@pytest.mark.parametrize("number", [32, 0xFFFFFFFF])
def test_dirty_log_of_a_slot_that_cannot_be_is_einval(client: Client, vm: int, number: int) -> None:
    client.refused("EINVAL", _dirty, client, vm, number, 0)


def test_dirty_log_without_slot_or_flag_is_enoent(client: Client, vm: int, slot: Callable[..., None]) -> None:
    slot(0)
    client.refused("ENOENT", _dirty, client, vm, 0, 0)
    client.refused("ENOENT", _dirty, client, vm, 1, 0)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_dirty_log_to_a_wild_bitmap_is_efault(client: Client, vm: int, slot: Callable[..., None], pointer: int) -> None:
    slot(flags=LOG)
    client.refused("EFAULT", _dirty, client, vm, 0, pointer)


def test_dirty_log_names_the_pages_once(client: Client, vm: int, slot: Callable[..., None]) -> None:
    def main(cpu: Cpu) -> Routine:
        yield write(BASE + 3 * PAGE, 1)
        yield write(BASE + 0xF000, 2)

    memory = mmap.mmap(-1, 0x10000)
    hva = int(uapi.ffi.cast("uintptr_t", uapi.ffi.from_buffer(memory)))
    slot(hva=hva, flags=LOG)
    client.kernel.attach_guest(0, Script(main))
    client.ioctl(client.vcpu(vm, init=True), uapi.KVM_RUN)
    edge = Edge()
    address = edge.put(bytes(8))
    for expected in (1 << 3 | 1 << 15, 0):
        _dirty(client, vm, 0, address)
        assert client.host.current.copy_from_user(address, 8) == expected.to_bytes(8, "little")
    client.refused("EFAULT", _dirty, client, vm, 0, address + 1)
