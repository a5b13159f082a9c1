"""The answer as text for people and as plain data for programs. Both say what was counted and what is assumed."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kvmvfio_emu.cli.story import COUNTERS
from kvmvfio_emu.rr.costs import BASES, Costs
from kvmvfio_emu.rr.measure import Measured, Spread
from kvmvfio_emu.rr.sweep import Answer, Swing, Variant

_MODES = ("unforwarded", "forwarded")
_HONEST = (
    "Counted by the model: which steps a transaction takes, in which order, on which CPU, and which of them the "
    "response has to wait for. Not counted by anybody: what a step takes. That is the cost file's, {count}.",
    "{measured} Caches and TLBs that an exit leaves cold, interrupt moderation by time, "
    "and a guest's transmit interrupts are not in it.",
)


def data(answer: Answer, swings: Iterable[Swing], variants: Iterable[Variant]) -> dict[str, Any]:
    """Everything, in cycles unless the key says otherwise."""
    costs = answer.costs
    return {
        "measured_on_hardware": False,
        "workload": asdict(answer.workload),
        "costs": {
            "name": costs.name,
            "basis": {basis: names for basis in BASES if (names := _of_basis(costs, basis))},
            "parameters": {name: asdict(one) for name, one in costs.parameters.items()},
        },
        **{mode: _mode(measured) for mode, measured in _both(answer)},
        "answer": _gain(answer),
        "sensitivity": [
            {
                "parameter": swing.parameter.name,
                "unit": swing.parameter.unit,
                "basis": swing.parameter.basis,
                "low": {"value": swing.parameter.low, **_gain(swing.low)},
                "high": {"value": swing.parameter.high, **_gain(swing.high)},
            }
            for swing in swings
        ],
        "variants": [{"workload": variant.name, **_gain(variant.answer)} for variant in variants],
    }


def text(answer: Answer, swings: list[Swing], variants: list[Variant]) -> str:
    """For people."""
    parts = [
        _workload(answer),
        _counted(answer),
        _computed(answer),
        _saved(answer),
        _sensitivity(answer, swings) if swings else "",
        _others(answer, variants) if variants else "",
        "\n".join(
            _wrapped(part.format(count=_bases(answer.costs), measured=_measured(answer.costs))) for part in _HONEST
        ),
    ]
    whole = "\n\n".join(part for part in parts if part)
    return "".join(f"{line.rstrip()}\n" for line in whole.split("\n"))


def sentence(answer: Answer) -> str:
    """The answer in one sentence."""
    unforwarded, forwarded = answer.unforwarded, answer.forwarded
    if not all(one.events.get("guest_eoi") for one in (unforwarded, forwarded)):
        return "The guest is so busy that it polls and takes no interrupt: there is nothing that forwarding could save."
    text = (
        f"By these costs forwarding makes {_more(answer.faster)} transactions a second, each of which takes "
        f"{_more(-answer.cheaper)} CPU cycles, and brings the mean interrupt exit latency from "
        f"{_microseconds(unforwarded.exit.mean, answer.costs)} to {_microseconds(forwarded.exit.mean, answer.costs)}."
    )
    if (rate := answer.workload.rate) and forwarded.per_second < 0.95 * rate * answer.workload.devices:
        text += " Requests come faster than the guest can answer."
    return text


# -- the parts of the text -----------------------------------------------------------------------------------------


def _workload(answer: Answer) -> str:
    one = answer.workload
    pace = "each request after the last response" if one.rate is None else f"{one.rate:g} requests a second each"
    lines = [
        f"Request and response, as netperf TCP_RR: {_count(one.devices, 'xgmac')}, {pace}, "
        f"{_count(one.coalesce, 'transaction')} an interrupt.",
        f"The vCPU {'waits in WFI' if one.idle else 'computes'} between them; the guest answers "
        f"{'after' if one.poll else 'before'} its end of interrupt. "
        f"{_count(one.cpus, 'physical CPU')}, interrupts to CPU {one.irq_cpu}, the vCPU on CPU 0.",
        f"Kernel {one.profile}, costs {answer.costs.name} ({answer.costs.description}). "
        f"{_count(answer.unforwarded.transactions, 'transaction')}, the time on the wire varied by "
        f"{one.jitter * 100:g} %.",
    ]
    return "\n".join(_wrapped(line) for line in lines)


def _counted(answer: Answer) -> str:
    lines = ["Counted by the model, each transaction", "", f"{'':<22}{_header()}"]
    before, after = answer.unforwarded, answer.forwarded
    rows = [("exits in all", before.exits, after.exits)]
    for name in (*COUNTERS, "guest_read", "guest_write", "vmexit_wfi"):
        rows.append((name, before.events.get(name, 0.0), after.events.get(name, 0.0)))
    lines += [f"{name:<22}{_number(one):>14}{_number(other):>14}" for name, one, other in rows if one or other]
    return "\n".join(lines)


def _computed(answer: Answer) -> str:
    costs, unforwarded, forwarded = answer.costs, answer.unforwarded, answer.forwarded
    lines = ["Computed from that and the costs", "", f"{'':<44}{_header()}{'change':>12}"]

    def row(name: str, before: float, after: float, form: str = ",.0f") -> None:
        change = "" if not before or before == after else _percent(after / before - 1)
        lines.append(f"{name:<44}{before:>14{form}}{after:>14{form}}{change:>12}")

    row("transactions a second", unforwarded.per_second, forwarded.per_second)
    row("CPU cycles, each transaction", unforwarded.cycles, forwarded.cycles)
    row("  before the response (it waits)", unforwarded.critical_cycles, forwarded.critical_cycles)
    before, after = (one.cycles - one.critical_cycles for one in (unforwarded, forwarded))
    row("  after it (only load)", before, after)
    for cpu in unforwarded.cpus:
        before, after = (one.cpus.get(cpu, 0.0) * 100 for one in (unforwarded, forwarded))
        row(f"load of CPU {cpu} by this, %", before, after, ",.1f")
    scale = 1e-3 / costs.value("clock")
    for name, spreads in (
        ("injection latency, line to IAR, us", [one.injection for _, one in _both(answer)]),
        ("exit latency, EOI to going on, us", [one.exit for _, one in _both(answer)]),
        ("response, from the request, us", [one.response for _, one in _both(answer)]),
    ):
        for which in _points(spreads):
            before, after = (getattr(one, which) * scale for one in spreads)
            row(f"{name}: {which}", before, after, ",.2f")
    return "\n".join([*lines, "", _wrapped(sentence(answer))])


def _saved(answer: Answer) -> str:
    """Where the difference is, parameter by parameter."""
    before, after = answer.unforwarded, answer.forwarded
    lines = [
        "Where the cycles go that forwarding saves, each transaction",
        "",
        f"{'':<22}{'saved':>10}{'of which before the response':>32}",
    ]
    rows = [
        (
            name,
            before.parameters.get(name, 0.0) - after.parameters.get(name, 0.0),
            before.critical.get(name, 0.0) - after.critical.get(name, 0.0),
        )
        for name in answer.costs.parameters
    ]
    rows.sort(key=lambda row: -row[1])
    if not any(row[1] for row in rows):
        return ""
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    lines += [
        f"{name:<22}{all_:>10,.0f}{critical:>32,.0f}" for name, all_, critical in rows if round(all_) or round(critical)
    ]
    return "\n".join(lines)


def _sensitivity(answer: Answer, swings: list[Swing]) -> str:
    lines = [
        "How the answer moves when one cost goes through its range",
        "",
        f"{'':<18}{'range':>22}{'basis':>12}{'transactions/s':>24}{'cycles each':>22}",
    ]
    for swing in swings:
        one = swing.parameter
        unit = "" if one.unit == "cycles" else f" {one.unit}"
        range_ = f"{one.low:g} .. {one.high:g}{unit}"
        speed = f"{_percent(swing.low.faster)} .. {_percent(swing.high.faster)}"
        load = f"{_percent(-swing.low.cheaper)} .. {_percent(-swing.high.cheaper)}"
        lines.append(f"{one.name:<18}{range_:>22}{one.basis:>12}{speed:>24}{load:>22}")
    return "\n".join(lines)


def _others(answer: Answer, variants: list[Variant]) -> str:
    lines = [
        "The same costs, another workload",
        "",
        f"{'':<36}{'transactions/s':>16}{'cycles each':>14}{'exits saved':>14}",
    ]
    for name, one in [("as above", answer), *variants]:
        saved = one.unforwarded.exits - one.forwarded.exits
        lines.append(f"{name:<36}{_percent(one.faster):>16}{_percent(-one.cheaper):>14}{_number(saved):>14}")
    return "\n".join(lines)


# -- small things ----------------------------------------------------------------------------------------------------


def _both(answer: Answer) -> list[tuple[str, Measured]]:
    return list(zip(_MODES, (answer.unforwarded, answer.forwarded), strict=True))


def _mode(measured: Measured) -> dict[str, Any]:
    return {
        "transactions": measured.transactions,
        "transactions_per_second": None if math.isinf(measured.per_second) else measured.per_second,
        "exits": measured.exits,
        "events": measured.events,
        "cycles": measured.cycles,
        "cycles_before_response": measured.critical_cycles,
        "cycles_after_response": measured.cycles - measured.critical_cycles,
        "cycles_by_parameter": measured.parameters,
        "cycles_by_parameter_before_response": measured.critical,
        "cpu_load": {str(cpu): load for cpu, load in measured.cpus.items()},
        "injection_latency": measured.injection._asdict(),
        "exit_latency": measured.exit._asdict(),
        "response_latency": measured.response._asdict(),
        "waiting": measured.waiting,
    }


def _gain(answer: Answer) -> dict[str, float]:
    return {
        "more_transactions_per_second": answer.faster,
        "fewer_cycles": answer.cheaper,
        "shorter_exit_latency": answer.sooner,
    }


def _of_basis(costs: Costs, basis: str) -> list[str]:
    return [name for name, one in costs.parameters.items() if one.basis == basis]


def _bases(costs: Costs) -> str:
    counts = [f"{len(names)} {basis}" for basis in BASES if (names := _of_basis(costs, basis))]
    return f"{len(costs.parameters)} figures of which " + ", ".join(counts)


def _measured(costs: Costs) -> str:
    if steps := _of_basis(costs, "measured"):
        return f"No transaction was measured on hardware, only single steps, says the file: {', '.join(steps)}."
    return "None of this was measured on hardware."


def _points(spreads: list[Spread]) -> tuple[str, ...]:
    """One figure where there is no spread."""
    return ("median",) if all(one.least == one.most for one in spreads) else ("least", "median", "p99", "most")


def _header() -> str:
    return f"{'not forwarded':>14}{'forwarded':>14}"


def _percent(part: float) -> str:
    return f"{part * 100:+.1f} %".replace("-0.0 %", "+0.0 %")


def _more(part: float) -> str:
    return f"{abs(part) * 100:.1f} % {'fewer' if part < 0 else 'more'}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118)


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _microseconds(cycles: float, costs: Costs) -> str:
    return f"{cycles / costs.value('clock') / 1000:.2f} us"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
