"""`kvmvfio-emu explain`: why a call returned its errno, from a trace or in general."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help="why a call returned its errno: the clause, the state, the source it models, what to do instead",
        usage="%(prog)s [--json] [--n N] [--run K] TRACE\n"
        "       kvmvfio-emu explain [--json] [--kind KIND] NAME [ERRNO]",
        description="With a TRACE (JSON Lines, as --trace writes them): why a call of it was refused; without --n the "
        "last one that was. With the NAME of an ioctl, a device attribute or a group of attributes: what it can be "
        "refused with, and why; with an ERRNO, that one only.",
    )
    parser.add_argument("what", metavar="TRACE|NAME")
    parser.add_argument("errno", nargs="?", metavar="ERRNO", help="as EBUSY, or its number")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--n", type=int, metavar="N", help="the call of this number in the trace, or its return")
    which.add_argument("--last-error", action="store_true", help="the last call that was refused (the default)")
    parser.add_argument("--run", type=int, dest="run_number", metavar="K", help="in the K-th run of the trace only")
    parser.add_argument("--kind", choices=uapi.KINDS, help="on this kind of file only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain what was asked for."""
    from kvmvfio_emu.view import explain

    of_trace = arguments.n is not None or arguments.last_error or arguments.run_number is not None
    in_general = arguments.errno is not None or arguments.kind is not None
    if of_trace and in_general:
        arguments.parser.error("--n, --last-error and --run are for a trace, ERRNO and --kind for a name")
    if not of_trace and (in_general or _is_name(arguments.what)):
        errno = None if arguments.errno is None else explain.errno_name(arguments.errno)
        found = explain.in_general(arguments.what, errno, arguments.kind)
        print(json.dumps(found) if arguments.json else "\n\n".join(_general(entry) for entry in found))
        return 0
    from kvmvfio_emu.view.explain_trace import from_trace

    explained = from_trace(arguments.what, arguments.n, arguments.run_number)
    print(json.dumps(explained) if arguments.json else _of_trace(explained))
    return 0


def _is_name(word: str) -> bool:
    from kvmvfio_emu.view import explain

    return explain.is_subject(word) or word.upper().startswith(("KVM_", "VFIO_", "IOMMU_"))


# ---- as text -----------------------------------------------------------------------------------------------------


def _general(entry: dict[str, Any]) -> str:
    if "request" in entry:
        lines = [f"{entry['request']} on a {entry['file']} file", f"  {entry['models']}"]
    else:
        lines = [f"{entry['attribute']} of {entry['device']}", f"  {entry['models']}"]
        if entry["what"]:
            lines.append(f"  {entry['what']}")
    for code, error in entry["errors"].items():
        lines += ["", f"  {code}  {error['text']}"]
        lines += [f"    * {text}" for text in error["said"]]
        for clause in error["clauses"]:
            lines += [f"    - {clause['reason']}", f"        {clause['file']}:{clause['line']}, {clause['function']}"]
            lines += [f"        {clause['models']}"]
        lines += _advice(error.get("advice"), "    ")
    return "\n".join(lines)


def _of_trace(found: dict[str, Any]) -> str:
    mode = f", {found['mode']}" if found["mode"] else ""
    lines = [
        f"{found['call']} fails with {found['errno']}",
        f"  event {found['n']} at {found['time']} ns, run {found['run']} ({found['profile']}{mode})",
        f"  on {found['file'] or 'no file'}, descriptor {found['fd']}",
    ]
    if found["in"]:
        lines.append(f"  with {_fields(found['in'])}")
    if "injected" in found:
        return "\n".join([*lines, "", f"It was injected ({found['injected']}): the emulated kernel did not say so."])
    lines += ["", f"Why: {found['reason']}"]
    for clause in found["clauses"]:
        lines += [f"  {clause['file']}:{clause['line']}, {clause['function']}", f"    {clause['models']}"]
    if found["before"]:
        lines += ["", "Before it:"]
        lines += [
            f"  {past['n']:>6}  {past['call']} {_fields(past['in'])} = {past['result']}" for past in found["before"]
        ]
    if found["state"]:
        lines += ["", "The state that it met:"]
        lines += [
            f"  {path} = {value if isinstance(value, str) else json.dumps(value)}"
            for path, value in found["state"].items()
        ]
    return "\n".join(lines + _advice(found["advice"], ""))


def _advice(advice: dict[str, str] | None, indent: str) -> list[str]:
    if advice is None:
        return []
    return ["", f"{indent}Cause: {advice['cause']}", f"{indent}Do:    {advice['do']}"]


def _fields(inside: Any) -> str:
    """A struct in one line: descriptors by what they are."""
    if isinstance(inside, dict):
        if set(inside) == {"fd", "is"}:
            return f"{inside['fd']}<{inside['is']}>"
        return "{" + ", ".join(f"{name}={_fields(value)}" for name, value in inside.items()) + "}"
    if isinstance(inside, list):
        return "[" + ", ".join(_fields(value) for value in inside) + "]"
    return str(inside)
