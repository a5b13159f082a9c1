"""KVM_GET_ONE_REG, KVM_SET_ONE_REG, KVM_GET_REG_LIST of an arm64 vCPU (arch/arm64/kvm/guest.c, sys_regs.c)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from linux6 import ARM, NEW, OLD, core, get, init, new_vcpu, put, registers, system
from support import Client

from kvmvfio_emu import uapi

PC, PSTATE = core("regs", "pc"), core("regs", "pstate")
MPIDR, TTBR0 = system(3, 0, 0, 0, 5), system(3, 0, 2, 0, 0)
MIDR, CLIDR, OSLSR = system(3, 0, 0, 0, 0), system(3, 1, 0, 0, 1), system(2, 0, 1, 1, 4)
CACHE = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX
PSCI = uapi.KVM_REG_ARM_PSCI_VERSION
VIRTUAL_COUNT, VIRTUAL_CONTROL = uapi.KVM_REG_ARM_TIMER_CNT, uapi.KVM_REG_ARM_TIMER_CTL


@pytest.fixture(params=ARM)
def linux(request: pytest.FixtureRequest, boot: Callable[..., Client]) -> Client:
    return boot(request.param)


# -- the list ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "count"), [(OLD, 242), (NEW, 259)])
def test_list_has_as_many_registers_as_the_kernel(boot: Callable[..., Client], profile: str, count: int) -> None:
    client = boot(profile)
    numbers = registers(client, new_vcpu(client))
    assert len(numbers) == len(set(numbers)) == count


def test_list_begins_with_core_then_firmware_then_timers(linux: Client) -> None:
    numbers = registers(linux, new_vcpu(linux))
    assert numbers[0] == core("regs", "regs", 0)
    assert numbers[73:75] == [core("fp_regs", "fpsr", bits=32), core("fp_regs", "fpcr", bits=32)]
    assert numbers[75] == PSCI
    assert numbers[82:85] == [VIRTUAL_CONTROL, VIRTUAL_COUNT, uapi.KVM_REG_ARM_TIMER_CVAL]
    assert numbers[-1] & ~0xFF == CACHE


def test_list_without_room_says_how_much_it_needs(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    buffer = bytearray(8)
    with pytest.raises(OSError, match="too long"):
        linux.ioctl(vcpu, uapi.KVM_GET_REG_LIST, buffer)
    assert int.from_bytes(buffer, "little") == len(registers(linux, vcpu))


def test_every_register_can_be_read_and_takes_its_own_value(linux: Client) -> None:
    vcpu = new_vcpu(linux, "PSCI_0_2")
    for number in registers(linux, vcpu):
        value = get(linux, vcpu, number)
        put(linux, vcpu, number, value)
        assert number in (VIRTUAL_COUNT, uapi.KVM_REG_ARM_PTIMER_CNT) or get(linux, vcpu, number) == value, hex(number)


# -- core registers ------------------------------------------------------------------------------------------------


def test_reset_starts_in_el1_with_everything_masked(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    assert (get(linux, vcpu, PSTATE), get(linux, vcpu, PC)) == (0x3C5, 0)
    assert get(linux, new_vcpu(linux, "EL1_32BIT"), PSTATE) == 0x1D3


def test_registers_keep_what_is_written_until_the_next_reset(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    put(linux, vcpu, PC, 0x40080000)
    put(linux, vcpu, core("fp_regs", "vregs", 3, bits=128), 1 << 127 | 5)
    put(linux, vcpu, TTBR0, 0x1234)
    assert get(linux, vcpu, core("fp_regs", "vregs", 3, bits=128)) == 1 << 127 | 5
    assert (get(linux, vcpu, PC), get(linux, vcpu, TTBR0)) == (0x40080000, 0x1234)
    init(linux, vcpu, 0)
    assert get(linux, vcpu, PC) == 0
    assert get(linux, vcpu, TTBR0) != 0x1234


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "EINVAL"),
        (PC & ~uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_SIZE_U32, "EINVAL"),
        (PC + 1, "EINVAL"),  # the upper half of a register
        (core("fp_regs", "vregs", 0), "EINVAL"),  # 64 of 128 bits
        (PC & ~0xFFFF | 215, "ENOENT"),  # two words from the last
        (PC & ~0xFFFF | 0xFFFF, "ENOENT"),
        (0x2030000000000000, "EINVAL"),  # of x86
    ],
    ids=lambda value: value if isinstance(value, str) else hex(value),
)
def test_core_register_that_is_none(linux: Client, number: int, name: str) -> None:
    vcpu = new_vcpu(linux)
    for request in (uapi.KVM_GET_ONE_REG, uapi.KVM_SET_ONE_REG):
        where = linux.pointer(bytes(16))
        linux.refused(name, linux.call, vcpu, request, "kvm_one_reg", id=number, addr=where)


def test_wild_value_is_efault_after_the_number_was_judged(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    for request in (uapi.KVM_GET_ONE_REG, uapi.KVM_SET_ONE_REG):
        for number in (PC, MPIDR, CACHE, PSCI, VIRTUAL_COUNT):
            linux.refused("EFAULT", linux.call, vcpu, request, "kvm_one_reg", id=number, addr=0x10)
        linux.refused("EINVAL", linux.call, vcpu, request, "kvm_one_reg", id=PC + 1, addr=0x10)


@pytest.mark.parametrize("mode", [0x0, 0x4, 0x5, 0x10])
def test_modes_of_a_64_bit_vcpu(linux: Client, mode: int) -> None:
    vcpu = new_vcpu(linux)
    put(linux, vcpu, PSTATE, 0x3C0 | mode)
    assert get(linux, vcpu, PSTATE) == 0x3C0 | mode


@pytest.mark.parametrize("mode", [0x8, 0x9, 0x13, 0x1F, 0x1])
def test_modes_that_it_has_not_are_einval(linux: Client, mode: int) -> None:
    linux.refused("EINVAL", put, linux, new_vcpu(linux), PSTATE, mode)


def test_32_bit_state_has_no_upper_halves(linux: Client) -> None:
    vcpu = new_vcpu(linux, "EL1_32BIT")
    put(linux, vcpu, core("regs", "regs", 2), 0x1_0000_0002)
    assert get(linux, vcpu, core("regs", "regs", 2)) == 2
    linux.refused("EINVAL", put, linux, vcpu, PSTATE, 0x5)


# -- system registers ----------------------------------------------------------------------------------------------


def test_registers_of_the_cpu_itself_cannot_be_changed(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    assert get(linux, vcpu, MIDR) == 0x410FD083, "a Cortex-A72"
    for number in (MIDR, system(3, 0, 0, 4, 0)):
        linux.refused("EINVAL", put, linux, vcpu, number, get(linux, vcpu, number) ^ 1)


def test_mpidr_tells_vcpus_apart_and_can_be_set(linux: Client) -> None:
    vm = linux.vm()
    vcpus = [linux.vcpu(vm, number, init=True) for number in (0, 1)]
    assert [get(linux, vcpu, MPIDR) for vcpu in vcpus] == [1 << 31, 1 << 31 | 1]
    put(linux, vcpus[0], MPIDR, 1 << 31 | 0x300)
    assert get(linux, vcpus[0], MPIDR) == 1 << 31 | 0x300


def test_only_the_lock_of_the_debug_status_can_be_set(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    put(linux, vcpu, OSLSR, 0xA)
    assert get(linux, vcpu, OSLSR) == 0xA
    linux.refused("EINVAL", put, linux, vcpu, OSLSR, 0x9)


def test_pmu_version_shows_only_with_the_feature(linux: Client) -> None:
    debug_features = system(3, 0, 0, 5, 0)
    plain, counting = (get(linux, new_vcpu(linux, *features), debug_features) for features in ((), ("PMU_V3",)))
    assert (plain >> 8 & 0xF, counting >> 8 & 0xF) == (0, 1)


@pytest.mark.parametrize(("profile", "listed"), [(OLD, False), (NEW, True)])
def test_registers_that_6_12_forgets_to_hide(boot: Callable[..., Client], profile: str, listed: bool) -> None:
    client = boot(profile)
    vcpu = new_vcpu(client)
    for number in (system(3, 0, 2, 0, 3), system(3, 0, 10, 2, 2), system(3, 0, 10, 2, 3)):
        assert (number in registers(client, vcpu)) is listed
        if not listed:
            client.refused("ENOENT", get, client, vcpu, number)


def test_cache_registers_of_6_1_are_the_cpus(boot: Callable[..., Client]) -> None:
    client = boot(OLD)
    vcpu = new_vcpu(client)
    assert [get(client, vcpu, CACHE | number) for number in range(3)] == [0x701FE00A, 0x201FE012, 0x707FE07A]
    client.refused("ENOENT", get, client, vcpu, CACHE | 3)
    client.refused("EINVAL", put, client, vcpu, CACHE, 0)
    assert get(client, vcpu, CLIDR) == 0x0A200023
    client.refused("EINVAL", put, client, vcpu, CLIDR, 0)


def test_cache_registers_of_6_12_are_for_userspace_to_choose(boot: Callable[..., Client]) -> None:
    client = boot(NEW)
    vcpu = new_vcpu(client)
    assert {get(client, vcpu, CACHE | number) for number in range(14)} == {2}
    client.refused("ENOENT", get, client, vcpu, CACHE | 14)
    put(client, vcpu, CACHE | 4, 0x701FE00A)
    assert get(client, vcpu, CACHE | 4) == 0x701FE00A
    client.refused("EINVAL", put, client, vcpu, CACHE | 4, 1)  # lines shorter than the host's
    put(client, vcpu, CLIDR, 0x0A200023)
    assert get(client, vcpu, CLIDR) == 0x0A200023


# -- firmware ------------------------------------------------------------------------------------------------------


def test_psci_version_follows_the_feature(linux: Client) -> None:
    old, new = new_vcpu(linux), new_vcpu(linux, "PSCI_0_2")
    assert (get(linux, old, PSCI), get(linux, new, PSCI)) == (1, 0x10001)
    put(linux, new, PSCI, 0x10000)
    assert get(linux, new, PSCI) == 0x10000
    linux.refused("EINVAL", put, linux, new, PSCI, 1)
    linux.refused("EINVAL", put, linux, old, PSCI, 2)
    linux.refused("EINVAL", put, linux, new, PSCI, 0x20000)


def test_services_can_be_taken_away_but_not_invented(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    services = uapi.KVM_REG_ARM_VENDOR_HYP_BMAP
    assert get(linux, vcpu, services) == 3
    put(linux, vcpu, services, 1)
    assert get(linux, vcpu, services) == 1
    linux.refused("EINVAL", put, linux, vcpu, services, 4)
    linux.refused("EINVAL", put, linux, vcpu, uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1, 2)
    linux.refused("ENOENT", put, linux, vcpu, PSCI + 9, 0)
    linux.refused("ENOENT", get, linux, vcpu, PSCI + 9)


# -- timers --------------------------------------------------------------------------------------------------------


def test_counter_goes_with_virtual_time_from_where_it_was_set(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    put(linux, vcpu, VIRTUAL_COUNT, 1000)
    linux.host.clock.advance(1_000_000)  # a millisecond at 62.5 MHz
    assert get(linux, vcpu, VIRTUAL_COUNT) == 1000 + 62_500


def test_control_shows_that_the_time_has_come(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    put(linux, vcpu, uapi.KVM_REG_ARM_TIMER_CVAL, 1 << 40)
    put(linux, vcpu, VIRTUAL_CONTROL, 7)
    assert get(linux, vcpu, VIRTUAL_CONTROL) == 3
    put(linux, vcpu, uapi.KVM_REG_ARM_TIMER_CVAL, 0)
    assert get(linux, vcpu, VIRTUAL_CONTROL) == 7


def test_physical_timer_is_reachable_on_6_12_only(boot: Callable[..., Client]) -> None:
    old, new = boot(OLD), boot(NEW)
    old.refused("ENOENT", get, old, new_vcpu(old), uapi.KVM_REG_ARM_PTIMER_CTL)
    vcpu = new_vcpu(new)
    put(new, vcpu, uapi.KVM_REG_ARM_PTIMER_CVAL, 77)
    assert get(new, vcpu, uapi.KVM_REG_ARM_PTIMER_CVAL) == 77


def test_counter_offset_moves_both_counters_of_all_vcpus(boot: Callable[..., Client]) -> None:
    client = boot(NEW)
    vm = client.vm()
    vcpus = [client.vcpu(vm, number, init=True) for number in (0, 1)]
    client.host.clock.advance(1_000_000)
    client.call(vm, uapi.KVM_ARM_SET_COUNTER_OFFSET, "kvm_arm_counter_offset", counter_offset=500)
    counts = [get(client, vcpu, number) for vcpu in vcpus for number in (VIRTUAL_COUNT, uapi.KVM_REG_ARM_PTIMER_CNT)]
    assert counts == [62_000] * 4
    bad = {"counter_offset": 1, "reserved": 1}
    client.refused("EINVAL", client.call, vm, uapi.KVM_ARM_SET_COUNTER_OFFSET, "kvm_arm_counter_offset", **bad)
