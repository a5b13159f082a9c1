"""`kvmvfio-emu demo`: one interrupt, not forwarded and forwarded, step by step, and what each of them costs."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from kvmvfio_emu import profiles
from kvmvfio_emu.cli.story import DEVICE, Telling, tell
from kvmvfio_emu.cli.tracing import TraceOptions, add_options
from kvmvfio_emu.doors.inprocess import Kernel
from kvmvfio_emu.kernel.boot import DEFAULT_MACHINE
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view.actors import sentence

if TYPE_CHECKING:
    from argparse import _SubParsersAction

#: Counter -> what it counts, for a person; the derived total is a row of its own.
_MEANING = {
    "vmexit_irq": "exits because the interrupt arrived",
    "vmexit_kick": "exits because another CPU asked",
    "vmexit_maint": "exits because the guest completed it",
    "vmexit_total": "exits in all",
    "host_irq": "host interrupt handler runs",
    "host_irq_lazy": "hits while lazily disabled",
    "host_irq_maint": "maintenance handler runs",
    "eventfd_trigger": "trigger eventfd signals",
    "eventfd_resample": "resample eventfd signals",
    "work": "deferred work items run",
    "gicd_mask": "distributor writes: mask",
    "gicd_unmask": "distributor writes: unmask",
    "set_irq": "guest line changes",
    "resample_ack": "resampler notified of the EOI",
    "vmentry": "guest entries",
    "guest_iar": "guest acknowledges",
    "guest_eoi": "guest completes",
    "hw_deactivate": "deactivated by the hardware",
}


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="one interrupt of an assigned device, not forwarded and forwarded, with every event counted",
        description=f"Assign {DEVICE}'s main interrupt to a guest with real ioctls; count what one interrupt takes.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with the counters")
    parser.add_argument("--interrupts", type=_positive, default=1, metavar="N", help="how many (default 1)")
    parser.add_argument(
        "--profile", default=profiles.DEFAULT, help=f"kernel that answers: {', '.join(profiles.names())}"
    )
    parser.add_argument("--machine", default=DEFAULT_MACHINE, help="board, by name or path")
    add_options(parser)
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Tell the story in both modes."""
    options = TraceOptions(arguments)
    try:
        told = {mode: _tell(mode, arguments, options) for mode in ("unforwarded", "forwarded")}
        counters = {mode: telling and _with_total(telling.one()) for mode, telling in told.items()}
    except OSError as error:  # only a fault makes the story's calls fail
        reason = getattr(error, "__notes__", [""])[0].removeprefix("emulated kernel: ")
        raise KvmVfioEmuError(f"the demo's VMM stops here: {error.strerror}: {reason}") from None
    except AssertionError as error:
        raise KvmVfioEmuError(str(error)) from None
    finally:
        options.close()
    if arguments.json:
        print(json.dumps({"profile": arguments.profile, "machine": arguments.machine, **counters}))
    else:
        _print(told, arguments)
    if told["forwarded"] is None:
        print(f"kvmvfio-emu: a {arguments.profile} kernel has no IRQ forward control", file=sys.stderr)
        return 1
    return 0


def _tell(mode: str, arguments: argparse.Namespace, options: TraceOptions) -> Telling | None:
    """The story in one mode, None where the kernel has not got it."""
    forward = mode == "forwarded"
    with Kernel(profile=arguments.profile, machine=arguments.machine) as kernel:
        if forward and not kernel.host.profile.forward_control:
            return None
        stop = options.attach(kernel.host, mode)
        try:
            return tell(kernel, forward=forward, interrupts=arguments.interrupts)
        finally:
            stop()


def _with_total(counters: dict[str, int]) -> dict[str, int]:
    total = counters["vmexit_irq"] + counters["vmexit_kick"] + counters["vmexit_maint"]
    return {"vmexit_total": total, **counters}


def _print(told: dict[str, Telling | None], arguments: argparse.Namespace) -> None:
    print(f"{DEVICE} on {arguments.machine}, its main interrupt (level, SPI 80, GIC id 112) assigned to a guest.")
    print(f"Kernel: {arguments.profile}. The times are the model's, in nanoseconds; only their order means something.")
    for mode, telling in told.items():
        if telling is None:
            continue
        print(f"\n{mode.capitalize()}\n")
        start = telling.steps[0]["t"]
        for step in telling.steps:
            print(f"{step['t'] - start:>7}  {step['actor']:<10}{sentence(step['name'], step['f'])}")
    print(f"\nWhat one interrupt takes{_each(arguments.interrupts)}\n")
    columns = {mode: _with_total(telling.one()) for mode, telling in told.items() if telling is not None}
    print(f"{'counter':<18}" + "".join(f"{mode:>13}" for mode in columns))
    for name, meaning in _MEANING.items():
        print(f"{name:<18}" + "".join(f"{counters[name]:>13}" for counters in columns.values()) + f"   {meaning}")
    print(
        "\nCounted by the model, event by event. The guest's doorbell exit, which ends each round, is not in the table."
    )


def _each(interrupts: int) -> str:
    return "" if interrupts == 1 else f" (all {interrupts} took the same)"
