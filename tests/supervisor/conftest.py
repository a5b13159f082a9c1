"""Builds the C clients and runs them under the supervisor."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from kvmvfio_emu import uapi

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "docs" / "examples"
SECONDS = 60
#: Whether a user's Python can import us, and start itself again.
PROBE = """
import kvmvfio_emu, os, sys
kvmvfio_emu.Kernel()
assert os.access(sys.executable, os.X_OK), sys.executable
print(kvmvfio_emu.__file__)
"""
COMMAND = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run"]


@pytest.fixture(scope="session")
def build() -> Iterator[Callable[..., str]]:
    """``build(name, *flags)``: compile a client (or an example) against our headers; the path of the program."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    directory = Path(tempfile.mkdtemp(prefix="kvmvfio-emu-clients-"))
    directory.chmod(0o755)  # and nothing above it is private, as pytest's own directory is: "nobody" runs them, too

    def compile_(name: str, *flags: str) -> str:
        source = next(path for path in (HERE / "clients" / f"{name}.c", EXAMPLES / f"{name}.c") if path.exists())
        program = directory / "-".join((name, *(flag.strip("-") for flag in flags)))
        if not program.exists():
            command = [compiler, "-O1", "-Wall", "-I", str(uapi.include_dir()), *flags, "-o", str(program), str(source)]
            subprocess.run([*command, "-lpthread"], check=True)
        return str(program)

    yield compile_
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def supervised() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``supervised(*options, "--", *argv)``: what `kvmvfio-emu run` did; fails if files stayed open.

    ``prefix``: a command that runs ours. The other keywords are those of `subprocess.run`.
    Skips where the host cannot do it at all (no user notification, or a seccomp profile that forbids it).
    """

    def run(*arguments: str, prefix: Sequence[str] = (), **kwargs: object) -> subprocess.CompletedProcess[str]:
        command = [*prefix, *COMMAND, "--report", *arguments]
        kwargs = {"timeout": SECONDS, **kwargs}
        done = subprocess.run(command, capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]
        assert "Traceback" not in done.stderr, done.stderr
        assert "0 open files" in done.stderr, done.stderr
        return done

    probe = subprocess.run(
        [*COMMAND, "--", "true"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    if probe.returncode and "seccomp" in probe.stderr:
        pytest.skip(f"cannot supervise here: {probe.stderr.strip()}")
    assert probe.returncode == 0, probe.stderr
    return run


@pytest.fixture(scope="session")
def unprivileged() -> Iterator[tuple[list[str], dict[str, str]]]:
    """A command and an environment to put before ``-m kvmvfio_emu...``: a Python that user nobody runs us with.

    From a copy, since where we are may not be readable to others.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    directory = Path(tempfile.mkdtemp(prefix="kvmvfio-emu-nobody-"))
    directory.chmod(0o755)
    shutil.copytree(HERE.parents[1] / "kvmvfio_emu", directory / "kvmvfio_emu")
    shutil.copytree(HERE.parents[1] / "include", directory / "include")
    for name in ("cffi", "_cffi_backend", "pycparser", "construct"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, directory / name)
        else:
            shutil.copy(origin, directory)
    environment = {**os.environ, "PYTHONPATH": str(directory), "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        for python in dict.fromkeys(("/usr/bin/python3", sys.executable)):
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python]
            probe = [*command, "-c", PROBE]
            done = subprocess.run(probe, env=environment, cwd="/", capture_output=True, text=True)
            if done.stdout.startswith(str(directory)):
                break
        else:
            pytest.skip(f"nobody has no Python that can import us: {done.stderr[-200:]}")
        yield command, environment
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def control(tmp_path: Path) -> str:
    """A path for a control socket, short enough for AF_UNIX."""
    path = f"/tmp/kvmvfio-emu-{os.getpid()}.sock"
    Path(path).unlink(missing_ok=True)
    return path
