"""`kvmvfio-emu tcp-rr`: what forwarding is worth to a request-response workload, by the model and by given costs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu import profiles
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from kvmvfio_emu.rr.sweep import Answer, Swing, Variant

_CPUS, _DEVICES, _COALESCE, _TRANSACTIONS = 8, 32, 64, 20_000
_DESCRIPTION = """\
Does forwarding lower interrupt exit latency and CPU load, as netperf TCP_RR would show? Requests come in through
assigned network devices and are answered by a guest, through the whole model, not forwarded and forwarded. The model
counts the steps; a cost file says what they take. Nothing of it is measured on hardware."""


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "tcp-rr",
        help="what forwarding buys a request-response workload, by the model's steps and your costs",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arg = parser.add_argument
    arg(
        "--vcpu",
        choices=("idle", "running"),
        default="idle",
        help="between requests: wait in WFI (default), or compute",
    )
    arg(
        "--answer",
        choices=("poll", "handler"),
        default="poll",
        help="the guest answers after it has completed the interrupt, as Linux does (default), or from its handler",
    )
    arg("--devices", type=_integer(1, _DEVICES), default=1, metavar="N", help=f"1 (default) to {_DEVICES}")
    arg(
        "--coalesce",
        type=_integer(1, _COALESCE),
        default=1,
        metavar="N",
        help="requests an interrupt, from as many streams of a device (default 1)",
    )
    arg(
        "--transactions",
        type=_integer(1, _TRANSACTIONS),
        default=200,
        metavar="N",
        help="how many to measure (default 200), rounded up to whole interrupts",
    )
    arg(
        "--rate",
        type=_real(1e-3, 1e8),
        metavar="HZ",
        help="requests a second for each device, answered or not; default: each follows the last response",
    )
    arg(
        "--jitter",
        type=_real(0, 100),
        default=10.0,
        metavar="PERCENT",
        help="how much the time between requests varies, the same at each run (default 10)",
    )
    arg(
        "--cpus",
        type=_integer(1, _CPUS),
        default=1,
        metavar="N",
        help="physical CPUs (default 1); the vCPU is on CPU 0",
    )
    arg("--irq-cpu", type=_integer(0, _CPUS - 1), default=0, metavar="N", help="which takes the interrupts (default 0)")
    arg("--costs", default="arm-2014", metavar="FILE", help="cost file, by path, or the name of one that comes along")
    arg("--profile", default=profiles.DEFAULT, help="kernel that answers; it must have forward control")
    arg("--no-sweep", action="store_true", help="leave out how the answer depends on costs and workload")
    arg("--json", action="store_true", help="print one JSON object")
    arg("--plot", metavar="FILE", help="write the answer as an SVG picture, too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask, and tell the answer."""
    from kvmvfio_emu.rr import plot, report

    if arguments.irq_cpu >= arguments.cpus:
        raise KvmVfioEmuError(f"--irq-cpu {arguments.irq_cpu}: there is no such CPU; --cpus is {arguments.cpus}")
    if not profiles.load(arguments.profile).forward_control:
        print(f"kvmvfio-emu: a {arguments.profile} kernel has no IRQ forward control", file=sys.stderr)
        return 1
    answer, swings, variants = ask(arguments)
    if arguments.plot:
        picture = plot.picture(answer, swings)
        try:
            with open(arguments.plot, "w", encoding="utf-8") as file:
                file.write(picture)
        except OSError as error:
            raise KvmVfioEmuError(f"{arguments.plot}: {error.strerror}") from error
    if arguments.json:
        print(json.dumps(report.data(answer, swings, variants), indent=1, allow_nan=False))
    else:
        print(report.text(answer, swings, variants), end="")
    return 0


def ask(arguments: argparse.Namespace) -> tuple[Answer, list[Swing], list[Variant]]:
    """Both modes, and unless there is to be no sweep, what the answer depends on."""
    from kvmvfio_emu.rr import costs, sweep
    from kvmvfio_emu.rr.workload import Workload

    model = costs.load(arguments.costs)
    workload = Workload(
        idle=arguments.vcpu == "idle",
        poll=arguments.answer == "poll",
        devices=arguments.devices,
        coalesce=arguments.coalesce,
        transactions=-(-arguments.transactions // arguments.coalesce) * arguments.coalesce,
        rate=arguments.rate,
        jitter=arguments.jitter / 100,
        cpus=arguments.cpus,
        irq_cpu=arguments.irq_cpu,
        profile=arguments.profile,
    )
    answer = sweep.ask(workload, model)
    if arguments.no_sweep:
        return answer, [], []
    return answer, sweep.swings(workload, model), sweep.variants(workload, model)


def _integer(low: int, high: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number} is not in {low}..{high}")
        return number

    return integer


def _real(low: float, high: float) -> Callable[[str], float]:
    def real(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not math.isfinite(number) or not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low:g}..{high:g}")
        return number

    return real
