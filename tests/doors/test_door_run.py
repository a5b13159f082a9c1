"""KVM_RUN as a system call: why it returns, what the shared page says, and what ends one that blocks."""

from __future__ import annotations

import errno
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import pytest
from support import Client, pinned

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, read, wait_for_interrupt, work, write
from kvmvfio_emu.guest.script import Routine

OUTSIDE = 0x0D000000
GSI = 48


class Machine:
    """A virtual machine with one vCPU that executes ``main``."""

    def __init__(self, client: Client, main: Callable[[Cpu], Routine] | None, *, vgic: bool = False) -> None:
        self.client = client
        if main is not None:
            client.kernel.attach_guest(0, Script(main))
        self.vm = client.machine()[0] if vgic else client.vm()
        self.vcpu = client.vcpus[0] if vgic else client.vcpu(self.vm, init=True)
        self._page = client.run_page(self.vcpu)
        self.page: Any = None

    def __enter__(self) -> Machine:
        self.page = self._page.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._page.__exit__(None, None, None)

    def run(self) -> int:
        """KVM_RUN; the exit reason."""
        assert self.client.ioctl(self.vcpu, uapi.KVM_RUN) == 0
        return int(self.page.exit_reason)


@pytest.fixture
def guest(client: Client) -> Iterator[Callable[..., Machine]]:
    machines: list[Machine] = []

    def start(main: Callable[[Cpu], Routine] | None, **options: bool) -> Machine:
        machines.append(Machine(client, main, **options).__enter__())
        return machines[-1]

    yield start
    for machine in machines:
        machine.__exit__()


def one(operation: Any) -> Callable[[Cpu], Routine]:
    def main(cpu: Cpu) -> Routine:
        yield operation

    return main


def forever(operation: Any) -> Callable[[Cpu], Routine]:
    def main(cpu: Cpu) -> Routine:
        while True:
            yield operation

    return main


# -- exits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_mmio_read_gets_what_userspace_put_into_the_page(guest: Callable[..., Machine], size: int) -> None:
    seen: list[int] = []

    def main(cpu: Cpu) -> Routine:
        seen.append((yield read(OUTSIDE + 8, size)))

    machine = guest(main)
    assert machine.run() == uapi.KVM_EXIT_MMIO
    mmio = machine.page.mmio
    assert (mmio.phys_addr, mmio.len, mmio.is_write) == (OUTSIDE + 8, size, 0)
    for index in range(8):
        mmio.data[index] = 0xA0 + index
    machine.run()
    assert seen == [int.from_bytes(bytes(range(0xA0, 0xA8))[:size], "little")]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_mmio_write_shows_the_value_and_its_size(guest: Callable[..., Machine], size: int) -> None:
    value = 0x8877665544332211 & (1 << 8 * size) - 1
    machine = guest(one(write(OUTSIDE, value, size)))
    assert machine.run() == uapi.KVM_EXIT_MMIO
    mmio = machine.page.mmio
    assert (mmio.phys_addr, mmio.len, mmio.is_write) == (OUTSIDE, size, 1)
    assert bytes(mmio.data) == value.to_bytes(8, "little")


def test_a_guest_that_ends_powers_the_system_off(guest: Callable[..., Machine]) -> None:
    machine = guest(one(work(1)))
    assert machine.run() == uapi.KVM_EXIT_SYSTEM_EVENT
    assert machine.page.system_event.type == uapi.KVM_SYSTEM_EVENT_SHUTDOWN


def test_a_vcpu_without_a_program_is_an_internal_error(guest: Callable[..., Machine], client: Client) -> None:
    machine = guest(None)
    assert machine.run() == uapi.KVM_EXIT_INTERNAL_ERROR
    assert machine.page.internal.suberror == uapi.KVM_INTERNAL_ERROR_EMULATION
    assert client.kernel.counters["no_guest_program"] == 1
    client.kernel.attach_guest(0, Script(one(read(OUTSIDE))))
    assert machine.run() == uapi.KVM_EXIT_MMIO


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_an_ioeventfd_takes_the_write_in_the_kernel(guest: Callable[..., Machine], client: Client, size: int) -> None:
    def main(cpu: Cpu) -> Routine:
        yield write(OUTSIDE, 7, size)  # matches
        yield write(OUTSIDE, 8, size)  # another value

    machine = guest(main)
    eventfd = client.eventfd()
    flags = uapi.KVM_IOEVENTFD_FLAG_DATAMATCH
    client.call(
        machine.vm, uapi.KVM_IOEVENTFD, "kvm_ioeventfd", addr=OUTSIDE, len=size, fd=eventfd, datamatch=7, flags=flags
    )
    assert machine.run() == uapi.KVM_EXIT_MMIO
    assert machine.page.mmio.data[0] == 8
    assert os.eventfd_read(eventfd) == 1


def test_a_guest_whose_memory_was_unmapped_faults_and_leaves_the_cpu(
    guest: Callable[..., Machine], client: Client
) -> None:
    def main(cpu: Cpu) -> Routine:
        yield read(0)
        yield read(OUTSIDE)

    machine = guest(main)
    memory = mmap.mmap(-1, 4096)
    held = uapi.ffi.from_buffer(memory)
    address = int(uapi.ffi.cast("uintptr_t", held))
    client.call(
        machine.vm,
        uapi.KVM_SET_USER_MEMORY_REGION,
        "kvm_userspace_memory_region",
        memory_size=4096,
        userspace_addr=address,
    )
    uapi.ffi.release(held)
    memory.close()
    with pytest.raises(OSError, match="Bad address"):
        client.ioctl(machine.vcpu, uapi.KVM_RUN)
    assert all(cpu.guest is None for cpu in client.host.cpus)
    client.kernel.check()


# -- interruption -----------------------------------------------------------------------------------------------------


def test_immediate_exit_is_eintr_and_runs_nothing(guest: Callable[..., Machine], client: Client) -> None:
    machine = guest(one(read(OUTSIDE)))
    machine.page.immediate_exit = 1
    for _ in range(2):
        with pytest.raises(InterruptedError):
            client.ioctl(machine.vcpu, uapi.KVM_RUN)
        assert machine.page.exit_reason == uapi.KVM_EXIT_INTR
    assert client.kernel.counters["vmentry"] == 0
    machine.page.immediate_exit = 0
    assert machine.run() == uapi.KVM_EXIT_MMIO


def test_immediate_exit_completes_the_access_of_the_last_exit(guest: Callable[..., Machine], client: Client) -> None:
    """What a VMM does to bring the guest's state up to date."""
    seen: list[int] = []

    def main(cpu: Cpu) -> Routine:
        seen.append((yield read(OUTSIDE)))
        yield read(OUTSIDE + 4)

    machine = guest(main)
    machine.run()
    machine.page.mmio.data[0] = 5
    machine.page.immediate_exit = 1
    with pytest.raises(InterruptedError):
        client.ioctl(machine.vcpu, uapi.KVM_RUN)
    machine.page.mmio.data[0] = 9  # too late
    machine.page.immediate_exit = 0
    assert machine.run() == uapi.KVM_EXIT_MMIO
    assert (seen, machine.page.mmio.phys_addr) == ([5], OUTSIDE + 4)


@contextmanager
def ticking(handler: Callable[..., Any], number: int = signal.SIGALRM) -> Iterator[None]:
    """The signal comes soon, and again and again: nobody can miss it."""
    timer = {signal.SIGALRM: signal.ITIMER_REAL, signal.SIGVTALRM: signal.ITIMER_VIRTUAL}[signal.Signals(number)]
    before = signal.signal(number, handler)
    signal.setitimer(timer, 0.001, 0.001)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)


@pytest.mark.parametrize("vgic", [False, True])
@pytest.mark.parametrize("operation", [wait_for_interrupt(), work(1000)], ids=["waits", "computes"])
def test_a_signal_interrupts_though_its_handler_returns(
    guest: Callable[..., Machine], client: Client, operation: Any, vgic: bool
) -> None:
    machine = guest(forever(operation), vgic=vgic)
    handled: list[int] = []
    with ticking(lambda number, frame: handled.append(number)):
        for _ in range(2):
            with pytest.raises(InterruptedError) as caught:
                client.ioctl(machine.vcpu, uapi.KVM_RUN)
            assert caught.value.errno == errno.EINTR
            assert machine.page.exit_reason == uapi.KVM_EXIT_INTR
    assert handled
    client.kernel.check()
    assert all(cpu.guest is None for cpu in client.host.cpus)


def test_a_signal_before_kvm_run_does_not_interrupt_it(guest: Callable[..., Machine]) -> None:
    machine = guest(one(read(OUTSIDE)))
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.raise_signal(signal.SIGUSR1)
    assert machine.run() == uapi.KVM_EXIT_MMIO
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_during_the_guest_interrupts_at_once(guest: Callable[..., Machine], client: Client) -> None:
    """And once: the next KVM_RUN goes on."""

    def main(cpu: Cpu) -> Routine:
        yield work(1)
        signal.raise_signal(signal.SIGUSR1)
        for _ in range(10_000):
            yield work(1)

    machine = guest(main)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    with pytest.raises(InterruptedError):
        client.ioctl(machine.vcpu, uapi.KVM_RUN)
    assert client.host.clock.now < 10_000
    assert machine.run() == uapi.KVM_EXIT_SYSTEM_EVENT
    signal.signal(signal.SIGUSR1, before)


def test_an_exception_of_a_handler_ends_kvm_run(guest: Callable[..., Machine], client: Client) -> None:
    def alarm(number: int, frame: object) -> None:
        raise TimeoutError("enough")

    machine = guest(forever(wait_for_interrupt()))
    with pytest.raises(TimeoutError, match="enough"), ticking(alarm):
        client.ioctl(machine.vcpu, uapi.KVM_RUN)
    assert client.host.scheduler.calls == []
    client.kernel.check()
    machine.page.immediate_exit = 1
    with pytest.raises(InterruptedError):
        client.ioctl(machine.vcpu, uapi.KVM_RUN)


def test_a_handler_that_sets_immediate_exit_ends_kvm_run(guest: Callable[..., Machine], client: Client) -> None:
    machine = guest(forever(wait_for_interrupt()))

    def alarm(number: int, frame: object) -> None:
        machine.page.immediate_exit = 1

    with ticking(alarm), pytest.raises(InterruptedError):
        client.ioctl(machine.vcpu, uapi.KVM_RUN)


def test_the_signal_mask_of_kvm_run_keeps_signals_out(guest: Callable[..., Machine], client: Client) -> None:
    """KVM_SET_SIGNAL_MASK with the signal in it: KVM_RUN is not interrupted by it."""

    def main(cpu: Cpu) -> Routine:
        signal.raise_signal(signal.SIGUSR1)
        for _ in range(1000):
            yield work(1)

    machine = guest(main)
    set_signal_mask(client, machine.vcpu, {signal.SIGUSR1})
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    assert machine.run() == uapi.KVM_EXIT_SYSTEM_EVENT
    signal.signal(signal.SIGUSR1, before)


def test_the_signal_mask_of_kvm_run_lets_blocked_signals_in(guest: Callable[..., Machine], client: Client) -> None:
    """The signal is blocked outside and not in the vCPU's mask: it interrupts, and stays pending for sigwait."""
    machine = guest(forever(wait_for_interrupt()))
    set_signal_mask(client, machine.vcpu, set())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        signal.pthread_kill(get_ident(), signal.SIGUSR1)
        with pytest.raises(InterruptedError):
            client.ioctl(machine.vcpu, uapi.KVM_RUN)
        assert signal.sigwait({signal.SIGUSR1}) == signal.SIGUSR1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def set_signal_mask(client: Client, vcpu: int, signals: set[int]) -> None:
    mask = sum(1 << number - 1 for number in signals)
    client.ioctl(vcpu, uapi.KVM_SET_SIGNAL_MASK, (8).to_bytes(4, "little") + mask.to_bytes(8, "little"))


@pytest.mark.parametrize("outcome", ["exit", "interrupted", "fails"])
def test_the_programs_own_wakeup_descriptor_is_put_back_and_told(
    guest: Callable[..., Machine], client: Client, outcome: str
) -> None:
    """That of an event loop: it hears of the signals that came meanwhile."""

    def main(cpu: Cpu) -> Routine:
        signal.raise_signal(signal.SIGUSR1)
        if outcome == "fails":
            raise LookupError
        for _ in range(0 if outcome == "exit" else 1000):
            yield work(1)

    machine = guest(main)
    reader, writer = os.pipe2(os.O_NONBLOCK)
    handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    before = signal.set_wakeup_fd(writer)
    try:
        if outcome == "exit":
            machine.run()
        else:
            with pytest.raises(LookupError if outcome == "fails" else InterruptedError):
                client.ioctl(machine.vcpu, uapi.KVM_RUN)
        assert os.read(reader, 9) == bytes([signal.SIGUSR1])
    finally:
        assert signal.set_wakeup_fd(before) == writer
        signal.signal(signal.SIGUSR1, handler)
        os.close(reader)
        os.close(writer)


# -- guests that fail -------------------------------------------------------------------------------------------------


def fails(cpu: Cpu) -> Routine:
    yield work(1)
    raise LookupError("in the guest")


def nonsense(cpu: Cpu) -> Routine:
    yield "nonsense"  # type: ignore[misc]


@pytest.mark.parametrize(("main", "error"), [(fails, LookupError), (nonsense, TypeError)])
@pytest.mark.parametrize("vgic", [False, True])
def test_an_exception_of_the_guest_comes_out_and_leaves_all_usable(
    guest: Callable[..., Machine], client: Client, main: Callable[[Cpu], Routine], error: type[Exception], vgic: bool
) -> None:
    machine = guest(main, vgic=vgic)
    with pytest.raises(error):
        client.ioctl(machine.vcpu, uapi.KVM_RUN)
    assert client.host.scheduler.calls == []
    assert all(cpu.guest is None for cpu in client.host.cpus)
    client.kernel.check()
    assert machine.run() == uapi.KVM_EXIT_SYSTEM_EVENT  # a generator that raised is at its end


def test_an_exception_of_another_vcpus_guest_ends_both(client: Client) -> None:
    client.kernel.attach_guest(0, Script(forever(work(1))))
    client.kernel.attach_guest(1, Script(fails))
    vm = client.vm()
    first, second = (client.vcpu(vm, number, init=True) for number in (0, 1))
    call = client.kernel.start(second, uapi.KVM_RUN)
    with pytest.raises(LookupError):
        client.ioctl(first, uapi.KVM_RUN)
    assert call.done
    assert client.host.scheduler.calls == []
    client.kernel.check()


def test_an_exception_of_a_guest_in_run_ends_its_call_only(client: Client) -> None:
    client.kernel.attach_guest(0, Script(forever(work(1))))
    client.kernel.attach_guest(1, Script(fails))
    vm = client.vm()
    calls = [client.kernel.start(client.vcpu(vm, number, init=True), uapi.KVM_RUN) for number in (0, 1)]
    with pytest.raises(LookupError):
        client.kernel.run()
    assert [call.done for call in calls] == [False, True]
    client.kernel.check()
    client.kernel.run(slices=2)
    calls[0].interrupt()


def test_a_call_interrupted_by_another_guest_is_done(client: Client) -> None:
    def main(cpu: Cpu) -> Routine:
        victim.interrupt()
        yield work(1)

    client.kernel.attach_guest(0, Script(main))
    client.kernel.attach_guest(1, Script(forever(work(1))))
    vm = client.vm()
    call, victim = (client.kernel.start(client.vcpu(vm, number, init=True), uapi.KVM_RUN) for number in (0, 1))
    client.kernel.run()
    assert (call.result, victim.result) == (0, None)
    assert victim.error is not None
    assert victim.error.errno == errno.EINTR
    client.kernel.check()


def test_a_guest_may_enter_its_own_kernel(guest: Callable[..., Machine], client: Client) -> None:
    """A script that plays the other side: it raises its own interrupt from a register access."""

    def main(cpu: Cpu) -> Routine:
        yield from cpu.enable_gic()
        yield from cpu.enable_irq(40)
        client.irq_line(machine.vm, uapi.KVM_ARM_IRQ_TYPE_SPI, 40, 1)
        yield wait_for_interrupt()
        irq = yield cpu.acknowledge()
        yield write(OUTSIDE, irq)

    machine = guest(main, vgic=True)
    assert machine.run() == uapi.KVM_EXIT_MMIO
    assert machine.page.mmio.data[0] == 40
    client.kernel.check()


def test_a_vcpu_closed_while_it_runs_lives_until_kvm_run_returns(client: Client) -> None:
    def main(cpu: Cpu) -> Routine:
        client.close(vcpu)
        yield work(1)

    client.kernel.attach_guest(0, Script(main))
    vcpu = client.vcpu(client.vm(), init=True)
    assert client.ioctl(vcpu, uapi.KVM_RUN) == 0
    assert client.kernel.open_files() == ["kvm", "vm"]


def test_kvm_run_of_a_buffer_is_einval(guest: Callable[..., Machine], client: Client) -> None:
    machine = guest(one(work(1)))
    buffer = bytearray(8)
    with pinned(buffer) as address:
        for argument in (1, address, buffer, b"x"):
            client.refused("EINVAL", client.ioctl, machine.vcpu, uapi.KVM_RUN, argument)
