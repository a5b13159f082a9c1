"""GRP_DIST_REGS and GRP_CPU_REGS of the VGICv2 of Linux 4.7 and later: which there are, reset values, effects."""

from __future__ import annotations

import errno

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modern import (
    CPENDSGIR,
    CTLR,
    ICACTIVER,
    ICENABLER,
    ICFGR,
    ICPENDR,
    IGROUPR,
    IIDR,
    IPRIORITYR,
    ISACTIVER,
    ISENABLER,
    ISPENDR,
    ITARGETSR,
    ONES,
    SGIR,
    SPENDSGIR,
    TYPER,
    Machine,
)
from support import CPU_REGS, CTRL, DIST_REGS, Client

#: (offset, length in bytes with 96 interrupts)
DIST_RANGES = [
    (CTLR, 12),
    *((register, 12) for register in (IGROUPR, ISENABLER, ICENABLER, ISPENDR, ICPENDR, ISACTIVER, ICACTIVER)),
    (IPRIORITYR, 96),
    (ITARGETSR, 96),
    (ICFGR, 24),
    (SGIR, 4),
    (CPENDSGIR, 16),
    (SPENDSGIR, 16),
]
CPU_RANGES = [(0x00, 12), (0x1C, 4), (0xD0, 16), (0xFC, 4)]
GROUPS = pytest.mark.parametrize(("group", "ranges"), [(DIST_REGS, DIST_RANGES), (CPU_REGS, CPU_RANGES)])
KVM_IIDR = 0x4B00343B


def _has(machine: Machine, offset: int, group: int) -> bool:
    try:
        return machine.client.has(machine.fd, group, offset) == 0
    except OSError as refused:
        if refused.errno != errno.ENXIO:
            raise
        return False


# -- which there are -------------------------------------------------------------------------------------------------


@GROUPS
def test_has_knows_the_aligned_words_of_interrupts_that_exist(
    machine: Machine, group: int, ranges: list[tuple[int, int]]
) -> None:
    expected = {offset for base, length in ranges for offset in range(base, base + length, 4)}
    assert {offset for offset in range(0x1010) if _has(machine, offset, group)} == expected


def test_before_initialisation_has_knows_the_private_interrupts_alone(modern: Client) -> None:
    vm = modern.vm()
    modern.vcpu(vm)
    vgic = modern.vgic(vm)
    for offset in (CTLR, IGROUPR, ISENABLER, IPRIORITYR + 28, ITARGETSR + 28, ICFGR + 4, SGIR):
        assert modern.has(vgic, DIST_REGS, offset) == 0
    for offset in (IGROUPR + 4, ISENABLER + 4, IPRIORITYR + 32, ITARGETSR + 32, ICFGR + 8):
        modern.refused("ENXIO", modern.has, vgic, DIST_REGS, offset)
    modern.set_at(vgic, CTRL, 0, 0)
    assert modern.has(vgic, DIST_REGS, ICFGR + 8) == 0


@GROUPS
def test_what_has_does_not_know_reads_as_zero_and_ignores_writes(
    machine: Machine, group: int, ranges: list[tuple[int, int]]
) -> None:
    known = {offset for base, length in ranges for offset in range(base, base + length, 4)}
    before = [machine.get(offset, 0, group) for offset in sorted(known)]
    for offset in (*range(0x1010), 0x1000, 0x6100, 0xFFE8, 0xFFFFFFFC, 0xFFFFFFFF):
        if offset not in known:
            machine.set(offset, ONES, 0, group)
            assert machine.get(offset, 0, group) == 0, hex(offset)
    assert [machine.get(offset, 0, group) for offset in sorted(known)] == before


# -- the distributor -------------------------------------------------------------------------------------------------

RESET = [
    (CTLR, 0, 0),
    (TYPER, 0x22, 0x22),
    (IIDR, KVM_IIDR, KVM_IIDR),
    (IGROUPR, 0, 0),
    (IGROUPR + 8, 0, 0),
    (ISENABLER, 0xFFFF, 0xFFFF),
    (ICENABLER, 0xFFFF, 0xFFFF),
    (ISENABLER + 4, 0, 0),
    (ISPENDR, 0, 0),
    (ISACTIVER, 0, 0),
    (ICACTIVER + 4, 0, 0),
    (IPRIORITYR, 0, 0),
    (IPRIORITYR + 32, 0, 0),
    (ITARGETSR, 0x01010101, 0x02020202),
    (ITARGETSR + 28, 0x01010101, 0x02020202),
    (ITARGETSR + 32, 0, 0),
    (ICFGR, 0xAAAAAAAA, 0xAAAAAAAA),
    (ICFGR + 4, 0, 0),
    (ICFGR + 8, 0xAAAAAAAA, 0xAAAAAAAA),
    (ICFGR + 20, 0xAAAAAAAA, 0xAAAAAAAA),
    (SGIR, 0, 0),
    (CPENDSGIR, 0, 0),
    (SPENDSGIR + 12, 0, 0),
]


@pytest.mark.parametrize(("offset", "first", "second"), RESET)
def test_reset_value(machine: Machine, offset: int, first: int, second: int) -> None:
    assert (machine.get(offset, 0), machine.get(offset, 1)) == (first, second)


def test_ctlr_has_one_bit(machine: Machine) -> None:
    for value in (ONES, 0xFFFFFFFE, 3, 2, 1):
        machine.set(CTLR, value)
        assert machine.get(CTLR) == value & 1


def test_typer_ignores_writes(machine: Machine) -> None:
    machine.set(TYPER, ONES)
    assert machine.get(TYPER) == 0x22


@pytest.mark.parametrize("value", [0, ONES, KVM_IIDR ^ 1, KVM_IIDR ^ 1 << 16, KVM_IIDR ^ 1 << 31, 0x43B])
def test_the_iidr_of_another_implementation_is_einval(machine: Machine, value: int) -> None:
    machine.client.refused("EINVAL", machine.set, IIDR, value)
    assert machine.get(IIDR) == KVM_IIDR


@pytest.mark.parametrize("revision", range(16))
def test_any_revision_of_the_own_iidr_is_taken_and_changes_nothing(machine: Machine, revision: int) -> None:
    machine.set(IIDR, KVM_IIDR & ~0xF000 | revision << 12)
    assert machine.get(IIDR) == KVM_IIDR


def test_groups_are_the_users_once_it_wrote_the_iidr(machine: Machine) -> None:
    for word in range(3):
        machine.set(IGROUPR + 4 * word, ONES)
        assert machine.get(IGROUPR + 4 * word) == 0
    machine.set(IIDR, machine.get(IIDR))
    for word in range(3):
        machine.set(IGROUPR + 4 * word, 0xA5A50000 + word)
        assert machine.get(IGROUPR + 4 * word) == 0xA5A50000 + word
    assert machine.get(IGROUPR, 1) == 0


@pytest.mark.parametrize(("setting", "clearing"), [(ISENABLER, ICENABLER), (ISACTIVER, ICACTIVER)])
@pytest.mark.parametrize("word", [0, 4, 8])
def test_set_and_clear_registers_read_alike_and_take_ones_alone(
    machine: Machine, setting: int, clearing: int, word: int
) -> None:
    machine.set(clearing + word, ONES)
    for value in (0x55555555, 0, 0x80000001):
        machine.set(setting + word, value)
    machine.set(clearing + word, 0x10)
    machine.set(clearing + word, 0)
    assert machine.get(setting + word) == machine.get(clearing + word) == (0x55555555 | 0x80000001) & ~0x10


@pytest.mark.parametrize("word", [4, 8])
def test_pending_latches_of_edge_interrupts(machine: Machine, word: int) -> None:
    machine.set(ISPENDR + word, 0xF0)
    machine.set(ICPENDR + word, 0x30)
    assert machine.get(ISPENDR + word) == machine.get(ICPENDR + word) == 0xC0


def test_private_registers_are_each_vcpus_own(machine: Machine) -> None:
    for register in (ISENABLER, ISPENDR, ISACTIVER, IPRIORITYR):
        machine.set(register, 0xF0F00000, 1)
        assert machine.get(register, 1) & 0xF0F00000 == 0xF0F00000
        assert machine.get(register, 0) & 0xF0F00000 == 0


def test_sgis_of_userspace_come_from_the_vcpu_itself(machine: Machine) -> None:
    machine.set(ISPENDR, 1 << 3, 1)
    assert machine.get(SPENDSGIR, 1) == machine.get(CPENDSGIR, 1) == 2 << 24
    machine.set(SPENDSGIR, 4 << 24, 1)
    machine.set(ICPENDR, 1 << 3, 1)  # all of its sources
    assert (machine.get(SPENDSGIR, 1), machine.get(ISPENDR, 1)) == (0, 0)


def test_sgi_sources_make_and_end_pending(machine: Machine) -> None:
    machine.set(SPENDSGIR + 4, 0x00000300)
    assert machine.get(ISPENDR) == 1 << 5
    machine.set(CPENDSGIR + 4, 0x00000100)
    assert (machine.get(CPENDSGIR + 4), machine.get(ISPENDR)) == (0x0200, 1 << 5)
    machine.set(CPENDSGIR + 4, 0x0000FF00)
    assert (machine.get(CPENDSGIR + 4), machine.get(ISPENDR)) == (0, 0)


@given(st.integers(0, 95), st.integers(0, 255))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_priorities_keep_five_bits(machine: Machine, irq: int, priority: int) -> None:
    machine.set(IPRIORITYR + irq // 4 * 4, priority << irq % 4 * 8)
    assert machine.get(IPRIORITYR + irq // 4 * 4) == (priority & 0xF8) << irq % 4 * 8


def test_targets_are_those_vcpus_that_exist(machine: Machine) -> None:
    machine.set(ITARGETSR + 32, 0xFF02A500)
    assert machine.get(ITARGETSR + 32) == 0x03020100
    machine.set(ITARGETSR + 28, ONES)
    assert machine.get(ITARGETSR + 28) == 0x01010101


def test_configuration_is_fixed_for_private_interrupts_and_the_upper_bit_counts(machine: Machine) -> None:
    for offset, fixed in ((ICFGR, 0xAAAAAAAA), (ICFGR + 4, 0)):
        for value in (0, ONES):
            machine.set(offset, value)
            assert machine.get(offset) == fixed
    machine.set(ICFGR + 8, 0x0F5A0F5A)
    assert machine.get(ICFGR + 8) == 0x0A0A0A0A


# -- the CPU interface -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "mask"), [(0x00, 0x21F), (0x04, 0x1F), (0x08, 7), (0x1C, 7), (0xD0, ONES), (0xD4, 0), (0xDC, 0)]
)
@pytest.mark.parametrize("value", [ONES, 0x55555555, 0xA5A5A5A5, 0])
def test_saved_cpu_register(machine: Machine, offset: int, mask: int, value: int) -> None:
    assert machine.get(offset, 1, CPU_REGS) == 0
    machine.set(offset, value, 1, CPU_REGS)
    assert machine.get(offset, 1, CPU_REGS) == value & mask
    assert machine.get(offset, 0, CPU_REGS) == 0


def test_saved_iidr_is_kvms_and_read_only(machine: Machine) -> None:
    machine.set(0xFC, 0, 0, CPU_REGS)
    assert machine.get(0xFC, 0, CPU_REGS) == 0x4B2043B


# -- anything --------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from([DIST_REGS, CPU_REGS]),
            st.integers(0, 0x3FF).map(lambda word: 4 * word),
            st.integers(0, 1),
            st.integers(0, ONES),
        ),
        max_size=30,
    )
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_writes_keep_the_vgic_sound(machine: Machine, writes: list[tuple[int, int, int, int]]) -> None:
    for group, offset, cpu, value in writes:
        if (group, offset) != (DIST_REGS, IIDR):
            machine.set(offset, value, cpu, group)
            machine.client.kernel.check()
    machine.guest.do()
    machine.client.kernel.check()
