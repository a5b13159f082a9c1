"""Signals in the middle of supervised calls: nothing is done twice, nothing is lost, KVM_RUN ends as KVM's does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Build = Callable[..., str]
Run = Callable[..., subprocess.CompletedProcess[str]]

SECONDS = 120
TESTS = str(Path(__file__).parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])}
#: restless.c, when everything happened exactly as often as it was asked for.
EXACT = {"fired": "400", "dma": "0", "odd": "0", "leaked": "0", "handler": "0"}
HANDLERS = pytest.mark.parametrize(
    "handler",
    [(), ("restart",), ("busy",), ("restart", "busy")],
    ids=["plain", "SA_RESTART", "busy", "busy SA_RESTART"],
)


def answers(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def old_host(lacking: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `kvmvfio-emu run` does on a host that lacks something; see `old_host`."""
    command = [sys.executable, "-m", "supervisor.old_host", lacking, "run", "--report", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=ENVIRONMENT)
    assert "Traceback" not in done.stderr, done.stderr
    assert "0 open files" in done.stderr, done.stderr
    return done


def counted(done: subprocess.CompletedProcess[str], name: str) -> int:
    found = re.search(rf"^old host:.* {name}=(\d+)", done.stderr, re.MULTILINE)
    assert found is not None, done.stderr
    return int(found[1])


@HANDLERS
def test_a_rain_of_signals_changes_nothing(build: Build, supervised: Run, handler: tuple[str, ...]) -> None:
    done = supervised("--machine", "edu", "--", build("restless"), "rain", *handler)
    assert answers(done) == EXACT, done.stderr


@HANDLERS
def test_before_wait_killable_no_call_is_executed_twice(
    build: Build, supervised: Run, handler: tuple[str, ...]
) -> None:
    done = old_host("killable", "--machine", "edu", "--", build("restless"), *handler)
    assert answers(done) == EXACT, done.stderr
    assert counted(done, "interrupted") > 1000
    assert counted(done, "claimed") == counted(done, "remembered") > 1000


def test_before_wait_killable_ordinary_programs_work(build: Build, supervised: Run) -> None:
    assert answers(old_host("killable,calm", "--", build("full")))["full"] == "1 EMFILE"
    assert answers(old_host("killable,calm", "--", build("family")))["exec"] == "12 0"


@pytest.mark.parametrize("restart", [(), ("restart",)], ids=["plain", "SA_RESTART"])
def test_before_wait_killable_kvm_run_ends_with_eintr(build: Build, supervised: Run, restart: tuple[str, ...]) -> None:
    done = old_host("killable,calm", "--guest", "supervisor.guests:sleeper", "--", build("kick"), *restart)
    assert answers(done) == {"immediate": "-1 EINTR", "run": "-1 EINTR", "reason": "10"}


def test_without_sync_wake_up_calls_are_answered(build: Build, supervised: Run) -> None:
    done = old_host("sync", "--", build("answers"))
    assert done.returncode == 7
    assert answers(done)["api"] == "12 0"


def test_kvm_set_signal_mask_decides_what_ends_kvm_run(build: Build, supervised: Run) -> None:
    done = supervised("--guest", "supervisor.guests:sleeper", "--", build("sigmask"), env=ENVIRONMENT)
    assert done.stdout.splitlines() == [
        "length -1 EINVAL",
        "at-entry -1 EINTR",
        "still-pending 1",
        "taken 1",
        "run -1 EINTR",
        "handled 0",
        "early 0",
        "run -1 EINTR",
        "handled-late 1",
        "early-own 0",
        "run -1 EINTR",
        "handled-own 1",
    ]
