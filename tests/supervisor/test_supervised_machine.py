"""A C VMM whose guest is machine code, under the supervisor."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kvmvfio_emu import uapi

IMAGES = Path(__file__).parents[2] / "docs" / "examples" / "baremetal"
#: By the width of the guest's CPU: the VMM's arguments, and how the client with a guest of its own is built.
GUESTS = {64: [str(IMAGES / "guest.bin")], 32: ["-32", str(IMAGES / "guest32.bin")]}
FEW, MANY, MOST_SECONDS = 50, 10_000, 300
FLAGS = {64: (), 32: ("-DGUEST32",)}


@pytest.fixture(params=[64, 32])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize(
    ("profile", "width", "vcpus", "interrupts"),
    [
        ("rfc-2014", 64, 1, FEW),
        ("rfc-2014", 64, 2, FEW),
        ("rfc-2014", 32, 1, FEW),
        ("rfc-2014", 32, 2, FEW),
        ("rfc-2014-arm", 32, 1, FEW),
        ("rfc-2014-arm", 32, 2, MANY),
    ],
)
@pytest.mark.parametrize("mode", ["unforwarded", "forwarded"])
def test_bare_metal_guest(
    build: Callable[..., str],
    supervised: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    profile: str,
    width: int,
    mode: str,
    vcpus: int,
    interrupts: int,
) -> None:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    socket, count = os.fspath(tmp_path / "emu.sock"), str(interrupts)
    flags = ("-DKVMVFIO_EMU_ARM32",) if profile == "rfc-2014-arm" else ()
    vmm = [build("vmm", *flags), *GUESTS[width], mode, count, str(vcpus)]
    done = supervised("--profile", profile, "--control", socket, "--", *vmm, timeout=MOST_SECONDS)
    assert done.returncode == 0, done.stderr
    counted = dict(line.split() for line in done.stdout.splitlines())
    assert counted["line_up"] == counted["handled"] == counted["guest_iar"] == counted["guest_eoi"] == count
    assert counted["hw_deactivate"] == (count if mode == "forwarded" else "0")
    assert counted["vmexit_maint"] == ("0" if mode == "forwarded" else count)


@pytest.fixture
def run(
    build: Callable[..., str], supervised: Callable[..., subprocess.CompletedProcess[str]], width: int
) -> Callable[..., dict[str, str]]:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")

    def answers(*arguments: str) -> dict[str, str]:
        done = supervised("--", build("machine", *FLAGS[width]), *arguments)
        assert done.returncode == 0, done.stderr
        return dict(line.split(" ", 1) for line in done.stdout.splitlines())

    return answers


@pytest.mark.parametrize("memory", ["private", "file"])
def test_memory_is_the_clients_at_each_exit(run: Callable[..., dict[str, str]], memory: str) -> None:
    assert run("increment", memory) == {"right": "20"}


@pytest.mark.parametrize("memory", ["private", "file"])
def test_a_guest_sees_what_other_threads_store(run: Callable[..., dict[str, str]], memory: str) -> None:
    assert run("poll", memory) == {"run": "0 0", "value": "7"}


@pytest.mark.parametrize("memory", ["private", "file"])
def test_an_unmapped_page_is_efault_until_it_is_there(run: Callable[..., dict[str, str]], memory: str) -> None:
    assert run("fault", memory) == {"run": "-1 EFAULT", "again": "-1 EINTR"}


def test_a_signal_ends_an_endless_loop(
    build: Callable[..., str], supervised: Callable[..., subprocess.CompletedProcess[str]], width: int
) -> None:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    done = supervised("--", build("machine", *FLAGS[width]), "endless")
    assert done.stdout.splitlines() == ["run -1 EINTR", f"reason {uapi.KVM_EXIT_INTR}"]
    assert re.search(r'"vmexit_signal": 1\b', done.stderr)  # it did not go back into the guest to be told again


@pytest.mark.parametrize("memory", ["private", "file"])
def test_gicv3_by_coprocessor_15(
    build: Callable[..., str], supervised: Callable[..., subprocess.CompletedProcess[str]], memory: str
) -> None:
    """A 32-bit guest sends itself an interrupt, takes it at its vector and completes it."""
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    profile = ("--profile", "linux-6.12", "--machine", "oracle-virt", "--gic", "v3")
    done = supervised(*profile, "--", build("machine", *FLAGS[32]), "gicv3", memory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["acknowledged 3", "priority 255"]
