"""Eventfds are real ones, the program's: the kernel notices what happens to them when it is next entered."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
from collections.abc import Callable

import pytest
from support import Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, wait_for_interrupt, write
from kvmvfio_emu.guest.script import Routine
from kvmvfio_emu.kernel.eventfd import EventFd

GSI = 48
NEARLY_FULL = (1 << 64) - 2
SECOND = GSI + 1
DOORBELL = 0x0D000000


@pytest.fixture
def vm(client: Client) -> int:
    vm, _ = client.machine()
    return vm


def injected(client: Client, gsi: int = GSI) -> int:
    """How often the model raised the interrupt since the last call."""
    levels = [event.fields for event in client_events(client) if event.name == "set_irq"]
    client_events(client).clear()
    return sum(fields["level"] for fields in levels if fields["gsi"] == gsi)


def client_events(client: Client) -> list:  # type: ignore[type-arg]
    if not hasattr(client, "events"):
        client.events = []  # type: ignore[attr-defined]
        client.kernel.listen(client.events.append)  # type: ignore[attr-defined]
    return client.events  # type: ignore[attr-defined,no-any-return]


ENTRIES: dict[str, Callable[[Client], object]] = {
    "ioctl": lambda client: client.ioctl(client.kvm, uapi.KVM_GET_API_VERSION),
    "ioctl of another file": lambda client: client.ioctl(client.vm(), uapi.KVM_CHECK_EXTENSION, 1),
    "run": lambda client: client.kernel.run(),
    "open": lambda client: client.container(),
    "close": lambda client: client.close(os.open("/dev/null", os.O_RDONLY)),
    "read": lambda client: client.kernel.read(client.eventfd(1), 8),
    "mmap": lambda client: client.kernel.mmap(-1, 4096),
    "check": lambda client: client.kernel.check(),
    "open_files": lambda client: client.kernel.open_files(),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_write_between_two_calls_is_noticed_at_the_next_entry(client: Client, vm: int, entry: str) -> None:
    assert client.kvm
    eventfd = client.eventfd()
    client.irqfd(vm, eventfd, GSI)
    assert injected(client) == 0
    os.eventfd_write(eventfd, 1)
    os.eventfd_write(eventfd, 1)
    assert injected(client) == 0  # there is no thread that could
    ENTRIES[entry](client)
    assert injected(client) == 1
    ENTRIES[entry](client)
    assert injected(client) == 0


def test_a_write_through_the_kernel_has_acted_when_it_returns(client: Client, vm: int) -> None:
    eventfd = client.eventfd()
    client.irqfd(vm, eventfd, GSI)
    injected(client)
    assert client.kernel.write(eventfd, (1).to_bytes(8, "little")) == 8
    assert injected(client) == 1


def test_news_of_one_eventfd_survive_that_the_kernel_signals_another(client: Client, vm: int) -> None:
    """A write that comes while the kernel is at work on an eventfd of its own is noticed at the next entry."""
    mine, theirs = client.eventfd(), client.eventfd()
    client.irqfd(vm, mine, GSI)
    client.irqfd(vm, theirs, SECOND)
    injected(client)
    os.eventfd_write(theirs, 1)
    client.host.eventfds.held()[0].signal()
    client.ioctl(client.kvm, uapi.KVM_GET_API_VERSION)
    levels = [
        (event.fields["gsi"], event.fields["level"]) for event in client_events(client) if event.name == "set_irq"
    ]
    assert sorted(levels) == [(GSI, 0), (GSI, 1), (SECOND, 0), (SECOND, 1)]


@pytest.mark.parametrize("flags", [0, os.EFD_NONBLOCK, os.EFD_SEMAPHORE, os.EFD_SEMAPHORE | os.EFD_NONBLOCK])
def test_flags_of_an_eventfd_stay_and_none_blocks_us(client: Client, vm: int, flags: int) -> None:
    trigger, resample = (os.eventfd(0, flags) for _ in range(2))
    before = fcntl.fcntl(trigger, fcntl.F_GETFL)
    client.irqfd(vm, trigger, GSI, uapi.KVM_IRQFD_FLAG_RESAMPLE, resample)
    injected(client)
    for _ in range(3):
        os.eventfd_write(trigger, 1)
        client.kernel.run()
    assert injected(client) == 3
    for eventfd in (trigger, resample):
        assert fcntl.fcntl(eventfd, fcntl.F_GETFL) == before
        client.close(eventfd)
    assert client.host.eventfds.held() == []


@pytest.mark.parametrize("flags", [0, os.EFD_SEMAPHORE])
@pytest.mark.parametrize("drained", [True, False])
def test_two_irqfds_of_one_blocking_eventfd_do_not_wait_for_each_other(
    boot: Callable[..., Client], flags: int, drained: bool
) -> None:
    """Both are woken, and only the first one finds something to take."""
    client = boot(eventfd_drained=drained)
    eventfd = os.eventfd(0, flags)
    for _ in range(2):
        vm, _ = client.machine()
        client.irqfd(vm, eventfd, GSI)
    injected(client)
    os.eventfd_write(eventfd, 1)
    client.kernel.run()
    assert injected(client) == 2
    client.close(eventfd)


def test_a_signal_of_the_kernels_own_is_heard_once(client: Client) -> None:
    """By who waits, at once; it is no news at the next entry, though the counter stays up."""

    class Waiter:
        heard = 0

        def wakeup(self, eventfd: EventFd) -> None:
            self.heard += 1

        def hangup(self, eventfd: EventFd) -> None:
            raise AssertionError

    waiter, fd = Waiter(), client.eventfd()
    eventfd = client.kernel._task.eventfd(fd)
    assert not eventfd.add_waiter(waiter)
    eventfd.signal()
    assert waiter.heard == 1
    client.kernel.run()
    assert waiter.heard == 1
    os.eventfd_write(fd, 1)
    client.kernel.run()
    assert (waiter.heard, os.eventfd_read(fd)) == (2, 2)
    eventfd.remove_waiter(waiter)
    eventfd.put()


@pytest.mark.parametrize("flags", [0, os.EFD_NONBLOCK])
@pytest.mark.parametrize("count", [NEARLY_FULL - 1, NEARLY_FULL])
def test_signalling_a_nearly_full_counter_does_not_hang(client: Client, flags: int, count: int) -> None:
    """A device interrupt goes to an eventfd that nobody reads: the counter stays at its end."""
    eventfd = os.eventfd(0, flags)
    os.eventfd_write(eventfd, count)
    device = client.device()
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_TRIGGER, eventfd, index=2)
    loopback = uapi.VFIO_IRQ_SET_DATA_NONE | uapi.VFIO_IRQ_SET_ACTION_TRIGGER
    for _ in range(3):
        request = uapi.pack("struct vfio_irq_set", argsz=20, flags=loopback, index=2, count=1)
        client.ioctl(device, uapi.VFIO_DEVICE_SET_IRQS, request)
    assert os.eventfd_read(eventfd) == NEARLY_FULL
    os.close(eventfd)


def test_a_blocking_counter_near_its_end_still_triggers(client: Client, vm: int) -> None:
    eventfd = os.eventfd(0)
    os.eventfd_write(eventfd, NEARLY_FULL)
    client_events(client)
    client.irqfd(vm, eventfd, GSI)  # signalled before the kernel listened: one injection, the counter stays
    assert injected(client) == 1
    assert os.eventfd_read(eventfd) == NEARLY_FULL
    client.close(eventfd)


def test_numbers_above_a_thousand(client: Client, vm: int) -> None:
    """What select(2) cannot do: with all interrupts of a board tied there are as many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    eventfd = client.eventfd()
    fillers = [fcntl.fcntl(eventfd, fcntl.F_DUPFD, 1100) for _ in range(3)]
    padding = []
    while (fd := os.open("/dev/null", os.O_RDONLY)) < 1100:
        padding.append(fd)
    padding.append(fd)
    try:
        client_events(client)
        client.irqfd(vm, fillers[-1], GSI)
        os.eventfd_write(eventfd, 1)
        client.kernel.run()
        assert client.host.eventfds.held()[0].fd > 1024
        assert injected(client) == 1
    finally:
        for fd in (*padding, *fillers):
            os.close(fd)
        client.close(client._eventfds.pop())
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- close ------------------------------------------------------------------------------------------------------------


def tied(client: Client) -> list[int]:
    """The gsis that have an irqfd."""
    return sorted(irqfd.gsi for vm in client.host.modules["kvm"].vms for irqfd in vm.irqfds.active)  # type: ignore[attr-defined]


def test_close_detaches(client: Client, vm: int) -> None:
    eventfd = os.eventfd(0)
    client.irqfd(vm, eventfd, GSI)
    client.close(eventfd)
    assert tied(client) == []
    assert client.host.eventfds.held() == []


def test_close_of_a_pending_eventfd_still_injects(client: Client, vm: int) -> None:
    eventfd = os.eventfd(0)
    client.irqfd(vm, eventfd, GSI)
    injected(client)
    os.eventfd_write(eventfd, 1)
    client.close(eventfd)
    assert injected(client) == 1
    assert tied(client) == []


def test_a_duplicate_keeps_it_tied(client: Client, vm: int) -> None:
    eventfd = os.eventfd(0)
    copy = os.dup(eventfd)
    client.irqfd(vm, eventfd, GSI)
    client.close(eventfd)
    assert tied(client) == [GSI]
    injected(client)
    os.eventfd_write(copy, 1)
    client.kernel.run()
    assert injected(client) == 1
    client.close(copy)
    assert tied(client) == []


def test_close_of_another_eventfd_detaches_nothing(client: Client, vm: int) -> None:
    first, second = os.eventfd(0), os.eventfd(0)
    client.irqfd(vm, first, GSI)
    client.irqfd(vm, second, SECOND)
    client.close(second)
    assert tied(client) == [GSI]
    client.close(first)


def test_a_number_reused_for_another_eventfd(client: Client, vm: int) -> None:
    first = os.eventfd(0)
    copy = os.dup(first)
    client.irqfd(vm, first, GSI)
    os.close(first)
    second = os.eventfd(0)
    assert second == first
    client.irqfd(vm, second, SECOND)  # not EBUSY: it is another one
    injected(client)
    os.eventfd_write(second, 1)
    client.kernel.run()
    assert (injected(client), tied(client)) == (0, [GSI, SECOND])
    client.close(second)
    assert tied(client) == [GSI]
    client.close(copy)
    assert tied(client) == []


def test_an_eventfd_of_two_kernels_goes_with_its_last_descriptor(boot: Callable[..., Client]) -> None:
    """The duplicate that one kernel keeps must not keep it open for the other."""
    clients = [boot(), boot()]
    eventfd = os.eventfd(0)
    for client in clients:
        vm, _ = client.machine()
        client.irqfd(vm, eventfd, GSI)
        injected(client)
    os.eventfd_write(eventfd, 1)
    for client in clients:
        client.kernel.run()
    # The first one takes the counter, as the first of two readers does.
    assert [injected(client) for client in clients] == [1, 1]
    clients[1].close(eventfd)
    for client in clients:
        client.kernel.run()
        assert tied(client) == []
        assert client.host.eventfds.held() == []


def test_close_takes_the_unmask_eventfd_of_a_device(client: Client) -> None:
    device, eventfd = client.device(), os.eventfd(0)
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, eventfd)
    client.close(eventfd)
    assert client.host.eventfds.held() == []
    again = client.eventfd()
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, again)  # the place is free


def test_the_place_of_an_unmask_eventfd_that_was_closed_unheard_is_free(client: Client) -> None:
    device = client.device()
    old, new = os.eventfd(0), client.eventfd()
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, old)
    copy = os.dup(old)
    os.close(old)
    with pytest.raises(OSError, match="busy"):
        client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, new)
    child = os.fork()
    if not child:  # another process with a copy
        signal.pause()
    os.close(copy)
    try:
        with pytest.raises(OSError, match="busy"):
            client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, new)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, new)


def test_what_is_no_eventfd(client: Client, vm: int) -> None:
    reader, writer = os.pipe()
    epoll = select.epoll()
    for fd in (reader, client.kvm, epoll.fileno()):
        client.refused("EINVAL", client.irqfd, vm, fd, GSI)
    for fd in (0x7FFF, 0xFFFFFFFF, 1 << 31):
        client.refused("EBADF", client.irqfd, vm, fd, GSI)
    epoll.close()
    os.close(reader)
    os.close(writer)


def test_a_wfi_is_ended_by_an_eventfd_that_another_process_writes(client: Client) -> None:
    """The call blocks in the kernel until then."""

    def main(cpu: Cpu) -> Routine:
        yield from cpu.enable_gic()
        yield from cpu.enable_irq(GSI + 32, edge=True)
        yield write(DOORBELL, 0)
        yield wait_for_interrupt()

    client.kernel.attach_guest(0, Script(main))
    vm, _ = client.machine()
    eventfd = client.eventfd()
    client.irqfd(vm, eventfd, GSI)
    with client.run_page(client.vcpus[0]) as run:
        client.ioctl(client.vcpus[0], uapi.KVM_RUN)
        assert run.exit_reason == uapi.KVM_EXIT_MMIO  # the guest is ready
        child = os.fork()
        if not child:
            os.eventfd_write(eventfd, 1)
            os._exit(0)
        assert client.ioctl(client.vcpus[0], uapi.KVM_RUN) == 0
        assert run.exit_reason == uapi.KVM_EXIT_SYSTEM_EVENT
    os.waitpid(child, 0)
