"""`kvmvfio-emu fuzz`: sequences of calls on two kernels, until they answer differently."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Sequence

    from kvmvfio_emu.strategies import Setting
    from kvmvfio_emu.testing.fuzz.campaign import Campaign, Found
    from kvmvfio_emu.testing.fuzz.known import Known
    from kvmvfio_emu.testing.fuzz.replay import Head
    from kvmvfio_emu.testing.player import Call
    from kvmvfio_emu.testing.targets import Target

_SAVED = Path("kvmvfio-emu-fuzz.txt")
_SECONDS = 60.0


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "fuzz",
        help="play drawn sequences of calls on two kernels, until they answer differently",
        description="Draw sequences of calls, play each on two kernels, and report the first difference: as few calls "
        "as show it, with both answers. Targets are emu (the emulated kernel, in process), run (the same by system "
        "calls, under `kvmvfio-emu run`) and host (this machine's own kernel). Exit status 1 for a difference that is "
        "not among the known ones, also when Ctrl-C ended the search.",
    )
    parser.add_argument("--targets", default="emu,host", metavar="A,B", help="which two (default emu,host)")
    parser.add_argument(
        "--profile",
        help=f"which kernel: {', '.join(profiles.names())} (default: with host by architecture, else "
        f"{profiles.DEFAULT})",
    )
    parser.add_argument("--machine", help="board, by name or path (default: the profile's)")
    parser.add_argument("--gic", choices=["v2", "v3"], help="the board's interrupt controller (default: the board's)")
    parser.add_argument("--time", type=_positive(float), metavar="SECONDS", help="how long (default 60)")
    parser.add_argument("--examples", type=_positive(int), metavar="N", help="how many sequences at most")
    parser.add_argument("--seed", type=int, help="where the drawing starts (default: anywhere, and it is told)")
    parser.add_argument("--kinds", metavar="KIND,...", help=f"only ioctls of these files: {', '.join(uapi.KINDS)}")
    parser.add_argument(
        "--database", type=Path, metavar="DIR", help="keep what failed there, and try it first next time"
    )
    parser.add_argument("--known", type=Path, metavar="FILE", help="known differences (default: the package's own)")
    parser.add_argument("--save", type=Path, metavar="FILE", default=_SAVED, help=f"for --replay (default {_SAVED})")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play the sequence of a file again, nothing else")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run, parser=parser)


def _positive(kind: type[int] | type[float]) -> Any:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    number.__name__ = "number above zero"  # argparse says "invalid ... value"
    return number


def run(arguments: argparse.Namespace) -> int:
    """Search, or replay; report."""
    try:
        import hypothesis  # noqa: F401
    except ImportError:
        raise KvmVfioEmuError("fuzz needs Hypothesis: pip install 'kvmvfio-emu[testing]'") from None
    from kvmvfio_emu.strategies import Setting
    from kvmvfio_emu.testing.fuzz import known
    from kvmvfio_emu.testing.fuzz.campaign import Campaign
    from kvmvfio_emu.testing.targets import connect

    head, calls = _chosen(arguments)
    kinds = _kinds(arguments, head.targets)
    setting = Setting(head.profile, head.machine, head.gic)
    rules = known.load(arguments.known or known.REVIEWED, head.profile, head.targets)
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    seconds = arguments.time or (None if arguments.examples else _SECONDS)
    with ExitStack() as stack:
        targets: list[Target] = []
        for name in head.targets:
            targets.append(connect(name, head.profile, head.machine, head.gic))
            stack.callback(targets[-1].close)
        campaign = Campaign(
            (targets[0], targets[1]),
            setting,
            kinds,
            rules,
            seed,
            seconds,
            arguments.examples,
            arguments.database,
            every_kernel="host" not in head.targets,
            times=3 if "host" in head.targets else 1,
        )
        found = campaign.run() if calls is None else campaign.steady(list(calls), count=True)
        text = "" if found is None else _difference(head, setting, targets, found)
    if found is not None and calls is None:
        _save(arguments.save, head, found.calls, text)
    saved = arguments.save if found is not None and calls is None else arguments.replay
    if arguments.json:
        print(json.dumps(_data(head, seed, campaign, found, text, saved)))
    else:
        _print(head, seed, campaign, found, text, saved)
    if campaign.trouble:
        print(f"kvmvfio-emu: {campaign.trouble}", file=sys.stderr)
    return 1 if found is not None else 2 if campaign.trouble else 0


def _chosen(arguments: argparse.Namespace) -> tuple[Head, Sequence[Call] | None]:
    """What to ask of whom, and what to replay, if anything."""
    from kvmvfio_emu.testing import real
    from kvmvfio_emu.testing.fuzz.replay import Head, read
    from kvmvfio_emu.testing.targets import NAMES

    calls = None
    if arguments.replay is not None:
        head, calls = read(arguments.replay)
    else:
        targets = tuple(arguments.targets.split(","))
        default = real.STANDS_FOR.get(platform.machine(), profiles.DEFAULT) if "host" in targets else profiles.DEFAULT
        gic = int(arguments.gic[1:]) if arguments.gic else None
        head = Head(targets, arguments.profile or default, arguments.machine, gic)
    unknown = [name for name in head.targets if name not in NAMES]
    if unknown:
        raise KvmVfioEmuError(f"no target {unknown[0]!r}; there are {', '.join(NAMES)}")
    if len(set(head.targets)) != 2 or len(head.targets) != 2:
        raise KvmVfioEmuError(
            f"two different targets are compared, of {', '.join(NAMES)}, not {','.join(head.targets)}"
        )
    return head, calls


def _kinds(arguments: argparse.Namespace, targets: Sequence[str]) -> frozenset[str] | None:
    """The kinds of files that calls are about: those that both have, or what was asked for of them."""
    there: set[str] = set(uapi.KINDS)
    if "host" in targets:
        # The host's groups and devices are its own, and nobody's to play with.
        there = {"kvm", "vm", "vcpu", "device"}
        there |= {kind for kind, node in _NODES.items() if os.path.exists(node)}
    if arguments.kinds is None:
        return None if there == set(uapi.KINDS) else frozenset(there)
    wanted = set(arguments.kinds.split(","))
    for kind in sorted(wanted):
        if kind not in uapi.KINDS:
            raise KvmVfioEmuError(f"no kind of file {kind!r}; there are {', '.join(uapi.KINDS)}")
        if kind not in there:
            raise KvmVfioEmuError(
                f"{kind} files are not played with on this host; there are {', '.join(sorted(there))}"
            )
    return frozenset(wanted)


_NODES = {"container": "/dev/vfio/vfio", "iommufd": "/dev/iommu"}


# ---- what came of it -------------------------------------------------------------------------------------------------


def _difference(head: Head, setting: Setting, targets: Sequence[Target], found: Found) -> str:
    from kvmvfio_emu.testing.fuzz.script import Script
    from kvmvfio_emu.testing.targets import InProcess

    played = dict(zip(head.targets, found.played, strict=True))
    if "emu" in played:
        why = played["emu"]
    else:
        own = InProcess(head.profile, head.machine, head.gic)
        why = own.play(found.calls)
        own.close()
    return Script(setting).report(found.calls, found.difference, played, why)


def _save(path: Path, head: Head, calls: Sequence[Call], text: str) -> None:
    from kvmvfio_emu.testing.fuzz import replay

    replay.write(path, head, calls, text)


def _known(campaign: Campaign) -> list[tuple[Known, int]]:
    return campaign.explained.most_common()


def _print(head: Head, seed: int, campaign: Campaign, found: Found | None, text: str, saved: Path | None) -> None:
    where = f"{' and '.join(head.targets)}, profile {head.profile}"
    if found is None:
        what = "Ended early" if campaign.trouble else "No unexplained difference"
        print(f"{what}: {where}{'' if saved else f', seed {seed}'}")
    else:
        print(f"{where} differ in the last of these calls:\n{text}")
        print(f"Play it again: kvmvfio-emu fuzz --replay {saved}")
    if saved is None or found is not None:
        print(campaign.reached)
    for rule, count in _known(campaign):
        print(f"explained {count} times, {rule.calls}{f' on {rule.on}' if rule.on else ''}: {rule.reason}")
    if campaign.unsteady:
        print(f"{campaign.unsteady} differences were not there when asked again")
    if campaign.interrupted:
        print("interrupted")


def _data(
    head: Head, seed: int, campaign: Campaign, found: Found | None, text: str, saved: Path | None
) -> dict[str, Any]:
    difference = None
    if found is not None:
        difference = {
            "calls": found.calls,
            "place": found.difference.place,
            "answers": dict(zip(head.targets, (found.difference.left, found.difference.right), strict=True)),
            "text": text,
            "file": str(saved),
        }
    return {
        "targets": list(head.targets),
        "profile": head.profile,
        "seed": seed,
        "difference": difference,
        "explained": [{"calls": rule.calls, "reason": rule.reason, "count": n} for rule, n in _known(campaign)],
        "unsteady": campaign.unsteady,
        "interrupted": campaign.interrupted,
        "reached": campaign.reached.data(),
    }
