"""`kvmvfio-emu ls`: what a kernel offers, and in what two of them differ."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import profiles
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from kvmvfio_emu.profiles import Profile
    from kvmvfio_emu.view.offered import Change, Offer

_SECTIONS = ("ioctls", "devices", "attributes", "capabilities", "differences")
#: With --diff also what the real kernels were recorded to answer differently.
_ANSWERS = "answers"


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "ls",
        help="list what a kernel offers: ioctls, device types, attributes, capabilities, named differences",
        description="List what the kernel of a profile offers, or in what two profiles differ. All of it is read from "
        "the declarations that answer the calls.",
    )
    known = ", ".join(profiles.names())
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--profile", default=profiles.DEFAULT, help=f"which kernel: {known} (default {profiles.DEFAULT})")
    what.add_argument("--diff", nargs=2, metavar=("A", "B"), help="show what two profiles offer differently")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "section", nargs="*", metavar="SECTION", help=f"only these: {', '.join(_SECTIONS)}; {_ANSWERS} (of --diff)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the listing, or the changes."""
    from kvmvfio_emu.view.offered import changes, offer  # here: it imports every room

    there = (*_SECTIONS, _ANSWERS) if arguments.diff else _SECTIONS
    wanted = arguments.section or there
    unknown = sorted(set(wanted) - set(there))
    if unknown:
        raise KvmVfioEmuError(f"no section {', '.join(unknown)}; there are {', '.join(there)}")
    if arguments.diff:
        left, right = (profiles.load(name) for name in arguments.diff)
        found = [change for change in changes(offer(left), offer(right)) if change.section in wanted]
        if _ANSWERS in wanted:
            found += _recorded_changes(left.name, right.name)
        if arguments.json:
            print(json.dumps({"left": left.name, "right": right.name, "changes": [one._asdict() for one in found]}))
        else:
            _print_changes(found, left, right)
        return 0
    profile = profiles.load(arguments.profile)
    listing = {section: items for section, items in offer(profile).items() if section in wanted}
    if arguments.json:
        print(json.dumps({"profile": profile.name, "summary": profile.summary, "arch": profile.arch, **listing}))
    else:
        _print_listing(listing, profile)
    return 0


# ---- one kernel --------------------------------------------------------------------------------------------------


def _print_listing(listing: Offer, profile: Profile) -> None:
    print(f"{profile.name}: {profile.summary}")
    for section, items in listing.items():
        for line in _LISTED[section](items):
            print(line)


def _ioctls(kinds: dict[str, Any]) -> list[str]:
    lines = []
    for kind, ioctls in kinds.items():
        lines += ["", f"Ioctls of {kind} files"]
        lines += [f"  {number}  {name}" for name, number in ioctls.items()]
    return lines


def _devices(types: dict[str, Any]) -> list[str]:
    lines = ["", "Device types"]
    for name, device in types.items():
        needs = f", on a host with a GICv{device['host_gic']}" if device["host_gic"] else ""
        lines.append(f"  {device['type']:>2}  {name}{needs}")
    return lines


def _attributes(owners: dict[str, Any]) -> list[str]:
    lines = []
    for owner, groups in owners.items():
        lines += ["", f"Attributes of {owner if owner.isupper() else f'{owner} files'}"]
        for group, names in groups.items():
            lines.append(f"  {group}")
            for name, number in names.items():
                lines.append(f"       the {number}" if name == "*" else f"    {number:>2}  {name}")
    return lines


def _capabilities(answers: dict[str, Any]) -> list[str]:
    return ["", "Capabilities", *(f"  {value:>5}  {name}" for name, value in answers.items())]


def _differences(named: dict[str, Any]) -> list[str]:
    lines = ["", "In what kernels differ"]
    for name, difference in named.items():
        since = f" ({difference['since']})" if difference["since"] else ""
        lines.append(f"  {name} = {_value(difference['value'])}")
        lines += textwrap.wrap(difference["what"] + since, 110, initial_indent="      ", subsequent_indent="      ")
    return lines


_LISTED = {
    "ioctls": _ioctls,
    "devices": _devices,
    "attributes": _attributes,
    "capabilities": _capabilities,
    "differences": _differences,
}


# ---- two kernels -------------------------------------------------------------------------------------------------


def _recorded_changes(left: str, right: str) -> list[Change]:
    """The cases that the two real kernels answered differently, on either kind of host; none if not recorded."""
    from kvmvfio_emu.conform.answers import load, recorded, recorded_path
    from kvmvfio_emu.view.offered import Change

    changed: dict[str, Change] = {}
    for gic in (2, 3):
        if not {f"{left}-gicv{gic}", f"{right}-gicv{gic}"} <= set(recorded()):
            continue
        before, after = (load(recorded_path(name, gic)).cases for name in (left, right))
        for case in [*before, *(case for case in after if case not in before)]:
            one, other = before.get(case), after.get(case)
            if one != other:
                changed.setdefault(case, Change(_ANSWERS, case, one and str(one), other and str(other)))
    return list(changed.values())


def _print_changes(found: list[Change], left: Profile, right: Profile) -> None:
    print(f"< {left.name}: {left.summary}\n> {right.name}: {right.summary}")
    meaning = {difference.name: difference for difference in profiles.differences(type(left))}
    section = ""
    for change in found:
        if change.section != section:
            section = change.section
            print(f"\n{section}")
        if change.left is not None:
            print(f"< {change.item}{_tail(change.left)}")
        if change.right is not None:
            print(f"> {change.item}{_tail(change.right)}")
        if section == "differences":
            told = meaning[change.item]
            since = f" ({told.since})" if told.since else ""
            print(textwrap.fill(told.what + since, 110, initial_indent="      ", subsequent_indent="      "))


def _tail(value: object) -> str:
    return f" = {_value(value)}"


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'
