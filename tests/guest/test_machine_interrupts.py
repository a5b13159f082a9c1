"""Interrupts that wait until the guest unmasks them, in code that was executed before, and hints that only wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from machine_rig import MAILBOX, PC, PSTATE, RAM, VBAR, Machine, core
from support import CPU_BASE

from kvmvfio_emu import uapi
from kvmvfio_emu.engine.trace import Event

VECTORS = RAM + 0x1000
IRQ_VECTOR, UNDEFINED_VECTOR = {64: 0x280, 32: 0x18}, 4
#: add x0, x0, #1; unmask IRQs; mask them; back to the first.
WINDOW = {
    64: (0x91000400, 0xD50342FF, 0xD50342DF, 0x17FFFFFD),
    32: (0xE2800001, 0xF1080080, 0xF10C0080, 0xEAFFFFFB),
}
#: The same with WFI for the first, as idle loops are.
IDLE = {64: (0xD503207F, *WINDOW[64][1:]), 32: (0xE320F003, *WINDOW[32][1:])}
STORE = {64: 0xB9000120, 32: 0xE5890000}  # str w0, [x9]
LOAD_IAR = 0xB9400D40  # ldr w0, [x10, #12]
#: add r1, r1, #1; cmp r1, #20; beq to the last; nop; nop; back to the first; str r1, [r9].
SPIN = (0xE2811001, 0xE3510014, 0x0A000002, 0xE320F000, 0xE320F000, 0xEAFFFFF9, 0xE5891000)
WFE, YIELD, UNDEFINED = 0xE320F002, 0xE320F001, 0xE7F000F1


@contextmanager
def patience(machine: Machine, seconds: float) -> Iterator[None]:
    """KVM_RUN ends by then."""
    stop = threading.Timer(seconds, lambda: setattr(machine.runs[0], "immediate_exit", 1))
    stop.start()
    yield
    stop.cancel()
    machine.runs[0].immediate_exit = 0


@pytest.fixture(params=[64, 32])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def prepare(machine: Machine, code: tuple[int, ...], width: int) -> None:
    machine.code(code)
    machine.code((STORE[width],), VECTORS + IRQ_VECTOR[width])
    machine.put(VBAR, VECTORS)
    machine.x(x9=MAILBOX, x10=CPU_BASE)


def warm(machine: Machine) -> None:
    """It has run for a while, so that all of it is translated: the loop counts in x0."""
    while machine.get(core("regs", "regs", 0)) < 1000:
        with patience(machine, 0.02), pytest.raises(InterruptedError):
            machine.run()


def test_a_short_window_is_not_missed(width: int) -> None:
    with Machine(gic=0, width=width) as machine:
        prepare(machine, WINDOW[width], width)
        warm(machine)
        machine.client.irq_line(machine.vm, uapi.KVM_ARM_IRQ_TYPE_CPU, uapi.KVM_ARM_IRQ_CPU_IRQ, 1)
        with patience(machine, 10):
            address, size, count = machine.written()
        assert (address, size) == (MAILBOX, 4)
        assert count >= 1000


def test_nor_is_that_of_an_idle_loop(width: int) -> None:
    with Machine(gic=0, width=width) as machine:
        prepare(machine, IDLE[width], width)
        machine.client.irq_line(machine.vm, uapi.KVM_ARM_IRQ_TYPE_CPU, uapi.KVM_ARM_IRQ_CPU_IRQ, 1)
        with patience(machine, 10):
            assert machine.written() == (MAILBOX, 4, 0)


def test_it_goes_away_again(width: int) -> None:
    """A line that falls before the guest unmasks it: the guest goes on."""
    with Machine(gic=0, width=width) as machine:
        prepare(machine, (WINDOW[width][0], STORE[width], *WINDOW[width]), width)
        for level in (1, 0):
            machine.client.irq_line(machine.vm, uapi.KVM_ARM_IRQ_TYPE_CPU, uapi.KVM_ARM_IRQ_CPU_IRQ, level)
            if level:
                assert machine.written() == (MAILBOX, 4, 1)
        warm(machine)
        assert RAM <= machine.get(PC) < RAM + 4 * 6


def test_a_trace_tells_where_it_was_taken(events: Callable[[Machine], list[Event]]) -> None:
    """Of an A64 guest: an A32 handler may have changed where it returns to."""
    with Machine() as machine:
        prepare(machine, WINDOW[64], 64)
        machine.code((LOAD_IAR, STORE[64]), VECTORS + IRQ_VECTOR[64])
        dist, cpu = uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, uapi.KVM_DEV_ARM_VGIC_GRP_CPU_REGS
        for group, register, value in (
            (dist, 0, 1),
            (dist, 0x104, 1 << 8),
            (dist, 0x828, 0x01010101),
            (cpu, 0, 1),
            (cpu, 4, 0xFF),
        ):
            machine.client.set_u32(machine.vgic, group, register, value)
        warm(machine)
        machine.put(PC, RAM)
        machine.put(PSTATE, 0x3C5)  # masked, so that the engine takes it, later
        seen = events(machine)
        machine.client.irq_line(machine.vm, uapi.KVM_ARM_IRQ_TYPE_SPI, 40, 1)
        with patience(machine, 10):
            assert machine.written() == (MAILBOX, 4, 40)
        of_the_guest = [event for event in seen if event.name in ("guest_irq", "guest_iar")]
        assert [event.name for event in of_the_guest] == ["guest_irq", "guest_iar"]
        assert of_the_guest[0].fields["pc"] == RAM + 8


@pytest.fixture
def events() -> Iterator[Callable[[Machine], list[Event]]]:
    ends = []

    def listen(machine: Machine) -> list[Event]:
        seen: list[Event] = []
        ends.append(machine.kernel.host.trace.listen(seen.append))
        return seen

    yield listen
    for end in ends:
        end()


@pytest.mark.parametrize("hint", [WFE, YIELD], ids=["WFE", "YIELD"])
@pytest.mark.parametrize("place", [3, 4])
def test_a_loop_with_a_hint(hint: int, place: int) -> None:
    with Machine(width=32) as machine:
        code = list(SPIN)
        code[place] = hint
        machine.code(code)
        machine.x(x9=MAILBOX)
        with patience(machine, 10):
            assert machine.written() == (MAILBOX, 4, 20)


def test_an_undefined_instruction_after_a_hint_is_one() -> None:
    with Machine(width=32) as machine:
        machine.code((WFE, UNDEFINED))
        machine.code((0xE589E000,), VECTORS + UNDEFINED_VECTOR)  # str lr, [r9]
        machine.put(VBAR, VECTORS)
        machine.x(x9=MAILBOX)
        with patience(machine, 10):
            assert machine.written() == (MAILBOX, 4, RAM + 8)
