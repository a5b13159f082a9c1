"""Starting, ending and refusing: exit statuses, signals, and one clear line when it cannot be."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run"]


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_is_the_programs(supervised: Run, status: int) -> None:
    assert supervised("--", "sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_the_signal_is_the_programs(supervised: Run, number: int) -> None:
    assert supervised("--", "sh", "-c", f"kill -{int(number)} $$").returncode == -number


def test_output_is_the_programs_own(supervised: Run) -> None:
    assert supervised("--", "echo", "hello").stdout == "hello\n"


def test_children_are_served_until_the_last_one_ends(supervised: Run) -> None:
    script = "import os, sys; os.fork() and os._exit(0); print(os.path.exists('/dev/vfio/5'), flush=True)"
    assert supervised("--", "/usr/bin/python3", "-c", script).stdout == "True\n"


def test_a_program_that_does_not_exist_is_one_line_and_status_2(supervised: Run) -> None:
    done = subprocess.run([*COMMAND, "--", "/no/such/program"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "kvmvfio-emu: /no/such/program: no such program\n"


def test_a_nested_supervisor_is_refused_with_advice(supervised: Run) -> None:
    done = supervised("--", *COMMAND, "--", "true")
    assert done.returncode == 2
    assert "a supervisor is active already" in done.stderr


def test_no_program_is_a_usage_error() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no program" in done.stderr


def test_paths_are_found_in_every_form(supervised: Run) -> None:
    script = """
import os
base = "/sys/bus/platform/devices/fff51000.ethernet"
os.symlink(base, "shortcut")
directory = os.open("/sys/bus/platform/devices", os.O_RDONLY | os.O_DIRECTORY)
print(os.path.basename(os.readlink(base + "/iommu_group")))
print(os.path.basename(os.readlink("shortcut/iommu_group")))
print(os.path.basename(os.readlink("fff51000.ethernet/iommu_group", dir_fd=directory)))
print(os.path.basename(os.path.realpath("shortcut/iommu_group/../5")))
print(sorted(os.listdir(base + "/iommu_group/devices")))
print(os.path.realpath(base + "/driver"))
print(os.stat("/dev/kvm").st_rdev == os.makedev(10, 232), os.access("/dev/vfio/vfio", os.R_OK | os.W_OK))
print(os.path.exists("/dev/vfio/99"), os.path.exists(base + "/nothing"), os.path.exists("/etc/passwd"))
print(os.readlink(f"/proc/self/fd/{os.open('/dev/kvm', os.O_RDWR)}"))
"""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        done = supervised("--", "/usr/bin/python3", "-c", script, cwd=directory)
    assert done.stdout.splitlines() == [
        "5",
        "5",
        "5",
        "5",
        "['fff51000.ethernet']",
        "/sys/bus/platform/drivers/vfio-platform",
        "True True",
        "False False True",
        "/dev/kvm",
    ], done.stderr


def test_targets_die_with_the_supervisor() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--", "sh", "-c", "echo $$; exec sleep 60"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdecimal()
    process.kill()
    process.wait()
    assert process.stdout.read() == ""  # the other end of the pipe is closed: the target is gone
    process.stdout.close()
