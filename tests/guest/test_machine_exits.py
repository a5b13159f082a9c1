"""Machine code in KVM_RUN: what leaves it, and how userspace completes that."""

from __future__ import annotations

import errno
import os
import threading
import time

import machine_code as guest
import pytest
from machine_rig import MAILBOX, PC, PSTATE, RAM, Machine, core, system

from kvmvfio_emu import uapi
from kvmvfio_emu.engine.trace import Event


def test_sizes_and_signs(machine: Machine) -> None:
    machine.code(guest.SIZES)
    machine.x(x0=MAILBOX, x1=RAM + 0x1000)
    assert machine.read(0x1FF) == (MAILBOX, 1)
    assert machine.read(0x80) == (MAILBOX + 1, 1)
    assert machine.read(0x8001) == (MAILBOX + 2, 2)
    assert machine.read(0x80000002) == (MAILBOX + 4, 4)
    assert machine.read(0x8000000000000003) == (MAILBOX + 8, 8)
    assert machine.written() == (MAILBOX + 16, 1, 0xFF)
    assert machine.written() == (MAILBOX + 18, 2, 0x8001)
    assert machine.written() == (MAILBOX + 20, 4, 0x80000002)
    assert machine.written() == (MAILBOX + 24, 8, 0x8000000000000003)
    assert machine.written() == (MAILBOX + 32, 8, 0)
    assert machine.written() == (MAILBOX + 40, 4, 0xFF)
    held = [int.from_bytes(machine.ram[at : at + 8], "little") for at in range(0x1000, 0x1020, 8)]
    assert held == [0xFF, 0xFFFFFFFFFFFFFF80, 0xFFFF8001, 0xFFFFFFFF80000002]


def test_registers_both_ways(machine: Machine) -> None:
    machine.code(guest.LOAD)
    machine.x(x0=MAILBOX, x9=MAILBOX + 8)
    machine.read(5)
    assert machine.get(PC) == RAM  # at the access, which is completed by the next KVM_RUN
    machine.written()
    assert machine.get(PC) == RAM + 4
    machine.x(x9=MAILBOX + 16)  # taken by the guest, with all the others as they were
    machine.put(PC, RAM - 4)  # the store is completed first, which moves PC on from where it is then
    assert machine.read(6) == (MAILBOX, 4)
    assert machine.written() == (MAILBOX + 16, 4, 6)


def test_no_syndrome_is_not_implemented(machine: Machine) -> None:
    machine.code(guest.PAIR)
    machine.x(x0=MAILBOX)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        machine.run()


def test_an_endless_loop_ends_by_immediate_exit(machine: Machine) -> None:
    machine.code(guest.COUNT)

    def stop() -> None:
        time.sleep(0.02)
        machine.runs[0].immediate_exit = 1

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(InterruptedError):
        machine.run()
    thread.join()
    assert machine.runs[0].exit_reason == uapi.KVM_EXIT_INTR
    assert RAM <= machine.get(PC) <= RAM + 4


def test_an_endless_loop_starves_nobody(pair: Machine) -> None:
    pair.code(guest.COUNT)
    pair.code(guest.STORE, RAM + 0x100)
    pair.client.call(pair.vcpus[1], uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=uapi.KVM_MP_STATE_RUNNABLE)
    pair.put(PC, RAM + 0x100, vcpu=1)
    call = pair.kernel.start(pair.vcpus[0], uapi.KVM_RUN)
    pair.kernel.run(10)
    run = pair.run(1)  # at address 0, which is nowhere
    assert run.exit_reason == uapi.KVM_EXIT_MMIO
    assert not call.done
    call.interrupt()
    assert pair.get(core("regs", "regs", 0)) > 0


@pytest.mark.parametrize(
    ("function", "event"),
    [
        (uapi.PSCI_0_2_FN_SYSTEM_OFF, uapi.KVM_SYSTEM_EVENT_SHUTDOWN),
        (uapi.PSCI_0_2_FN_SYSTEM_RESET, uapi.KVM_SYSTEM_EVENT_RESET),
    ],
)
def test_system_events(machine: Machine, function: int, event: int) -> None:
    machine.code(guest.PSCI)
    machine.x(x0=function, x9=MAILBOX)
    run = machine.run()
    assert (run.exit_reason, run.system_event.type) == (uapi.KVM_EXIT_SYSTEM_EVENT, event)
    state = bytearray(4)
    machine.client.ioctl(machine.vcpus[0], uapi.KVM_GET_MP_STATE, state)
    assert int.from_bytes(state, "little") == uapi.KVM_MP_STATE_STOPPED


@pytest.mark.parametrize(
    ("function", "argument", "answer"),
    [
        (uapi.PSCI_0_2_FN_PSCI_VERSION, 0, 0x10001),
        (uapi.PSCI_1_0_FN_PSCI_FEATURES, uapi.PSCI_0_2_FN_CPU_OFF, 0),
        (uapi.PSCI_1_0_FN_PSCI_FEATURES, 0x8400FFFF, uapi.PSCI_RET_NOT_SUPPORTED),
        (uapi.PSCI_0_2_FN64_CPU_ON, 0, uapi.PSCI_RET_ALREADY_ON),
        (uapi.PSCI_0_2_FN64_CPU_ON, 77, uapi.PSCI_RET_INVALID_PARAMS),
        (uapi.PSCI_0_2_FN64_AFFINITY_INFO, 0, 0),
        (uapi.PSCI_0_2_FN_MIGRATE_INFO_TYPE, 0, 2),
        (0x12345, 0, uapi.PSCI_RET_NOT_SUPPORTED),
    ],
)
def test_psci_answers(machine: Machine, function: int, argument: int, answer: int) -> None:
    machine.code(guest.PSCI)
    machine.x(x0=function, x1=argument, x9=MAILBOX)
    assert machine.written() == (MAILBOX, 8, answer & (1 << 64) - 1)


def test_the_answer_of_a_call_is_there_at_once(pair: Machine) -> None:
    """Also where KVM_RUN ends before the guest goes on."""
    pair.code(guest.PSCI)
    pair.x(x0=uapi.PSCI_0_2_FN64_CPU_ON, x1=1, x2=RAM + 0x800, x9=MAILBOX)

    def interrupt(event: Event) -> None:
        if event.name == "vmexit_hvc":
            pair.runs[0].immediate_exit = 1

    stop = pair.kernel.host.trace.listen(interrupt)
    with pytest.raises(InterruptedError):
        pair.run()
    stop()
    assert pair.get(core("regs", "regs", 0)) == uapi.PSCI_RET_SUCCESS


def test_the_other_accesses_data_as_its_caller(pair: Machine) -> None:
    sctlr = system(3, 0, 1, 0, 0)
    pair.code(guest.PSCI)
    pair.put(sctlr, pair.get(sctlr) | 1 << 25)  # big-endian
    pair.x(x0=uapi.PSCI_0_2_FN64_CPU_ON, x1=1, x2=RAM + 0x800, x9=MAILBOX)
    assert pair.written() == (MAILBOX, 8, 0)
    assert pair.get(sctlr, vcpu=1) & 1 << 25


def test_a_vcpu_starts_another(pair: Machine) -> None:
    pair.code(guest.START)
    pair.code(guest.OTHER, RAM + 0x800)
    pair.x(x0=uapi.PSCI_0_2_FN64_CPU_ON, x1=1, x2=RAM + 0x800, x3=0x1000, x4=RAM + 0x2000, x9=MAILBOX)
    other = pair.kernel.start(pair.vcpus[1], uapi.KVM_RUN)
    assert pair.written() == (MAILBOX, 8, 0x1000 + (1 << 31 | 1))
    pair.kernel.run(100)
    assert not other.done  # it is off, and waits
    assert pair.kernel.host.files  # and nothing broke
    state = bytearray(4)
    pair.client.ioctl(pair.vcpus[1], uapi.KVM_GET_MP_STATE, state)
    assert int.from_bytes(state, "little") == uapi.KVM_MP_STATE_STOPPED
    other.interrupt()


@pytest.mark.parametrize(("state", "control"), [(0x3C5, 1 << 25), (0x3C0, 1 << 24)])
def test_big_endian_data(machine: Machine, state: int, control: int) -> None:
    """What a device sees is bytes in the order of memory, as SCTLR_EL1.EE, or E0E at EL0, says."""
    machine.code((0xB9000001, 0x79400002, 0x79000402))  # str w1, [x0]; ldrh w2, [x0]; strh w2, [x0, #2]
    machine.x(x0=MAILBOX, x1=0x11223344)
    machine.put(PSTATE, state)
    machine.put(system(3, 0, 1, 0, 0), 0x30C50830 | control)
    assert machine.written() == (MAILBOX, 4, 0x44332211)
    assert machine.read(0x5566) == (MAILBOX, 2)
    assert machine.get(PC) == RAM + 4
    assert machine.written() == (MAILBOX + 2, 2, 0x5566)
    assert machine.get(core("regs", "regs", 2)) == 0x6655
