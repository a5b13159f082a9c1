"""Asks every emulated kernel of which real answers were recorded, and writes what came of it for the documentation.

    python tests/conform/record.py

The page docs/explanation/fidelity.md shows the file; it holds counts only, as they were measured.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "docs" / "explanation" / "conformance.json"
RUNS = [(profile, gic) for profile in ("linux-6.1", "linux-6.12") for gic in (2, 3)]
#: Answers of an x86 kernel, which a probe that is built for another architecture does not ask for.
X86 = ("linux-6.18-x86", None)


def measure(profile: str, gic: int | None) -> dict[str, object]:
    """The counts of one run."""
    command = [sys.executable, "-m", "kvmvfio_emu.cli.main", "conform", "--json", "--profile", profile]
    if gic is not None:
        command += ["--gic", f"v{gic}"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)
    sections = {name: {"given": row["given"], "equal": row["equal"]} for name, row in found["sections"].items()}
    unexplained = sum(one["known"] is None for one in found["differences"])
    print(f"{profile} {gic or ''}: {found['all']['percent']} %, {unexplained} differences that are not known")
    return {"profile": profile, "gic": gic, "kernel": found["kernel"], "sections": sections}


if __name__ == "__main__":
    runs = [*RUNS, X86] if platform.machine() == "x86_64" else RUNS
    RESULTS.write_text(json.dumps([measure(*run) for run in runs], indent=1) + "\n", encoding="utf-8")
