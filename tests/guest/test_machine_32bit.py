"""Machine code of a 32-bit vCPU in KVM_RUN: exits, exceptions, banked registers, coprocessor 15, PSCI."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import machine_code32 as guest
import pytest
from machine_rig import MAILBOX, MPIDR, PC, PSTATE, RAM, VBAR, Machine, core, system

from kvmvfio_emu import uapi

VECTORS, STACK = RAM + 0x4000, RAM + 0x8000
NOWHERE = 0x0A10_0000
SUPERVISOR, USER = 0x1D3, 0x1D0
THUMB, IRQ_MASK, BIG_ENDIAN = 1 << 5, 1 << 7, 1 << 9
UNDEFINED, CALL, PREFETCH, DATA, IRQ = 0x04, 0x08, 0x0C, 0x10, 0x18


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(2, width=32) as machine:
        machine.x(x9=MAILBOX)
        machine.put(VBAR, VECTORS)
        yield machine


def reads(machine: Machine, *answers: int) -> list[tuple[int, int]]:
    """KVM_RUN until loads exit, and what they get: (address, size) of each."""
    return [machine.read(answer) for answer in answers]


def enable(machine: Machine, interrupt: int) -> None:
    """By userspace: the distributor and the first vCPU's interface on, a shared interrupt for it."""
    dist, cpu = uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, uapi.KVM_DEV_ARM_VGIC_GRP_CPU_REGS
    bank = interrupt // 32 * 4
    values = {(dist, 0): 1, (dist, 0x100 + bank): 1 << interrupt % 32, (dist, 0x800 + interrupt): 0x01010101}
    for (group, register), value in (values | {(cpu, 0): 1, (cpu, 4): 0xFF}).items():
        machine.client.set_u32(machine.vgic, group, register, value)


def caught(machine: Machine, vector: int) -> list[int]:
    """What the handler at a vector finds: LR, SPSR, CPSR, DFSR, DFAR, IFSR, IFAR, SP."""
    machine.code(guest.HANDLER, VECTORS + vector)
    return [machine.written()[2] for _ in range(8)]


def test_accesses(machine: Machine) -> None:
    machine.code(guest.MMIO)
    machine.x(x1=NOWHERE)
    assert reads(machine, 0x81828384, 0x8586, 0x87, 0x8889) == [
        (NOWHERE, 4),
        (NOWHERE + 4, 2),
        (NOWHERE + 8, 1),
        (NOWHERE + 2, 2),
    ]
    assert [machine.written() for _ in range(4)] == [
        (MAILBOX, 1, 0x84),
        (MAILBOX, 2, 0x8586),
        (MAILBOX, 4, 0xFFFFFF87),
        (MAILBOX, 4, 0xFFFF8889),
    ]
    with pytest.raises(OSError, match="no valid syndrome"):  # writeback
        machine.run()
    assert machine.get(core("regs", "regs", 5)) == MAILBOX + 8
    assert machine.get(PC) == RAM + 4 * 9


def test_thumb_and_its_blocks(machine: Machine) -> None:
    machine.code(guest.THUMB)
    machine.put(PSTATE, SUPERVISOR | THUMB)
    machine.x(x1=NOWHERE, x2=MAILBOX, x4=0x10)
    assert reads(machine, 0x1234, 0x80) == [(NOWHERE, 4), (NOWHERE + 8, 1)]
    assert [machine.written() for _ in range(4)] == [
        (MAILBOX + 0x10, 4, 0x1234),
        (MAILBOX, 4, 0xFFFFFF80),
        (MAILBOX + 4, 4, 0x1234),
        (MAILBOX + 8, 4, 0xFFFFFF80),
    ]
    machine.kernel.after(1000, lambda: setattr(machine.runs[0], "immediate_exit", 1))
    with pytest.raises(InterruptedError):
        machine.run()
    assert machine.get(PSTATE) & (THUMB | 0x0600FC00) == THUMB


def test_undefined(machine: Machine) -> None:
    machine.code(guest.UNDEFINED)
    machine.put(core("regs", "regs", 23), STACK)
    link, spsr, cpsr, *_, stack = caught(machine, UNDEFINED)
    assert (link, spsr & 0x3FF, cpsr & 0x3FF, stack) == (RAM + 4, SUPERVISOR, 0x1DB, STACK)


def test_call_from_user_mode(machine: Machine) -> None:
    machine.code(guest.CALL)
    machine.code(guest.SVC, RAM + 0x100)
    machine.x(x1=RAM + 0x100)
    machine.put(core("regs", "regs", 19), STACK)
    link, spsr, cpsr, *_, stack = caught(machine, CALL)
    assert (link, spsr & 0x3FF, cpsr & 0x3FF, stack) == (RAM + 0x104, USER, SUPERVISOR, STACK)


def test_external_abort_of_userspace(machine: Machine) -> None:
    machine.code(guest.LOAD)
    machine.x(x1=NOWHERE)
    machine.run()
    events = uapi.pack("struct kvm_vcpu_events")
    uapi.view("struct kvm_vcpu_events", events).exception.ext_dabt_pending = 1
    machine.client.ioctl(machine.vcpus[0], uapi.KVM_SET_VCPU_EVENTS, events)
    link, _, cpsr, status, address, *_ = caught(machine, DATA)
    assert (link, cpsr & 0x3FF, status, address) == (RAM + 8, 0x1D7, 0x008, NOWHERE)


def test_jump_into_nothing(machine: Machine) -> None:
    machine.code(guest.JUMP)
    machine.x(x1=NOWHERE)
    link, _, cpsr, _, _, status, address, _ = caught(machine, PREFETCH)
    assert (link, cpsr & 0x3FF, status, address) == (NOWHERE + 4, 0x1D7, 0x008, NOWHERE)


def test_no_syndrome_and_straddling(machine: Machine) -> None:
    machine.code(guest.PAIR)
    machine.x(x1=NOWHERE)
    with pytest.raises(OSError, match="no valid syndrome"):
        machine.run()
    machine.code(guest.STRADDLE)
    machine.put(PC, RAM)
    machine.x(x1=RAM + 0x10000 - 0x12, x2=8)  # two bytes are memory, two are not
    _, _, _, status, address, *_ = caught(machine, DATA)
    assert (status, address) == (0x001, RAM + 0x10000 - 2)


def test_virtual_timer(machine: Machine) -> None:
    machine.code(guest.TIMER)
    ticks = 1 << 24
    machine.x(x2=ticks)
    enable(machine, 27)
    before = machine.kernel.host.clock.now
    assert machine.written()[2] == 62_500_000
    ahead, high, control = (machine.written()[2] for _ in range(3))
    assert (ticks <= ahead < ticks + (1 << 20), high, control) == (True, 0, 1)  # time slices may have ended meanwhile
    link, spsr, cpsr, *_ = caught(machine, IRQ)
    assert link - 4 in (
        RAM + 4 * 14,
        RAM + 4 * 15,
    )  # at WFI, if the end of a time slice was the end of one, else after it
    assert (spsr & 0x3FF, cpsr & 0x3FF) == (SUPERVISOR & ~IRQ_MASK, 0x1D2)
    assert machine.kernel.host.clock.now - before >= ticks * 16


def test_mpidr_and_isr(machine: Machine) -> None:
    machine.code(guest.IDENTITY)
    machine.put(MPIDR, 0x80000103)
    assert [machine.written()[2] for _ in range(2)] == [0x80000103, 0]


def test_psci_starts_the_other(machine: Machine) -> None:
    machine.code(guest.PSCI)
    machine.code(guest.PSCI[1:], RAM + 0x200)
    machine.x(x0=uapi.PSCI_0_2_FN_CPU_ON, x1=1, x2=RAM + 0x200, x3=0xCAFE)
    assert machine.written()[2] == 0
    assert machine.get(PC, vcpu=1) == RAM + 0x200
    assert machine.get(core("regs", "regs", 0), vcpu=1) == 0xCAFE
    assert machine.get(PSTATE, vcpu=1) == SUPERVISOR


def test_psci_starts_the_other_in_t32_and_as_its_caller_accesses_data(machine: Machine) -> None:
    machine.code(guest.PSCI)
    machine.x(x0=uapi.PSCI_0_2_FN_CPU_ON, x1=1, x2=RAM + 0x201)
    machine.put(PSTATE, SUPERVISOR | BIG_ENDIAN)
    assert machine.written() == (MAILBOX, 4, 0)
    assert machine.get(core("regs", "regs", 0)) == 0
    assert machine.get(PC, vcpu=1) == RAM + 0x200
    assert machine.get(PSTATE, vcpu=1) == SUPERVISOR | BIG_ENDIAN | THUMB


def test_psci_has_no_64bit_functions_here(machine: Machine) -> None:
    machine.code((*guest.PSCI[:2], 0xE1A00004, *guest.PSCI))  # mov r0, r4
    machine.x(x0=uapi.PSCI_0_2_FN64_CPU_ON, x1=uapi.PSCI_0_2_FN64_CPU_ON, x4=uapi.PSCI_1_0_FN_PSCI_FEATURES)
    assert [machine.written()[2] for _ in range(2)] == [uapi.PSCI_RET_NOT_SUPPORTED & (1 << 32) - 1] * 2


def test_a_pc_between_instructions(machine: Machine) -> None:
    """Its lowest bits are no part of where an A32 instruction is, and do not choose T32."""
    machine.code((0xE5890000,))  # str r0, [r9]
    machine.put(PC, RAM + 3)
    machine.x(x0=0xCAFE)
    assert machine.written() == (MAILBOX, 4, 0xCAFE)
    assert machine.get(PSTATE) == SUPERVISOR


def test_system_off(machine: Machine) -> None:
    machine.code(guest.PSCI)
    machine.x(x0=uapi.PSCI_0_2_FN_SYSTEM_OFF)
    run = machine.run()
    assert (run.exit_reason, run.system_event.type) == (uapi.KVM_EXIT_SYSTEM_EVENT, uapi.KVM_SYSTEM_EVENT_SHUTDOWN)


def test_registers_come_back(machine: Machine) -> None:
    """All banks and system registers as they were set, after the guest has run."""
    machine.code((0xE5890000,))  # str r0, [r9]
    names = {core("regs", "regs", number): 0x1000 + number for number in (*range(9), *range(10, 15), *range(16, 31))}
    names |= {core("spsr", number): 0x10 + number for number in range(5)}
    names |= {
        system(3, 0, 6, 0, 0): 0x11112222_33334444,  # DFAR and IFAR
        system(3, 0, 10, 2, 0): 0x55556666_77778888,  # PRRR and NMRR
        system(3, 0, 13, 0, 1): 0x99,
        system(3, 4, 3, 0, 0): 0x55555555,  # DACR
        system(3, 3, 13, 0, 2): 0xABC,
    }
    for number, value in names.items():
        machine.put(number, value)
    assert machine.written() == (MAILBOX, 4, 0x1000)
    assert {number: machine.get(number) for number in names} == names


@pytest.mark.parametrize(
    ("mode", "stack", "link", "saved"),
    [(0x13, 19, 18, 0), (0x17, 21, 20, 1), (0x1B, 23, 22, 2), (0x12, 17, 16, 3), (0x11, 29, 30, 4)],
    ids=["svc", "abt", "und", "irq", "fiq"],
)
def test_banks_lie_where_the_architecture_says(machine: Machine, mode: int, stack: int, link: int, saved: int) -> None:
    machine.code((guest.BANK[0] | mode, *guest.BANK[1:]))
    machine.x(x1=0x1111, x2=0x2222, x3=0x1D0)
    if mode == 0x11:  # it has an r9 of its own, the second of the five at X24
        machine.x(x25=MAILBOX)
    machine.written()
    found = [machine.get(core("regs", "regs", number)) for number in (stack, link)]
    assert [*found, machine.get(core("spsr", saved))] == [0x1111, 0x2222, 0x1D0]


def test_floating_point(machine: Machine) -> None:
    machine.code(guest.FLOATS)
    machine.put(system(3, 0, 1, 0, 2), 0xF << 20)
    machine.put(system(3, 4, 5, 3, 0), 1 << 30)
    one = core("fp_regs", "vregs", 0) & ~uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_SIZE_U128
    raw = bytearray(struct.pack("<2d", 1.5, 2.25))
    address = uapi.address(raw)
    machine.client.call(machine.vcpus[0], uapi.KVM_SET_ONE_REG, "kvm_one_reg", id=one, addr=address)
    low, high = (machine.written()[2] for _ in range(2))
    assert struct.unpack("<d", struct.pack("<2I", low, high)) == (3.75,)


def test_big_endian_store(machine: Machine) -> None:
    machine.code(guest.BIG_ENDIAN)
    machine.x(x0=0x11223344)
    assert machine.written() == (MAILBOX, 4, 0x44332211)


def test_endless_loop_ends_by_immediate_exit(machine: Machine) -> None:
    machine.code(guest.LOOP)
    machine.kernel.after(5_000_000, lambda: setattr(machine.runs[0], "immediate_exit", 1))
    with pytest.raises(InterruptedError):
        machine.run()
    assert machine.get(core("regs", "regs", 0)) > 1000


def test_interrupt_by_gicv3_registers() -> None:
    with Machine(width=32, gic=3) as machine:
        machine.code(guest.SGI)
        machine.x(x9=MAILBOX)
        machine.client.set_u32(machine.vgic, uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, 2)
        machine.client.set_u32(machine.vgic, uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x10080, 0xFFFFFFFF)
        machine.client.set_u32(machine.vgic, uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 0x10100, 0xFFFF)
        assert machine.written()[2] == 3


def test_interrupt(machine: Machine) -> None:
    """A shared interrupt enters at the vector of IRQ, with the return address that SUBS PC, LR, #4 takes."""
    machine.code(guest.LOOP)
    machine.put(PSTATE, SUPERVISOR & ~IRQ_MASK)
    machine.put(core("regs", "regs", 17), STACK)
    enable(machine, 40)
    machine.client.irq_line(machine.vm, 1, 40, 1)
    link, spsr, cpsr, *_, stack = caught(machine, IRQ)
    assert (RAM <= link - 4 <= RAM + 4, spsr & 0x3FF, cpsr & 0x3FF) == (True, SUPERVISOR & ~IRQ_MASK, 0x1D2)
    assert stack == STACK


def test_pc_as_an_index(machine: Machine) -> None:
    """What that does is not predictable, but it is no end of the emulator: with an access at the begin of a page."""
    machine.code((0xE791000F,))  # ldr r0, [r1, pc]
    machine.x(x1=NOWHERE - (RAM + 8) & 0xFFFFFFFF)
    assert machine.read(0) == (NOWHERE, 4)
