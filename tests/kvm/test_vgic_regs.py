"""GRP_DIST_REGS and GRP_CPU_REGS: which registers there are, and what reading and writing each means. Contract 6.5."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import BAD_POINTERS, CPU_REGS, DIST_BASE, DIST_REGS, NR_IRQS, Client, Edge

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, wait_for_interrupt, write
from kvmvfio_emu.guest.script import Routine

#: (first offset, length), contract 6.5.
DIST_RANGES = [
    (0x000, 12),
    (0x080, 128),
    (0x100, 128),
    (0x180, 128),
    (0x200, 128),
    (0x280, 128),
    (0x300, 128),
    (0x380, 128),
    (0x400, 1024),
    (0x800, 1024),
    (0xC00, 256),
    (0xF00, 4),
    (0xF10, 16),
    (0xF20, 16),
]
CPU_RANGES = [(0x00, 12), (0x1C, 4), (0xD0, 16), (0xFC, 4)]
GROUPS = pytest.mark.parametrize(("group", "ranges"), [(DIST_REGS, DIST_RANGES), (CPU_REGS, CPU_RANGES)])
BOTH = pytest.mark.parametrize("group", [DIST_REGS, CPU_REGS])
ONES = 0xFFFFFFFF
CTLR, TYPER, IIDR = 0x000, 0x004, 0x008
ISENABLER, ICENABLER, ISPENDR, ICPENDR, ISACTIVER, ICACTIVER = 0x100, 0x180, 0x200, 0x280, 0x300, 0x380
IPRIORITYR, ITARGETSR, ICFGR, SGIR, CPENDSGIR, SPENDSGIR = 0x400, 0x800, 0xC00, 0xF00, 0xF10, 0xF20
SPI = 1


class Regs:
    """The registers of a VGIC with 2 vCPUs and 96 interrupts."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.vm, self.fd = client.machine(vcpus=2)
        client.set_u32(self.fd, NR_IRQS, 0, 96)

    def read(self, offset: int, cpu: int = 0, group: int = DIST_REGS) -> int:
        return self.client.get(self.fd, group, offset | cpu << 32)

    def write(self, offset: int, value: int, cpu: int = 0, group: int = DIST_REGS) -> int:
        return self.client.set_u32(self.fd, group, offset | cpu << 32, value)

    def has(self, offset: int, group: int = DIST_REGS) -> bool:
        try:
            return self.client.has(self.fd, group, offset) == 0
        except OSError:
            return False


@pytest.fixture
def regs(client: Client) -> Regs:
    return Regs(client)


@pytest.fixture
def young(boot: Callable[..., Client]) -> Regs:
    """With GICD_ISACTIVER and ICACTIVER."""
    return Regs(boot("mainline"))


# -- which there are -----------------------------------------------------------------------------------------------


@GROUPS
def test_every_offset_is_known_exactly_if_four_bytes_fit_a_range(
    regs: Regs, group: int, ranges: list[tuple[int, int]]
) -> None:
    expected = {offset for base, length in ranges for offset in range(base, base + length - 3)}
    assert {offset for offset in range(0x1010) if regs.has(offset, group)} == expected


@GROUPS
def test_offset_outside_the_ranges_is_enxio(regs: Regs, group: int, ranges: list[tuple[int, int]]) -> None:
    for offset in (0x0C, 0x2000, 0xFFFFFFFC, *(base + length for base, length in ranges)):
        if any(base <= offset < base + length for base, length in ranges):
            continue
        for call in (regs.client.has, regs.client.get):
            regs.client.refused("ENXIO", call, regs.fd, group, offset)
        regs.client.refused("ENXIO", regs.client.set_u32, regs.fd, group, offset, 0)


@BOTH
@pytest.mark.parametrize("cpu", [2, 3, 255])
def test_cpu_that_does_not_exist_is_einval_even_at_a_bad_offset(regs: Regs, group: int, cpu: int) -> None:
    for offset in (0, 0xFFC):
        regs.client.refused("EINVAL", regs.read, offset, cpu, group)
        regs.client.refused("EINVAL", regs.write, offset, 0, cpu, group)


@BOTH
def test_has_ignores_the_cpu_and_bits_above_it(regs: Regs, group: int) -> None:
    assert regs.client.has(regs.fd, group, 0xFF << 32) == 0
    assert regs.read(4 if group == DIST_REGS else 0xFC, 0x100, group) != 0


@BOTH
@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_payload_is_efault(regs: Regs, group: int, pointer: int) -> None:
    regs.client.refused("EFAULT", regs.client.set_at, regs.fd, group, 0, pointer)
    regs.client.refused("EFAULT", regs.client.get_at, regs.fd, group, 0, pointer)


@BOTH
def test_efault_comes_first_of_set_and_last_of_get(regs: Regs, group: int) -> None:
    wrong_cpu, wrong_offset = 9 << 32, 0xFFC
    for attr, name in ((wrong_cpu, "EINVAL"), (wrong_offset, "ENXIO")):
        regs.client.refused("EFAULT", regs.client.set_at, regs.fd, group, attr, 0)
        regs.client.refused(name, regs.client.get_at, regs.fd, group, attr, 0)


@BOTH
def test_payload_at_the_last_bytes_of_a_mapping(regs: Regs, group: int) -> None:
    edge = Edge()
    regs.client.refused("EFAULT", regs.client.set_at, regs.fd, group, 0, edge.put(b"\1\0\0\0", beyond=1))
    assert regs.client.set_at(regs.fd, group, 0, edge.put(b"\1\0\0\0")) == 0
    assert regs.client.get_at(regs.fd, group, 0, edge.end - 4) == 0
    regs.client.refused("EFAULT", regs.client.get_at, regs.fd, group, 0, edge.end - 3)


@BOTH
def test_without_vcpu_is_enodev_but_has_is_0(client: Client, vm: int, group: int) -> None:
    vgic = client.vgic(vm)
    client.refused("ENODEV", client.get, vgic, group, 0)
    client.refused("ENODEV", client.set_u32, vgic, group, 0, 0)
    assert client.has(vgic, group, 0) == 0


def test_first_access_initialises(client: Client, vm: int) -> None:
    client.vcpu(vm)
    vgic = client.vgic(vm)
    assert client.get(vgic, NR_IRQS, 0) == 0
    assert client.get(vgic, DIST_REGS, TYPER) == 7
    assert client.get(vgic, NR_IRQS, 0) == 256
    client.refused("EBUSY", client.vcpu, vm, 1)


@BOTH
def test_while_a_vcpu_runs_is_ebusy(regs: Regs, group: int) -> None:
    def main(cpu: Cpu) -> Routine:
        while True:
            yield wait_for_interrupt()

    client = regs.client
    client.kernel.attach_guest(0, Script(main))
    call = client.kernel.start(client.vcpus[0], uapi.KVM_RUN)
    client.kernel.run()
    client.refused("EBUSY", regs.read, 0, 0, group)
    client.refused("EBUSY", regs.write, 0, 0, 1, group)
    client.refused("ENXIO", regs.read, 0xFFC, 0, group)
    call.interrupt()
    assert regs.read(0, 0, group) == 0


# -- the distributor -----------------------------------------------------------------------------------------------

RESET = [
    (CTLR, 0, 0),
    (TYPER, 0x22, 0x22),
    (IIDR, 0x4B00043B, 0x4B00043B),
    (0x080, 0, 0),
    (ISENABLER, 0xFFFF, 0xFFFF),
    (ICENABLER, 0xFFFF, 0xFFFF),
    (ISENABLER + 4, 0, 0),
    (ISPENDR, 0, 0),
    (ISPENDR + 4, 0, 0),
    (ISACTIVER, 0, 0),
    (ICACTIVER + 4, 0, 0),
    (IPRIORITYR, 0, 0),
    (IPRIORITYR + 32, 0, 0),
    (ITARGETSR, 0x01010101, 0x02020202),
    (ITARGETSR + 28, 0x01010101, 0x02020202),
    (ITARGETSR + 32, 0x01010101, 0x01010101),
    (ICFGR, 0xAAAAAAAA, 0xAAAAAAAA),
    (ICFGR + 4, 0xAAAAAAAA, 0xAAAAAAAA),
    (ICFGR + 8, 0, 0),
    (SGIR, 0, 0),
    (CPENDSGIR, 0, 0),
    (SPENDSGIR, 0, 0),
]


@pytest.mark.parametrize(("offset", "first", "second"), RESET)
def test_reset_value(regs: Regs, offset: int, first: int, second: int) -> None:
    assert (regs.read(offset, 0), regs.read(offset, 1)) == (first, second)


@pytest.mark.parametrize(("irqs", "vcpus"), [(64, 1), (256, 2), (1024, 4)])
def test_typer_counts_vcpus_and_interrupts(client: Client, irqs: int, vcpus: int) -> None:
    _, vgic = client.machine(vcpus)
    client.set_u32(vgic, NR_IRQS, 0, irqs)
    assert client.get(vgic, DIST_REGS, TYPER) == vcpus - 1 << 5 | irqs // 32 - 1


@pytest.mark.parametrize("value", [0, 1, 0x55555555, 0xA5A5A5A4, ONES])
def test_ctlr_keeps_bit_0(regs: Regs, value: int) -> None:
    regs.write(CTLR, value)
    assert regs.read(CTLR, 1) == value & 1


@pytest.mark.parametrize("offset", [TYPER, IIDR, ITARGETSR, ITARGETSR + 28, ICFGR, ICFGR + 4])
@pytest.mark.parametrize("value", [0, 0x55555555, ONES])
def test_read_only_register_ignores_writes(regs: Regs, offset: int, value: int) -> None:
    before = regs.read(offset)
    regs.write(offset, value)
    assert regs.read(offset) == before


@pytest.mark.parametrize("offset", [0x080, 0x084, ISACTIVER, ISACTIVER + 4, ICACTIVER, ICACTIVER + 4])
def test_range_that_is_raz_wi_in_2014(regs: Regs, offset: int) -> None:
    regs.write(offset, ONES)
    assert regs.read(offset) == 0


@pytest.mark.parametrize("base", [0x080, ISENABLER, ICENABLER, ISPENDR, ICPENDR, ISACTIVER, ICACTIVER])
@pytest.mark.parametrize("word", [3, 4, 31])
def test_bits_beyond_nr_irqs_are_raz_wi(regs: Regs, base: int, word: int) -> None:
    regs.write(base + 4 * word, ONES)
    assert regs.read(base + 4 * word) == 0


@pytest.mark.parametrize("offset", [IPRIORITYR + 96, IPRIORITYR + 1020, ITARGETSR + 96, ICFGR + 24, ICFGR + 252])
def test_fields_beyond_nr_irqs_are_raz_wi(regs: Regs, offset: int) -> None:
    regs.write(offset, ONES)
    assert regs.read(offset) == 0


@pytest.mark.parametrize("word", [1, 2])
def test_enable_bits_are_set_by_one_register_and_cleared_by_the_other(regs: Regs, word: int) -> None:
    regs.write(ISENABLER + 4 * word, 0x0000FF0F)
    regs.write(ISENABLER + 4 * word, 0)
    regs.write(ICENABLER + 4 * word, 0x00000F01)
    for base in (ISENABLER, ICENABLER):
        assert regs.read(base + 4 * word) == 0x0000F00E


def test_sgis_cannot_be_disabled_and_ppis_are_private(regs: Regs) -> None:
    regs.write(ISENABLER, 0xF0000000, 1)
    regs.write(ICENABLER, 0x1000FFFF, 1)
    assert (regs.read(ISENABLER, 0), regs.read(ISENABLER, 1)) == (0xFFFF, 0xE000FFFF)


@pytest.mark.parametrize("word", [1, 2])
def test_pending_bits_are_set_by_one_register_and_cleared_by_the_other(regs: Regs, word: int) -> None:
    regs.write(ISPENDR + 4 * word, 0x00000FF0)
    regs.write(ISPENDR + 4 * word, 0)
    regs.write(ICPENDR + 4 * word, 0x00000F00)
    for base in (ISPENDR, ICPENDR):
        assert regs.read(base + 4 * word) == 0x000000F0


def test_pending_follows_a_level_line_whatever_is_cleared(regs: Regs) -> None:
    regs.client.irq_line(regs.vm, SPI, 40, 1)
    regs.write(ICPENDR + 4, 1 << 8)
    assert regs.read(ISPENDR + 4) == 1 << 8
    regs.client.irq_line(regs.vm, SPI, 40, 0)
    assert regs.read(ISPENDR + 4) == 0


def test_latch_outlives_the_line_until_it_is_cleared(regs: Regs) -> None:
    regs.write(ISPENDR + 4, 1 << 8)
    for level in (1, 0):
        regs.client.irq_line(regs.vm, SPI, 40, level)
    assert regs.read(ISPENDR + 4) == 1 << 8
    regs.write(ICPENDR + 4, 1 << 8)
    assert regs.read(ISPENDR + 4) == 0


def test_pending_edge_can_be_cleared_while_the_line_is_high(regs: Regs) -> None:
    regs.write(ICFGR + 8, 2 << 16)
    regs.client.irq_line(regs.vm, SPI, 40, 1)
    regs.write(ICPENDR + 4, 1 << 8)
    assert regs.read(ISPENDR + 4) == 0


def test_active_bits_act_since_3_20(young: Regs) -> None:
    young.write(ISACTIVER + 4, 0xFF)
    young.write(ISACTIVER + 4, 0)
    young.write(ICACTIVER + 4, 0x0F)
    for base in (ISACTIVER, ICACTIVER):
        assert young.read(base + 4) == 0xF0


@pytest.mark.parametrize("cpu", [0, 1])
def test_priorities_of_private_interrupts_are_private(regs: Regs, cpu: int) -> None:
    regs.write(IPRIORITYR + 4, 0xA0B0C0D7, cpu)
    assert regs.read(IPRIORITYR + 4, cpu) == 0xA0B0C0D7
    assert regs.read(IPRIORITYR + 4, 1 - cpu) == 0


def test_priorities_of_shared_interrupts_are_shared(regs: Regs) -> None:
    regs.write(IPRIORITYR + 92, 0x01234567, 0)
    assert regs.read(IPRIORITYR + 92, 1) == 0x01234567


@pytest.mark.parametrize(
    ("written", "read"), [(0x02020202, 0x02020202), (0x01020300, 0x01020101), (ONES, 0x01010101), (0, 0x01010101)]
)
def test_target_is_the_lowest_cpu_named_or_the_first(regs: Regs, written: int, read: int) -> None:
    regs.write(ITARGETSR + 40, written)
    assert regs.read(ITARGETSR + 40, 1) == read


def test_interrupt_goes_to_its_target(regs: Regs) -> None:
    regs.write(CTLR, 1)
    regs.write(ISENABLER + 4, ONES)
    regs.write(ITARGETSR + 40, 0x00000002)
    regs.client.irq_line(regs.vm, SPI, 40, 1)
    vm = regs.client.host.modules["kvm"].vms[0]
    assert [vcpu.runnable for vcpu in vm.vcpus] == [False, True]


@pytest.mark.parametrize(("written", "read"), [(ONES, 0xAAAAAAAA), (0x55555555, 0), (0x80000002, 0x80000002)])
def test_config_keeps_the_upper_bit_of_each_field(regs: Regs, written: int, read: int) -> None:
    regs.write(ICFGR + 8, written)
    assert regs.read(ICFGR + 8) == read


@pytest.mark.parametrize(
    ("value", "cpu", "first", "second"),
    [
        (0x00010003, 0, 1, 0),
        (0x00020003, 0, 0, 1),
        (0x00030003, 1, 2, 2),
        (0x01000003, 0, 0, 1),
        (0x02000003, 1, 0, 2),
        (0x03030003, 0, 0, 0),
    ],
)
def test_sgir_sends_to_list_others_or_self(regs: Regs, value: int, cpu: int, first: int, second: int) -> None:
    regs.write(SGIR, value, cpu)
    assert [regs.read(SPENDSGIR, target) >> 24 for target in (0, 1)] == [first, second]
    assert [regs.read(ISPENDR, target) for target in (0, 1)] == [8 * bool(first), 8 * bool(second)]
    assert regs.read(SGIR, cpu) == 0


@pytest.mark.parametrize("word", [0, 1, 2, 3])
def test_sources_of_an_sgi_are_set_by_one_register_and_cleared_by_the_other(regs: Regs, word: int) -> None:
    regs.write(SPENDSGIR + 4 * word, 0x03000201, 1)
    regs.write(SPENDSGIR + 4 * word, 0, 1)
    regs.write(CPENDSGIR + 4 * word, 0x01000200, 1)
    for base in (SPENDSGIR, CPENDSGIR):
        assert regs.read(base + 4 * word, 1) == 0x02000001
        assert regs.read(base + 4 * word, 0) == 0
    assert regs.read(ISPENDR, 1) == 9 << 4 * word


def test_unaligned_access_meets_the_rest_of_its_word(regs: Regs) -> None:
    regs.write(ISENABLER + 4, 0x00ABCD00)
    assert regs.read(ISENABLER + 5) == 0xABCD
    regs.write(ISENABLER + 6, 0xFFFF0001)
    assert regs.read(ISENABLER + 4) == 0x00ABCD00 | 1 << 16
    assert regs.read(ISENABLER + 8) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(
    offset=st.sampled_from([base + at for base, length in DIST_RANGES for at in range(0, length, 4)]),
    value=st.integers(0, ONES),
    cpu=st.integers(0, 1),
)
def test_write_of_any_value_to_any_register_keeps_the_vgic_sound(
    client: Client, regs: Regs, offset: int, value: int, cpu: int
) -> None:
    assert regs.write(offset, value, cpu) == 0
    assert 0 <= regs.read(offset, cpu) <= ONES
    client.kernel.check()


def test_pending_state_is_folded_back_from_the_list_registers(regs: Regs) -> None:
    def main(cpu: Cpu) -> Routine:
        yield from cpu.enable_irq(40)
        yield write(cpu.distributor, 1)
        while True:
            yield write(0x0D000000, 0)

    client = regs.client
    client.kernel.attach_guest(0, Script(main))
    client.ioctl(client.vcpus[0], uapi.KVM_RUN)
    client.irq_line(regs.vm, SPI, 40, 1)
    client.ioctl(client.vcpus[0], uapi.KVM_RUN)  # the guest leaves it pending in a list register
    vgic = client.host.modules["kvm"].vms[0].vgic
    assert vgic.in_list_register(40)
    assert regs.read(ISPENDR + 4) == 1 << 8
    assert not vgic.in_list_register(40)
    assert vgic.dist_base == DIST_BASE


# -- the CPU interface ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", [0, 1])
@pytest.mark.parametrize(
    ("offset", "value"),
    [(0x00, 0), (0x04, 0), (0x08, 0), (0x1C, 0), (0xD0, 0), (0xDC, 0), (0xFC, 0x04B2043B)],
)
def test_cpu_reset_value(regs: Regs, offset: int, value: int, cpu: int) -> None:
    assert regs.read(offset, cpu, CPU_REGS) == value


@pytest.mark.parametrize("value", [0, ONES, 0x55555555, 0xA5A5A5A5, 0x01010101])
@pytest.mark.parametrize(
    ("offset", "mask"),
    [(0x00, 0x21F), (0x04, 0x1F), (0x08, 7), (0x1C, 7), (0xD0, 0), (0xD4, 0), (0xD8, 0), (0xDC, 0)],
    ids=hex,
)
def test_cpu_register_keeps_its_bits(regs: Regs, offset: int, mask: int, value: int) -> None:
    regs.write(offset, value, 1, CPU_REGS)
    assert regs.read(offset, 1, CPU_REGS) == value & mask
    assert regs.read(offset, 0, CPU_REGS) == 0


@pytest.mark.parametrize("value", [0, ONES])
def test_iidr_ignores_writes(regs: Regs, value: int) -> None:
    regs.write(0xFC, value, 0, CPU_REGS)
    assert regs.read(0xFC, 0, CPU_REGS) == 0x04B2043B


def test_priority_mask_is_five_bits_for_the_user_and_the_upper_ones_of_a_byte_for_the_guest(regs: Regs) -> None:
    def main(cpu: Cpu) -> Routine:
        yield write(cpu.interface + 4, 0xF8)
        yield write(cpu.interface, 0x201)

    client = regs.client
    client.kernel.attach_guest(0, Script(main))
    client.ioctl(client.vcpus[0], uapi.KVM_RUN)
    assert regs.read(4, 0, CPU_REGS) == 0x1F
    assert regs.read(0, 0, CPU_REGS) == 0x201
