"""A guest on a VGICv3: it takes interrupts by the list registers and the system registers of the CPU interface."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from gicv3_rig import DIST_BASE, ITS_BASE, REDIST_BASE, Machine, boot_v3
from its_rig import EVENT, LPI, QUEUE
from its_rig import Guest as Its
from support import NR_IRQS, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, read, wait_for_interrupt, write
from kvmvfio_emu.guest.gicv3 import CpuV3
from kvmvfio_emu.guest.script import Operation, ReadSystem, Routine, WriteSystem
from kvmvfio_emu.hw import gicv3 as g

DOORBELL = 0x0A00_0000
SPI, EDGE, OTHER = 41, 42, 47
GSI = SPI - 32


class Guest:
    """vCPU ``number``, which does one operation at a time and then asks for the next by an MMIO exit."""

    def __init__(self, machine: Machine, number: int = 0) -> None:
        self.machine = machine
        self.fd = machine.vcpus[number]
        self.cpu = CpuV3(DIST_BASE, REDIST_BASE + number * 0x20000, number)
        self._todo: deque[Operation] = deque()
        self._result = 0
        machine.client.kernel.attach_guest(number, Script(self._main))
        self.all(self.cpu.enable_gic())

    def _main(self, cpu: Cpu) -> Routine:
        while True:
            yield read(DOORBELL)
            self._result = yield self._todo.popleft()

    def do(self, operation: Operation) -> int:
        """The operation's result, when the guest has exited again."""
        self._todo.append(operation)
        self.machine.client.ioctl(self.fd, uapi.KVM_RUN, 0)
        if self._todo:  # the first exit only asked for it
            self.machine.client.ioctl(self.fd, uapi.KVM_RUN, 0)
        return self._result

    def all(self, routine: Routine) -> None:
        """A whole routine."""
        try:
            operation = next(routine)
            while True:
                operation = routine.send(self.do(operation))
        except StopIteration:
            pass

    def iar(self) -> int:
        """Acknowledge."""
        return self.do(self.cpu.acknowledge())

    def eoi(self, irq: int) -> None:
        """End of interrupt."""
        self.do(self.cpu.end_of_interrupt(irq))


class State:
    """Latch, active bit and line of an interrupt, as userspace sees them."""

    def __init__(self, machine: Machine, irq: int) -> None:
        self._machine, self._irq = machine, irq

    def __call__(self) -> tuple[int, int, int]:
        word, bit = self._irq // 32, self._irq % 32
        dist = self._machine.dist
        found = dist(0x200 + 4 * word), dist(0x300 + 4 * word), self._machine.level(32 * word)
        return tuple(value >> bit & 1 for value in found)  # type: ignore[return-value]


@pytest.fixture
def client(boot: Callable[..., Client]) -> Client:
    return boot_v3(boot)


@pytest.fixture
def machine(client: Client) -> Machine:
    machine = Machine(client, 2, ready=False)
    machine.place()
    client.set_u32(machine.gic, NR_IRQS, 0, 96)
    machine.init()
    return machine


@pytest.fixture
def guest(machine: Machine) -> Guest:
    guest = Guest(machine)
    for irq in (SPI, OTHER):
        guest.all(guest.cpu.enable_irq(irq))
    guest.all(guest.cpu.enable_irq(EDGE, edge=True))
    for irq in (40, 44):
        guest.do(write(DIST_BASE + 0x400 + irq, 0xA0A0A0A0))
    return guest


def line(guest: Guest, irq: int, level: int) -> None:
    guest.machine.client.irq_line(guest.machine.vm, 1, irq, level)


def count(fd: int) -> int:
    try:
        return int.from_bytes(os.read(fd, 8), "little")
    except BlockingIOError:
        return 0


# -- level and edge ---------------------------------------------------------------------------------------------------


def test_level_interrupt_comes_again_while_its_line_is_high(guest: Guest) -> None:
    state = State(guest.machine, SPI)
    line(guest, SPI, 1)
    assert state() == (0, 0, 1)
    assert guest.iar() == SPI
    assert state() == (0, 1, 1)
    assert guest.iar() == 1023
    guest.eoi(SPI)
    assert state() == (0, 0, 1)
    assert guest.iar() == SPI
    line(guest, SPI, 0)
    assert state() == (0, 1, 0)
    guest.eoi(SPI)
    assert (state(), guest.iar()) == ((0, 0, 0), 1023)


def test_level_interrupt_that_falls_before_it_is_taken_is_gone(guest: Guest) -> None:
    line(guest, SPI, 1)
    line(guest, SPI, 0)
    assert guest.iar() == 1023


def test_edge_while_active_is_kept(guest: Guest) -> None:
    state = State(guest.machine, EDGE)
    line(guest, EDGE, 1)
    assert state() == (1, 0, 0)
    assert guest.iar() == EDGE
    assert state() == (0, 1, 0)
    line(guest, EDGE, 1)
    assert state() == (1, 1, 0)
    guest.eoi(EDGE)
    assert state() == (1, 0, 0)
    assert guest.iar() == EDGE
    guest.eoi(EDGE)
    assert guest.iar() == 1023


def test_guest_sees_the_line_where_userspace_sees_the_latch(guest: Guest) -> None:
    line(guest, SPI, 1)
    pending = DIST_BASE + 0x204
    assert (guest.do(read(pending)), guest.machine.dist(0x204)) == (1 << GSI, 0)
    guest.do(write(DIST_BASE + 0x284, 1 << GSI))
    assert guest.do(read(pending)) == 1 << GSI
    line(guest, SPI, 0)
    assert guest.do(read(pending)) == 0
    guest.do(write(pending, 1 << GSI))
    assert (guest.do(read(pending)), guest.machine.dist(0x204)) == (1 << GSI, 1 << GSI)


def test_resampling_irqfd(guest: Guest) -> None:
    trigger, resample = guest.machine.client.eventfd(), guest.machine.client.eventfd()
    guest.machine.client.irqfd(guest.machine.vm, trigger, GSI, uapi.KVM_IRQFD_FLAG_RESAMPLE, resample)
    os.eventfd_write(trigger, 1)
    guest.machine.client.kernel.run()
    assert State(guest.machine, SPI)() == (0, 0, 1)
    assert guest.iar() == SPI
    assert (count(trigger), count(resample)) == (0, 0)
    guest.eoi(SPI)
    assert (State(guest.machine, SPI)(), count(resample), guest.iar()) == ((0, 0, 0), 1, 1023)


def test_priority_decides_and_preempts(guest: Guest) -> None:
    guest.do(write(DIST_BASE + 0x400 + OTHER, 0x20, 1))
    line(guest, SPI, 1)
    line(guest, OTHER, 1)
    assert guest.iar() == OTHER
    assert guest.do(ReadSystem(g.ICC_RPR_EL1)) == 0x20
    assert guest.iar() == 1023
    line(guest, OTHER, 0)
    guest.eoi(OTHER)
    assert guest.iar() == SPI
    line(guest, OTHER, 1)
    assert guest.iar() == OTHER
    line(guest, OTHER, 0)
    guest.eoi(OTHER)
    assert guest.do(ReadSystem(g.ICC_RPR_EL1)) == 0xA0


def test_priority_mask_and_group_enable(guest: Guest) -> None:
    line(guest, SPI, 1)
    guest.do(WriteSystem(g.ICC_PMR_EL1, 0xA0))
    assert guest.iar() == 1023
    guest.do(WriteSystem(g.ICC_PMR_EL1, 0xFF))
    guest.do(WriteSystem(g.ICC_IGRPEN1_EL1, 0))
    assert guest.iar() == 1023
    guest.do(WriteSystem(g.ICC_IGRPEN1_EL1, 1))
    assert guest.iar() == SPI


def test_turning_the_distributor_on_again_does_not_look_for_what_is_pending(guest: Guest) -> None:
    line(guest, SPI, 1)
    guest.do(write(DIST_BASE, 0x50))
    assert guest.iar() == 1023
    guest.do(write(DIST_BASE, 0x52))
    assert guest.iar() == 1023
    line(guest, SPI, 0)
    line(guest, SPI, 1)
    assert guest.iar() == SPI


def test_with_eoi_mode_1_the_interrupt_ends_by_dir(guest: Guest) -> None:
    guest.do(WriteSystem(g.ICC_CTLR_EL1, 2))
    line(guest, SPI, 1)
    assert guest.iar() == SPI
    line(guest, SPI, 0)
    guest.eoi(SPI)
    assert State(guest.machine, SPI)() == (0, 1, 0)
    guest.do(guest.cpu.deactivate(SPI))
    assert State(guest.machine, SPI)() == (0, 0, 0)


# -- between vCPUs ----------------------------------------------------------------------------------------------------


def test_router_sends_a_shared_interrupt_to_the_other_vcpu(machine: Machine, guest: Guest) -> None:
    second = Guest(machine, 1)
    guest.do(write(DIST_BASE + 0x6000 + SPI * 8, 1, 8))
    line(guest, SPI, 1)
    assert guest.iar() == 1023
    assert second.iar() == SPI
    second.eoi(SPI)
    guest.do(write(DIST_BASE + 0x6000 + SPI * 8, 0x7F))  # nobody has that affinity
    assert (guest.iar(), second.iar()) == (1023, 1023)


@pytest.mark.parametrize(
    ("value", "to"),
    [
        (5 << 24 | 0b01, [5, 1023]),
        (5 << 24 | 0b10, [1023, 5]),
        (5 << 24 | 0b11, [5, 5]),
        (5 << 24 | 1 << 40, [1023, 5]),  # all others
        (5 << 24 | 1 << 16 | 0b11, [1023, 1023]),  # another cluster
        (5 << 24 | 1 << 48 | 0b11, [1023, 1023]),
    ],
)
def test_sgi_goes_by_affinity(machine: Machine, guest: Guest, value: int, to: list[int]) -> None:
    second = Guest(machine, 1)
    guest.do(WriteSystem(g.ICC_SGI1R_EL1, value))
    assert [guest.iar(), second.iar()] == to


def test_sgi_of_group_0_does_not_reach_group_1(guest: Guest) -> None:
    guest.do(WriteSystem(g.ICC_SGI0R_EL1, 5 << 24 | 1))
    assert guest.iar() == 1023


def test_redistributor_of_another_vcpu_can_be_reached(machine: Machine, guest: Guest) -> None:
    other = REDIST_BASE + 0x20000
    assert guest.do(read(other + 0x8, 8)) == 1 << 32 | 1 << 8 | 0x10
    guest.do(write(other + g.GICR_ISENABLER0, 1 << 20))
    assert machine.redist(g.GICR_ISENABLER0, affinity=1) == 1 << 20 | 0xFFFF
    assert machine.redist(g.GICR_ISENABLER0) == 0xFFFF


@pytest.mark.parametrize(("offset", "size"), [(0x0, 8), (0x1, 1), (0x2, 2), (0x100, 1), (0x6100, 2)])
def test_accesses_of_a_wrong_width_read_as_zero(guest: Guest, offset: int, size: int) -> None:
    assert guest.do(read(DIST_BASE + offset, size)) == 0


def test_byte_access_to_priorities(guest: Guest) -> None:
    guest.do(write(DIST_BASE + 0x400 + SPI, 0x13, 1))
    assert guest.do(read(DIST_BASE + 0x400 + SPI, 1)) == 0x10
    assert guest.do(read(DIST_BASE + 0x400 + SPI - 1)) == 0xA0A010A0


def test_pending_interrupt_ends_wfi(machine: Machine, guest: Guest) -> None:
    guest._todo.append(wait_for_interrupt())
    call: Any = machine.client.kernel.start(guest.fd, uapi.KVM_RUN)
    machine.client.kernel.run()
    assert not call.done
    line(guest, SPI, 1)
    machine.client.kernel.run()
    assert call.done


def test_guest_takes_an_lpi(machine: Machine, guest: Guest) -> None:
    its = Its(machine)
    its.one_event()
    assert its.signal() == 1
    assert guest.iar() == LPI
    guest.eoi(LPI)
    assert guest.iar() == 1023
    assert its.lpi() == (False, True, 0xA0, 0)
    its.signal()
    its.on_event(g.CMD_DISCARD)
    assert guest.iar() == LPI  # it was in the vCPU's list already
    guest.eoi(LPI)
    assert (guest.iar(), its.lpi()) == (1023, None)


def test_guest_programs_the_its_itself(machine: Machine, guest: Guest) -> None:
    its = Its(machine)
    translater = ITS_BASE + g.GITS_TRANSLATER
    assert guest.do(read(ITS_BASE + g.GITS_TYPER, 8)) == machine.its_reg(g.GITS_TYPER)
    assert guest.do(read(ITS_BASE + g.GITS_TYPER + 4)) == 0
    assert guest.do(read(ITS_BASE + 2, 2)) == guest.do(read(translater)) == 0
    guest.do(write(translater, EVENT))  # the kernel has no register there: only KVM_SIGNAL_MSI goes by its address
    guest.do(write(ITS_BASE + g.GITS_CTLR, 0))
    assert machine.its_reg(g.GITS_CTLR) == 1 << 31
    guest.do(write(ITS_BASE + g.GITS_CBASER + 4, 0))
    guest.do(write(ITS_BASE + g.GITS_CBASER, QUEUE & 0xFFFFFFFF))
    guest.do(write(ITS_BASE + g.GITS_CBASER + 4, 1 << 31))
    guest.do(write(ITS_BASE + g.GITS_CTLR, 1))
    assert machine.its_reg(g.GITS_CTLR) == 1 << 31 | 1
    its.one_event()
    assert its.signal() == 1
