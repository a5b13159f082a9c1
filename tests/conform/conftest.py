"""What the runs need of the host: a C compiler, and that programs can be supervised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvmvfio_emu.conform import probe
from kvmvfio_emu.kernel.errors import KvmVfioEmuError


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe, with the questions of arm64; skips where it cannot be built or supervised."""
    try:
        probe.compiler()
    except KvmVfioEmuError as error:
        pytest.skip(str(error))
    run = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run", "--", "true"]
    first = subprocess.run(run, capture_output=True, text=True, timeout=60)
    if first.returncode and "seccomp" in first.stderr:
        pytest.skip(f"cannot supervise here: {first.stderr.strip()}")
    return probe.build(tmp_path_factory.mktemp("probe"))
