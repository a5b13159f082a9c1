"""INTx of PCI devices: automasking in the device or at the GIC, unmasking, eventfds, what SET_IRQS refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pci_bench import EDU, FULL, INTX, MSI, MSIX, NEW, OLD, TWIN, PciBench
from vfio_bench import BOOL, EVENTFD, MASK, NONE, TRIGGER, UNMASK, WILD, fails

from kvmvfio_emu import uapi

COMMAND, INTX_DISABLE = 0x04, 0x400
RAISE, ACKNOWLEDGE = 0x60, 0x64


@pytest.fixture(params=["2014", "new"])
def bench(request: pytest.FixtureRequest) -> Iterator[PciBench]:
    bench = PciBench(**(NEW if request.param == "new" else {}))
    yield bench
    bench.finish()


@pytest.fixture
def armed(bench: PciBench) -> PciBench:
    bench.use(EDU)
    bench.trigger = bench.eventfd()
    bench.set_eventfd(bench.fd, TRIGGER, bench.trigger)
    return bench


def raise_(bench: PciBench, causes: int = 1) -> None:
    bench.set_register(RAISE, causes)


def test_an_interrupt_comes_once_and_is_masked_in_the_device(armed: PciBench) -> None:
    raise_(armed)
    assert armed.count(armed.trigger) == 1
    assert armed.config(COMMAND) == 0x00180002, "pending in the status; the disable bit is the kernel's own"
    assert armed.edu.function.command & INTX_DISABLE
    raise_(armed, 2)
    assert armed.count(armed.trigger) == 0


def test_unmasking_while_the_device_asks_tells_again_and_stays_masked(armed: PciBench) -> None:
    raise_(armed)
    armed.count(armed.trigger)
    for _ in range(2):
        armed.set_none(armed.fd, UNMASK)
        assert armed.count(armed.trigger) == 1
        assert armed.edu.function.command & INTX_DISABLE


def test_unmasking_when_it_is_quiet_lets_the_next_one_come(armed: PciBench) -> None:
    raise_(armed)
    armed.count(armed.trigger)
    armed.set_register(ACKNOWLEDGE, 1)
    armed.set_none(armed.fd, UNMASK)
    assert armed.count(armed.trigger) == 0
    raise_(armed)
    assert armed.count(armed.trigger) == 1


def test_masking_holds_an_interrupt_back(armed: PciBench) -> None:
    armed.set_bool(armed.fd, MASK, 0)
    armed.set_bool(armed.fd, MASK, 1)
    armed.set_none(armed.fd, MASK)
    raise_(armed)
    assert armed.count(armed.trigger) == 0
    armed.set_bool(armed.fd, UNMASK, 0)
    assert armed.count(armed.trigger) == 0
    armed.set_bool(armed.fd, UNMASK, 1)
    assert armed.count(armed.trigger) == 1


def test_the_unmask_eventfd(armed: PciBench) -> None:
    unmask = armed.eventfd()
    armed.set_eventfd(armed.fd, UNMASK, unmask)
    with fails("EBUSY"):
        armed.set_eventfd(armed.fd, UNMASK, armed.eventfd())
    raise_(armed)
    armed.count(armed.trigger)
    armed.signal(unmask)
    assert armed.count(armed.trigger) == 1, "it still asks"
    armed.set_register(ACKNOWLEDGE, 1)
    armed.signal(unmask)
    assert armed.count(armed.trigger) == 0
    raise_(armed)
    assert armed.count(armed.trigger) == 1
    armed.set_eventfd(armed.fd, UNMASK, -1)
    armed.set_register(ACKNOWLEDGE, 1)
    armed.signal(unmask)
    raise_(armed)
    assert armed.count(armed.trigger) == 0, "removed, so still masked"


def test_loopback_signals_without_masking(armed: PciBench) -> None:
    for _ in range(2):
        armed.set_none(armed.fd, TRIGGER)
        assert armed.count(armed.trigger) == 1
    armed.set_bool(armed.fd, TRIGGER, 0)
    assert armed.count(armed.trigger) == 0
    armed.set_bool(armed.fd, TRIGGER, 0xFF)
    assert armed.count(armed.trigger) == 1
    armed.set_none(armed.fd, MASK)
    armed.set_none(armed.fd, TRIGGER)
    assert armed.count(armed.trigger) == 1


def test_a_trigger_is_replaced_freely(armed: PciBench) -> None:
    other = armed.eventfd()
    armed.set_eventfd(armed.fd, TRIGGER, other)
    raise_(armed)
    assert (armed.count(armed.trigger), armed.count(other)) == (0, 1)


def test_without_a_trigger_nothing_is_signalled_and_intx_stays_in_use(armed: PciBench) -> None:
    armed.set_eventfd(armed.fd, TRIGGER, -1)
    armed.set_none(armed.fd, TRIGGER)
    armed.set_none(armed.fd, MASK)
    assert armed.count(armed.trigger) == 0


def test_count_0_disables_and_only_once(armed: PciBench) -> None:
    armed.set_none(armed.fd, TRIGGER, count=0)
    raise_(armed)
    assert armed.count(armed.trigger) == 0
    for action in (TRIGGER, MASK, UNMASK):
        with fails("EINVAL"):
            armed.set_none(armed.fd, action)
    with fails("EINVAL"):
        armed.set_none(armed.fd, TRIGGER, count=0)


def test_arming_while_the_device_asks_fires_at_once(bench: PciBench) -> None:
    bench.use(EDU)
    raise_(bench)
    trigger = bench.eventfd()
    bench.set_eventfd(bench.fd, TRIGGER, trigger)
    assert bench.count(trigger) == 1


@pytest.mark.parametrize(("new", "fired"), [(True, 1), (False, 0)])
def test_a_bad_new_trigger_removes_the_old_one_in_older_kernels_only(new: bool, fired: int) -> None:
    bench = PciBench(pci_intx_steady=new)
    bench.use(EDU)
    trigger = bench.eventfd()
    bench.set_eventfd(bench.fd, TRIGGER, trigger)
    with fails("EBADF"):
        bench.set_eventfd(bench.fd, TRIGGER, 777777)
    bench.set_none(bench.fd, TRIGGER)
    assert bench.count(trigger) == fired
    bench.finish()


@pytest.mark.parametrize(("new", "told"), [(True, 0), (False, 1)])
def test_an_interrupt_without_a_trigger_is_masked_unseen_in_newer_kernels(new: bool, told: int) -> None:
    bench = PciBench(pci_intx_steady=new)
    bench.use(EDU)
    bench.set_eventfd(bench.fd, TRIGGER, -1)
    raise_(bench)
    trigger = bench.eventfd()
    bench.set_eventfd(bench.fd, TRIGGER, trigger)
    assert bench.count(trigger) == told
    bench.set_none(bench.fd, UNMASK)
    assert bench.count(trigger) == 1
    bench.finish()


# -- the disable bit as the user sees it ---------------------------------------------------------------------


def test_the_users_disable_bit_masks_and_its_end_tells(armed: PciBench) -> None:
    armed.set_config(COMMAND, 0x402, 2)
    assert armed.config(COMMAND, 2) == 0x402
    raise_(armed)
    assert armed.count(armed.trigger) == 0
    armed.set_none(armed.fd, UNMASK)
    armed.set_none(armed.fd, TRIGGER)
    assert armed.count(armed.trigger) == 0, "nor by SET_IRQS, nor loopback"
    armed.set_config(COMMAND + 1, 0, 1)
    assert armed.count(armed.trigger) == 1


def test_the_disable_bit_before_arming(bench: PciBench) -> None:
    bench.use(EDU)
    bench.set_config(COMMAND, 0x402, 2)
    assert bench.edu.function.command & INTX_DISABLE
    trigger = bench.eventfd()
    bench.set_eventfd(bench.fd, TRIGGER, trigger)
    raise_(bench)
    assert bench.count(trigger) == 0
    bench.set_config(COMMAND, 0x002, 2)
    assert bench.count(trigger) == 1


def test_the_disable_bit_follows_while_intx_is_not_in_use(bench: PciBench) -> None:
    bench.use(EDU)
    bench.set_config(COMMAND, 0x402, 2)
    bench.set_config(COMMAND, 0x002, 2)
    assert not bench.edu.function.command & INTX_DISABLE


# -- a device from before PCI 2.3: masked at the GIC ---------------------------------------------------------


def test_an_old_card_is_masked_at_the_interrupt_controller(bench: PciBench) -> None:
    bench.use(OLD)
    card, trigger = bench.card(OLD), bench.eventfd()
    bench.set_eventfd(bench.fd, TRIGGER, trigger)
    desc = bench.desc(0, OLD)
    card.interrupt(True)
    bench.settle()
    assert bench.count(trigger) == 1
    assert desc.disabled
    bench.set_none(bench.fd, UNMASK)
    assert bench.count(trigger) == 1, "the level is still high, so the hardware raises it again"
    assert desc.disabled
    card.interrupt(False)
    bench.set_none(bench.fd, UNMASK)
    assert not desc.disabled
    assert bench.count(trigger) == 0
    bench.set_none(bench.fd, MASK)
    bench.set_none(bench.fd, MASK)
    assert desc.depth == 1
    card.interrupt(True)
    assert bench.count(trigger) == 0
    bench.set_none(bench.fd, UNMASK)
    assert bench.count(trigger) == 1


def test_an_old_cards_disable_bit_is_emulated(bench: PciBench) -> None:
    bench.use(OLD)
    card, trigger = bench.card(OLD), bench.eventfd()
    bench.set_config(COMMAND, 0x402, 2)
    bench.set_eventfd(bench.fd, TRIGGER, trigger)
    card.interrupt(True)
    bench.settle()
    assert bench.config(COMMAND, 2) == 0x402
    assert card.function.command & INTX_DISABLE == 0
    assert bench.count(trigger) == 0
    bench.set_config(COMMAND, 2, 2)
    assert bench.count(trigger) == 1


def test_masking_survives_a_new_trigger(bench: PciBench) -> None:
    for name in (EDU, OLD):
        bench.use(name)
        card = bench.card(name)
        bench.set_eventfd(bench.fd, TRIGGER, bench.eventfd())
        bench.set_none(bench.fd, MASK)
        trigger = bench.eventfd()
        bench.set_eventfd(bench.fd, TRIGGER, trigger)
        card.interrupt(True)
        bench.settle()
        assert bench.count(trigger) == 0
        bench.set_none(bench.fd, UNMASK)
        assert bench.count(trigger) == 1


# -- storms and ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [EDU, OLD])
def test_a_trigger_that_unmasks_itself_does_not_hang_the_kernel(bench: PciBench, name: str) -> None:
    bench.use(name)
    both = bench.eventfd()
    bench.set_eventfd(bench.fd, TRIGGER, both)
    bench.set_eventfd(bench.fd, UNMASK, both)
    bench.card(name).interrupt(True)
    bench.settle()
    bench.clock.advance(10**9)
    bench.settle()
    assert bench.trace.counters["irq_storm"] == 1
    assert bench.trace.counters["eventfd_trigger"] > 100


def test_the_end_of_the_unmask_eventfd_frees_its_place(armed: PciBench) -> None:
    unmask = os.eventfd(0, os.EFD_NONBLOCK)
    armed.set_eventfd(armed.fd, UNMASK, unmask)
    armed.vfio.groups[6].devices[EDU].intx.unmask_eventfd.eventfd.closed()
    os.close(unmask)
    armed.set_eventfd(armed.fd, UNMASK, armed.eventfd())


def test_the_last_close_gives_the_interrupt_back(armed: PciBench) -> None:
    armed.set_eventfd(armed.fd, UNMASK, armed.eventfd())
    raise_(armed)
    armed.close(armed.fd)
    assert armed.desc(0, EDU).handler is None


def test_two_files_of_a_device_share_its_interrupt(armed: PciBench) -> None:
    second = armed.get_device(armed.group_fd, EDU)
    armed.set_none(second, TRIGGER)
    assert armed.count(armed.trigger) == 1
    armed.close(armed.fd)
    armed.set_none(second, TRIGGER)
    assert armed.count(armed.trigger) == 1


# -- what is refused -----------------------------------------------------------------------------------------


def test_the_order_of_the_checks(armed: PciBench) -> None:
    set_irqs, fd = armed.set_irqs, armed.fd
    with fails("EFAULT"):
        armed.ioctl(fd, uapi.VFIO_DEVICE_SET_IRQS, WILD)
    for argsz in (0, 16, 19):
        with fails("EINVAL"):
            set_irqs(fd, NONE | TRIGGER, argsz=argsz)
    for index in (5, 0xFFFFFFFF):
        with fails("EINVAL"):
            set_irqs(fd, NONE | TRIGGER, index)
    for flags in (NONE | TRIGGER | 64, NONE | TRIGGER | 1 << 31, TRIGGER, NONE | BOOL | TRIGGER):
        with fails("EINVAL"):
            set_irqs(fd, flags)
    for start, count in ((1, 0), (1, 1), (0, 2), (0, 0xFFFFFFFF), (0xFFFFFFFF, 1), (0x7FFFFFFF, 1)):
        with fails("EINVAL"):
            set_irqs(fd, NONE | TRIGGER, start=start, count=count)
    with fails("EINVAL"):
        set_irqs(fd, EVENTFD | TRIGGER, data=b"\0\0\0")
    for action in (0, MASK | UNMASK, MASK | TRIGGER, MASK | UNMASK | TRIGGER):
        with fails("ENOTTY"):
            set_irqs(fd, NONE | action)
    with fails("ENOTTY"):
        armed.set_eventfd(fd, MASK, armed.eventfd())
    with fails("EINVAL"):
        set_irqs(fd, NONE | MASK, count=0)


def test_missing_data_are_efault(armed: PciBench) -> None:
    from vfio_bench import EdgePage

    edge = EdgePage()
    header = uapi.ffi.new("uint32_t[]", [24, EVENTFD | TRIGGER, INTX, 0, 1])
    with fails("EFAULT"):
        armed.ioctl(armed.fd, uapi.VFIO_DEVICE_SET_IRQS, edge.put(bytes(uapi.ffi.buffer(header))))


def test_only_one_kind_of_interrupt_at_a_time(bench: PciBench) -> None:
    bench.use(FULL)
    bench.triggers(INTX, bench.eventfd())
    for index in (MSI, MSIX):
        with fails("EINVAL"):
            bench.triggers(index, bench.eventfd())
    bench.set_none(bench.fd, TRIGGER, INTX, 0)
    bench.triggers(MSI, bench.eventfd())
    for index in (INTX, MSIX):
        with fails("EINVAL"):
            bench.triggers(index, bench.eventfd())


def test_a_bad_first_eventfd_enables_nothing(bench: PciBench) -> None:
    bench.use(EDU)
    with fails("EBADF"):
        bench.triggers(INTX, 777777)
    with fails("EINVAL"):
        bench.set_none(bench.fd, MASK)
    bench.triggers(MSI, bench.eventfd())


def test_no_pin_no_intx(bench: PciBench) -> None:
    bench.use(TWIN)
    with fails("EINVAL"):
        bench.triggers(INTX, bench.eventfd())
