"""Registers that a program has mapped: each access reaches the device as the instruction made it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from supervisor.test_supervised_clients import answers, with_tests_on_path

from kvmvfio_emu.doors.control import request
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

Build = Callable[..., str]
Run = Callable[..., subprocess.CompletedProcess[str]]

BOARD = str(Path(__file__).with_name("recorder.toml"))
X86 = os.uname().machine == "x86_64"

#: What the program saw, and what the device did: "l" or "s", offset, size, value.
PLAIN = {
    "load8": (0x11, "l 0x11 1 0x11"),
    "load16": (0x1312, "l 0x12 2 0x1312"),
    "load32": (0x17161514, "l 0x14 4 0x17161514"),
    "load64": (0x1F1E1D1C1B1A1918, "l 0x18 8 0x1f1e1d1c1b1a1918"),
    "load-signed": (0xFFFFFFFFFFFFFF80, "l 0x80 1 0x80"),
    "load-signed-to-32": (0xFFFF8180, "l 0x80 2 0x8180"),
    "store8": (0xA1, "s 0x21 1 0xa1"),
    "store16": (0xB1B2, "s 0x22 2 0xb1b2"),
    "store32": (0xC1C2C3C4, "s 0x24 4 0xc1c2c3c4"),
    "store64": (0xD1D2D3D4D5D6D7D8, "s 0x28 8 0xd1d2d3d4d5d6d7d8"),
    "store-zero": (0, "s 0x24 4 0x0"),
    "store-again": (0, "s 0x24 4 0x0"),
    "load-acquire": (0, "l 0x24 4 0x0"),
}
CODED = {
    "keep-16": (0x1111111111111514, "l 0x14 2 0x1514"),
    "high-byte": (0x2222222222221422, "l 0x14 1 0x14"),
    "store-high-byte": (0, "s 0x60 1 0x14"),
    "constant-8": (0, "s 0x60 8 0xfffffffffffffffe"),
    "indexed": (0x17161514, "l 0x14 4 0x17161514"),
    "or": (0, "l 0x64 4 0xffffffff", "s 0x64 4 0xffffffff"),
    "or-nothing": (0, "l 0x64 1 0xff", "s 0x64 1 0xff"),
    "increment": (0, "l 0x66 2 0xffff", "s 0x66 2 0x0"),
    "exchange": (0x6B6A6968, "l 0x68 4 0x6b6a6968", "s 0x68 4 0x5"),
    "add-exchange": (5, "l 0x68 4 0x5", "s 0x68 4 0x8"),
    "compare-exchange-hit": (8, "l 0x68 4 0x8", "s 0x68 4 0x9"),
    "compare-exchange-miss": (9, "l 0x68 4 0x9", "s 0x68 4 0x9"),
    "compare": (1, "l 0x68 4 0x9"),
    "test": (1, "l 0x68 1 0x9"),
    "add": (0x1716151413121111, "l 0x10 8 0x1716151413121110"),
    "push": (0x1716151413121110, "l 0x10 8 0x1716151413121110"),
    "set": (0, "s 0x70 1 0x1"),
    "bit": (0, "l 0x70 4 0x73727101", "s 0x70 4 0x73727111"),
    "string-in": (0x17161514, "l 0x10 4 0x13121110", "l 0x14 4 0x17161514"),
    "string-out": (0, "s 0x78 4 0x13121110", "s 0x7c 4 0x17161514"),
    "string-across": (
        0,
        "l 0x10 4 0x13121110",
        "s 0x1010 4 0x13121110",
        "l 0x14 4 0x17161514",
        "s 0x1014 4 0x17161514",
    ),
    "string-back": (0x11, "l 0x1010 4 0x13121110", "s 0x88 4 0x13121110", "l 0x89 1 0x11"),
    "string-fill": (0, "s 0x90 1 0xee", "s 0x91 1 0xee", "s 0x92 1 0xee"),
    "string-compare": (1, "l 0x10 1 0x10", "l 0x1010 1 0x10"),
    "vector-in": (0x1716151413121110, "l 0x10 8 0x1716151413121110", "l 0x18 8 0x1f1e1d1c1b1a1918"),
    "vector-out": (0, "s 0xa0 8 0x1716151413121110", "s 0xa8 8 0x0"),
    "vector-word": (0x13121110, "l 0x10 4 0x13121110"),
    "real-out": (0, "s 0xb0 8 0x3ff0000000000000"),
    "real-in": (1, "l 0xb0 8 0x3ff0000000000000"),
    "unaligned": (0x15141312, "l 0x12 2 0x1312", "l 0x14 2 0x1514"),
    "border": (0x03020100FFFEFDFC, "l 0xffc 4 0xfffefdfc", "l 0x1000 4 0x3020100"),
    "border-store": (0x0102030405060708, "s 0xffc 4 0x5060708", "s 0x1000 4 0x1020304"),
    "border-or": (0, "l 0xffe 2 0x506", "l 0x1000 2 0x304", "s 0xffe 2 0x507", "s 0x1000 2 0x304"),
    "border-vector": (
        0xFBFAF9F8F7F6F5F4,
        "l 0xff4 4 0xf7f6f5f4",
        "l 0xff8 8 0x5070708fbfaf9f8",
        "l 0x1000 4 0x1020304",
    ),
    "border-vector-out": (0, "s 0xff4 4 0xf7f6f5f4", "s 0xff8 8 0xfbfaf9f8", "s 0x1000 4 0x0"),
    "prefetch": (0,),
}


@pytest.fixture(scope="module")
def did(build: Build, supervised: Run) -> dict[str, tuple[object, ...]]:
    """Of each step of the client: what it saw, then the device's accesses."""
    done = supervised("--machine", BOARD, "--", build("mapped"), env=with_tests_on_path())
    assert done.returncode == 0, done.stderr
    steps: list[list[str]] = []
    for line in done.stderr.splitlines():
        if line.startswith("access store 0xff0 "):
            steps.append([])
        elif line.startswith("access "):
            what, rest = line.removeprefix("access ").split(" ", 1)
            steps[-1].append(f"{what[0]} {rest}")
    results = (line.split() for line in done.stdout.splitlines())
    return {name: (int(value, 16), *accesses) for (name, value), accesses in zip(results, steps, strict=True)}


@pytest.mark.parametrize("step", PLAIN)
def test_a_plain_access_is_one_access_of_its_width(did: dict[str, tuple[object, ...]], step: str) -> None:
    assert did[step] == PLAIN[step]


@pytest.mark.skipif(not X86, reason="x86-64 machine code")
@pytest.mark.parametrize("step", CODED)
def test_an_instruction_accesses_what_the_processor_would(did: dict[str, tuple[object, ...]], step: str) -> None:
    assert did[step] == CODED[step]


def test_whatever_copies_memory_copies_registers(did: dict[str, tuple[object, ...]]) -> None:
    assert did["copy"][0] == 0x6F40
    assert did["fill"][0] == 0x48


def life(build: Build, supervised: Run, mode: str, *before: str) -> dict[str, str]:
    """What the client says in that mode."""
    command = (*before, build("mapped_life"), mode)
    done = supervised("--machine", BOARD, "--", *command, env=with_tests_on_path())
    assert done.returncode == 0, done.stderr
    return answers(done)


def test_no_access_of_any_thread_is_lost(build: Build, supervised: Run) -> None:
    assert life(build, supervised, "threads") == {"pulses": str(4 * 200 + 2 * 200 + 20 * 400), "added": "400"}


def test_children_use_the_mapping_until_they_exec(build: Build, supervised: Run) -> None:
    assert life(build, supervised, "children") == {"forked": "3", "vforked": "0", "again": "5", "pulses": "803"}


def test_signals_come_between_accesses_not_into_them(build: Build, supervised: Run) -> None:
    assert life(build, supervised, "signals") == {
        "rang": "1",
        "kept": "1",
        "added": "200",
        "pulses": "200",
        "blocked": "0",
    }


def test_faults_that_are_the_programs_own_stay_its_own(build: Build, supervised: Run) -> None:
    bus, segv = str(int(signal.SIGBUS)), str(int(signal.SIGSEGV))
    assert life(build, supervised, "faults") == {
        "hole": bus,
        "border": segv,
        "below": str(0x14),
        "readonly": segv,
        "nowhere": segv,
        "unmapped": segv,
    }


def test_stop_and_continue_work_as_without_us(build: Build, supervised: Run) -> None:
    assert life(build, supervised, "stops") == {"stopped": "20", "killed": str(-signal.SIGKILL)}


def test_a_program_that_is_traced_already_sees_a_copy(build: Build, supervised: Run) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    said = life(build, supervised, "copy", "strace", "-f", "-o", os.devnull)
    assert said == {"length": "4", "stored": str(0x600D)}


def test_sigkill_in_the_middle_of_an_access_leaves_nothing(build: Build, control: str) -> None:
    ours = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run", "--report", "--control", control, "--machine", BOARD]
    process = subprocess.Popen(
        [*ours, "--", build("mapped_life"), "forever"], stderr=subprocess.PIPE, text=True, env=with_tests_on_path()
    )
    deadline = time.monotonic() + 60
    while True:  # until it has the device open, and so is about to hammer it
        try:
            files = request(control, {"op": "show", "view": "files"})
        except KvmVfioEmuError:
            files = []
        if "vfio-device" in {file["kind"] for file in files}:
            break
        assert time.monotonic() < deadline
    request(control, {"op": "quit"})
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "0 open files" in errors
    assert "Traceback" not in errors
