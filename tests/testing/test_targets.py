"""Targets: one player, three ways into a kernel; a program that dies or hangs; what may not be played."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host as KernelHost
from kvmvfio_emu.strategies import Setting, beginning
from kvmvfio_emu.testing import real, targets
from kvmvfio_emu.testing.player import ARENA, Call
from kvmvfio_emu.testing.targets import Host, InProcess, Program, Supervised, connect, dangerous

X86 = "linux-6.18-x86"
KVM = frozenset({"kvm", "vm", "vcpu", "device"})
needs_host = pytest.mark.skipif(
    (real.missing() or real.cannot_serve(X86)) is not None, reason="no real KVM that the x86 profile stands for"
)
OPEN: Call = {"do": "open", "path": "/dev/kvm", "kind": "kvm"}
CREATE: Call = {"do": "ioctl", "on": ["kvm", 0], "number": uapi.KVM_CREATE_VM, "argument": 0, "gives": "vm"}
TWICE: Call = {"do": "ioctl", "on": ["vm", 0], "number": uapi.KVM_CREATE_IRQCHIP, "argument": 0}


@pytest.fixture
def emu() -> Iterator[InProcess]:
    target = InProcess(X86)
    yield target
    target.close()


def test_each_sequence_meets_a_fresh_kernel_which_says_why_it_refuses(emu: InProcess) -> None:
    for _ in range(2):
        played = emu.play([OPEN, CREATE, TWICE, TWICE])
        assert [outcome[:2] for outcome in played.outcomes] == [["new", "0"], ["new", "0"], [0, "0"], [-1, "EEXIST"]]
        assert played.reasons == {3: "the virtual machine has interrupt controllers"}


def test_what_our_kernel_raises_is_an_outcome(emu: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: KernelHost, path: str) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(KernelHost, "open", broken)
    assert emu.play([OPEN, CREATE]).outcomes == [["raised", "RuntimeError: no such thing"]]
    monkeypatch.undo()
    assert emu.play([OPEN]).outcomes == [["new", "0"]]


def supervised() -> Supervised:
    try:
        return Supervised(X86)
    except KvmVfioEmuError as error:
        if "seccomp" not in str(error):
            raise
        pytest.skip(f"cannot supervise here: {error}")


def test_the_supervised_player_answers_as_the_one_in_process(emu: InProcess) -> None:
    run = supervised()
    calls = beginning(Setting(X86), KVM)
    assert run.play(calls).outcomes == emu.play(calls).outcomes
    assert run.play([TWICE]).outcomes == emu.play([TWICE]).outcomes == [[-1, "EBADF", []]]
    run.close()


@needs_host
def test_the_host_answers_as_the_one_in_process(emu: InProcess) -> None:
    host = Host(X86)
    calls = beginning(Setting(X86), KVM)
    for _ in range(2):
        assert host.play(calls).outcomes == emu.play(calls).outcomes
    host.close()


# -- programs that end badly ---------------------------------------------------------------------------------------

_ECHO = "import sys\nfor line in sys.stdin:\n    "


def test_a_program_that_dies_says_how_and_the_next_sequence_gets_another_one() -> None:
    death = (
        "import os; print('[1, \"0\"]', flush=True); os.kill(os.getpid(), 11) if 'die' in line else print(flush=True)"
    )
    program = Program([sys.executable, "-c", _ECHO + death])
    assert program.play([OPEN]).outcomes == [[1, "0"]]
    assert program.play([{"do": "die"}]).outcomes == [[1, "0"], ["died", "SIGSEGV"]]
    assert program.play([OPEN]).outcomes == [[1, "0"]]
    program.close()


def test_a_program_that_exits_says_with_what() -> None:
    program = Program([sys.executable, "-c", "raise SystemExit(3)"])
    assert program.play([OPEN]).outcomes == [["died", "exit status 3"]]
    program.close()


def test_a_program_that_never_answers_is_given_up() -> None:
    program = Program([sys.executable, "-c", _ECHO + "import time; time.sleep(3600)"], seconds=0.1)
    assert program.play([OPEN]).outcomes == [["hung", "0.1 s"]]
    program.close()


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(KvmVfioEmuError, match="the player cannot be started"):
        Program(["/nonexistent"]).play([OPEN])


# -- who can serve -------------------------------------------------------------------------------------------------


def test_names_that_mean_nothing() -> None:
    with pytest.raises(KvmVfioEmuError, match="no target 'hosts'; there are emu, run, host"):
        connect("hosts", X86)
    with pytest.raises(KvmVfioEmuError, match=r"no profile 'linux-0\.1'"):
        connect("run", "linux-0.1")


def test_a_host_without_kvm_or_of_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "missing", lambda: "no real KVM here: [Errno 2]")
    with pytest.raises(KvmVfioEmuError, match="no real KVM here"):
        connect("host", X86)
    monkeypatch.setattr(real, "missing", lambda: None)
    monkeypatch.setattr(real.platform, "machine", lambda: "riscv64")
    with pytest.raises(KvmVfioEmuError, match="is a kernel for x86_64, this host's is for riscv64"):
        connect("host", X86)


# -- what may not be played ----------------------------------------------------------------------------------------


def region(size: int, **more: object) -> Call:
    packed = uapi.pack("struct kvm_userspace_memory_region", memory_size=size, userspace_addr=ARENA)
    return {
        "do": "ioctl",
        "on": ["vm", 0],
        "number": uapi.KVM_SET_USER_MEMORY_REGION,
        "memory": [[0, packed.hex()]],
        **more,
    }


def test_dangerous_calls_are_told() -> None:
    assert dangerous({"do": "ioctl", "on": ["vcpu", 0], "number": uapi.KVM_RUN, "argument": 0}) is not None
    assert dangerous(region(1 << 40)) is not None
    assert dangerous(region(1 << 40, argument=ARENA)) is not None
    assert dangerous(region(1 << 20)) is None
    assert dangerous(region(1 << 60)) is None  # refused by every kernel
    assert dangerous(region(1 << 40, argument=0x10)) is None
    assert dangerous(OPEN) is None


def test_names_are_those_of_the_command_line() -> None:
    assert targets.NAMES == ("emu", "run", "host")
