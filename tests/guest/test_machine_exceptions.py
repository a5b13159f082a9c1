"""Machine code in KVM_RUN: exceptions that the guest takes, and the timer's interrupt."""

from __future__ import annotations

import machine_code as guest
import pytest
from machine_rig import MAILBOX, PC, PSTATE, RAM, SP_EL0, SP_EL1, VBAR, Machine, system
from support import CPU_BASE, DIST_BASE

from kvmvfio_emu import uapi

VECTORS, STACK = RAM + 0x4000, RAM + 0x8000
EL1H, EL1T = 0x3C5, 0x3C4
CURRENT_SP0, CURRENT_SPX, LOWER = 0x000, 0x200, 0x400
IRQ = 0x80


def caught(machine: Machine, vector: int) -> list[int]:
    """What the handler at a vector finds: ESR, FAR, ELR, SPSR, SP."""
    machine.code(guest.HANDLER, VECTORS + vector)
    machine.put(VBAR, VECTORS)
    machine.put(SP_EL1, STACK)
    machine.x(x9=MAILBOX)
    return [machine.written()[2] for _ in range(5)]


def test_undefined(machine: Machine) -> None:
    machine.code(guest.UNDEFINED)
    esr, _, elr, spsr, stack = caught(machine, CURRENT_SPX)
    assert (esr, elr, spsr & 0x3FF, stack) == (1 << 25, RAM, EL1H, STACK)


def test_from_el1t_the_stack_is_banked(machine: Machine) -> None:
    machine.code(guest.UNDEFINED)
    machine.put(PSTATE, EL1T)
    machine.put(SP_EL0, 0x1230)
    _, _, elr, spsr, stack = caught(machine, CURRENT_SP0)
    assert (elr, spsr & 0x3FF, stack) == (RAM, EL1T, STACK)
    assert machine.get(SP_EL0) == 0x1230
    assert machine.get(PSTATE) & 0x3FF == EL1H


def test_call_from_el0(machine: Machine) -> None:
    machine.code(guest.BELOW)
    machine.code(guest.CALLS, RAM + 0x100)
    machine.x(x1=RAM + 0x100)
    esr, _, elr, spsr, stack = caught(machine, LOWER)
    assert (esr, elr, spsr & 0x3FF, stack) == (0x15 << 26 | 1 << 25 | 5, RAM + 0x104, 0, STACK)
    assert machine.get(SP_EL0) == 0x123000


def test_jump_into_nothing_is_an_abort(machine: Machine) -> None:
    machine.put(PC, 0x9000_0000)
    esr, far, elr, _, _ = caught(machine, CURRENT_SPX)
    assert (esr, far, elr) == (0x21 << 26 | 1 << 25 | 0x10, 0x9000_0000, 0x9000_0000)


@pytest.mark.parametrize(("code", "write"), [(guest.LOAD, 0), (guest.STORE, 1 << 6)])
def test_unaligned_mmio_is_an_alignment_fault(machine: Machine, code: tuple[int, ...], write: int) -> None:
    machine.code(code)
    machine.x(x0=MAILBOX + 0x102)
    esr, far, elr, _, _ = caught(machine, CURRENT_SPX)
    assert (esr, far, elr) == (0x25 << 26 | 1 << 25 | write | 0x21, MAILBOX + 0x102, RAM)


@pytest.mark.parametrize("waiting", [guest.TIMER, guest.SPIN], ids=["wfi", "loop"])
def test_timer_interrupt(machine: Machine, waiting: tuple[int, ...]) -> None:
    """10 ms of virtual time, asleep or computing."""
    machine.code(guest.GIC)
    machine.code(waiting, RAM + 0x100)
    machine.code(guest.TICKED, VECTORS + CURRENT_SPX + IRQ)
    machine.put(VBAR, VECTORS)
    machine.x(x10=DIST_BASE, x11=CPU_BASE, x30=RAM + 0x100, x2=625_000, x9=MAILBOX)
    before = machine.kernel.host.clock.now
    assert machine.written() == (MAILBOX, 8, 27)
    passed = machine.kernel.host.clock.now - before
    assert 10_000_000 <= passed < 15_000_000


def test_timer_interrupt_where_userspace_puts_it(machine: Machine) -> None:
    """KVM_ARM_VCPU_TIMER_CTRL: the virtual timer's interrupt is 20, which this guest has not enabled."""
    client = machine.client
    irq = client.pointer((20).to_bytes(4, "little"))
    client.set_at(machine.vcpus[0], uapi.KVM_ARM_VCPU_TIMER_CTRL, uapi.KVM_ARM_VCPU_TIMER_IRQ_VTIMER, irq)
    machine.code((*guest.GIC[:-3], 0x52A00201, *guest.GIC[-2:]))  # mov w1, #0x100000
    machine.code(guest.TIMER, RAM + 0x100)
    machine.code(guest.TICKED, VECTORS + CURRENT_SPX + IRQ)
    machine.put(VBAR, VECTORS)
    machine.x(x10=DIST_BASE, x11=CPU_BASE, x30=RAM + 0x100, x2=1000, x9=MAILBOX)
    assert machine.written() == (MAILBOX, 8, 20)


def test_counters(machine: Machine) -> None:
    machine.code(guest.COUNTERS)
    machine.x(x9=MAILBOX)
    first, second, frequency = (machine.written()[2] for _ in range(3))
    assert first < second
    assert frequency == 62_500_000


def test_page_fault_says_where_and_is_mended(machine: Machine) -> None:
    """The guest's own page tables: a load through a hole in them, which the handler fills; then the load goes on."""
    table, virtual = RAM + 0x5000, 0x5_4000_0008
    block = RAM | 1 << 10 | 1  # normal memory, accessed
    machine.ram[0x5000 + 8 : 0x5000 + 16] = block.to_bytes(8, "little")
    machine.ram[0x5000 + 0 : 0x5000 + 8] = (1 << 10 | 1).to_bytes(8, "little")  # the mailbox
    machine.code(guest.PAGED)
    machine.code(guest.DEMAND, VECTORS + CURRENT_SPX)
    machine.put(VBAR, VECTORS)
    machine.x(x0=table, x2=virtual, x5=block, x9=MAILBOX)
    assert machine.written() == (MAILBOX, 8, int.from_bytes(machine.ram[8:16], "little"))
    assert machine.get(system(3, 0, 6, 0, 0)) == virtual
    assert machine.get(system(3, 0, 5, 2, 0)) == 0x25 << 26 | 1 << 25 | 0x05  # translation, level 1


def test_serror(machine: Machine) -> None:
    machine.code(guest.COUNT)
    machine.put(PSTATE, EL1H & ~0x100)
    events = uapi.pack("struct kvm_vcpu_events")
    uapi.view("struct kvm_vcpu_events", events).exception.serror_pending = 1
    machine.client.ioctl(machine.vcpus[0], uapi.KVM_SET_VCPU_EVENTS, events)
    esr, _, elr, _, _ = caught(machine, CURRENT_SPX + 0x180)
    assert (esr >> 26, elr) == (0x2F, RAM)


@pytest.mark.parametrize("mask", [0, 0x40], ids=["open", "masked"])
def test_fiq_is_an_exception_of_its_own(machine: Machine, mask: int) -> None:
    """KVM_IRQ_LINE at the CPU's FIQ input needs no VGIC."""
    with Machine(gic=0) as bare:
        bare.code(guest.STORE)
        bare.put(PSTATE, EL1H & ~0x40 | mask)
        bare.x(x0=MAILBOX + 8)
        fiq = uapi.KVM_ARM_IRQ_TYPE_CPU << uapi.KVM_ARM_IRQ_TYPE_SHIFT | uapi.KVM_ARM_IRQ_CPU_FIQ
        bare.client.call(bare.vm, uapi.KVM_IRQ_LINE, "kvm_irq_level", irq=fiq, level=1)
        if mask:
            bare.x(x9=MAILBOX)
            assert bare.written()[0] == MAILBOX + 8
        else:
            assert caught(bare, CURRENT_SPX + 0x100)[2] == RAM
