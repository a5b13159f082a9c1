"""Traces of unmodified programs: their own numbers for descriptors, every call on our files; and faults they suffer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvmvfio_emu.view.read import read

Run = Callable[..., subprocess.CompletedProcess[str]]

#: A program that knows nothing of us: it prints what it got.
PROGRAM = """
import errno, fcntl, os
def say(name, call):
    try:
        print(name, call())
    except OSError as error:
        print(name, errno.errorcode[error.errno])
kvm = os.open("/dev/kvm", os.O_RDWR)
print("kvm", kvm)
say("version", lambda: fcntl.ioctl(kvm, 0xAE00))
say("version", lambda: fcntl.ioctl(kvm, 0xAE00))
vm = fcntl.ioctl(kvm, 0xAE01, 0)
print("vm", vm)
container, group = os.open("/dev/vfio/vfio", os.O_RDWR), os.open("/dev/vfio/5", os.O_RDWR)
fcntl.ioctl(group, 0x3B68, container.to_bytes(4, "little"))
fcntl.ioctl(container, 0x3B66, 3)
device = fcntl.ioctl(group, 0x3B6A, bytearray(b"fff51000.ethernet\\0"))
print("device", device)
say("pread", lambda: os.pread(device, 4, 0x20))
trigger = os.eventfd(7, os.EFD_NONBLOCK)
say("eventfd", lambda: len(os.read(trigger, 8)))
os.close(vm)
"""


def traced(supervised: Run, tmp_path: Path, *options: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """(what the program says, the records)."""
    path = tmp_path / "trace.jsonl"
    done = supervised("--trace", str(path), *options, "--", "/usr/bin/python3", "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    said = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    return dict(reversed(said)), [record for record in read(path) if "name" in record]


def test_a_program_is_traced_with_its_own_numbers(supervised: Run, tmp_path: Path) -> None:
    said, records = traced(supervised, tmp_path)
    fields = [record.get("f", {}) for record in records]
    opened = {f["is"]: f["result"] for f in fields if f.get("call") == "open" and "result" in f}
    assert opened["kvm"] == int(said["kvm"])
    assert set(opened) == {"kvm", "container", "group 5"}
    given = {f["is"]: f["result"] for f in fields if "request" in f and "is" in f}
    assert given == {"vm": int(said["vm"]), "vfio-device fff51000.ethernet": int(said["device"])}
    joined = next(f for f in fields if f.get("request") == "VFIO_GROUP_SET_CONTAINER" and "in" in f)
    assert joined["in"] == {"fd": {"fd": opened["container"], "is": "container"}}
    assert (joined["fd"], joined["file"], joined["detail"]) == (opened["group 5"], "group", "5")
    access = [f for f in fields if f.get("call") == "pread"]
    assert access[0]["in"] == {"size": 4, "offset": "0x20"}
    assert len(access[1]["out"]["data"]) == 8
    assert any(record["name"] == "release" and record["f"]["file"] == "vm" for record in records)
    assert len({f["task"] for f in fields if "task" in f}) == 1


def test_what_a_program_reads_under_faults(supervised: Run, tmp_path: Path) -> None:
    said, records = traced(
        supervised,
        tmp_path,
        "-e",
        "inject=KVM_GET_API_VERSION:error=EBUSY:when=1",
        "-e",
        "inject=eventfd:short",
        "-e",
        "inject=pread:error=EIO",
        "-e",
        "trace=KVM_GET_API_VERSION,eventfd_short",
    )
    assert said["version"] == "EBUSY", "the first one, which comes last of the two in said"
    assert (said["pread"], said["eventfd"]) == ("EIO", "4")
    assert [record["f"].get("errno") for record in records if record["name"] == "ioctl_return"] == ["EBUSY", None]
    assert [record["name"] for record in records][-1] == "eventfd_short"


def test_an_injected_result_of_open(supervised: Run, tmp_path: Path) -> None:
    script = "import os; print(os.open('/dev/kvm', os.O_RDWR), os.open('/dev/kvm', os.O_RDWR) < 90)"
    done = supervised("-e", "inject=open:retval=99:when=1", "--", "/usr/bin/python3", "-c", script)
    assert done.stdout == "99 True\n"


def test_the_text_goes_to_stderr_and_the_output_stays_the_programs(supervised: Run) -> None:
    done = supervised("--trace", "--", "/usr/bin/python3", "-c", "import os; print(os.open('/dev/kvm', 0))")
    fd = int(done.stdout)
    assert f'open({{path="/dev/kvm"}}) = {fd}<kvm> (#1)' in done.stderr


def test_a_full_disk_is_told_at_the_end_and_the_program_runs_on(supervised: Run) -> None:
    done = supervised("-o", "/dev/full", "--", "/usr/bin/python3", "-c", "import os; os.open('/dev/kvm', 0); print(1)")
    assert done.stdout == "1\n"
    assert done.stderr.splitlines()[-1] == "kvmvfio-emu: trace /dev/full: No space left on device; it ends early"
    assert done.returncode == 0, "the status is the program's"


def test_a_mistake_is_told_before_the_program_starts(supervised: Run) -> None:
    from supervisor.conftest import COMMAND

    done = subprocess.run([*COMMAND, "-e", "trace=%x", "--", "echo", "never"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kvmvfio-emu: -e trace=%x: unknown call or event '%x'")
