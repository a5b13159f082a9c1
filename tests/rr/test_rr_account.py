"""Times follow from cause and order; the parts add up; what costs more makes nothing shorter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.rr.account import TICKS, Account
from kvmvfio_emu.rr.costs import CostError, Costs, Parameter
from kvmvfio_emu.rr.measure import Spread, measure
from kvmvfio_emu.rr.sweep import ask
from kvmvfio_emu.rr.ways import Ways
from kvmvfio_emu.rr.workload import Workload, run


def free(costs: Costs) -> Costs:
    """No step costs anything; the wire still takes its time."""
    changed = {name: replace(one, value=0.0) if one.unit == "cycles" else one for name, one in costs.parameters.items()}
    return replace(costs, parameters=changed)


def toy(**prices: int) -> Costs:
    """Each event costs a parameter of its own name."""
    parameters = {
        name: Parameter(name, price, 0, price, "cycles", "assumed", "test", "test") for name, price in prices.items()
    }
    return Costs("toy", "toy", parameters, {**{name: (name,) for name in prices}, "line_up": ()})


def listen(account: Account, *events: tuple[int, str, int, dict]) -> list[tuple[str, int, int, int]]:
    """(name, cpu, start, end) in cycles of each event."""
    for number, name, cause, fields in events:
        account(Event(0, name, fields, number, cause))
    return [(step.name, step.cpu, step.start // TICKS, step.end // TICKS) for step in account.steps]


def test_a_step_waits_for_its_cause_and_for_its_cpu():
    account = Account(toy(host_irq=10, work=100, vmexit_kick=5, guest_packet=1000), irq_cpu=1)
    account.outside = 50 * TICKS
    assert listen(
        account,
        (1, "guest_packet", 0, {"vcpu": 0}),
        (2, "line_up", 0, {"irq": 112}),
        (3, "host_irq", 2, {"irq": 112}),  # on CPU 1, while the guest goes on on CPU 0
        (4, "work", 3, {"gsi": 80}),  # where its cause was
        (5, "vmexit_kick", 4, {"vcpu": 0}),  # its cause is ready at 160, its CPU at 1000
    ) == [
        ("guest_packet", 0, 0, 1000),
        ("line_up", -1, 50, 50),
        ("host_irq", 1, 50, 60),
        ("work", 1, 60, 160),
        ("vmexit_kick", 0, 1000, 1005),
    ]


def test_the_way_back_tells_critical_steps_from_others():
    account = Account(toy(host_irq=10, work=100, vmexit_kick=5, guest_write=7), irq_cpu=1)
    listen(
        account,
        (1, "line_up", 0, {"irq": 112}),
        (2, "host_irq", 1, {"irq": 112}),
        (3, "guest_write", 0, {"vcpu": 0}),  # of something else; CPU 0 is done with it before the kick comes
        (4, "work", 2, {"gsi": 80}),
        (5, "vmexit_kick", 4, {"vcpu": 0}),
        (6, "guest_write", 0, {"vcpu": 0}),
    )
    ways = Ways(account.steps)
    assert ways.first(5, since=0) == 0
    assert ways.first(5, since=10 * TICKS) == 3
    assert ways.first(5, since=10**9) == -1
    ways.mark(5, since=0)
    assert [ways.critical(index) for index in range(6)] == [True, True, False, True, True, True]


def test_an_entry_after_a_wait_has_its_own_price():
    costs = toy(vmexit_wfi=1, vmexit_irq=2, vmentry=10, wake=100)
    costs.events["vmentry after vmexit_wfi"] = ("wake", "vmentry")
    account = Account(costs, irq_cpu=0)
    vcpu = {"vcpu": 0}
    names = ["vmexit_wfi", "vmentry", "vmexit_irq", "vmentry"]
    found = listen(account, *((number, name, 0, vcpu) for number, name in enumerate(names, 1)))
    assert [end - start for _, _, start, end in found] == [1, 110, 2, 10]


def test_an_event_that_the_costs_do_not_list_is_an_error():
    with pytest.raises(CostError, match="costs toy: events: host_irq happens in the model but is not listed"):
        listen(Account(toy(work=1), irq_cpu=0), (1, "host_irq", 0, {"irq": 112}))


def test_a_far_look_back_finds_what_a_walk_finds(costs):
    ran = run(Workload(devices=3, transactions=60, rate=30000.0), costs, forward=False)
    steps, ways = ran.account.steps, Ways(ran.account.steps)
    for index, arrived in ran.answers:
        walked, at = -1, index
        while at >= 0 and steps[at].start >= arrived:
            walked, at = at, steps[at].waited_for
        assert ways.first(index, arrived) == walked


@pytest.mark.parametrize("fields", [{}, {"idle": False}, {"poll": False}, {"devices": 3}, {"coalesce": 4}], ids=str)
@pytest.mark.parametrize("cpus", [1, 2])
def test_the_parts_add_up(costs, fields, cpus):
    workload = Workload(transactions=24, cpus=cpus, irq_cpu=cpus - 1, **fields)
    for forward in (False, True):
        ran = run(workload, costs, forward=forward)
        measured = measure(ran, costs)
        steps = ran.account.steps
        spent = sum(step.end - step.start for step in steps[ran.first : ran.last]) / TICKS
        assert measured.cycles * measured.transactions == pytest.approx(spent)
        assert sum(measured.cpus.values()) * measured.elapsed == pytest.approx(spent)
        counted = {
            name: sum(
                number * costs.of(event, after).count(name)
                for (event, after), number in _by_context(steps, ran.first, ran.last).items()
            )
            for name in costs.parameters
        }
        for name, cycles in measured.parameters.items():
            assert cycles * measured.transactions == pytest.approx(counted[name] * costs.value(name))
        # A response is its way, and what of its time is on no step of it.
        ways = Ways(steps)
        for index, arrived in ran.answers:
            at, on_the_way = index, 0
            while at >= 0 and steps[at].start >= arrived:
                on_the_way += steps[at].end - steps[at].start
                at = steps[at].waited_for
            first = ways.first(index, arrived)
            assert steps[index].end - arrived == on_the_way + steps[first].start - arrived
        assert 0 <= measured.critical_cycles <= measured.cycles


def _by_context(steps, first, last):
    found, exit_ = {}, ""
    for index, step in enumerate(steps[:last]):
        key = (step.name, exit_ if step.name == "vmentry" else "")
        if step.name.startswith("vmexit_"):
            exit_ = step.name
        if index >= first:
            found[key] = found.get(key, 0) + 1
    return found


def test_on_one_cpu_with_one_device_nothing_else_is_waited_for(asked):
    for fields in ({}, {"idle": False}, {"poll": False}):
        answer = asked(**fields)
        for measured in (answer.unforwarded, answer.forwarded):
            assert measured.waiting == 0
            assert measured.response.mean == pytest.approx(measured.critical_cycles)


@pytest.mark.parametrize("fields", [{}, {"idle": False}, {"poll": False}, {"devices": 3}, {"coalesce": 4}], ids=str)
def test_where_steps_are_free_forwarding_buys_nothing(costs, fields):
    answer = ask(Workload(transactions=24, **fields), free(costs))
    assert answer.unforwarded.per_second == answer.forwarded.per_second
    assert answer.unforwarded.cycles == answer.forwarded.cycles == 0
    assert answer.unforwarded.exit == answer.forwarded.exit == Spread(0, 0, 0, 0, 0)
    assert answer.faster == answer.cheaper == answer.sooner == 0


def test_exit_latency_is_the_way_through_the_host_and_none_when_forwarded(asked, costs):
    answer = asked()
    path = ("vm_exit", "resampler", "vgic_update", "eventfd_signal", "gicd_access", "vm_entry")
    assert answer.unforwarded.exit.median == sum(costs.value(name) for name in path)
    assert answer.forwarded.exit == Spread(0, 0, 0, 0, 0)


def test_injection_differs_by_the_lazy_hit_and_one_distributor_write(asked, costs):
    answer = asked(idle=False)
    lazy = sum(costs.value(name) for name in costs.of("host_irq_lazy")) + costs.value("gicd_access")
    assert answer.unforwarded.injection.median - answer.forwarded.injection.median == lazy


def test_an_answer_from_the_handler_does_not_wait_for_the_completion(asked):
    early, late = asked(poll=False), asked(poll=True)
    after = [one.unforwarded.cycles - one.unforwarded.critical_cycles for one in (early, late)]
    assert after[0] - after[1] > early.unforwarded.exit.mean
    assert early.faster < late.faster


def test_a_step_that_costs_more_makes_nothing_shorter(costs):
    workload = Workload(transactions=8)
    for name, one in costs.parameters.items():
        if name == "clock":
            continue
        low, high = (ask(workload, costs.with_value(name, value)) for value in (one.low, one.high))
        for before, after in ((low.unforwarded, high.unforwarded), (low.forwarded, high.forwarded)):
            assert after.per_second <= before.per_second, name
            assert after.cycles >= before.cycles, name
            assert after.exit.mean >= before.exit.mean, name
            assert after.injection.mean >= before.injection.mean, name


def test_spread_of_latencies():
    assert Spread.of([]) == Spread(0, 0, 0, 0, 0)
    assert Spread.of(TICKS * n for n in range(101)) == Spread(0, 50, 99, 100, 50)
