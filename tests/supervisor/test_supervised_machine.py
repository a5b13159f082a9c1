"""A C VMM whose guest is machine code, under the supervisor."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

IMAGE = Path(__file__).parents[2] / "docs" / "examples" / "baremetal" / "guest.bin"


@pytest.mark.parametrize("vcpus", [1, 2])
@pytest.mark.parametrize("mode", ["unforwarded", "forwarded"])
def test_bare_metal_guest(
    build: Callable[..., str],
    supervised: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    mode: str,
    vcpus: int,
) -> None:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    socket = os.fspath(tmp_path / "emu.sock")
    vmm = [build("vmm"), str(IMAGE), mode, "50", str(vcpus)]
    done = supervised("--profile", "rfc-2014", "--control", socket, "--", *vmm)
    assert done.returncode == 0, done.stderr
    counted = dict(line.split() for line in done.stdout.splitlines())
    assert counted["line_up"] == counted["handled"] == counted["guest_eoi"] == "50"
    assert counted["hw_deactivate"] == ("50" if mode == "forwarded" else "0")
    assert counted["vmexit_maint"] == ("0" if mode == "forwarded" else "50")
