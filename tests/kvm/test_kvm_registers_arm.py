"""KVM_ARM_VCPU_INIT and the registers of a 32-bit host's vCPU (arch/arm/kvm/guest.c, coproc.c)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from linux6 import GENERIC_V8, get, init, put, registers, size
from support import Client

from kvmvfio_emu import uapi
from kvmvfio_emu.uapi import arm32

PROFILE = "rfc-2014-arm"
CORTEX_A15 = arm32.KVM_ARM_TARGET_CORTEX_A15
CORE = uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_CORE
VFP = uapi.KVM_REG_ARM | arm32.KVM_REG_ARM_VFP
CACHE = uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX
PC, CPSR = CORE | 15, CORE | 16
WORDS, TIMERS, COPROCESSOR, DOUBLES, CONTROLS, CACHES = 38, 3, 50, 32, 7, 3


def cp15(crn: int, crm: int, opc1: int, opc2: int) -> int:
    """The number of a register by MRC's encoding (ARM_CP15_REG32)."""
    index = 15 << 16 | crn << 11 | crm << 7 | opc1 << 3 | opc2
    return uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U32 | index


def cp15_wide(opc1: int, crm: int) -> int:
    """By MRRC's (ARM_CP15_REG64)."""
    return uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U64 | 15 << 16 | crm << 7 | opc1 << 3


MIDR, MPIDR, ACTLR, L2CTLR = cp15(0, 0, 0, 0), cp15(0, 0, 0, 5), cp15(1, 0, 0, 1), cp15(9, 0, 1, 2)
TTBR0, TTBR0_WIDE = cp15(2, 0, 0, 0), cp15_wide(0, 2)
DFAR, IFAR = cp15(6, 0, 0, 0), cp15(6, 0, 0, 2)
COUNT = arm32.KVM_REG_ARM_TIMER_CNT


@pytest.fixture
def client(boot: Callable[..., Client]) -> Client:
    return boot(PROFILE)


@pytest.fixture
def vcpu(client: Client) -> int:
    vcpu = client.vcpu(client.vm())
    init(client, vcpu, target=CORTEX_A15)
    return vcpu


def refused(client: Client, vcpu: int, number: int, value: int | None = None) -> str:
    """The errno's name."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the name is what is asked
        get(client, vcpu, number) if value is None else put(client, vcpu, number, value)
    assert caught.value.errno is not None
    return {2: "ENOENT", 22: "EINVAL"}[caught.value.errno]


# -- KVM_ARM_VCPU_INIT ---------------------------------------------------------------------------------------------


def test_the_preferred_target_is_the_boards_cpu(client: Client) -> None:
    buffer = bytearray(uapi.sizeof("struct kvm_vcpu_init"))
    client.ioctl(client.vm(), uapi.KVM_ARM_PREFERRED_TARGET, buffer)
    assert buffer == bytes(len(buffer))  # the A15 is number 0, without features


def test_init_takes_the_target_and_the_two_features(client: Client) -> None:
    vcpu = client.vcpu(client.vm())
    with pytest.raises(OSError, match="Invalid argument"):
        init(client, vcpu, target=GENERIC_V8)
    with pytest.raises(OSError, match="Invalid argument"):
        init(client, vcpu, target=arm32.KVM_ARM_TARGET_CORTEX_A7)
    with pytest.raises(OSError, match="No such file"):
        init(client, vcpu, 1 << uapi.KVM_ARM_VCPU_PSCI_0_2, target=CORTEX_A15)  # arm64's number
    init(client, vcpu, 1 << uapi.KVM_ARM_VCPU_POWER_OFF | 1 << arm32.KVM_ARM_VCPU_PSCI_0_2, target=CORTEX_A15)
    assert client.ioctl(client.kvm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_ARM_EL1_32BIT) == 0


# -- the list ------------------------------------------------------------------------------------------------------


def test_list_has_the_kernels_order(client: Client, vcpu: int) -> None:
    numbers = registers(client, vcpu)
    parts = []
    for count in (WORDS, TIMERS, COPROCESSOR, DOUBLES, CONTROLS, CACHES):
        parts.append(numbers[:count])
        numbers = numbers[count:]
    assert not numbers
    words, timers, coprocessor, doubles, controls, caches = parts
    assert words == [CORE | word for word in range(arm32.KVM_REGS_WORDS)]
    assert timers == [arm32.KVM_REG_ARM_TIMER_CTL, COUNT, arm32.KVM_REG_ARM_TIMER_CVAL]
    assert coprocessor[0] == MIDR
    assert coprocessor[20:22] == [cp15(0, 0, 1, 7), MPIDR]  # the last invariant one, the first that can change
    assert coprocessor[26:28] == [TTBR0_WIDE, TTBR0]
    assert doubles == [VFP | uapi.KVM_REG_SIZE_U64 | number for number in range(32)]
    assert controls[:2] == [VFP | uapi.KVM_REG_SIZE_U32 | number for number in (0x1008, 0x1001)]
    assert caches == [CACHE, CACHE | 1, CACHE | 2]


def test_every_register_can_be_read_and_takes_its_own_value(client: Client, vcpu: int) -> None:
    for number in registers(client, vcpu):
        value = get(client, vcpu, number)
        put(client, vcpu, number, value)
        assert number == COUNT or get(client, vcpu, number) == value, hex(number)


def test_registers_that_are_the_guests_hold_what_they_are_given_and_touch_no_other(client: Client, vcpu: int) -> None:
    """All but the two whose values mean something, and one half of TTBR0 and TTBR1, which have two numbers."""
    fixed = {CPSR, VFP | uapi.KVM_REG_SIZE_U32 | arm32.KVM_REG_ARM_VFP_FPSCR, TTBR0, cp15(2, 0, 0, 1), COUNT}
    values = {}
    for index, number in enumerate(registers(client, vcpu)):
        if number in fixed:
            continue
        value = (0x0123_4567_89AB_CD00 + index) & (1 << 8 * size(number)) - 1
        try:
            put(client, vcpu, number, value)
        except OSError:
            continue
        values[number] = value
    values[arm32.KVM_REG_ARM_TIMER_CTL] &= ~4  # the hardware's
    found = {number: get(client, vcpu, number) for number in values}
    found[arm32.KVM_REG_ARM_TIMER_CTL] &= ~4
    assert found == values
    assert len(values) == WORDS - 1 + TIMERS - 1 + COPROCESSOR - 21 - 2 + DOUBLES + CONTROLS - 4


# -- what a reset gives --------------------------------------------------------------------------------------------


def test_reset(client: Client, vcpu: int) -> None:
    put(client, vcpu, PC, 0x8000)
    put(client, vcpu, CORE | 3, 7)
    init(client, vcpu, target=CORTEX_A15)
    assert [get(client, vcpu, number) for number in (PC, CORE | 3, CPSR)] == [0, 0, 0x1D3]
    assert get(client, vcpu, cp15(1, 0, 0, 0)) == 0x00C5_0078
    assert get(client, vcpu, TTBR0_WIDE) == 0xD0C0_FFEE_DECA_FBAD
    assert get(client, vcpu, DFAR) == get(client, vcpu, IFAR) == 0xDECA_FBAD
    assert get(client, vcpu, MIDR) >> 4 & 0xFFF == 0xC0F  # Cortex-A15


def test_registers_tell_of_the_other_cpus(client: Client) -> None:
    vm = client.vm()
    vcpus = [client.vcpu(vm, number) for number in range(4)]
    init(client, vcpus[2], target=CORTEX_A15)
    assert [get(client, vcpus[2], number) for number in (MPIDR, L2CTLR, ACTLR)] == [0x8000_0002, 3 << 24, 1 << 6]
    alone = client.vcpu(client.vm())
    init(client, alone, target=CORTEX_A15)
    assert [get(client, alone, number) for number in (MPIDR, L2CTLR, ACTLR)] == [0x8000_0000, 0, 0]


def test_halves_of_one_register(client: Client, vcpu: int) -> None:
    put(client, vcpu, TTBR0_WIDE, 0x11_2222_3333)
    assert get(client, vcpu, TTBR0) == 0x2222_3333
    put(client, vcpu, TTBR0, 0x4444_4444)
    assert get(client, vcpu, TTBR0_WIDE) == 0x11_4444_4444
    put(client, vcpu, IFAR, 5)
    assert get(client, vcpu, DFAR) == 0xDECA_FBAD


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "errno"),
    [
        (uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE, "EINVAL"),
        (CORE | arm32.KVM_REGS_WORDS, "ENOENT"),
        (CORE & ~uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_SIZE_U64, "ENOENT"),
        (CORE | 1 << 28, "ENOENT"),
        (cp15(1, 0, 0, 7), "ENOENT"),
        (cp15(9, 12, 0, 0), "ENOENT"),  # PMCR: the guest has one, userspace has not
        (TTBR0 & ~uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_SIZE_U64, "ENOENT"),
        (VFP | uapi.KVM_REG_SIZE_U32 | 3, "ENOENT"),
        (VFP | uapi.KVM_REG_SIZE_U32 | 0x1002, "ENOENT"),
        (CACHE | 3, "ENOENT"),
        (CACHE | 1 << 8, "ENOENT"),
    ],
)
def test_no_such_register(client: Client, vcpu: int, number: int, errno: str) -> None:
    assert refused(client, vcpu, number) == errno
    assert refused(client, vcpu, number, 0) == errno


def test_the_hosts_registers_cannot_change(client: Client, vcpu: int) -> None:
    for number in (MIDR, CACHE | 2, VFP | uapi.KVM_REG_SIZE_U32 | arm32.KVM_REG_ARM_VFP_FPSID):
        assert refused(client, vcpu, number, get(client, vcpu, number) ^ 1) == "EINVAL"


def test_the_hosts_coprocessor_registers_are_found_in_any_group(client: Client, vcpu: int) -> None:
    assert get(client, vcpu, MIDR & ~uapi.KVM_REG_ARM_COPROC_MASK | 9 << 16) == get(client, vcpu, MIDR)
    assert refused(client, vcpu, TTBR0 & ~uapi.KVM_REG_ARM_COPROC_MASK | 9 << 16) == "ENOENT"


@pytest.mark.parametrize("mode", [0x10, 0x11, 0x12, 0x13, 0x17, 0x1B])
def test_modes(client: Client, vcpu: int, mode: int) -> None:
    put(client, vcpu, CPSR, 0x1C0 | mode)
    assert get(client, vcpu, CPSR) == 0x1C0 | mode


@pytest.mark.parametrize("mode", [0x1F, 0x16, 0x1A, 0x15, 0x05])
def test_modes_that_a_guest_of_kvm_has_not(client: Client, vcpu: int, mode: int) -> None:
    """System mode is one of them, since the kernel forgets it."""
    assert refused(client, vcpu, CPSR, mode) == "EINVAL"
