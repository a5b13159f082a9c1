"""What tracing costs: the demo's interrupts with and without a trace, and what the hooks cost while nobody traces.

The second compares with a commit from before there were any, out of this repository's history; give another one as
the argument. Both sides run in turn, so that a machine that is slower for a while is so for both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

from kvmvfio_emu import Kernel
from kvmvfio_emu.cli import story

#: The last commit whose kernel knew no causes, calls or faults.
BEFORE = "19b94c0"
ROUNDS = 9
INTERRUPTS = 200
_HERE = Path(__file__).parents[2]

#: One interrupt in microseconds, the best of several rounds; runs in either tree.
_COST = """
import os, time
from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.cli import story
best = {}
for forward in (False, True):
    with Kernel() as kernel:
        vmm = story.Vmm(kernel, forward=forward)
        vmm.run(1)
        costs = []
        for _ in range(5):
            start = time.process_time()
            for _ in range(300):
                os.eventfd_write(vmm.trigger, 1)
                kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)
            costs.append((time.process_time() - start) / 300)
        best[forward] = min(costs) * 1e6
print(best[False], best[True])
"""


def row(name: str, measured: float, reference: float, bound: float) -> None:
    """One line, as those of run.py."""
    ratio = measured / reference
    missed = "" if ratio <= bound else "  MISSED"
    print(
        f"{name:<58}{measured:>9.2f} us / {reference:>7.2f} us = {ratio:>5.3f}  (at most {bound:g}){missed}", flush=True
    )


def interrupt(path: str | None, *, state: bool = False) -> float:
    """The demo's `INTERRUPTS`, each in microseconds, with what writing the trace takes."""
    with Kernel() as kernel:
        start = time.process_time()
        end = kernel.trace(path, state=state) if path else lambda: None
        story.tell(kernel, forward=False, interrupts=INTERRUPTS)
        end()
        return (time.process_time() - start) / INTERRUPTS * 1e6


def traced() -> None:
    """Traces against none."""
    with tempfile.TemporaryDirectory() as directory:
        jsonl, text = os.path.join(directory, "x.jsonl"), os.path.join(directory, "x.txt")
        kinds = {"none": (None, False), "jsonl": (jsonl, False), "text": (text, False), "state": (jsonl, True)}
        costs: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, (path, state) in kinds.items():
                costs[name].append(interrupt(path, state=state))
    best = {name: min(values) for name, values in costs.items()}
    row("an interrupt of the demo: traced to JSON Lines / not", best["jsonl"], best["none"], 2.0)
    row("... to text / not", best["text"], best["none"], 2.5)
    row("... to JSON Lines with state / not", best["state"], best["none"], 12.0)


def untraced(commit: str) -> None:
    """This tree against one before."""
    archive = subprocess.run(["git", "archive", commit], cwd=_HERE, capture_output=True)
    if archive.returncode:
        print(f"what the hooks cost: not measured, this is no repository with {commit}")
        return
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
            tar.extractall(directory, filter="data")
        ratios: list[tuple[float, float]] = []
        costs: dict[str, list[tuple[float, float]]] = {directory: [], str(_HERE): []}
        for turn in range(2 * ROUNDS):
            order = list(costs) if turn % 2 else list(costs)[::-1]
            for tree in order:
                done = subprocess.run(
                    [sys.executable, "-c", _COST],
                    env={**os.environ, "PYTHONPATH": tree},
                    cwd=tree,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                unforwarded, forwarded = (float(word) for word in done.stdout.split())
                costs[tree].append((unforwarded, forwarded))
            before, now = costs[directory][-1], costs[str(_HERE)][-1]
            ratios.append((now[0] / before[0], now[1] / before[1]))
    for index, mode in enumerate(("unforwarded", "forwarded")):
        before_best, now_best = (min(cost[index] for cost in costs[tree]) for tree in (directory, str(_HERE)))
        row(f"an interrupt, {mode}, not traced / at {commit}", now_best, before_best, 1.03)
        print(f"    the median of {len(ratios)} pairs is {statistics.median(ratio[index] for ratio in ratios):.3f}")


if __name__ == "__main__":
    traced()
    untraced(sys.argv[1] if sys.argv[1:] else BEFORE)
