"""Programs that do everything wrong on purpose: an errno each, no hang, nothing left, nothing changed outside."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Build = Callable[..., str]
Run = Callable[..., subprocess.CompletedProcess[str]]

TESTS = Path(__file__).parents[1]
SLEEPER = ("--guest", "supervisor.guests:sleeper")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}


def answers(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_pointers_into_nothing_and_counts_beyond_measure(build: Build, supervised: Run) -> None:
    done = supervised("--machine", "edu", "--", build("pointers"))
    assert done.returncode == 0, done.stderr
    assert answers(done) == {
        "pointers": "0",
        "dma": "-1 EFAULT",
        "payload": "-1 EFAULT",
        "argsz": "0 0",
        "count": "-1 EINVAL",
        "start": "-1 EINVAL",
        "count-none": "-1 EINVAL",
        "count-bool": "-1 EINVAL",
        "info-argsz": "0 0",
        "routing": "-1 EINVAL",
        "slot": "-1 EINVAL",
        "pread": "-1 EFAULT",
        "pwrite": "-1 EFAULT",
        "pread-behind": "-1 EFAULT",
        "pread-negative": "-1 EINVAL",
        "pread-endless": "-1 EFAULT",
        "well": "0 0",
    }


def test_calls_on_paths_answer_as_the_real_kernel_does(build: Build, supervised: Run, tmp_path: Path) -> None:
    """The same program, on real files without us and on emulated ones."""
    program = build("paths")
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to("../there")
    real = subprocess.run([program, "/dev/null", "/dev", tmp_path / "here" / "link"], capture_output=True, text=True)
    assert len(real.stdout.splitlines()) == 44, real.stderr
    link = "/sys/bus/platform/devices/fff51000.ethernet/iommu_group"
    emulated = supervised("--", program, "/dev/vfio/vfio", "/dev/vfio", link)
    assert emulated.stdout.splitlines() == real.stdout.splitlines()


def test_descriptors_closed_and_memory_unmapped_in_the_middle(build: Build, supervised: Run) -> None:
    done = supervised("--", build("race"))
    assert answers(done) == {"odd": "0"}, done.stderr


@pytest.mark.parametrize("how", [(), ("syscalls",)], ids=["PTRACE_CONT", "PTRACE_SYSCALL"])
def test_a_program_may_trace_its_own_child(build: Build, supervised: Run, how: tuple[str, ...]) -> None:
    assert answers(supervised("--", build("traced"), *how)) == {
        "run": "-1 EINTR",
        "bad": "-1 EFAULT",
        "after": "1 0",
        "exit": "3",
        "signals": "2",
        "syscalls": "1" if how else "0",
    }


def test_ten_thousand_files_are_opened_and_all_closed(build: Build, supervised: Run) -> None:
    """More than inotify can tell of at once: the closes of an exit that it could not are found out."""
    many = 10240
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < many:
        pytest.skip(f"at most {hard} descriptors here")
    watches = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    if watches < many + 1000:
        pytest.skip(f"at most {watches} inotify watches here")
    done = supervised("--", build("full"), str(many))
    assert answers(done) == {"full": "1 EMFILE", "no-vm": "-1 EMFILE", "vm-again": "0 0"}


def test_no_memory_for_a_run_page_is_enomem(build: Build, supervised: Run) -> None:
    """Under a limit that lets the views of the system be written, but no two pages of a vCPU's."""
    limit = ["prlimit", "--fsize=4096"]
    done = supervised("--", build("pages"), prefix=limit)
    assert answers(done) == {"vm": "0 0", "vcpu": "-1 ENOMEM", "vm-again": "0 0"}


def test_killed_supervisor_takes_a_program_in_kvm_run_with_it(build: Build, supervised: Run) -> None:
    command = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run", *SLEEPER, "--", build("linger")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in KVM_RUN\n"
    process.kill()
    process.wait()
    assert process.stdout.read() == ""  # its other end is closed: the program is gone
    process.stdout.close()


def test_what_is_outside_of_the_program_stays_as_it_was(build: Build, supervised: Run, tmp_path: Path) -> None:
    """No file of ours is left, neither in the temporary directory nor in shared memory."""
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path)}
    supervised(
        "--", build("paths"), "/dev/vfio/vfio", "/dev/vfio", "/sys/bus/platform/devices/fff51000.ethernet/driver"
    )
    done = supervised("--", "stat", "/sys/bus/platform/devices", env=environment)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert {name for name in os.listdir("/dev/shm") if "kvmvfio" in name} <= before
