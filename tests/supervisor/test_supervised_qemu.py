"""Debian's QEMU, unmodified, against the emulated VFIO."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvmvfio_emu.doors.control import request
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

AARCH64, X86_64 = "qemu-system-aarch64", "qemu-system-x86_64"
QUIET = ["-nodefaults", "-display", "none", "-monitor", "stdio"]
VIRT = [AARCH64, "-M", "virt", "-cpu", "cortex-a57", "-m", "256", *QUIET]
DEVICE = "fff51000.ethernet"
SECONDS = 60


class Qemu:
    """A QEMU under us, with its monitor on our pipes and our control channel beside it."""

    def __init__(
        self,
        control: str,
        *arguments: str,
        options: tuple[str, ...] = (),
        python: Sequence[str] = (sys.executable,),
        **kwargs: Any,
    ) -> None:
        if shutil.which(arguments[0]) is None:
            pytest.skip(f"no {arguments[0]}")
        self.control = control
        self.output = ""
        ours = [*python, "-m", "kvmvfio_emu.cli.main", "run", "--report", "--control", control, *options, "--"]
        self.process = subprocess.Popen(
            [*ours, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **kwargs,
        )

    def __enter__(self) -> Qemu:
        self.expect("(qemu)")
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()

    def expect(self, text: str) -> str:
        """Everything up to ``text`` in the monitor's output."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + SECONDS
        while text not in self.output:
            more = b""
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                more = os.read(self.process.stdout.fileno(), 65536)
                self.output += more.decode(errors="replace")
            if not more and (self.process.poll() is not None or time.monotonic() > deadline):
                pytest.fail(
                    f"no {text!r} in {self.output[-2000:]!r}; {self.process.stderr and self.process.stderr.read()}"
                )
        found, _, self.output = self.output.partition(text)
        return found

    def do(self, command: str) -> str:
        """A monitor command's output."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        self.expect("\n")
        return self.expect("(qemu)")

    def ask(self, **message: object) -> object:
        """A request on the control channel."""
        return request(self.control, message)

    def counters(self) -> dict[str, int]:
        """The model's counters."""
        counters = self.ask(op="show", view="counters")
        assert isinstance(counters, dict)
        return counters

    def wait_for(self, counter: str, value: int) -> None:
        """Until the model has counted that far."""
        deadline = time.monotonic() + SECONDS
        while self.counters().get(counter, 0) < value:
            assert time.monotonic() < deadline, f"{counter} stays at {self.counters().get(counter, 0)}"

    def quit(self) -> str:
        """End it in an orderly way; what it and we said on stderr."""
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.write("quit\n")
        self.process.stdin.flush()
        errors = self.process.stderr.read()
        assert self.process.wait(SECONDS) == 0, errors
        assert "0 open files" in errors, errors
        assert "Traceback" not in errors, errors
        return errors


@pytest.fixture
def xgmac(control: str) -> Iterator[Qemu]:
    """QEMU with the xgmac, its CPUs stopped."""
    with Qemu(control, *VIRT, "-S", "-device", f"vfio-calxeda-xgmac,host={DEVICE}") as qemu:
        yield qemu


def test_xgmac_realizes_runs_and_leaves_nothing(xgmac: Qemu) -> None:
    assert f'host = "{DEVICE}"' in xgmac.do("info qtree")
    assert f"VFIO {DEVICE} region 0" in xgmac.do("info mtree")
    xgmac.do("cont")
    assert "running" in xgmac.do("info status")
    xgmac.quit()


def test_xgmac_as_an_unprivileged_user(control: str, unprivileged: tuple[list[str], dict[str, str]]) -> None:
    python, environment = unprivileged
    device = f"vfio-calxeda-xgmac,host={DEVICE}"
    with Qemu(control, *VIRT, "-S", "-device", device, python=python, env=environment, cwd="/") as qemu:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{qemu.process.pid}/status").read_text().splitlines())
        assert status["Uid"].split() == ["65534"] * 4
        assert f'host = "{DEVICE}"' in qemu.do("info qtree")
        qemu.do("cont")
        assert "running" in qemu.do("info status")
        qemu.quit()


def test_a_raised_line_makes_qemu_trigger_read_and_unmask(xgmac: Qemu) -> None:
    xgmac.wait_for("gicd_unmask", 3)  # its three interrupts are set up; opening the device reset it before
    xgmac.ask(op="line", device=DEVICE, index=0, level=1)
    xgmac.wait_for("eventfd_trigger", 1)
    xgmac.ask(op="line", device=DEVICE, index=0, level=0)
    before = xgmac.counters()["gicd_unmask"]
    # QEMU takes the registers away from its guest, and unmasks at the first slow access.
    region = next(line for line in xgmac.do("info mtree").splitlines() if f"VFIO {DEVICE} region 0" in line)
    xgmac.do(f"xp /1wx 0x{region.split('-')[0].strip()}")
    xgmac.wait_for("gicd_unmask", before + 1)
    xgmac.quit()


@pytest.mark.parametrize(
    "command",
    [
        [*VIRT, "-S"],
        [X86_64, "-M", "q35", "-accel", "tcg", "-m", "64", *QUIET, "-device", "pcie-root-port,id=rp0"],
    ],
    ids=["aarch64", "x86_64"],
)
def test_edu_realizes_by_vfio_pci(control: str, command: list[str]) -> None:
    bus = ",bus=rp0" if command[0] == X86_64 else ""
    device = f"vfio-pci,host=0000:00:01.0{bus}"
    with Qemu(control, *command, "-device", device, options=("--machine", "edu")) as qemu:
        deadline = time.monotonic() + SECONDS
        while "1234:11e8" not in qemu.do("info pci").lower():  # the firmware has to find it first
            assert time.monotonic() < deadline
        qemu.quit()


def test_qemu_reaches_mapped_registers_as_the_device_has_them(control: str) -> None:
    """Its firmware maps the BAR; what the monitor reads there goes through the mapping, not through pread."""
    machine = [X86_64, "-M", "q35", "-accel", "tcg", "-m", "64", *QUIET, "-device", "pcie-root-port,id=rp0"]
    device = "vfio-pci,host=0000:00:01.0,bus=rp0"
    with Qemu(control, *machine, "-device", device, options=("--machine", "edu")) as qemu:
        deadline = time.monotonic() + SECONDS
        said = ""
        while "0x010000ed" not in said:  # the firmware has to place and to enable the BAR first
            assert time.monotonic() < deadline, said
            function = qemu.do("info pci").lower().partition("1234:11e8")[2]
            bar = re.search(r"bar0: 32 bit memory at 0x([0-9a-f]+)", function)
            said = qemu.do(f"xp /1wx 0x{bar[1]}") if bar else ""
        # Only an access of the right width is answered; a copy would show the same to all.
        assert "0xff" in qemu.do(f"xp /1bx 0x{bar[1]}")  # type: ignore[index]
        qemu.quit()


def test_device_del_takes_everything_back(control: str) -> None:
    """QEMU's orderly way out: triggers off, device closed, DMA unmapped, group out of its container."""
    command = [*VIRT, "-S", "-device", "pcie-root-port,id=rp0"]
    with Qemu(control, *command, options=("--machine", "edu")) as qemu:
        qemu.do("device_add vfio-pci,host=0000:00:01.0,id=edu,bus=rp0")
        assert "vfio-device" in {file["kind"] for file in qemu.ask(op="show", view="files")}  # type: ignore[attr-defined]
        qemu.do("device_del edu")
        deadline = time.monotonic() + SECONDS
        while qemu.ask(op="show", view="files"):
            assert time.monotonic() < deadline, qemu.ask(op="show", view="files")
        qemu.quit()


def test_hybrid_gives_edu_to_a_guest_of_the_real_kvm(control: str) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm to use")
    machine = ["-M", "q35", "-accel", "kvm", "-m", "64", *QUIET, "-device", "pcie-root-port,id=rp0"]
    device = "vfio-pci,host=0000:00:01.0,bus=rp0"
    options = ("--machine", "edu", "--real", "kvm")
    with Qemu(control, X86_64, *machine, "-device", device, options=options) as qemu:
        deadline = time.monotonic() + SECONDS
        while "1234:11e8" not in qemu.do("info pci").lower():
            assert time.monotonic() < deadline
        assert "Invalid argument" not in qemu.quit()


def test_quit_on_the_control_channel_ends_the_program(xgmac: Qemu) -> None:
    xgmac.ask(op="quit")
    assert xgmac.process.wait(SECONDS) < 0
    assert not Path(xgmac.control).exists()
    with pytest.raises(KvmVfioEmuError, match="control socket"):
        xgmac.ask(op="check")
