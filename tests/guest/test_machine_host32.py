"""Machine code on a 32-bit host, the cover letter's: what the guest sees of the registers that userspace numbers."""

from __future__ import annotations

from collections.abc import Iterator

import machine_code32 as guest
import pytest
from machine_rig import MAILBOX, RAM, Machine
from support import Client

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import cortex_a15
from kvmvfio_emu.uapi import arm32

CORE = uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_CORE
PC, CPSR = CORE | 15, CORE | 16
VBAR = uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U32 | 15 << 16 | 12 << 11
D0 = uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U64 | arm32.KVM_REG_ARM_VFP
THUMB = 1 << 5


class Host32(Machine):
    """The rig on that host: two vCPUs, the second one powered off, and no VGIC."""

    def __init__(self) -> None:
        self.client = client = Client("rfc-2014-arm")
        self.kernel, self.vm = client.kernel, client.vm()
        self.vcpus = [client.vcpu(self.vm, number) for number in range(2)]
        for number, vcpu in enumerate(self.vcpus):
            init = client.call(self.vm, uapi.KVM_ARM_PREFERRED_TARGET, "kvm_vcpu_init")
            init.features[0] = 1 << arm32.KVM_ARM_VCPU_PSCI_0_2 | number << uapi.KVM_ARM_VCPU_POWER_OFF
            client.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, uapi.address(uapi.ffi.buffer(init)))
        self.give_memory()
        self.put(PC, RAM)
        self.put(CORE | 9, MAILBOX)

    def stored(self, vcpu: int = 0) -> int:
        """The word that the next store to the mailbox has."""
        address, size, value = self.written(vcpu)
        assert (address, size) == (MAILBOX, 4)
        return value


@pytest.fixture
def machine() -> Iterator[Host32]:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    with Host32() as machine:
        yield machine


def test_the_guest_reads_what_userspace_reads(machine: Host32) -> None:
    machine.code(guest.IDENTIFICATION)
    names = ("MIDR", "CTR", "ID_PFR0", "ID_MMFR3", "ID_ISAR4", "CLIDR")
    assert [machine.stored() for _ in names] == [cortex_a15.IDENTIFICATION[name] for name in names]
    assert machine.stored() == cortex_a15.CACHES[2]
    assert [machine.stored() for _ in range(2)] == [1 << 6] * 2  # in a cluster of two
    assert [machine.stored() for _ in range(2)] == [1 << 24] * 2


def test_banked_registers_go_both_ways(machine: Host32) -> None:
    """The handler of UNDEFINED stores its LR, SPSR, CPSR; DFSR, DFAR, IFSR, IFAR; and its SP."""
    machine.code(guest.UNDEFINED)
    machine.code(guest.HANDLER, at=RAM + 0x1004)
    machine.put(VBAR, RAM + 0x1000)
    stack = CORE | arm32.KVM_REGS["und_regs"]
    machine.put(stack, 0x1234)
    found = [machine.stored() for _ in range(8)]
    assert (found[0], found[1], found[2] & 0x1F, found[7]) == (RAM + 4, 0x1D3, 0x1B, 0x1234)
    assert [machine.get(stack + offset) for offset in range(3)] == [0x1234, RAM + 4, 0x1D3]
    assert machine.get(CPSR) & 0x1F == 0x1B
    assert machine.get(CORE | 13) == 0  # the user's SP


@pytest.mark.parametrize(("mode", "bank"), [(0x13, "svc"), (0x17, "abt"), (0x1B, "und"), (0x12, "irq"), (0x11, "fiq")])
def test_banks_are_their_modes(machine: Host32, mode: int, bank: str) -> None:
    machine.code((guest.BANK[0] | mode, *guest.BANK[1:]))
    for number, value in enumerate((0x1111, 0x2222, 0x1D0), 1):
        machine.put(CORE | number, value)
    words = CORE | arm32.KVM_REGS[f"{bank}_regs"]
    if bank == "fiq":
        machine.put(words + 1, MAILBOX)  # r9
        words += 5  # after r8 to r12
    machine.stored()
    assert [machine.get(words + place) for place in range(3)] == [0x1111, 0x2222, 0x1D0]


def test_all_registers_survive_a_run(machine: Host32) -> None:
    machine.code((0xE5890000,))  # str r0, [r9]
    numbers = [CORE | word for word in range(arm32.KVM_REGS_WORDS) if word not in (9, 15, 16)]
    numbers += [D0 + number for number in range(32)]
    values = {number: 0x1000_0000 + index for index, number in enumerate(numbers)}
    # A saved status is one, not any number.
    values |= {CORE | arm32.KVM_REGS[f"{mode}_regs"] + 2: 0x1D3 for mode in ("svc", "abt", "und", "irq")}
    values[CORE | arm32.KVM_REGS["fiq_regs"] + 7] = 0x1D3
    for number, value in values.items():
        machine.put(number, value)
    assert machine.stored() == values[CORE]
    assert {number: machine.get(number) for number in values} == values


def test_psci_0_2_starts_the_other_in_thumb(machine: Host32) -> None:
    machine.code((*guest.PSCI[:2], *guest.PSCI))
    machine.code((0xF8C94603, 0xBF300000), at=RAM + 0x200)  # mov r3, r0; str.w r0, [r9]; wfi
    machine.put(CORE | 0, uapi.PSCI_0_2_FN_PSCI_VERSION)
    assert machine.stored() == 0x2
    for register, value in enumerate((uapi.PSCI_0_2_FN_CPU_ON, 1, RAM + 0x201, 0xCAFE)):
        machine.put(CORE | register, value)
    assert machine.stored() == uapi.PSCI_RET_SUCCESS
    assert (machine.get(PC, 1), machine.get(CPSR, 1)) == (RAM + 0x200, 0x1D3 | THUMB)
    machine.put(CORE | 9, MAILBOX, 1)
    assert machine.stored(1) == 0xCAFE
