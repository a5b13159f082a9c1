"""Answers to the probe's questions, as real kernels gave them and as a run gives them: JSON lines, one a case."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kvmvfio_emu.kernel.errors import KvmVfioEmuError

_UNAME = "meta/uname"


class Answer(NamedTuple):
    """What one call came to: its result, the errno's name ("0" for none), what else was looked at afterwards."""

    ret: int
    errno: str
    out: dict[str, Any]

    def __str__(self) -> str:
        out = f" {json.dumps(self.out)}" if self.out else ""
        return f"{self.ret}{'' if self.errno == '0' else ' ' + self.errno}{out}"


@dataclass
class Answers:
    """One run of the probe. ``machine`` is the architecture of the program that asked, as uname calls it."""

    cases: dict[str, Answer] = field(default_factory=dict)
    #: Why the emulated kernel refused, by case; real kernels do not tell.
    reasons: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    release: str = ""

    def add(self, lines: Iterable[str]) -> None:
        """Take in what a probe printed; lines of other programs are passed over."""
        for line in lines:
            if not line.startswith('{"case"'):
                continue
            try:
                said = json.loads(line)
            except ValueError:
                continue  # cut off: its section died, and its absence will show
            answer = Answer(said["ret"], said["errno"], said["out"])
            if said["case"] == _UNAME:
                self.machine, self.release = answer.out["machine"], answer.out["release"]
                continue
            self.cases[said["case"]] = answer
            if "reason" in said:
                self.reasons[said["case"]] = said["reason"]


def section(case: str) -> str:
    """The part of the name before the first slash."""
    return case.partition("/")[0]


def load(path: Path) -> Answers:
    """The answers in a file, which may be compressed (``.xz``). KvmVfioEmuError when there are none."""
    answers = Answers()
    try:
        if path.suffix == ".xz":
            with lzma.open(path, "rt", encoding="utf-8", errors="replace") as compressed:
                answers.add(compressed)
        else:
            with path.open(encoding="utf-8", errors="replace") as plain:
                answers.add(plain)
    except (OSError, lzma.LZMAError) as error:
        raise KvmVfioEmuError(f"{path}: {error}") from error
    if not answers.cases:
        raise KvmVfioEmuError(f"{path} has no answers in it")
    return answers


def oracle_dir() -> Path:
    """The probe and the recorded answers: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parent / "tests" / "oracle", package / "conform" / "oracle"):
        if (candidate / "probe" / "probe.c").is_file():
            return candidate
    raise KvmVfioEmuError(f"neither beside nor in {package} are the probe and the recorded answers")


def recorded() -> list[str]:
    """The names of all recorded answers, as `recorded_path` takes them."""
    return sorted(path.name.removesuffix(".jsonl.xz") for path in (oracle_dir() / "answers").glob("*.jsonl.xz"))


def recorded_path(profile: str, gic: int) -> Path:
    """The recorded answers of the kernel that ``profile`` describes, on a host with that GIC. KvmVfioEmuError."""
    for name in (profile, f"{profile}-gicv{gic}"):
        path = oracle_dir() / "answers" / f"{name}.jsonl.xz"
        if path.is_file():
            return path
    raise KvmVfioEmuError(f"no answers were recorded for {profile} with a GICv{gic}; there are {', '.join(recorded())}")
