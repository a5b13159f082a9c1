"""VFIO_DEVICE_SET_IRQS on platform devices, the arguments: contract 3.3 (checks), oracle 17 to 19."""

from __future__ import annotations

import itertools

import pytest
from vfio_bench import BOOL, EVENTFD, MASK, MULTI, NONE, TRIGGER, UNMASK, Bench, EdgePage, fails

from kvmvfio_emu import uapi

EDGE = 2  #: the index of the network device's edge-triggered interrupt
DATA = {0: b"", NONE: b"", BOOL: b"\1" * 8, EVENTFD: b"\xff" * 32}
ABSURD = 2**32 - 1


@pytest.fixture(params=[False, True], ids=["2014", "range-checked"])
def device(request: pytest.FixtureRequest, bench: Bench) -> int:
    """An open device, on a kernel with either form of the argument check."""
    object.__setattr__(bench.host.profile, "irq_set_range_checked", request.param)
    return bench.device()


@pytest.mark.parametrize("argsz", [0, 16, 19])
def test_argsz_below_20_is_einval(bench: Bench, device: int, argsz: int) -> None:
    with fails("EINVAL"):
        bench.set_irqs(device, NONE | TRIGGER, count=0, argsz=argsz)


@pytest.mark.parametrize("index", [3, 4, ABSURD])
def test_index_beyond_the_last_is_einval(bench: Bench, device: int, index: int) -> None:
    with fails("EINVAL"):
        bench.set_irqs(device, NONE | TRIGGER, index, count=0)


@pytest.mark.parametrize("bit", [6, 7, 16, 31])
def test_unknown_flag_is_einval(bench: Bench, device: int, bit: int) -> None:
    with fails("EINVAL"):
        bench.set_irqs(device, NONE | TRIGGER | 1 << bit, count=0)


@pytest.mark.parametrize("action", [0, MASK, UNMASK, TRIGGER, MASK | UNMASK])
@pytest.mark.parametrize("data", [0, NONE | BOOL, NONE | EVENTFD, BOOL | EVENTFD, NONE | BOOL | EVENTFD])
@pytest.mark.parametrize("count", [0, 1, ABSURD])
def test_no_or_several_data_types_is_einval_whatever_the_action(
    bench: Bench, device: int, data: int, action: int, count: int
) -> None:
    with fails("EINVAL"):
        bench.set_irqs(device, data | action, count=count, data=bytes(16))


@pytest.mark.parametrize("action", [0, MASK | UNMASK, MASK | TRIGGER, UNMASK | TRIGGER, MASK | UNMASK | TRIGGER])
@pytest.mark.parametrize("data", [NONE, BOOL, EVENTFD])
@pytest.mark.parametrize("count", [0, 1])
def test_no_or_several_actions_is_enotty(bench: Bench, device: int, action: int, data: int, count: int) -> None:
    with fails("ENOTTY"):
        bench.set_irqs(device, data | action, count=count, data=DATA[data])


@pytest.mark.parametrize(("kind", "size"), [(BOOL, 0), (EVENTFD, 0), (EVENTFD, 1), (EVENTFD, 3)])
@pytest.mark.parametrize("action", [0, MASK, UNMASK, TRIGGER])
def test_argsz_without_room_for_the_data_is_einval(
    bench: Bench, device: int, kind: int, size: int, action: int
) -> None:
    with fails("EINVAL"):
        bench.set_irqs(device, kind | action, data=bytes(8), argsz=20 + size)


@pytest.mark.parametrize("kind", [BOOL, EVENTFD])
@pytest.mark.parametrize("action", [0, MASK, UNMASK, TRIGGER])
def test_data_behind_the_mapping_is_efault(bench: Bench, device: int, kind: int, action: int) -> None:
    page = EdgePage()
    header = uapi.ffi.new("uint32_t[]", [64, kind | action, 0, 0, 1])
    with fails("EFAULT"):
        bench.ioctl(device, uapi.VFIO_DEVICE_SET_IRQS, page.put(bytes(uapi.ffi.buffer(header))))


def test_data_at_the_end_of_the_mapping_is_enough_even_with_an_absurd_argsz(bench: Bench, device: int) -> None:
    page = EdgePage()
    header = uapi.ffi.new("uint32_t[]", [ABSURD, EVENTFD | TRIGGER, 0, 0, 1])
    fd = bench.eventfd().to_bytes(4, "little")
    assert bench.ioctl(device, uapi.VFIO_DEVICE_SET_IRQS, page.put(bytes(uapi.ffi.buffer(header)) + fd)) == 0
    assert bench.set_none(device, TRIGGER, count=0) == 0
    header = uapi.ffi.new("uint32_t[]", [20, NONE | TRIGGER, 0, 0, 0])
    assert bench.ioctl(device, uapi.VFIO_DEVICE_SET_IRQS, page.put(bytes(uapi.ffi.buffer(header)))) == 0


@pytest.mark.parametrize("kind", [NONE, BOOL, EVENTFD])
@pytest.mark.parametrize("action", [MASK, UNMASK, TRIGGER])
@pytest.mark.parametrize(
    ("start", "count"),
    [(0, 0), (1, 0), (1, 1), (0, 2), (0, ABSURD), (0, ABSURD - 1), (ABSURD, 0), (ABSURD, 1), (2**31 - 1, 1)],
)
def test_any_start_and_count_but_0_and_1_is_einval(
    bench: Bench, device: int, kind: int, action: int, start: int, count: int
) -> None:
    if (kind, action, count) == (NONE, TRIGGER, 0):
        return  # removes the trigger; see below
    with fails("EINVAL"):
        bench.set_irqs(device, kind | action, start=start, count=count, data=DATA[kind])


def test_none_trigger_count_0_is_0_again_and_again(bench: Bench, device: int) -> None:
    for index in (0, EDGE, 0, EDGE):
        assert bench.set_none(device, TRIGGER, index, count=0) == 0


@pytest.mark.parametrize(("start", "ok"), [(0, True), (2, True), (3, False), (ABSURD, False)])
def test_none_trigger_count_0_with_a_start(start: int, ok: bool) -> None:
    for checked in (False, True):
        bench = Bench(irq_set_range_checked=checked)
        device = bench.device()
        if ok or not checked:
            assert bench.set_irqs(device, NONE | TRIGGER, start=start, count=0) == 0
        else:
            with fails("EINVAL"):
                bench.set_irqs(device, NONE | TRIGGER, start=start, count=0)


@pytest.mark.parametrize(("kind", "value"), [(NONE, b""), (BOOL, b"\0"), (BOOL, b"\1"), (EVENTFD, b"\xff" * 4)])
@pytest.mark.parametrize("action", [MASK, UNMASK])
def test_mask_and_unmask_of_an_edge_interrupt_is_einval(
    bench: Bench, device: int, action: int, kind: int, value: bytes
) -> None:
    with fails("EINVAL"):
        bench.set_irqs(device, kind | action, EDGE, data=value)


# -- eventfds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [MASK, UNMASK, TRIGGER])
def test_bad_eventfd(bench: Bench, device: int, action: int) -> None:
    for fd, expected in ((77_777, "EBADF"), (2**31 - 1, "EBADF"), (0, "EINVAL"), (device, "EINVAL")):
        with fails(expected):
            bench.set_eventfd(device, action, fd)
    assert bench.host.eventfds.held() == []


@pytest.mark.parametrize("action", [MASK, UNMASK, TRIGGER])
@pytest.mark.parametrize("fd", [-1, -2, -(2**31)])
def test_any_negative_fd_removes(bench: Bench, device: int, action: int, fd: int) -> None:
    assert bench.set_eventfd(device, action, fd) == 0
    bench.set_eventfd(device, action, bench.eventfd())
    assert bench.set_eventfd(device, action, fd) == 0
    assert bench.host.eventfds.held() == []


@pytest.mark.parametrize("action", [MASK, UNMASK])
def test_second_mask_or_unmask_eventfd_is_ebusy_until_removed(bench: Bench, device: int, action: int) -> None:
    first, second = bench.eventfd(), bench.eventfd()
    assert bench.set_eventfd(device, action, first) == 0
    for again in (first, second):
        with fails("EBUSY"):
            bench.set_eventfd(device, action, again)
    for bad, expected in ((77_777, "EBADF"), (0, "EINVAL")):  # judged before the place is
        with fails(expected):
            bench.set_eventfd(device, action, bad)
    assert bench.set_eventfd(device, action, -1) == 0
    assert bench.set_eventfd(device, action, second) == 0


def test_trigger_is_replaced_freely(bench: Bench, device: int) -> None:
    old, new = bench.eventfd(), bench.eventfd()
    for fd in (old, old, new):
        assert bench.set_eventfd(device, TRIGGER, fd) == 0
    bench.set_none(device, TRIGGER)
    assert (bench.count(old), bench.count(new)) == (0, 1)


@pytest.mark.parametrize("index", [0, EDGE])
@pytest.mark.parametrize("bad", [77_777, 2**31 - 1, 0])
def test_bad_trigger_while_armed_removes_the_old_one_too(bench: Bench, device: int, index: int, bad: int) -> None:
    trigger = bench.eventfd()
    bench.set_eventfd(device, TRIGGER, trigger, index)
    with fails("EINVAL" if bad == 0 else "EBADF"):
        bench.set_eventfd(device, TRIGGER, bad, index)
    bench.set_none(device, TRIGGER, index)
    assert bench.count(trigger) == 0
    assert bench.host.eventfds.held() == []


@pytest.mark.parametrize(("action", "bad"), list(itertools.product([MASK, UNMASK], [77_777, 0])))
def test_bad_mask_or_unmask_eventfd_leaves_the_trigger(bench: Bench, device: int, action: int, bad: int) -> None:
    trigger = bench.eventfd()
    bench.set_eventfd(device, TRIGGER, trigger)
    with fails("EINVAL" if bad == 0 else "EBADF"):
        bench.set_eventfd(device, action, bad)
    bench.set_none(device, TRIGGER)
    assert bench.count(trigger) == 1


def test_range_check_counts_indexes_not_interrupts() -> None:
    bench = Bench(irq_set_range_checked=True)
    device = bench.device(MULTI)
    with fails("ENOTTY"):
        bench.set_irqs(device, NONE, count=2)
    with fails("EINVAL"):
        bench.set_irqs(device, NONE, count=3)
    with fails("EINVAL"):  # two eventfds are wanted, one is there
        bench.set_irqs(device, EVENTFD, count=2, data=bytes(4))
