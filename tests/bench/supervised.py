"""The supervised part of the benchmark: what a trapped call, an eventfd and a start cost a program under `run`."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kvmvfio_emu import uapi

HERE = Path(__file__).parent
CALLS = 20000


class Clients:
    """The C client, native, under strace and under us."""

    def __init__(self, directory: str) -> None:
        self.program = f"{directory}/clients"
        compiler = shutil.which("cc") or "gcc"
        command = [
            compiler,
            "-O1",
            "-I",
            str(uapi.include_dir()),
            "-o",
            self.program,
            str(HERE / "clients.c"),
            "-lpthread",
        ]
        subprocess.run(command, check=True)
        self.environment = {**os.environ, "PYTHONPATH": str(HERE)}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def native(self, *arguments: object) -> list[float]:
        """The numbers it prints on the host's own kernel."""
        return self._numbers([self.program, *map(str, arguments)])

    def traced(self, *arguments: object) -> list[float]:
        """The same under strace, which also stops the program twice a call."""
        strace = ["strace", "-f", "-e", "trace=ioctl", "-o", "/dev/null"]
        return self._numbers([*strace, self.program, *map(str, arguments)])

    def supervised(self, *arguments: object, guest: str = "") -> list[float]:
        """The same under us."""
        options = ["--guest", guest] if guest else []
        return self._numbers([*self.runner(), *options, "--", self.program, *map(str, arguments)])

    @staticmethod
    def runner() -> list[str]:
        """Our command line."""
        return [sys.executable, "-m", "kvmvfio_emu.cli.main", "run"]

    def seconds(self, command: list[str]) -> float:
        """How long ``command`` takes, the median of several."""
        took = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, check=True, env=self.environment, stdout=subprocess.DEVNULL)
            took.append(time.perf_counter() - start)
        return statistics.median(took)

    def _numbers(self, command: list[str]) -> list[float]:
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=self.environment)
        return [float(word) for word in done.stdout.split()]


def main() -> None:
    """Print all rows."""
    with tempfile.TemporaryDirectory() as directory:
        clients = Clients(directory)
        ours = min(clients.supervised("ioctl", CALLS)[0] for _ in range(3))
        if shutil.which("strace"):
            traced = min(clients.traced("ioctl", CALLS)[0] for _ in range(3))
            print(
                f"a trapped ioctl / under strace: {ours:.1f} us / {traced:.1f} us = {ours / traced:.2f}  (at most 0.6)"
            )
        if os.access("/dev/kvm", os.R_OK | os.W_OK):
            native = min(clients.native("ioctl", CALLS)[0] for _ in range(3))
            print(f"a trapped ioctl / native: {ours:.1f} us / {native:.2f} us = {ours / native:.0f}")
        idle, busy = min(
            (clients.supervised("busy", CALLS // 4, guest="guests:busy") for _ in range(3)), key=lambda r: r[1] / r[0]
        )
        print(f"an ioctl beside a busy vCPU / idle: {busy:.1f} us / {idle:.1f} us = {busy / idle:.2f}  (at most 1.5)")
        load, store, vector, pread = min(clients.supervised("mapped", CALLS // 10) for _ in range(3))
        print(
            f"a load from mapped registers / a trapped pread: {load:.1f} us / {pread:.1f} us = {load / pread:.2f}"
            f"; a store {store:.1f} us, a vector load {vector:.0f} us"
        )
        p50, p99 = clients.supervised("eventfd", 2000, guest="guests:completer")
        print(f"eventfd write -> guest EOI -> resamplefd: p50 {p50:.0f} us, p99 {p99:.0f} us")
        plain, run = clients.seconds(["true"]), clients.seconds([*clients.runner(), "--", "true"])
        print(f"start-up added to true: {(run - plain) * 1e3:.0f} ms")
        files = [clients.program, "open", "1500"]
        plain, run_files = clients.seconds(files), clients.seconds([*clients.runner(), "--", *files])
        print(f"each of 1500 opens: {(run_files - run) / 1500 * 1e6:.1f} us / {plain / 1500 * 1e6:.1f} us native")
        many = [sys.executable, str(HERE / "many_files.py")]
        plain, run_many = clients.seconds(many), clients.seconds([*clients.runner(), "--", *many])
        ratio = run_many / plain
        print(
            f"a program that opens 1500 files / native: {run_many:.2f} s / {plain:.2f} s = {ratio:.2f}  (at most 2.5)"
        )


if __name__ == "__main__":
    main()
