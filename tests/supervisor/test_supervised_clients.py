"""Unmodified C programs under `kvmvfio-emu run`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable

import pytest

from kvmvfio_emu import Kernel
from kvmvfio_emu.cli.story import COUNTERS, tell

Build = Callable[..., str]
Run = Callable[..., subprocess.CompletedProcess[str]]


def answers(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The client's lines, "label answer", as a dictionary."""
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
def test_calls_are_answered_as_in_process(build: Build, supervised: Run, flags: tuple[str, ...]) -> None:
    done = supervised("--", build("answers", *flags))
    assert done.returncode == 7
    assert answers(done) == {
        "api": "12 0",
        "api-argument": "-1 EINVAL",
        "unknown": "-1 EINVAL",
        "null": "-1 EFAULT",
        "wild": "-1 EFAULT",
        "top": "-1 EFAULT",
        "across": "-1 EFAULT",
        "last-bytes": "-1 EBADF",
        "create": "0 0",
        "not-vfio": "-1 EINVAL",
        "closed": "-1 EBADF",
        "foreign": "-1 ENOTTY",
        "cloexec": "1",
    }


def test_bare_system_calls_of_a_static_program(build: Build, supervised: Run) -> None:
    assert answers(supervised("--", build("bare", "-static"))) == {
        "api": "12 0",
        "openat2": "12 0",
        "cloexec": "1",
        "stat": "0 0",
        "device": "1",
        "lstat": "0 0",
        "link": "1",
        "access": "0 0",
        "access-nothing": "-1 ENOENT",
        "readlink": "0 0",
        "target": "../../../devices/platform/fff51000.ethernet",
    }


def test_descriptors_travel_by_dup_fork_exec_and_sockets(build: Build, supervised: Run) -> None:
    done = supervised("--", build("family"))
    assert answers(done) == {
        "busy": "-1 EBUSY",
        "busy-dup": "-1 EBUSY",
        "free": "0 0",
        "passed": "12 0",
        "other-mm": "-1 EIO",
        "other-mm-kvm": "12 0",
        "exec": "12 0",
    }


def test_a_device_by_its_own_node_and_an_iommufd(build: Build, supervised: Run) -> None:
    done = supervised("--profile", "linux-6.12", "--machine", "oracle-virt", "--", build("iommufd"))
    assert done.returncode == 0, done.stderr
    assert answers(done) == {
        "stat": "0 0",
        "dev": "1",
        "unbound": "-1 EINVAL",
        "bind": "0 0",
        "info": "0 0",
        "alloc": "0 0",
        "attach": "0 0",
        "map": "0 0",
        "dma": "over the bus and back",
        "group": "-1 EBUSY",
        "busy": "-1 EBUSY",
        "destroy": "0 0",
        "group-again": "1",
    }


@pytest.mark.parametrize("restart", [(), ("restart",)], ids=["plain", "SA_RESTART"])
def test_a_signal_ends_kvm_run_with_eintr(build: Build, supervised: Run, restart: tuple[str, ...]) -> None:
    done = supervised("--guest", "supervisor.guests:sleeper", "--", build("kick"), *restart, env=with_tests_on_path())
    assert answers(done) == {"immediate": "-1 EINTR", "run": "-1 EINTR", "reason": "10"}


def test_sigkill_in_the_middle_of_kvm_run_leaves_nothing(build: Build, supervised: Run) -> None:
    done = supervised("--guest", "supervisor.guests:sleeper", "--", build("kill"), env=with_tests_on_path())
    assert done.returncode == -signal.SIGKILL


def test_a_full_descriptor_table_is_emfile(build: Build, supervised: Run) -> None:
    assert answers(supervised("--", build("full"))) == {"full": "1 EMFILE", "no-vm": "-1 EMFILE", "vm-again": "0 0"}


def test_memory_unmapped_by_another_thread_never_hangs(build: Build, supervised: Run) -> None:
    assert answers(supervised("--", build("torn"))) == {"odd": "0"}


@pytest.mark.parametrize("mode", ["unforwarded", "forwarded"])
@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
def test_the_whole_flow_in_c_counts_what_the_demo_counts(
    build: Build, supervised: Run, control: str, mode: str, flags: tuple[str, ...]
) -> None:
    done = supervised("--control", control, "--", build("forward", *flags), mode)
    assert done.returncode == 0, done.stderr
    before, after = (json.loads(line)["result"] for line in done.stdout.splitlines())
    took = {name: after.get(name, 0) - before.get(name, 0) for name in COUNTERS}
    with Kernel() as kernel:
        told = tell(kernel, forward=mode == "forwarded", interrupts=1).one()
    # Its vCPU thread may or may not be back in the guest already: one entry more or less says nothing.
    assert {**took, "vmentry": 0} == {**told, "vmentry": 0}


def test_strace_works_inside(build: Build, supervised: Run, tmp_path: object) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    done = supervised("--", "strace", "-f", "-e", "trace=ioctl", build("answers"))
    assert done.returncode == 7
    assert "KVM_GET_API_VERSION" in done.stderr


def test_as_an_unprivileged_user(build: Build, supervised: Run, unprivileged: tuple[list[str], dict[str, str]]) -> None:
    command, environment = unprivileged
    done = subprocess.run(
        [*command, "-m", "kvmvfio_emu.cli.main", "run", "--report", "--", build("answers")],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7, done.stderr
    assert "0 open files" in done.stderr


def with_tests_on_path() -> dict[str, str]:
    """The environment with the tests' modules importable, for guests of their own."""
    from pathlib import Path

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
