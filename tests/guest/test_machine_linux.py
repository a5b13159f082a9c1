"""Linux boots: Debian's kernels, unchanged, on two vCPUs, to a first process. `kernels.sh` gets them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from linux_init import HELLO, initrd

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "linux.py"
KERNELS = os.environ.get("KVMVFIO_EMU_KERNELS", "")


@pytest.mark.parametrize(("architecture", "gic"), [("arm64", "v2"), ("arm64", "v3"), ("armhf", "v2")])
def test_linux_boots(architecture: str, gic: str, tmp_path: Path) -> None:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    image = Path(KERNELS, f"vmlinuz-{architecture}")
    if not KERNELS or not image.is_file():
        pytest.skip(f"no vmlinuz-{architecture} in a directory that KVMVFIO_EMU_KERNELS names")
    if shutil.which("dtc") is None:
        pytest.skip("no dtc")
    system = tmp_path / "initrd"
    system.write_bytes(initrd(architecture))
    # The self-tests of the kernel's ciphers would take most of the time.
    options = ["--cpus", "2", "--gic", gic, "--initrd", os.fspath(system), "--append", "cryptomgr.notests"]
    done = subprocess.run([sys.executable, EXAMPLE, *options, image], stdout=subprocess.PIPE, timeout=600)
    console = done.stdout.decode(errors="replace").replace("\r\n", "\n")
    assert done.returncode == 0, console
    assert "SMP: Total of 2 processors activated" in console
    assert HELLO.decode() in console
    assert console.endswith("switched off\n")
    for trouble in ("Oops", "BUG:", "WARNING:", "rcu: INFO"):
        assert trouble not in console, console
