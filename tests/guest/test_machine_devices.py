"""Machine code in KVM_RUN: what KVM serves without userspace, interrupts from eventfds, and calls of firmware."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import machine_code as guest
import pytest
from machine_rig import MAILBOX, PC, PSTATE, RAM, REDIST_BASE, VBAR, Machine, core, system
from support import DIST_BASE

from kvmvfio_emu import uapi

VECTORS = RAM + 0x4000
IRQ_FROM_EL1 = VECTORS + 0x280
SPI = 44
ESR, FAR = system(3, 0, 5, 2, 0), system(3, 0, 6, 0, 0)


@pytest.fixture
def gicv3() -> Iterator[Machine]:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    with Machine(gic=3) as machine:
        yield machine


@pytest.fixture
def linux_6_1() -> Iterator[Machine]:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    with Machine(profile="linux-6.1") as machine:
        yield machine


def test_gicv3_by_system_registers(gicv3: Machine) -> None:
    """An irqfd raises an SPI; the guest acknowledges it by ICC_IAR1_EL1. Twice, so that the EOI counted, too."""
    gicv3.code(guest.GICV3)
    gicv3.code(guest.ACKNOWLEDGE, IRQ_FROM_EL1)
    gicv3.put(VBAR, VECTORS)
    gicv3.x(x9=MAILBOX, x10=DIST_BASE, x11=REDIST_BASE)
    eventfd = gicv3.client.eventfd()
    gicv3.client.irqfd(gicv3.vm, eventfd, SPI - 32)
    gicv3.client.call(gicv3.vm, uapi.KVM_IRQ_LINE, "kvm_irq_level", irq=1 << 24 | SPI + 2, level=1)
    assert gicv3.written() == (MAILBOX, 8, SPI + 2)
    gicv3.client.call(gicv3.vm, uapi.KVM_IRQ_LINE, "kvm_irq_level", irq=1 << 24 | SPI + 2, level=0)
    os.eventfd_write(eventfd, 1)
    assert gicv3.written() == (MAILBOX, 8, SPI)


def test_without_a_gicv3_its_registers_are_undefined(machine: Machine) -> None:
    machine.code(guest.GICV3)
    machine.code(guest.HANDLER, VECTORS + 0x200)
    machine.put(VBAR, VECTORS)
    machine.x(x9=MAILBOX)
    assert machine.written()[2] == 1 << 25  # unknown reason


def test_an_ioeventfd_takes_its_store(machine: Machine) -> None:
    machine.code(guest.STORES)
    machine.x(x0=MAILBOX + 0x100, x1=5, x2=6, x3=7, x4=8, x9=MAILBOX)
    eventfd = machine.client.eventfd()
    machine.client.call(
        machine.vm,
        uapi.KVM_IOEVENTFD,
        "kvm_ioeventfd",
        addr=MAILBOX + 0x100,
        len=4,
        datamatch=6,
        fd=eventfd,
        flags=uapi.KVM_IOEVENTFD_FLAG_DATAMATCH,
    )
    assert machine.written() == (MAILBOX + 0x100, 4, 5)
    assert machine.written() == (MAILBOX + 0x104, 4, 7)
    assert os.eventfd_read(eventfd) == 1
    assert machine.written() == (MAILBOX, 4, 8)


def test_coalesced_stores_wait_in_the_ring(machine: Machine) -> None:
    machine.code(guest.STORES)
    machine.x(x0=MAILBOX + 0x100, x1=5, x2=6, x3=7, x4=8, x9=MAILBOX)
    fields = {"addr": MAILBOX + 0x100, "size": 8}
    machine.client.call(machine.vm, uapi.KVM_REGISTER_COALESCED_MMIO, "kvm_coalesced_mmio_zone", **fields)
    assert machine.written() == (MAILBOX, 4, 8)
    ring = uapi.ffi.cast("struct kvm_coalesced_mmio_ring *", uapi.ffi.cast("char *", machine.runs[0]) + 4096)
    entries = [ring.coalesced_mmio[index] for index in range(ring.first, ring.last)]
    found = [(entry.phys_addr - MAILBOX, entry.len, entry.data[0]) for entry in entries]
    assert found == [(0x100, 4, 5), (0x100, 4, 6), (0x104, 4, 7)]


def test_a_stopped_vcpu_waits_for_its_mp_state(machine: Machine) -> None:
    machine.code(guest.STORE)
    machine.x(x0=MAILBOX, x1=3)
    vcpu = machine.vcpus[0]
    machine.client.call(vcpu, uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=uapi.KVM_MP_STATE_STOPPED)
    call = machine.kernel.start(vcpu, uapi.KVM_RUN)
    machine.kernel.run(10)
    assert not call.done
    machine.client.call(vcpu, uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=uapi.KVM_MP_STATE_RUNNABLE)
    machine.kernel.run(10)
    assert call.done
    assert machine.runs[0].exit_reason == uapi.KVM_EXIT_MMIO


def test_slots_change_while_a_vcpu_runs(machine: Machine) -> None:
    """It polls memory; when the slot goes away, its load exits."""
    import mmap

    memory = mmap.mmap(-1, 0x1000)
    machine.slot(1, 0x5000_0000, 0x1000, memory)
    machine.code(guest.POLL)
    machine.x(x0=0x5000_0000, x9=MAILBOX)
    call = machine.kernel.start(machine.vcpus[0], uapi.KVM_RUN)
    machine.kernel.run(10)
    assert not call.done
    machine.slot(1, 0x5000_0000, 0, memory)
    while not call.done:
        machine.kernel.run(10)
    run = machine.runs[0]
    assert (run.exit_reason, run.mmio.phys_addr, run.mmio.is_write) == (uapi.KVM_EXIT_MMIO, 0x5000_0000, 0)


def test_exclusive_accesses_of_two_vcpus_lose_nothing(pair: Machine) -> None:
    many = 200_000
    pair.code(guest.ATOMIC)
    for vcpu in (0, 1):
        pair.put(PC, RAM, vcpu)
        for number, value in ((0, RAM + 0x2000), (3, many), (9, MAILBOX)):
            pair.put(core("regs", "regs", number), value, vcpu)
    pair.client.call(pair.vcpus[1], uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=uapi.KVM_MP_STATE_RUNNABLE)
    other = pair.kernel.start(pair.vcpus[1], uapi.KVM_RUN)
    pair.written()
    while not other.done:
        pair.kernel.run(10)
    assert int.from_bytes(pair.ram[0x2000:0x2008], "little") == 2 * many


def test_a_slice_ends_between_instructions(machine: Machine) -> None:
    """Some hundred slices of list walking: a load that were done twice would be a step too many."""
    nodes, steps = 1024, 20_000_001
    for node in range(nodes):
        at = 0x2000 + 8 * node
        machine.ram[at : at + 8] = (RAM + 0x2000 + 8 * ((node + 1) % nodes)).to_bytes(8, "little")
    machine.code(guest.WALK)
    machine.x(x0=RAM + 0x2000, x3=steps, x9=MAILBOX)
    assert machine.written()[2] == RAM + 0x2000 + 8 * (steps % nodes)


# -- what has no syndrome ------------------------------------------------------------------------------------------


def test_userspace_may_decode_what_has_no_syndrome(machine: Machine) -> None:
    machine.client.call(machine.vm, uapi.KVM_ENABLE_CAP, "kvm_enable_cap", cap=uapi.KVM_CAP_ARM_NISV_TO_USER)
    machine.code(guest.WRITEBACK)
    machine.x(x0=MAILBOX + 0x100, x9=MAILBOX)
    run = machine.run()
    assert (run.exit_reason, run.arm_nisv.fault_ipa) == (uapi.KVM_EXIT_ARM_NISV, MAILBOX + 0x100)
    assert run.arm_nisv.esr_iss & 1 << 6  # a write
    assert machine.get(PC) == RAM
    machine.put(PC, RAM + 4)
    assert machine.written()[0] == MAILBOX


@pytest.mark.parametrize("code", [guest.WRITEBACK, guest.STORE], ids=["no syndrome", "MMIO"])
def test_userspace_may_abort_an_access(machine: Machine, code: tuple[int, ...]) -> None:
    """KVM_CAP_ARM_INJECT_EXT_DABT, for an exit that it cannot serve."""
    machine.client.call(machine.vm, uapi.KVM_ENABLE_CAP, "kvm_enable_cap", cap=uapi.KVM_CAP_ARM_NISV_TO_USER)
    machine.code(code)
    machine.code(guest.HANDLER, VECTORS + 0x200)
    machine.put(VBAR, VECTORS)
    machine.x(x0=MAILBOX + 0x100, x9=MAILBOX)
    machine.run()
    events = uapi.pack("struct kvm_vcpu_events")
    uapi.view("struct kvm_vcpu_events", events).exception.ext_dabt_pending = 1
    machine.client.ioctl(machine.vcpus[0], uapi.KVM_SET_VCPU_EVENTS, events)
    esr, far, elr = (machine.written()[2] for _ in range(3))
    assert (esr, far, elr) == (0x25 << 26 | 1 << 25 | 0x10, MAILBOX + 0x100, RAM)


def test_straddling_from_memory_into_nothing(machine: Machine) -> None:
    """The last bytes of memory and the first behind it: no device is accessed by halves."""
    machine.code(guest.LOAD)
    machine.code(guest.HANDLER, VECTORS + 0x200)
    machine.put(VBAR, VECTORS)
    machine.x(x0=RAM + 0xFFFE, x9=MAILBOX)
    assert machine.written()[2] == 0x25 << 26 | 1 << 25 | 0x21
    assert machine.get(core("elr_el1")) == RAM


# -- calls of firmware ---------------------------------------------------------------------------------------------


def test_smc_of_linux_6_12_is_a_call(machine: Machine) -> None:
    machine.code(guest.SMC)
    machine.x(x0=uapi.PSCI_0_2_FN_PSCI_VERSION, x9=MAILBOX)
    assert machine.written()[2] == 0x10001
    assert machine.written()[2] == (1 << 64) - 1  # a number that is not 0 is reserved


def test_smc_of_linux_6_1_is_unknown(linux_6_1: Machine) -> None:
    linux_6_1.code(guest.SMC)
    linux_6_1.x(x0=uapi.PSCI_0_2_FN_PSCI_VERSION, x9=MAILBOX)
    assert linux_6_1.written()[2] == (1 << 64) - 1


@pytest.mark.parametrize("action", [uapi.KVM_SMCCC_FILTER_FWD_TO_USER, uapi.KVM_SMCCC_FILTER_DENY])
def test_filtered_call(machine: Machine, action: int) -> None:
    function = 0x8600_0001
    filter_ = uapi.pack("struct kvm_smccc_filter", base=function, nr_functions=1, action=action)
    address = machine.client.pointer(filter_)
    machine.client.set_at(machine.vm, uapi.KVM_ARM_VM_SMCCC_CTRL, uapi.KVM_ARM_VM_SMCCC_FILTER, address)
    machine.code(guest.PSCI)
    machine.x(x0=function, x9=MAILBOX)
    if action == uapi.KVM_SMCCC_FILTER_FWD_TO_USER:
        run = machine.run()
        assert (run.exit_reason, run.hypercall.nr, run.hypercall.flags) == (uapi.KVM_EXIT_HYPERCALL, function, 0)
        assert machine.get(PC) == RAM + 4
        machine.x(x0=77)
        assert machine.written()[2] == 77
    else:
        assert machine.written()[2] == (1 << 64) - 1


# -- registers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0x1, 0x2, 0x3, 0x6, 0x8, 0x9, 0xC, 0xD, 0xF, 0x13, 0x1F])
def test_modes_that_a_guest_has_not_are_refused(machine: Machine, mode: int) -> None:
    machine.code(guest.STORE)
    machine.x(x0=MAILBOX)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        machine.put(PSTATE, 0x3C0 | mode)
    assert machine.written()[0] == MAILBOX  # as it was


def test_registers_hold_what_they_were_set_to(machine: Machine) -> None:
    """Every core register, through the engine and back."""
    machine.code(guest.STORE)
    values = {core("regs", "regs", number): 0x1111_1111_1111_1111 + number for number in range(1, 31)}
    values |= {core("regs", "sp"): 0x7F00, core("sp_el1"): 0x7E00, core("elr_el1"): 0x7D00, core("spsr", 0): 0x80000005}
    values |= {system(3, 0, 13, 0, 4): 0x7C00, system(3, 3, 13, 0, 2): 0x7B00, system(3, 0, 10, 2, 0): 0xFF44}
    for number, value in values.items():
        machine.put(number, value)
    machine.x(x0=MAILBOX)
    machine.written()
    assert {number: machine.get(number) for number in values} == values
