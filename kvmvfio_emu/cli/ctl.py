"""`kvmvfio-emu ctl PATH ...`: talk to a running kernel's control channel."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from kvmvfio_emu.doors.control import request
from kvmvfio_emu.view.state import VIEWS

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "ctl",
        help="raise lines and look inside a kernel that `run --control` serves",
        description="Talk to the kernel behind `kvmvfio-emu run --control PATH`. Results are printed as JSON.",
    )
    parser.add_argument("path", help="the socket")
    operations = parser.add_subparsers(metavar="OPERATION", required=True)
    for name, level in (("raise", 1), ("lower", 0)):
        line = operations.add_parser(name, help=f"drive a device's interrupt line {'high' if level else 'low'}")
        line.add_argument("device")
        line.add_argument("index", nargs="?", type=int, default=0, help="which line (default 0)")
        line.set_defaults(
            message=lambda a, level=level: {"op": "line", "device": a.device, "index": a.index, "level": level}
        )
    call = operations.add_parser("call", help="call what a device model offers, e.g. raise_interrupt")
    call.add_argument("device")
    call.add_argument("method")
    call.add_argument("arguments", nargs="*", type=json.loads, help="as JSON")
    call.set_defaults(message=_call)
    show = operations.add_parser("show", help="print state")
    show.add_argument("view", choices=list(VIEWS))
    show.set_defaults(message=lambda a: {"op": "show", "view": a.view})
    operations.add_parser("check", help="verify the kernel's invariants").set_defaults(
        message=lambda a: {"op": "check"}
    )
    operations.add_parser("quit", help="end the program").set_defaults(message=lambda a: {"op": "quit"})
    parser.set_defaults(run=run)


def _call(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"op": "call", "device": arguments.device, "method": arguments.method, "arguments": arguments.arguments}


def run(arguments: argparse.Namespace) -> int:
    """Send one request, print what comes back."""
    result = request(arguments.path, arguments.message(arguments))
    if result is not None:
        print(json.dumps(result, indent=2))
    return 0
