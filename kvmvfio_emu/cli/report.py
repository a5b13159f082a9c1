"""`kvmvfio-emu report TRACE`: a trace as one page to step through, or as a picture."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view.read import is_header, read

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from kvmvfio_emu.view.sink import Record

#: More events than these are no picture any more.
PICTURE = 500


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="a trace as a page to step through, or as a picture",
        description="Make one self-contained HTML page from a trace in JSON Lines (`--trace FILE.jsonl --state`): the "
        "steps, what caused what, and the state after each. It loads nothing from anywhere.",
    )
    parser.add_argument("trace", help="the trace, in JSON Lines")
    parser.add_argument("-o", "--output", metavar="FILE", help="the page (default: report.html)")
    parser.add_argument("--from", dest="first", type=int, metavar="N", help="leave out events before number N")
    parser.add_argument("--to", dest="last", type=int, metavar="N", help="leave out events after number N")
    parser.add_argument("--svg", metavar="FILE", help="write a picture of the steps instead of a page")
    parser.add_argument(
        "--run", dest="run_number", type=int, default=1, metavar="R", help="picture: run R of the trace, from 1"
    )
    parser.add_argument("--at", type=int, metavar="N", help="picture: mark event N, its causes and its effects")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the page or the picture; say where it is."""
    if arguments.svg:
        return _picture(arguments)
    from kvmvfio_emu.view.report import build, window  # here: they are for this command only

    part = window.gather(read(arguments.trace), first=arguments.first, last=arguments.last)
    output = arguments.output or "report.html"
    size = build.write(build.page(part), output)
    kept = sum(run.kept for run in part.runs)
    print(f"{output}: {kept:,} steps, {size:,} bytes", file=sys.stderr)
    return 0


def _picture(arguments: argparse.Namespace) -> int:
    from kvmvfio_emu.view.report.build import write
    from kvmvfio_emu.view.timeline import timeline_svg

    runs: list[list[Record]] = []
    for record in read(arguments.trace):
        if is_header(record):
            runs.append([record])
        elif len(runs) == arguments.run_number and _asked(record, arguments):
            runs[-1].append(record)
            if len(runs[-1]) > PICTURE + 1:
                raise KvmVfioEmuError(
                    f"{arguments.trace}: more than {PICTURE} events are no picture; choose some with --from and --to"
                )
    number = arguments.run_number
    if not 1 <= number <= len(runs):
        raise KvmVfioEmuError(f"{arguments.trace}: no run {number}; there are {len(runs)}")
    header, *records = runs[number - 1]
    if not records:
        raise KvmVfioEmuError(f"{arguments.trace}: no event to draw in run {number}")
    if arguments.at is not None and all(record["n"] != arguments.at for record in records):
        raise KvmVfioEmuError(f"{arguments.trace}: no event {arguments.at} in what is drawn of run {number}")
    write(timeline_svg(records, at=arguments.at, title=str(header.get("mode") or "Timeline")), arguments.svg)
    return 0


def _asked(record: Record, arguments: argparse.Namespace) -> bool:
    first, last = arguments.first, arguments.last
    return (first is None or record["n"] >= first) and (last is None or record["n"] <= last)
