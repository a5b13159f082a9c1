"""Runs an entry under atheris: ``python tests/fuzz/run.py TARGET [SECONDS] [LIBFUZZER OPTION...]``.

Without arguments every target, ten minutes each. It starts from the kept inputs and from what the strategies draw, and
goes on in build/fuzz/TARGET, where everything that reached something new stays; an input that fails is written to
build/fuzz/TARGET-crash-*.

``python tests/fuzz/run.py TARGET keep`` then puts a small selection that reaches as much into the kept inputs, beside
those that have a remark.
"""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
import warnings
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TARGETS = ("decode", "notifications")
#: Of the kept selection; what is longer tests more than one thing.
_LONGEST = 400
_MOST = 120


def kept(target: str) -> list[bytes]:
    """The inputs of tests/fuzz/corpus/TARGET.txt: hexadecimal, one a line, with a remark behind # where it has one."""
    return [bytes.fromhex(line.partition("#")[0]) for line in _lines(target) if line.partition("#")[0].strip()]


def _lines(target: str) -> list[str]:
    return _file(target).read_text().splitlines()


def _file(target: str) -> Path:
    return HERE / "corpus" / f"{target}.txt"


def _grown(target: str) -> Path:
    directory = ROOT / "build" / "fuzz" / target
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def fuzz(target: str, seconds: int, options: list[str]) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    warnings.filterwarnings("ignore", category=DeprecationWarning)  # atheris's own, of newer Pythons
    with atheris.instrument_imports(include=["kvmvfio_emu"]):
        module = importlib.import_module(f"fuzz.{target}")
    directory = _grown(target)
    for data in (*kept(target), *module.seeds()):
        (directory / hashlib.sha1(data).hexdigest()).write_bytes(data)
    arguments = [
        f"-max_total_time={seconds}",
        "-max_len=1024",
        "-timeout=20",
        "-rss_limit_mb=1500",
        f"-artifact_prefix={directory}-",
    ]
    atheris.Setup([sys.argv[0], str(directory), *arguments, *options], module.one_input)
    atheris.Fuzz()


def keep(target: str) -> None:
    """Choose, shortest first, inputs that reach a line which none before has reached."""
    module = importlib.import_module(f"fuzz.{target}")
    remarked = [line for line in _lines(target) if "#" in line]
    reached: set[tuple[str, int]] = set()
    for line in remarked:
        reached |= _reached(module, bytes.fromhex(line.partition("#")[0]))
    grown = [path.read_bytes() for path in _grown(target).iterdir()]
    chosen: list[tuple[int, bytes]] = []
    for data in sorted({*kept(target), *grown}, key=lambda data: (len(data), data)):
        if len(data) <= _LONGEST:
            new = _reached(module, data) - reached
            if new:
                reached |= new
                chosen.append((len(new), data))
    best = sorted(chosen, key=lambda one: -one[0])[:_MOST]
    text = [data.hex() for _, data in sorted(best, key=lambda one: (len(one[1]), one[1]))]
    _file(target).write_text("".join(f"{line}\n" for line in remarked + text))
    print(f"{len(best)} inputs and {len(remarked)} with a remark reach {len(reached)} lines of the package")


def _reached(module: ModuleType, data: bytes) -> set[tuple[str, int]]:
    lines: set[tuple[str, int]] = set()

    def entered(frame: FrameType, event: str, argument: Any) -> Any:
        return line if "/kvmvfio_emu/" in frame.f_code.co_filename else None

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return line

    sys.settrace(entered)
    try:
        module.one_input(data)
    finally:
        sys.settrace(None)
    return lines


def main() -> None:
    """The command."""
    if not sys.argv[1:]:
        for target in TARGETS:
            subprocess.run([sys.executable, __file__, target], check=True)
        return
    target, *rest = sys.argv[1:]
    if target not in TARGETS:
        sys.exit(f"no target {target!r}; known: {', '.join(TARGETS)}")
    if rest == ["keep"]:
        keep(target)
    else:
        seconds = int(rest.pop(0)) if rest and rest[0].isdecimal() else 600
        fuzz(target, seconds, rest)


if __name__ == "__main__":
    sys.path[0] = str(HERE.parent)  # as pytest has it, and not the directory of this file
    main()
