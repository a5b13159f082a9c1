"""What the pytest plugin adds to a start of pytest that does not use it: with it and without, in turns."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGIN = "kvmvfio_emu.testing.plugin"
TURNS = 21
BOUND = 0.030


def start(directory: str, *options: str) -> float:
    """CPU seconds of a pytest with one test; what others do on this machine hardly counts."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


def imported() -> int:
    """Microseconds that python -X importtime says of the plugin itself, pytest being there already."""
    program = f"import pytest; import {PLUGIN}"
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    lines = [line.split("|") for line in run.stderr.splitlines() if line.startswith("import time:")]
    return next(int(cumulative) for _, cumulative, name in lines if name.strip() == PLUGIN)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "test_nothing.py").write_text("def test_nothing(): pass\n")
        start(directory), start(directory, "-p", PLUGIN)  # caches
        pairs = [(start(directory, "-p", f"no:{PLUGIN}"), start(directory, "-p", PLUGIN)) for _ in range(TURNS)]
    without, with_ = (statistics.median(one) for one in zip(*pairs, strict=True))
    added = statistics.median(with_ - without for without, with_ in pairs)
    print(f"pytest {without * 1e3:.0f} ms, with the plugin {with_ * 1e3:.0f} ms: {with_ / without:.3f}")
    print(f"the plugin adds {added * 1e3:.1f} ms (bound {BOUND * 1e3:.0f}), of which import {imported() / 1e3:.1f} ms")
