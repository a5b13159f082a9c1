"""`kvmvfio-emu conform`: ask an emulated kernel what a real one was asked, and compare the answers."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import profiles
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from kvmvfio_emu.conform.answers import Answer, Answers
    from kvmvfio_emu.conform.compare import Comparison, Difference, Row
    from kvmvfio_emu.conform.known import Known

#: The machine that was asked, by the architecture of its kernel.
_MACHINES = {"arm64": "oracle-virt", "arm": "oracle-virt", "x86_64": "x86-vm"}
#: Which profile stands for the running kernel, with `--host`.
_HOST_PROFILES = {"x86_64": "linux-6.18-x86", "aarch64": "linux-6.12"}


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "conform",
        help="compare an emulated kernel's answers with those recorded of the real one",
        description="Build the probe (a C program), run it against the emulated kernel, and compare what it was "
        "answered with what a real kernel answered. Exit status 1 when a case differs that is not among the known "
        "differences.",
    )
    parser.add_argument(
        "--profile",
        help=f"which kernel: {', '.join(profiles.names())} (default linux-6.12; with --host, by architecture)",
    )
    parser.add_argument(
        "--gic", choices=["v2", "v3"], default="v2", help="the host's interrupt controller (default v2)"
    )
    parser.add_argument(
        "--machine", help=f"board, by name or path (default {' or '.join(sorted(set(_MACHINES.values())))})"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--answers", type=Path, metavar="FILE", help="compare with these answers (.jsonl, .jsonl.xz)")
    source.add_argument("--host", action="store_true", help="compare with the answers of this machine's own /dev/kvm")
    parser.add_argument("--known", type=Path, metavar="FILE", help="known differences (default: the package's own)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write our answers there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("section", nargs="*", metavar="SECTION", help="only these, by their names in the table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask, compare, report."""
    from kvmvfio_emu.conform import answers, compare, known, probe  # here: the other subcommands do not need them
    from kvmvfio_emu.conform.again import ask_until_sure

    profile = arguments.profile or (_HOST_PROFILES.get(platform.machine(), "") if arguments.host else "linux-6.12")
    kind, gic = profiles.load(profile), int(arguments.gic[1:])
    path = arguments.answers or (None if arguments.host else answers.recorded_path(profile, gic))
    kernel = None if path is None else answers.load(path)
    sections = [] if kernel is None else _sections(kernel, arguments.section)  # a wrong name is told at once
    entries = known.load(arguments.known or known.REVIEWED, profile, gic)
    with tempfile.TemporaryDirectory(prefix="kvmvfio-emu-probe-") as directory:
        arm = kind.is_arm
        program = probe.build(Path(directory), arm=arm, system_headers=arguments.host)
        if kernel is None:
            kernel = probe.ask_host(program)
            sections = _sections(kernel, arguments.section)
        cpus = os.cpu_count() if arguments.host else None
        target = probe.Target(profile, arguments.machine or _MACHINES[kind.arch], gic if arm else None, cpus)
        ours, again = ask_until_sure(program, target, kernel, sections, entries)
    if arguments.keep:
        _keep(ours, arguments.keep)
    found = compare.compare(kernel, ours, sections)
    explained = {one.case: known.explain(one.case, entries) for one in found.differences}
    asked = [case for case in kernel.cases if answers.section(case) in sections]
    old = known.stale(entries, asked, [one.case for one in found.differences])
    title = f"{profile}, {arguments.gic}" if arm else profile
    if arguments.json:
        print(json.dumps({"profile": profile, "gic": gic, "kernel": kernel.release, **_data(found, explained, old)}))
    else:
        print(f"{title} against {kernel.release or path} ({path or 'the running kernel'})\n")
        _print(found, explained, old)
        if again:
            print(f"\nasked again, since the probe waits 30 ms for each effect: {', '.join(again)}")
    return int(any(entry is None for entry in explained.values()))


def _sections(kernel: Answers, asked: list[str]) -> list[str]:
    """The sections that ``kernel`` answered, of those asked for. KvmVfioEmuError for one that it did not."""
    from kvmvfio_emu.conform.answers import section
    from kvmvfio_emu.conform.compare import is_asked

    there = list(dict.fromkeys(section(case) for case in kernel.cases))
    missing = [name for name in asked if not any(is_asked(one, [name]) for one in there)]
    if missing:
        raise KvmVfioEmuError(f"no section {', '.join(missing)}; there are {', '.join(there)}")
    return [name for name in there if not asked or is_asked(name, asked)]


def _keep(ours: Answers, path: Path) -> None:
    lines = [_line("meta/uname", 0, "0", {"release": ours.release, "machine": ours.machine})]
    lines += [_line(case, *answer) for case, answer in ours.cases.items()]
    path.write_text("".join(lines), encoding="utf-8")


def _line(case: str, ret: int, errno: str, out: dict[str, Any]) -> str:
    return json.dumps({"case": case, "ret": ret, "errno": errno, "out": out}) + "\n"


# ---- as JSON -----------------------------------------------------------------------------------------------------


def _data(found: Comparison, explained: dict[str, Known | None], old: list[Known]) -> dict[str, Any]:
    return {
        "sections": {name: _row(row) for name, row in found.sections.items()},
        "all": _row(found.total),
        "differences": [_difference(one, explained[one.case]) for one in found.differences],
        "stale": [{"cases": entry.cases, "reason": entry.reason} for entry in old],
    }


def _row(row: Row) -> dict[str, Any]:
    return {**vars(row), "percent": round(row.percent, 2)}


def _difference(one: Difference, entry: Known | None) -> dict[str, Any]:
    def plain(answer: Answer | None) -> dict[str, Any] | None:
        return None if answer is None else answer._asdict()

    ours = {"kernel": plain(one.kernel), "ours": plain(one.ours), "reason": one.reason}
    return {"case": one.case, **ours, "known": entry and entry.reason}


# ---- for people --------------------------------------------------------------------------------------------------


def _print(found: Comparison, explained: dict[str, Known | None], old: list[Known]) -> None:
    print(f"{'section':18}{'given':>7}{'equal':>7}{'differ':>8}{'silent':>8}{'%':>8}")
    for name, row in [*found.sections.items(), ("all", found.total)]:
        counts = f"{row.given:7}{row.equal:7}{row.different:8}{row.unanswered:8}"
        print(f"{name:18}{counts}{int(row.percent * 10) / 10:8.1f}")
    unknown = [one for one in found.differences if explained[one.case] is None]
    for one in unknown:
        print(f"\n{one.case}\n    kernel  {one.kernel}\n    ours    {one.ours or 'no answer'}")
        if one.reason:
            print(f"    reason  {one.reason}")
    told = [entry for entry in explained.values() if entry is not None]
    for entry in dict.fromkeys(told):
        print(f"\nknown: {entry.cases} ({told.count(entry)} cases): {entry.reason}")
    for entry in old:
        print(f"\nstale: {entry.cases} no longer differs; delete the entry ({entry.reason})")
