"""Starting, ending and refusing: exit statuses, signals, and one clear line when it cannot be."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
TESTS = str(Path(__file__).parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])}
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
    lines = [line for line in done.stderr.splitlines() if "active already" in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("kvmvfio-emu: ")
    assert "run outside of it" in lines[0]


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_forbidden_seccomp_is_one_line_that_says_what_to_do(supervised: Run, error: int) -> None:
    command = [sys.executable, "-m", "supervisor.forbid", str(error), *COMMAND, "--", "echo", "never"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert ("seccomp profile" if error == errno.EPERM else "Linux 5.9") in done.stderr


def test_no_temporary_directory_is_one_line(supervised: Run) -> None:
    """With files of no size, as on a full or read-only disk, whoever we are."""
    command = ["prlimit", "--fsize=0", *COMMAND, "--", "stat", "/sys/bus/platform/devices"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    ours = [line for line in done.stderr.splitlines() if line.startswith("kvmvfio-emu: ")]
    assert len(ours) == 1, done.stderr
    assert "temporary directory" in ours[0]
    assert "Traceback" not in done.stderr


def test_strace_works_outside(build: Callable[..., str], supervised: Run, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    log = tmp_path / "log"
    done = supervised("--", build("answers"), prefix=["strace", "-f", "-o", str(log), "-e", "trace=ioctl"])
    assert done.returncode == 7
    assert "api 12 0" in done.stdout
    assert "KVM_CREATE_VM" in log.read_text()


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


def test_a_path_that_the_program_turns_into_a_link_leads_there_at_once(supervised: Run) -> None:
    script = """
import os
base = "/sys/bus/platform/devices"
def look():
    return os.path.exists("there/fff51000.ethernet"), os.path.exists("file/fff51000.ethernet")
os.mkdir("there")
open("file", "w").close()
os.stat("file")
print(*look())
os.rmdir("there")
os.symlink(base, "there")
os.symlink(base, "new")
os.rename("new", "file")
print(*look())
os.unlink("there")
os.mkdir("there")
os.rename("there", "else")
os.link("file", "there", follow_symlinks=False)
print(*look())
print(os.listdir("file") == os.listdir(base))
"""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        done = supervised("--", "/usr/bin/python3", "-c", script, cwd=directory)
    assert done.stdout.splitlines() == ["False False", "True True", "True True", "True"], done.stderr


def test_descriptors_are_the_programs_and_our_parents_only(supervised: Run) -> None:
    ours = os.open("/dev/null", os.O_RDONLY)
    try:
        script = "import os; print(*(n for n in range(256) if os.path.exists(f'/proc/{os.getpid()}/fd/{n}')))"
        done = supervised("--", "/usr/bin/python3", "-c", script, pass_fds=[ours])
    finally:
        os.close(ours)
    assert done.stdout == f"0 1 2 {ours}\n"


def test_signals_are_as_our_parent_had_them(supervised: Run) -> None:
    script = "grep -E '^Sig(Blk|Ign)' /proc/self/status"
    handlers = "import os, signal, sys; signal.signal(signal.SIGUSR1, signal.SIG_IGN); " + (
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL); signal.signal(signal.SIGXFSZ, signal.SIG_DFL); "
    )
    start = [sys.executable, "-c", handlers + "os.execv(sys.argv[1], sys.argv[1:])"]
    alone = subprocess.run([*start, "/bin/sh", "-c", script], capture_output=True, text=True)
    under = subprocess.run([*start, *COMMAND, "--", "/bin/sh", "-c", script], capture_output=True, text=True)
    assert alone.stdout == under.stdout
    ignored = int(under.stdout.split()[-1], 16) & ~(1 << signal.SIGHUP - 1)  # which nohup has the tests ignore
    assert ignored == 1 << signal.SIGUSR1 - 1


def test_a_program_that_cannot_be_executed_is_one_line_and_status_126(supervised: Run, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"no program of any kind")
    program.chmod(0o755)
    done = supervised("--", str(program))
    assert done.returncode == 126
    assert f"kvmvfio-emu: {program}: Exec format error\n" in done.stderr


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
