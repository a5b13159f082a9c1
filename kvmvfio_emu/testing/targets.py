"""Kernels that a sequence of calls can be played on, all by one player: so that one test can be asked of several.

``emu``: a `Kernel` in this process. ``run``: the player as a program under `kvmvfio-emu run`. ``host``: the same
program on this machine's own kernel; whatever becomes of it there, we live on.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kvmvfio_emu import Kernel, profiles, uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.profiles import Profile
from kvmvfio_emu.testing import player, real
from kvmvfio_emu.testing.player import ARENA, ARENA_SIZE, Arena, Call, Outcome, Player

#: Seconds for one sequence, after which its program is given up.
SECONDS = 30.0
#: The last outcome of a target that did not get to the end: ["died", "SIGSEGV"], ["hung", "30 s"], ["raised", "..."].
ENDED = ("died", "hung", "raised")
#: The host's kernel injects interrupts and ends irqfds from threads of its own; nobody tells when they are done.
_PAUSE = 0.0005
_REGION = "struct kvm_userspace_memory_region"
_REGIONS = (uapi.KVM_SET_USER_MEMORY_REGION, uapi.KVM_SET_USER_MEMORY_REGION2)
#: Bytes of a memory slot that we dare to set up; more than the other every kernel refuses.
_LARGEST, _LARGEST_THERE_IS = 1 << 30, 1 << 43
_ADDRESS_SPACE, _DESCRIPTORS = 4 << 30, 256


def dangerous(call: Call) -> str | None:
    """Why a call must not be made on a real kernel, which is somebody's own; None when it may."""
    if call["do"] != "ioctl":
        return None
    if call["number"] == uapi.KVM_RUN:
        return "KVM_RUN would run whatever lies in memory, and may never end"
    if call["number"] in _REGIONS:
        memory, argument = bytearray(ARENA_SIZE), call.get("argument")
        start = 0 if argument is None else argument - ARENA
        for offset, data in call.get("memory", []):
            memory[offset : offset + len(data) // 2] = bytes.fromhex(data)
        region = bytes(memory[start : start + uapi.sizeof(_REGION)]) if 0 <= start < ARENA_SIZE else b""
        size = uapi.view(_REGION, region).memory_size if len(region) == uapi.sizeof(_REGION) else 0
        if _LARGEST < size <= _LARGEST_THERE_IS:
            return f"a memory slot of {size:#x} bytes makes the kernel allocate tables of that size"
    return None


@dataclass
class Played:
    """What each call came to, then the counts of the eventfds."""

    outcomes: list[Outcome]
    #: Why a call was refused, by its place, as far as that kernel tells.
    reasons: dict[int, str] = field(default_factory=dict)


class Target(Protocol):
    """One kernel. A target is made with a profile, a machine and a GIC version as for `Kernel`."""

    name: str

    def play(self, calls: list[Call]) -> Played:
        """Play a sequence on a kernel that knows nothing of earlier ones. KvmVfioEmuError: it cannot go on at all."""

    def close(self) -> None:
        """Give everything back."""


# ---- in process ------------------------------------------------------------------------------------------------------


class _InProcessDoor:
    """`Kernel` as the player wants it; notes why the last call was refused."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.reason: str | None = None

    def open(self, path: str) -> int:
        return self._told(lambda: self._kernel.open(path))

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        return self._told(lambda: int(self._kernel.ioctl(fd, request, argument)))

    def close(self, fd: int) -> None:
        self._kernel.close(fd)

    def settle(self) -> None:
        self._kernel.open_files()

    def _told(self, call: Callable[[], int]) -> int:
        try:
            return call()
        except OSError as error:
            self.reason = "; ".join(getattr(error, "__notes__", [])).removeprefix("emulated kernel: ") or None
            raise


class InProcess:
    """A `Kernel` that is booted for each sequence. ``arena``: one that exists already, which the caller gives back."""

    name = "emu"

    def __init__(
        self,
        profile: str | Profile = profiles.DEFAULT,
        machine: str | None = None,
        gic: int | None = None,
        *,
        arena: Arena | None = None,
    ) -> None:
        self._boot: Callable[[], Kernel] = lambda: Kernel(profile, machine, gic=gic)
        self._own = Arena() if arena is None else None
        self._arena = arena or self._own

    def play(self, calls: list[Call]) -> Played:
        """As `Target`; KvmVfioEmuError when none can be booted now. Whatever our kernel raises that is no errno, and a
        state that contradicts itself, is told as an outcome."""
        assert self._arena is not None, "the target is closed"
        played = Played([])
        try:
            booted = self._boot()
        except OSError as error:
            raise KvmVfioEmuError(f"no kernel can be booted now: {error}") from error
        with booted as kernel:
            door = _InProcessDoor(kernel)
            try:
                for place, outcome in enumerate(Player(door, self._arena).steps(calls)):
                    played.outcomes.append(outcome)
                    if door.reason is not None:
                        played.reasons[place] = door.reason
                        door.reason = None
                kernel.check()
                left = kernel.open_files()
                assert left == [], f"still open: {left}"
            except Exception as error:
                played.outcomes.append(["raised", f"{type(error).__name__}: {error}"])
        return played

    def close(self) -> None:
        """Give the arena back, if it is ours."""
        if self._own is not None:
            self._own.close()
        self._own = self._arena = None


# ---- the player as a program -----------------------------------------------------------------------------------------


class Program:
    """The player as a program, for many sequences. ``seconds``: for each.

    When it dies, or takes too long, that is an outcome; the next sequence gets a new one.
    """

    name = "program"

    def __init__(self, command: list[str], seconds: float = SECONDS) -> None:
        self._command = command
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._unread = b""
            pipe = subprocess.PIPE
            try:
                self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, start_new_session=True)
            except OSError as error:
                raise KvmVfioEmuError(f"the player cannot be started: {error}") from error
            self.bound(self._process.pid)
        return self._process

    def bound(self, pid: int) -> None:
        """Limit what the program can take."""

    def play(self, calls: list[Call]) -> Played:
        """As `Target`."""
        try:
            return self._play(calls)
        except BaseException:
            self.close()  # what it goes on to say would be taken for the next one's answers
            raise

    def _play(self, calls: list[Call]) -> Played:
        process = self._started()
        assert process.stdin is not None
        until = time.monotonic() + self._seconds
        outcomes: list[Outcome] = []
        try:
            process.stdin.write(json.dumps(calls).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return Played([self._ended()])
        while (line := self._line(process, until)) != b"\n":
            if line is None:
                return Played([*outcomes, self._ended()])
            outcomes.append(json.loads(line))
        return Played(outcomes)

    def _line(self, process: subprocess.Popen[bytes], until: float) -> bytes | None:
        """A line with its end; None when there is none any more, or not in time."""
        assert process.stdout is not None
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                return None
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                return None
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line + b"\n"

    def _ended(self) -> Outcome:
        """What became of the program: it is dead, or is killed now."""
        process, self._process = self._process, None
        assert process is not None
        try:
            status = process.wait(0.5)  # its output ended, or it is busy
            return ["died", signal.Signals(-status).name if status < 0 else f"exit status {status}"]
        except subprocess.TimeoutExpired:
            return ["hung", f"{self._seconds:g} s"]
        finally:
            self._end(process)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        """End a program and what it started, gently first: a supervisor has things to take down."""
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None and process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
                return

    def close(self) -> None:
        """End the program."""
        if self._process is not None:
            process, self._process = self._process, None
            self._end(process)


def _player(*arguments: str) -> list[str]:
    return [sys.executable, "-S", str(Path(player.__file__)), *arguments]


class Supervised(Program):
    """Under `kvmvfio-emu run`. KvmVfioEmuError when programs cannot be supervised here, or the names are no good."""

    name = "run"

    def __init__(
        self,
        profile: str = profiles.DEFAULT,
        machine: str | None = None,
        gic: int | None = None,
        seconds: float = SECONDS,
    ) -> None:
        run = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run", "--profile", profile]
        run += ["--machine", machine] if machine else []
        run += ["--gic", f"v{gic}"] if gic else []
        first = subprocess.run([*run, "--", "true"], capture_output=True, text=True, timeout=seconds)
        if first.returncode:
            raise KvmVfioEmuError(first.stderr.strip().removeprefix("kvmvfio-emu: "))
        super().__init__([*run, "--", *_player()], seconds)


class Host(Program):
    """The kernel that runs here. KvmVfioEmuError when it has no KVM for us, or cannot stand for the profile."""

    name = "host"

    def __init__(
        self,
        profile: str | Profile = profiles.DEFAULT,
        machine: str | None = None,
        gic: int | None = None,
        seconds: float = SECONDS,
    ) -> None:
        if (reason := real.missing() or real.cannot_serve(profile)) is not None:
            raise KvmVfioEmuError(reason)
        super().__init__(_player(str(_PAUSE)), seconds)

    def bound(self, pid: int) -> None:
        """Memory, descriptors; no core files."""
        resource.prlimit(pid, resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


_TARGETS: dict[str, type[InProcess] | type[Supervised] | type[Host]] = {
    target.name: target for target in (InProcess, Supervised, Host)
}
#: How they are called on command lines.
NAMES = tuple(_TARGETS)


def connect(name: str, profile: str, machine: str | None = None, gic: int | None = None) -> Target:
    """The target of that name. KvmVfioEmuError: there is none, or it cannot serve that profile here (it says why)."""
    if name not in _TARGETS:
        raise KvmVfioEmuError(f"no target {name!r}; there are {', '.join(NAMES)}")
    return _TARGETS[name](profile, machine, gic)
