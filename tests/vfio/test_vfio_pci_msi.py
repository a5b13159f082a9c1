"""MSI, MSI-X, and the error and request interrupts of PCI devices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pci_bench import EDU, ERR, FULL, MSI, MSIX, NEW, REQ, PciBench
from vfio_bench import BOOL, EVENTFD, MASK, NONE, TRIGGER, UNMASK, fails

COMMAND = 0x04


@pytest.fixture(params=["2014", "new"])
def bench(request: pytest.FixtureRequest) -> Iterator[PciBench]:
    bench = PciBench(**(NEW if request.param == "new" else {}))
    yield bench
    bench.finish()


@pytest.fixture
def five(bench: PciBench) -> PciBench:
    """Five MSI-X vectors, a bus master."""
    bench.use(FULL)
    bench.set_config(COMMAND, 6, 2)
    bench.fds = [bench.eventfd() for _ in range(5)]
    bench.triggers(MSIX, *bench.fds)
    return bench


def counts(bench: PciBench) -> list[int]:
    return [bench.count(fd) for fd in bench.fds]


def loop(bench: PciBench, start: int, count: int = 1) -> None:
    bench.set_irqs(bench.fd, NONE | TRIGGER, MSIX, start=start, count=count)


def send(bench: PciBench, vector: int) -> None:
    bench.card(FULL).interrupt(True, vector)
    bench.settle()


def test_each_message_signals_its_eventfd(five: PciBench) -> None:
    for vector in range(5):
        for _ in range(2):
            send(five, vector)
            assert counts(five) == [int(vector == number) for number in range(5)]
    assert five.trace.counters["msi"] == 10


def test_edu_sends_messages_that_need_no_unmask(bench: PciBench) -> None:
    bench.use(EDU)
    bench.set_config(COMMAND, 6, 2)
    trigger = bench.eventfd()
    bench.triggers(MSI, trigger)
    for _ in range(2):
        bench.set_register(0x60, 4)
        assert bench.count(trigger) == 1
    assert not bench.edu.lines[0].level


def test_no_message_without_bus_mastering(bench: PciBench) -> None:
    bench.use(EDU)
    trigger = bench.eventfd()
    bench.triggers(MSI, trigger)
    bench.set_register(0x60, 4)
    assert bench.count(trigger) == 0


def test_loopback_by_range_and_by_flags(five: PciBench) -> None:
    loop(five, 1, 3)
    assert counts(five) == [0, 1, 1, 1, 0]
    five.set_irqs(five.fd, BOOL | TRIGGER, MSIX, count=5, data=b"\1\0\1\0\xff")
    assert counts(five) == [1, 0, 1, 0, 1]


def test_minus_one_removes_a_vector(five: PciBench) -> None:
    five.triggers(MSIX, -1, -5, start=1)
    loop(five, 0, 5)
    assert counts(five) == [1, 0, 0, 1, 1]


def test_a_range_is_replaced(five: PciBench) -> None:
    five.triggers(MSIX, five.fds[0], five.fds[1], start=2)
    loop(five, 2, 2)
    assert counts(five) == [1, 1, 0, 0, 0]


def test_a_bad_eventfd_empties_the_range_up_to_it(five: PciBench) -> None:
    with fails("EBADF"):
        five.triggers(MSIX, five.fds[0], -1, 777777, five.fds[3])
    loop(five, 0, 5)
    assert counts(five) == [0, 0, 0, 1, 1]


def test_a_bad_first_range_enables_nothing(bench: PciBench) -> None:
    bench.use(FULL)
    with fails("EBADF"):
        bench.triggers(MSIX, bench.eventfd(), 777777)
    with fails("EINVAL"):
        loop(bench, 0)
    bench.triggers(MSI, bench.eventfd())


def test_more_vectors_than_the_device_has(five: PciBench) -> None:
    with fails("EINVAL"):
        five.triggers(MSIX, *five.fds, five.fds[0])
    with fails("EINVAL"):
        loop(five, 4, 2)


def test_no_vectors_is_erange_at_first_and_nothing_later(bench: PciBench) -> None:
    bench.use(FULL)
    for index in (MSI, MSIX):
        with fails("ERANGE"):
            bench.triggers(index)
    bench.triggers(MSIX, bench.eventfd())
    bench.triggers(MSIX)


def test_the_first_range_decides_how_many_are_allocated(bench: PciBench) -> None:
    bench.use(FULL)
    bench.fds = [bench.eventfd() for _ in range(5)]
    bench.triggers(MSIX, bench.fds[2], start=2)
    with fails("EINVAL"):
        bench.triggers(MSIX, bench.fds[3], start=3)
    loop(bench, 0, 3)
    assert counts(bench) == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("checked", [True, False])
def test_loopback_beyond_the_allocated_vectors(checked: bool) -> None:
    bench = PciBench(pci_msi_range_checked=checked)
    bench.use(FULL)
    fd = bench.eventfd()
    bench.triggers(MSIX, fd)
    if checked:
        with fails("EINVAL"):
            loop(bench, 0, 2)
    else:
        loop(bench, 0, 2)
        loop(bench, 1, 1)
    assert bench.count(fd) == int(not checked)
    bench.finish()


def test_masking_is_not_offered(five: PciBench) -> None:
    for action in (MASK, UNMASK):
        for flags, data in ((NONE, b""), (BOOL, b"\1"), (EVENTFD, b"\xff" * 4)):
            with fails("ENOTTY"):
                five.set_irqs(five.fd, flags | action, MSIX, data=data)


def test_count_0_gives_all_vectors_back_whatever_the_start(five: PciBench) -> None:
    loop(five, 1, 0)
    with fails("EINVAL"):
        loop(five, 0, 0)
    send(five, 0)
    assert counts(five) == [0] * 5
    assert not five.card(FULL).function.messages.enabled


def test_a_masked_vector_waits_in_the_device(five: PciBench) -> None:
    card = five.card(FULL)
    card.write(1, 0x1000 + 2 * 16 + 12, 4, 1)
    send(five, 2)
    assert counts(five) == [0] * 5
    assert card.read(1, 0x2000, 4) == 1 << 2
    card.write(1, 0x1000 + 2 * 16 + 12, 4, 0)
    five.settle()
    assert counts(five) == [0, 0, 1, 0, 0]
    assert card.read(1, 0x2000, 4) == 0


def test_the_users_msi_mask_bits_reach_the_device(bench: PciBench) -> None:
    bench.use(FULL)
    bench.set_config(COMMAND, 6, 2)
    bench.fds = [bench.eventfd() for _ in range(4)]
    bench.triggers(MSI, *bench.fds)
    bench.set_config(0x60, 1 << 3)
    for vector in range(4):
        send(bench, vector)
    assert counts(bench) == [1, 1, 1, 0]
    assert bench.config(0x64) == 1 << 3
    bench.set_config(0x60, 0)
    assert counts(bench) == [0, 0, 0, 1]
    assert bench.config(0x64) == 0


def test_a_reset_keeps_the_vectors(five: PciBench) -> None:
    from kvmvfio_emu import uapi

    five.ioctl(five.fd, uapi.VFIO_DEVICE_RESET)
    send(five, 3)
    assert counts(five) == [0, 0, 0, 1, 0]


def test_the_last_close_gives_everything_back(five: PciBench) -> None:
    five.triggers(REQ, five.eventfd())
    five.triggers(ERR, five.eventfd())
    five.close(five.fd)
    assert five.host.eventfds.held() == []


# -- errors and requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [ERR, REQ])
def test_a_notice_can_be_set_replaced_and_tried(bench: PciBench, index: int) -> None:
    bench.use(FULL)
    first, second = bench.eventfd(), bench.eventfd()
    bench.triggers(index, first)
    bench.set_none(bench.fd, TRIGGER, index)
    assert bench.count(first) == 1
    bench.triggers(index, second)
    bench.set_bool(bench.fd, TRIGGER, 1, index)
    bench.set_bool(bench.fd, TRIGGER, 0, index)
    assert (bench.count(first), bench.count(second)) == (0, 1)
    with fails("EBADF"):
        bench.triggers(index, 777777)
    bench.set_none(bench.fd, TRIGGER, index)
    assert bench.count(second) == 1
    bench.triggers(index, -1)
    bench.set_bool(bench.fd, TRIGGER, 1, index)
    assert bench.count(second) == 0
    for action in (MASK, UNMASK):
        with fails("ENOTTY"):
            bench.set_none(bench.fd, action, index)
    with fails("EINVAL"):
        bench.set_irqs(bench.fd, EVENTFD | TRIGGER, index, count=0)


def test_in_newer_kernels_a_loopback_needs_the_notice_and_count_0_removes_it() -> None:
    bench = PciBench(**NEW)
    bench.use(EDU)
    for count in (0, 1):
        with fails("EINVAL"):
            bench.set_none(bench.fd, TRIGGER, REQ, count)
    fd = bench.eventfd()
    bench.triggers(REQ, fd)
    bench.set_none(bench.fd, TRIGGER, REQ, 0)
    with fails("EINVAL"):
        bench.set_none(bench.fd, TRIGGER, REQ)
    assert bench.count(fd) == 0
    bench.finish()


def test_in_older_kernels_it_does_not() -> None:
    bench = PciBench()
    bench.use(EDU)
    bench.set_none(bench.fd, TRIGGER, REQ)
    fd = bench.eventfd()
    bench.triggers(REQ, fd)
    bench.set_none(bench.fd, TRIGGER, REQ, 0)
    bench.set_none(bench.fd, TRIGGER, REQ)
    assert bench.count(fd) == 2
    bench.finish()


@pytest.mark.parametrize("ignored", [True, False])
def test_a_descriptor_below_minus_one(ignored: bool) -> None:
    bench = PciBench(pci_notice_ignores_bad_fd=ignored)
    bench.use(EDU)
    fd = bench.eventfd()
    bench.triggers(REQ, fd)
    if ignored:
        bench.triggers(REQ, -2)
    else:
        with fails("EINVAL"):
            bench.triggers(REQ, -2)
    bench.set_none(bench.fd, TRIGGER, REQ)
    assert bench.count(fd) == 1
    bench.finish()


def test_errors_need_pci_express(bench: PciBench) -> None:
    bench.use(EDU)
    with fails("EINVAL"):
        bench.triggers(ERR, bench.eventfd())
    with fails("EINVAL"):
        bench.set_none(bench.fd, MASK, ERR)


def test_an_error_is_told(bench: PciBench) -> None:
    bench.use(FULL)
    device = bench.vfio.groups[7].devices[FULL]
    device.report_error()
    fd = bench.eventfd()
    bench.triggers(ERR, fd)
    device.report_error()
    assert bench.count(fd) == 1


def test_unbinding_the_driver_asks_for_the_device_until_it_is_closed(bench: PciBench) -> None:
    bench.use(EDU)
    fd = bench.eventfd()
    bench.triggers(REQ, fd)
    assert not bench.vfio.unbind(EDU)
    assert bench.count(fd) == 1
    assert not bench.vfio.unbind(EDU)
    assert bench.count(fd) == 1, "asked again"
    bench.close(bench.fd)
    assert bench.vfio.unbind(EDU)
    assert bench.vfio.devices[EDU].driver == ""


def test_unbinding_without_a_request_eventfd_just_waits(bench: PciBench) -> None:
    bench.use(EDU)
    assert not bench.vfio.unbind(EDU)
    bench.close(bench.fd)
    assert bench.vfio.unbind(EDU)
