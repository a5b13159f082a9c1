"""The counts of one transaction are those of one interrupt: the contract's table of events per interrupt."""

from __future__ import annotations

import os

import pytest

from kvmvfio_emu import Kernel
from kvmvfio_emu.rr.workload import Workload, run

#: Counter -> (unforwarded, forwarded), for a vCPU that computes on the CPU that takes the interrupt.
RUNNING = {
    "vmexit_irq": (1, 1),
    "vmexit_kick": (0, 0),
    "vmexit_maint": (1, 0),
    "host_irq": (1, 1),
    "host_irq_lazy": (1, 0),
    "eventfd_trigger": (1, 1),
    "eventfd_resample": (1, 0),
    "work": (1, 1),
    "gicd_mask": (1, 0),
    "gicd_unmask": (1, 0),
    "set_irq": (2, 1),
    "resample_ack": (1, 0),
    "lr_queued": (1, 1),
    "guest_iar": (1, 1),
    "guest_eoi": (1, 1),
    "hw_deactivate": (0, 1),
    "guest_packet": (1, 1),
    "line_up": (1, 1),
}
IDLE = RUNNING | {"vmexit_irq": (0, 0)}
ELSEWHERE = RUNNING | {"vmexit_irq": (0, 0), "vmexit_kick": (1, 1)}


@pytest.mark.parametrize("poll", [True, False], ids=["poll", "handler"])
@pytest.mark.parametrize(
    ("fields", "table", "exits"),
    [
        pytest.param({"idle": False}, RUNNING, (2, 1), id="running"),
        pytest.param({"idle": True}, IDLE, (1, 0), id="idle"),
        pytest.param({"idle": False, "cpus": 2, "irq_cpu": 1}, ELSEWHERE, (2, 1), id="running elsewhere"),
        pytest.param({"idle": True, "cpus": 2, "irq_cpu": 1}, IDLE, (1, 0), id="idle elsewhere"),
    ],
)
def test_a_transaction_takes_what_an_interrupt_takes(asked, fields, table, exits, poll):
    answer = asked(poll=poll, **fields)
    modes = (answer.unforwarded, answer.forwarded)
    counted = {name: tuple(one.events.get(name, 0) for one in modes) for name in table}
    assert counted == table
    assert tuple(one.exits for one in modes) == exits


@pytest.mark.parametrize("count", [2, 4, 8])
def test_coalesced_requests_share_an_interrupt(asked, count):
    answer = asked(coalesce=count)
    for measured, maintenance in ((answer.unforwarded, 1 / count), (answer.forwarded, 0)):
        assert measured.events["host_irq"] == 1 / count
        assert measured.events.get("vmexit_maint", 0) == maintenance
        assert measured.events["guest_packet"] == 1


def test_every_device_gets_its_interrupts_through(asked):
    answer = asked(devices=4, transactions=64)
    assert answer.forwarded.transactions == answer.unforwarded.transactions == 64
    assert "eventfd_resample" not in answer.forwarded.events
    assert answer.forwarded.events["hw_deactivate"] == answer.forwarded.events["guest_eoi"]


def test_slow_requests_at_a_rate_are_answered_at_that_rate(asked):
    answer = asked(rate=1000.0, jitter=0.0)
    for measured in (answer.unforwarded, answer.forwarded):
        assert measured.per_second == pytest.approx(1000, rel=1e-6)
        assert measured.events["line_up"] == 1
    assert answer.faster == 0
    assert answer.forwarded.cpus[0] < answer.unforwarded.cpus[0]


def test_a_rate_beyond_the_guests_power_saturates_it(asked):
    answer = asked(rate=1e6, transactions=64)
    assert answer.forwarded.cpus[0] == pytest.approx(1)
    assert answer.forwarded.per_second < 1e5
    assert answer.forwarded.events.get("guest_iar", 0) < 0.1  # it polls, as NAPI does
    assert answer.forwarded.response.mean > 10 * answer.forwarded.cycles  # behind all that came before


def test_a_run_gives_all_its_descriptors_back(costs, monkeypatch):
    left = []
    close = Kernel.close_kernel
    monkeypatch.setattr(Kernel, "close_kernel", lambda kernel: (left.extend(kernel.open_files()), close(kernel)))
    before = os.listdir("/proc/self/fd")
    for forward in (False, True):
        run(Workload(devices=3, transactions=6), costs, forward=forward)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert left == []
