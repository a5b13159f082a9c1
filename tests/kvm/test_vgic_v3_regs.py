"""DIST_REGS, REDIST_REGS and LEVEL_INFO of a VGICv3: every register as userspace saves and restores it."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from gicv3_rig import DIST, DIST_BASE, LEVEL, REDIST_REGS, REGION, Machine, boot_v3, region
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ADDR, BAD_POINTERS, CPU_REGS, CTRL, DIST_REGS, NR_IRQS, Client

from kvmvfio_emu import uapi

FRESH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
WORD = st.integers(0, 0xFFFFFFFF)
ALL = 0xFFFFFFFF
#: What is where with 96 interrupts: (first offset, bytes).
DIST_RANGES = [
    (0x0, 0x14),
    *((start, 12) for start in (0x80, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0xD00)),
    *((start, 96) for start in (0x400, 0x800)),
    (0xC00, 24),
    (0x6000, 96 * 8),
    (0xFFD0, 48),
]
REDIST_RANGES = [
    (0x0, 0x18),
    (0x70, 16),
    (0xA0, 8),
    (0xB0, 8),
    (0xC0, 4),
    (0xFFD0, 48),
    *((0x10000 + start, 4) for start in (0x80, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0xD00, 0xE00)),
    (0x10400, 32),
    (0x10C00, 8),
]


def offsets(ranges: list[tuple[int, int]]) -> set[int]:
    return {offset for start, length in ranges for offset in range(start, start + length, 4)}


@pytest.fixture
def client(boot: Callable[..., Client]) -> Client:
    return boot_v3(boot)


@pytest.fixture
def machine(client: Client) -> Machine:
    """Two vCPUs, 96 interrupts, initialised."""
    machine = Machine(client, 2, ready=False)
    machine.place()
    client.set_u32(machine.gic, NR_IRQS, 0, 96)
    machine.init()
    return machine


def has(machine: Machine, group: int, attr: int) -> bool:
    try:
        machine.client.has(machine.gic, group, attr)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


# -- which registers there are ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "ranges", "end"),
    [(DIST_REGS, DIST_RANGES, 0x10010), (REDIST_REGS, REDIST_RANGES, 0x20010)],
)
def test_map_of_the_frames(machine: Machine, group: int, ranges: list[tuple[int, int]], end: int) -> None:
    device = machine.model.devices[0]
    attr = uapi.view("struct kvm_device_attr", uapi.pack("struct kvm_device_attr", group=group))
    found = set()
    for offset in range(0, end, 4):
        attr.attr = offset
        if device.has_encoded(device.declared(attr), attr):
            found.add(offset)
    assert found == offsets(ranges)


@pytest.mark.parametrize("group", [DIST_REGS, REDIST_REGS])
@pytest.mark.parametrize("offset", [1, 2, 3, 0x102, 0x10081])
def test_misaligned_registers_are_not_there_but_accesses_are_fine(machine: Machine, group: int, offset: int) -> None:
    assert not has(machine, group, offset)
    assert machine.client.get(machine.gic, group, offset) == 0
    assert machine.client.set_u32(machine.gic, group, offset, ALL) == 0


def test_no_register_reads_as_zero_and_ignores_writes(machine: Machine) -> None:
    for offset in (0x40, 0x8C, 0x460, 0xFCC, 0x1000, 0x20000):
        machine.dist(offset, ALL)
        assert machine.dist(offset) == 0


def test_groups_of_the_gicv2_and_unknown_ones_are_enxio(machine: Machine) -> None:
    for group in (CPU_REGS, 8, 9, 10):
        assert not has(machine, group, 0)
        machine.client.refused("ENXIO", machine.client.get, machine.gic, group, 0)
        machine.client.refused("ENXIO", machine.client.set_u32, machine.gic, group, 0, 0)
    machine.client.refused("ENXIO", machine.client.get, machine.gic, CTRL, 0)


# -- vCPUs ------------------------------------------------------------------------------------------------------------


def test_distributor_takes_any_affinity_and_needs_a_vcpu(client: Client) -> None:
    machine = Machine(client, 0)
    for group in (DIST_REGS, REDIST_REGS, uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS):
        client.refused("EINVAL", client.has, machine.gic, group, 0)
        client.refused("EINVAL", client.get, machine.gic, group, 0)
        client.refused("EINVAL", client.set_at, machine.gic, group, 0, 0)
    client.refused("EINVAL", client.get, machine.gic, LEVEL, 0)
    assert has(machine, LEVEL, 0)
    other = Machine(client, 1)
    assert client.get(other.gic, DIST_REGS, 0x1234 << 32) == 0x50


@pytest.mark.parametrize("affinity", [2, 0x100, 0x10000, 0x1000000, ALL])
def test_redistributor_of_no_vcpu_is_einval_before_the_pointer(machine: Machine, affinity: int) -> None:
    for group in (REDIST_REGS, LEVEL):
        machine.client.refused("EINVAL", machine.client.get, machine.gic, group, affinity << 32)
        machine.client.refused("EINVAL", machine.client.set_at, machine.gic, group, affinity << 32, 0)


@pytest.mark.parametrize(("number", "affinity"), [(15, 15), (16, 0x100), (33, 0x201), (511, 0x1F0F)])
def test_affinity_of_a_vcpu_comes_from_its_number(client: Client, number: int, affinity: int) -> None:
    machine = Machine(client, 1, ready=False)
    client.vcpu(machine.vm, number, init=True)
    machine.place()
    machine.init()
    assert machine.redist(0x8, affinity=affinity) == number << 8 | 0x10
    assert machine.redist(0xC, affinity=affinity) == affinity


def test_vcpus_that_were_not_initialised_all_have_affinity_0(client: Client) -> None:
    machine = Machine(client, 2, init=False)
    assert machine.redist(0x8) == 0
    client.refused("EINVAL", machine.redist, 0x8, affinity=1)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
@pytest.mark.parametrize("group", [DIST_REGS, REDIST_REGS, LEVEL])
def test_wild_pointers(machine: Machine, group: int, pointer: int) -> None:
    machine.client.refused("EFAULT", machine.client.get_at, machine.gic, group, 0, pointer)
    machine.client.refused("EFAULT", machine.client.set_at, machine.gic, group, 0, pointer)


def test_wild_pointer_of_a_write_comes_before_initialisation(client: Client) -> None:
    machine = Machine(client, 1, ready=False)
    client.refused("EFAULT", client.set_at, machine.gic, DIST_REGS, 0, 0)
    client.refused("EBUSY", client.set_u32, machine.gic, DIST_REGS, 0, 0)
    client.refused("EBUSY", client.get_at, machine.gic, DIST_REGS, 0, 0)


# -- identification and control ---------------------------------------------------------------------------------------


def test_reset_values(machine: Machine) -> None:
    expected = {0x0: 0x50, 0x4: 0x480002, 0x8: 0x4B00343B, 0xC: 0, 0x10: ALL, 0xFFE8: 0x3B, 0xFFD0: 0}
    assert {offset: machine.dist(offset) for offset in expected} == expected
    expected = {0x0: 6, 0x4: 0x4B00043B, 0x8: 0x0, 0xC: 0, 0x10: 0, 0x14: 0, 0x70: 0, 0x78: 0x580, 0xFFE8: 0x3B}
    expected |= {0x10080: ALL, 0x10100: 0xFFFF, 0x10200: 0, 0x10300: 0, 0x10400: 0, 0x10C00: 0xAAAAAAAA, 0x10C04: 0}
    assert {offset: machine.redist(offset) for offset in expected} == expected


def test_control_keeps_the_enable_bit_of_group_1(machine: Machine) -> None:
    machine.dist(0, ALL)
    assert machine.dist(0) == 0x52
    machine.dist(0, ~2 & ALL)
    assert machine.dist(0) == 0x50


@given(value=WORD)
@FRESH
def test_iidr_takes_its_own_value_in_any_revision(machine: Machine, value: int) -> None:
    if (value ^ 0x4B00343B) & ~0xF000:
        machine.client.refused("EINVAL", machine.dist, 8, value)
    machine.dist(8, 0x4B00043B | value & 0xF000)
    assert machine.dist(8) == 0x4B00343B


def test_typer2_takes_zero_only(machine: Machine) -> None:
    machine.dist(0xC, 0)
    machine.client.refused("EINVAL", machine.dist, 0xC, 1)


def test_typer_with_an_its_says_lpis(machine: Machine) -> None:
    machine.add_its()
    assert machine.dist(4) == (16 - 1) << 19 | 1 << 17 | 2
    assert machine.redist(0x8) == 1


# -- interrupts -------------------------------------------------------------------------------------------------------


@given(value=WORD, before=WORD)
@FRESH
def test_what_writes_do_to_shared_interrupts(machine: Machine, value: int, before: int) -> None:
    for setter, clearer in ((0x104, 0x184), (0x304, 0x384)):
        machine.dist(clearer, ALL)
        machine.dist(setter, before)
        machine.dist(setter, value)
        assert machine.dist(setter) == machine.dist(clearer) == before | value
        machine.dist(clearer, value)
        assert machine.dist(setter) == before & ~value
    machine.dist(0x204, before)
    machine.dist(0x204, value)
    assert machine.dist(0x204) == value
    machine.dist(0x284, ALL)
    assert (machine.dist(0x204), machine.dist(0x284)) == (value, 0)
    machine.dist(0x84, value)
    assert machine.dist(0x84) == value
    machine.dist(0x420, value)
    assert machine.dist(0x420) == value & 0xF8F8F8F8
    machine.dist(0xC08, value)
    assert machine.dist(0xC08) == value & 0xAAAAAAAA
    machine.dist(0x820, value)
    assert machine.dist(0x820) == 0


@given(value=WORD)
@FRESH
def test_private_interrupts_are_in_the_redistributor_only(machine: Machine, value: int) -> None:
    writable = {0x80: value, 0x200: value, 0x400: value & 0xF8F8F8F8, 0xC00: 0xAAAAAAAA, 0xC04: 0}
    for offset, expected in writable.items():
        machine.dist(offset, value)
        assert machine.dist(offset) == 0
        machine.redist(0x10000 + offset, value, affinity=1)
        assert machine.redist(0x10000 + offset, affinity=1) == expected
    assert machine.redist(0x10200) == 0
    machine.redist(0x10180, ALL)
    machine.redist(0x10100, value)
    assert machine.redist(0x10100) == machine.redist(0x10180) == value


@given(value=WORD, irq=st.integers(32, 95))
@FRESH
def test_router_keeps_three_levels_of_affinity(machine: Machine, value: int, irq: int) -> None:
    machine.dist(0x6000 + irq * 8, value)
    machine.dist(0x6004 + irq * 8, value)
    assert machine.dist(0x6000 + irq * 8) == value & 0xFFFFFF
    assert machine.dist(0x6004 + irq * 8) == 0
    target = machine.model.vgic.irq(None, irq).target
    assert (target and target.number) == {0: 0, 1: 1}.get(value & 0xFFFFFF)


def test_router_of_private_interrupts_is_not_there(machine: Machine) -> None:
    machine.dist(0x6000 + 31 * 8, 1)
    assert machine.dist(0x6000 + 31 * 8) == 0


# -- redistributor ----------------------------------------------------------------------------------------------------


def sanitised(value: int, zero: int) -> int:
    """Written down once more, by fields: inner cacheability 9:7, shareability 11:10, outer cacheability 58:56."""
    inner, share, outer = value >> 7 & 7, value >> 10 & 3, value >> 56 & 7
    inner = 3 if inner < 2 else inner
    share = 1 if share == 2 else share
    outer = 1 if outer == 1 else 0
    value &= ~(7 << 7 | 3 << 10 | 7 << 56 | zero)
    return value | inner << 7 | share << 10 | outer << 56


PROP_ZERO = sum(1 << bit for bit in (5, 6, *range(52, 56), *range(59, 64)))
PEND_ZERO = sum(1 << bit for bit in (*range(7), *range(12, 16), *range(52, 56), 59, 60, 61, 63))


@given(value=st.integers(0, (1 << 64) - 1))
@FRESH
def test_table_addresses_are_sanitised_at_every_half(machine: Machine, value: int) -> None:
    for offset, zero, hidden in ((0x70, PROP_ZERO, 0), (0x78, PEND_ZERO, 1 << 62)):
        machine.redist(offset, value & ALL)
        machine.redist(offset + 4, value >> 32)
        found = machine.redist(offset) | machine.redist(offset + 4) << 32
        assert found == sanitised(value, zero) & ~hidden


def test_property_table_is_common_and_the_pending_table_is_not(machine: Machine) -> None:
    machine.redist(0x70, 0x40000000)
    machine.redist(0x78, 0x40010000)
    assert machine.redist(0x70, affinity=1) == machine.redist(0x70) == 0x40000180
    assert (machine.redist(0x78), machine.redist(0x78, affinity=1)) == (0x40010180, 0x580)


def test_lpis_need_an_its_and_freeze_the_tables(machine: Machine) -> None:
    machine.redist(0, 1)
    assert machine.redist(0) == 6
    machine.add_its()
    machine.redist(0, 1)
    assert machine.redist(0) == 7
    before = machine.redist(0x70), machine.redist(0x78)
    machine.redist(0x70, 0x40000000)
    machine.redist(0x78, 0x40010000)
    assert (machine.redist(0x70), machine.redist(0x78)) == before
    machine.redist(0, 0)
    assert machine.redist(0) == 6


def test_last_redistributor_of_adjacent_regions(client: Client) -> None:
    machine = Machine(client, 4, ready=False)
    client.set_u64(machine.gic, ADDR, DIST, DIST_BASE)
    base = 0x0900_0000
    for index, (place, count) in enumerate([(base, 2), (base + 2 * 0x20000, 1), (base + 0x100000, 3)]):
        client.set_u64(machine.gic, ADDR, REGION, region(index, place, count))
    machine.init()
    assert [machine.redist(8, affinity=cpu) >> 4 & 1 for cpu in range(4)] == [0, 0, 1, 1]


# -- lines ------------------------------------------------------------------------------------------------------------


def test_lines_are_told_apart_from_latches(machine: Machine) -> None:
    machine.dist(0xC08, 0)
    machine.client.irq_line(machine.vm, 1, 33, 1)
    assert (machine.level(32), machine.dist(0x204)) == (2, 0)
    machine.level(32, 0x30)
    assert (machine.level(32), machine.dist(0x204)) == (0x30, 0)


@given(value=WORD)
@FRESH
def test_line_of_an_edge_interrupt_is_kept_but_not_shown(machine: Machine, value: int) -> None:
    machine.dist(0xC0C, 0x55555555 * 2)
    machine.level(32, value)
    assert machine.level(32) & 0xFFFF0000 == 0
    machine.dist(0xC0C, 0)
    assert machine.level(32) & 0xFFFF0000 == value & 0xFFFF0000


def test_lines_of_private_interrupts_are_the_vcpus_own(machine: Machine) -> None:
    machine.client.set_u32(machine.gic, LEVEL, 1 << 32, ALL)
    assert machine.level(0) == 0
    assert machine.client.get(machine.gic, LEVEL, 1 << 32) == 0xFFFF0000  # SGIs have no line


@pytest.mark.parametrize("attr", [1, 16, 31, 33, 1008, 1 << 10, 1 << 10 | 32, 0x3FFFFF << 10])
def test_lines_come_by_32_and_are_the_only_information(machine: Machine, attr: int) -> None:
    machine.client.refused("EINVAL", machine.client.get, machine.gic, LEVEL, attr)
    machine.client.refused("EINVAL", machine.client.set_u32, machine.gic, LEVEL, attr, 1)
    assert has(machine, LEVEL, attr) == (attr < 1 << 10)


def test_lines_beyond_the_last_interrupt_are_low(machine: Machine) -> None:
    machine.level(96, ALL)
    assert machine.level(96) == 0
