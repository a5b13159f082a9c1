"""README's test file finds the bug that it seeds, and prints an order that replays, in the page's words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kvmvfio_emu.testing import Life

ROOT = Path(__file__).parents[2]


def test_the_users_test_file_finds_its_bug(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "TestCase" in block)
    (shown,) = (block for block in re.findall(r"^```text\n(.*?)^```", page, re.M | re.S) if "replay with" in block)
    assert len(code.splitlines()) <= 15
    (tmp_path / "test_vmm.py").write_text(code, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        "from hypothesis import settings\nsettings.register_profile('same', derandomize=True)\n"
        "settings.load_profile('same')\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_vmm.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "forwarded, and masked by VFIO" in run.stdout
    script = re.search(r"replay with: MyVmm.replay\('(.*)'\)", run.stdout)
    assert script is not None
    assert 2 <= len(script[1].split(";")) <= 5, script[1]
    assert re.search(r"what happened inside:\nE +\d+ .*line_up irq=", run.stdout)
    namespace: dict[str, type[Life]] = {}
    exec(code, namespace)  # what it prints here, and what the page shows, fail again
    on_the_page = re.search(r"replay with: MyVmm.replay\('(.*)'\)", shown)
    assert on_the_page is not None
    for text in (script[1], on_the_page[1]):
        with pytest.raises(AssertionError, match="forwarded, and masked by VFIO"):
            namespace["MyVmm"].replay(text)
