"""Builds the probe, and runs it: against an emulated kernel, or against the one that runs here."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from kvmvfio_emu import uapi
from kvmvfio_emu.conform.answers import Answers, oracle_dir
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

#: Most of a run is the probe's waiting for eventfds, so more run at a time than there are CPUs.
_AT_A_TIME = 4
#: A section ends itself after 150 seconds.
_SECONDS = 600


class Target(NamedTuple):
    """Which emulated kernel is asked. ``gic`` and ``cpus`` None are the machine's own."""

    profile: str
    machine: str
    gic: int | None = None
    cpus: int | None = None


def compiler() -> list[str]:
    """The C compiler: ``$CC``, else gcc or cc. KvmVfioEmuError when there is none."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["gcc"], ["cc"]]:
        if shutil.which(command[0]):
            return command
    raise KvmVfioEmuError(f"the probe is a C program, and there is no C compiler ({named[0] if named else 'gcc, cc'})")


def build(directory: Path, *, arm: bool = True, system_headers: bool = False) -> Path:
    """Compile the probe into ``directory``.

    ``arm``: with the questions that only arm64 has; ``system_headers``: with the system's headers in place of ours.
    KvmVfioEmuError with the compiler's complaint.
    """
    program = directory / "probe"
    flags = ["-O1", "-w", "-static"]
    if arm and platform.machine() != "aarch64":
        flags.append("-DPROBE_ARM")
    if not system_headers:
        flags += ["-I", str(uapi.include_dir())]
    sources = sorted(str(path) for path in (oracle_dir() / "probe").glob("*.c"))
    command = [*compiler(), *flags, "-o", str(program), *sources]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise KvmVfioEmuError(f"{command[0]} cannot build the probe: {complaint}")
    return program


#: What takes long, or computes much, runs alone; the others together, by their beginning.
_ALONE = ("vgic", "guest", "vfio-e2e", "vfio-platmatrix", "vfio-pcimatrix")


def shares(sections: Sequence[str]) -> list[list[str]]:
    """``sections`` divided among processes, the longest first."""
    rest = [name for name in sections if name not in _ALONE]
    vfio = [name for name in rest if name.startswith("vfio-")]
    others = [name for name in rest if not name.startswith("vfio")]
    divided = [*([name] for name in reversed(_ALONE) if name in sections), vfio, others]
    return [share for share in divided if share] or [list(sections)]


def ask(program: Path, target: Target, sections: Sequence[str], *, at_a_time: int = _AT_A_TIME) -> Answers:
    """Run the probe against an emulated kernel, several sections at a time. KvmVfioEmuError if it cannot run."""
    answers = Answers()
    with ThreadPoolExecutor(at_a_time) as pool:
        for output in pool.map(lambda share: _supervised(program, target, share), shares(sections)):
            answers.add(output.splitlines())
    return answers


def _supervised(program: Path, target: Target, sections: Sequence[str]) -> str:
    worker = [sys.executable, "-m", "kvmvfio_emu.conform.worker", json.dumps(target), str(program)]
    done = subprocess.run([*worker, *sections], stdout=subprocess.PIPE, text=True, errors="replace", timeout=_SECONDS)
    if done.returncode:
        failed = "could not be run under the supervisor" if done.returncode == 2 else f"ended with {done.returncode}"
        raise KvmVfioEmuError(f"the probe's sections {', '.join(sections)}: {failed}")
    return done.stdout


def ask_host(program: Path) -> Answers:
    """Run the probe against the kernel that runs here. KvmVfioEmuError when that has no KVM for us."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        why = "is not there" if not os.path.exists("/dev/kvm") else "may not be opened for reading and writing"
        raise KvmVfioEmuError(f"/dev/kvm of the running kernel {why}: there is nobody to ask")
    done = subprocess.run([program], stdout=subprocess.PIPE, text=True, errors="replace", timeout=_SECONDS)
    answers = Answers()
    answers.add(done.stdout.splitlines())
    return answers
