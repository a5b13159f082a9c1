"""`kvmvfio-emu fuzz`: a difference that is there is found, made small, told and replayed; known ones are explained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.cli.main import main
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.strategies import Setting
from kvmvfio_emu.testing import real, targets
from kvmvfio_emu.testing.fuzz import known, replay
from kvmvfio_emu.testing.fuzz.campaign import Campaign, Found
from kvmvfio_emu.testing.fuzz.compare import ERRNO, VALUE, Difference, compare, name_of
from kvmvfio_emu.testing.fuzz.known import Known
from kvmvfio_emu.testing.fuzz.script import Script
from kvmvfio_emu.testing.player import Arena, Call
from kvmvfio_emu.testing.targets import InProcess, Played

X86 = "linux-6.18-x86"
KVM = frozenset({"kvm", "vm", "vcpu", "device"})
#: A kernel that does not take an eventfd's count when it is signalled; and one in which something simpler is wrong.
WRONG = replace(profiles.load(X86), eventfd_drained=False)
PLAINLY_WRONG = replace(profiles.load(X86), memory_region2=False)


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena()
    yield arena
    arena.close()


def campaign(arena: Arena, wrong: profiles.Profile = WRONG, **more: Any) -> Campaign:
    """The right kernel against a wrong one."""
    pair = (InProcess(X86, arena=arena), InProcess(wrong, arena=arena))
    return Campaign(pair, Setting(X86), KVM, **{"seed": 3, "examples": 5000, "times": 1, **more})


def names(found: Found) -> list[str]:
    return [name_of(call) for call in found.calls]


# -- a difference --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found() -> Found:
    arena = Arena()
    found = campaign(arena).run()
    arena.close()
    assert found is not None
    return found


def test_a_seeded_difference_is_found_and_made_small(found: Found) -> None:
    # The eventfd, its irqfd, its signal; a controller, so that there can be an irqfd.
    assert {"KVM_CREATE_VM", "KVM_IRQFD", "eventfd", "signal"} <= set(names(found))
    assert len(found.calls) <= 8
    assert found.difference.left != found.difference.right


def test_it_can_be_played_again_from_a_file(found: Found, arena: Arena, tmp_path: Path) -> None:
    path = tmp_path / "found.txt"
    head = replay.Head(("emu", "run"), X86, "x86-vm", 2)
    replay.write(path, head, found.calls, "two lines\nof text")
    assert replay.read(path) == (head, found.calls)
    again = campaign(arena).steady(replay.read(path)[1])
    assert again is not None
    assert again.difference == found.difference


def test_it_is_told_with_names_fields_and_reasons(arena: Arena) -> None:
    played = InProcess(X86, arena=arena)
    calls = [
        {"do": "open", "path": "/dev/kvm", "kind": "kvm"},
        {"do": "ioctl", "on": ["kvm", 0], "number": uapi.KVM_CREATE_VM, "argument": 0, "gives": "vm"},
        {"do": "eventfd", "count": 1},
        {"do": "dup", "kind": "eventfd", "place": 0},
        {"do": "close", "kind": "eventfd", "place": 0},
        {
            "do": "ioctl",
            "on": ["vm", 0],
            "number": uapi.KVM_IRQFD,
            "memory": [[0, uapi.pack("struct kvm_irqfd", gsi=5).hex()]],
            "fds": [[0, "eventfd", 0]],
        },
    ]
    why = played.play(calls)
    other = Played([*why.outcomes[:-2], [0, "0", [[32, "01000000"]]], why.outcomes[-1]])
    difference = compare(calls, why, other).difference
    assert difference == Difference(5, why.outcomes[5], [0, "0", [[32, "01000000"]]])
    text = Script(Setting(X86)).report(calls, difference, {"emu": why, "host": other}, why)
    assert text.splitlines() == [
        '    1  open("/dev/kvm") = kvm 0',
        "    2  KVM_CREATE_VM(kvm 0, 0) = vm 0",
        "    3  eventfd(1) = eventfd 0",
        "    4  dup(eventfd 0) = eventfd 1",
        "    5  close(eventfd 0) = 0",
        "    6  KVM_IRQFD(vm 0, {fd=<eventfd 1>, gsi=5, flags=0})",
        "       emu:   -1 EINVAL (Invalid argument)",
        "       host:  0, wrote 0x600000000020: 01000000",
        "       why emu says so: no irqfd with interrupt controllers 'none'",
    ]


def test_the_same_kernel_twice_does_not_differ(arena: Arena) -> None:
    same = campaign(arena, profiles.load(X86), examples=40)
    assert same.run() is None
    assert same.reached.sequences >= 40


def test_one_end_of_a_target_is_a_difference_that_no_rule_explains() -> None:
    calls: list[Call] = [{"do": "eventfd", "count": 0}]
    rule = Known("*", ERRNO, "anything")
    ended = compare(calls, Played([["new", "0"], [-1, "EAGAIN"]]), Played([["died", "SIGSEGV"]]), [rule])
    assert ended.difference == Difference(0, ["new", "0"], ["died", "SIGSEGV"])


class Fickle(InProcess):
    """Answers otherwise now and then."""

    times = 0

    def play(self, calls: list[Call]) -> Played:
        self.times += 1
        played = super().play(calls)
        return Played([]) if self.times == 3 else played


def test_what_is_not_there_again_is_counted_only(arena: Arena) -> None:
    unsteady = Campaign((InProcess(X86, arena=arena), Fickle(X86, arena=arena)), Setting(X86), KVM, seed=1, examples=10)
    assert unsteady.run() is None
    assert unsteady.unsteady == 1


class Gone(InProcess):
    """Cannot be booted any more after a while; then Ctrl-C."""

    error: BaseException = KvmVfioEmuError("no descriptors")
    left = 5

    def play(self, calls: list[Call]) -> Played:
        self.left -= 1
        if not self.left:
            raise self.error
        return super().play(calls)


@pytest.mark.parametrize("error", [KvmVfioEmuError("no descriptors"), KeyboardInterrupt()])
def test_what_was_reached_is_kept(arena: Arena, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(Gone, "error", error)
    ended = Campaign((InProcess(X86, arena=arena), Gone(X86, arena=arena)), Setting(X86), KVM, seed=1, examples=50)
    assert ended.run() is None
    assert ended.reached.sequences == 4
    assert (ended.trouble, ended.interrupted) == (("", True) if error.args == () else ("no descriptors", False))


def test_time_ends_it_by_the_clock(arena: Arena) -> None:
    ticks = iter(range(1000))
    timed = campaign(arena, profiles.load(X86), seconds=20, examples=None, clock=lambda: float(next(ticks)))
    assert timed.run() is None
    assert 0 < timed.reached.sequences <= 20


# -- known differences ---------------------------------------------------------------------------------------------

ASK: Call = {"do": "ioctl", "on": ["kvm", 0], "number": uapi.KVM_CHECK_EXTENSION, "argument": uapi.KVM_CAP_NR_VCPUS}
SET: Call = {"do": "ioctl", "on": ["vm", 0], "number": uapi.KVM_ENABLE_CAP}


def test_a_known_value_lets_the_sequence_go_on_and_a_known_errno_ends_it() -> None:
    value = Known("KVM_CHECK_*", VALUE, "their processors", on="kvm", argument=("KVM_CAP_NR_VCPUS",))
    refusal = Known("KVM_ENABLE_CAP", ERRNO, "not built in")
    left = Played([[2, "0", []], [0, "0", []], [0, "0", []]])
    right = Played([[4, "0", []], [-1, "EINVAL", []], [5, "0", []]])
    calls = [ASK, SET, SET]
    assert compare(calls, left, right, [value, refusal]) == (None, [value, refusal])
    assert compare(calls, left, right, [value]) == (Difference(1, [0, "0", []], [-1, "EINVAL", []]), [value])
    assert compare(calls, left, right, [refusal]).difference == Difference(0, [2, "0", []], [4, "0", []])
    other = [ASK | {"argument": uapi.KVM_CAP_IRQCHIP}, *calls[1:]]
    assert compare(other, left, right, [value, refusal]).explained == []


def test_rules_are_for_targets_and_profiles(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(
        '[[difference]]\ncalls = "a"\ndiffers = "value"\nreason = "r"\ntargets = ["host"]\n'
        '[[difference]]\ncalls = "b"\ndiffers = "errno"\nreason = "r"\nprofiles = ["mainline"]\n'
    )
    assert [rule.calls for rule in known.load(path, "mainline", ("emu", "run"))] == ["b"]
    assert [rule.calls for rule in known.load(path, X86, ("emu", "host"))] == ["a"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[difference", "Expected"),
        ("other = 1", "unknown keys other"),
        ('[[difference]]\ncalls = "a"\ndiffers = "value"', "needs calls, differs"),
        ('[[difference]]\ncalls = "a"\ndiffers = "much"\nreason = "r"', "value or errno"),
        ('[[difference]]\ncalls = 1\ndiffers = "value"\nreason = "r"', "calls = 1"),
    ],
)
def test_rules_that_are_none(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(KvmVfioEmuError, match=told):
        known.load(path, X86, ("emu", "host"))


def test_the_reviewed_rules_can_be_read_and_mask_no_errno() -> None:
    rules = known.load(known.REVIEWED, X86, ("emu", "host"))
    assert rules
    assert all(rule.differs == VALUE for rule in rules)
    assert known.load(known.REVIEWED, X86, ("emu", "run")) == []


# -- how far it gets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "machine", "gic", "kinds", "accepted"),
    [
        (X86, None, None, KVM, 18),
        ("linux-6.12", "oracle-virt", 2, None, 26),
        ("linux-6.12", "oracle-virt", 3, None, 22),
        ("rfc-2014", None, None, None, 16),
    ],
)
def test_what_is_drawn_gets_somewhere(
    arena: Arena, profile: str, machine: str | None, gic: int | None, kinds: frozenset[str] | None, accepted: int
) -> None:
    pair = (InProcess(profile, machine, gic, arena=arena), InProcess(profile, machine, gic, arena=arena))
    drawn = Campaign(pair, Setting(profile, machine, gic), kinds, seed=1, examples=120)
    # Far below what is usual: Hypothesis draws by what is loaded, too.
    assert drawn.run() is None
    reached = drawn.reached
    assert reached.share >= 0.4, reached
    assert len(reached.accepted) >= accepted, reached
    assert reached.pairs >= 70, reached
    assert len(reached.reasons) >= 20, reached


# -- the command ---------------------------------------------------------------------------------------------------


class WrongRun(InProcess):
    """Stands for the supervised kernel, and is wrong."""

    name = "run"
    arena: Arena

    def __init__(self, profile: str, machine: str | None = None, gic: int | None = None) -> None:
        super().__init__(PLAINLY_WRONG, machine, gic, arena=self.arena)


class RightEmu(WrongRun):
    """The kernel in process, with the same arena."""

    name = "emu"

    def __init__(self, profile: str, machine: str | None = None, gic: int | None = None) -> None:
        InProcess.__init__(self, profile, machine, gic, arena=self.arena)


@pytest.fixture
def wrong_run(arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(WrongRun, "arena", arena, raising=False)
    monkeypatch.setitem(targets._TARGETS, "run", WrongRun)
    monkeypatch.setitem(targets._TARGETS, "emu", RightEmu)
    return tmp_path / "saved.txt"


KINDS = ["--kinds", ",".join(sorted(KVM))]


def test_the_command_reports_saves_and_replays(wrong_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fuzz", "--targets", "emu,run", "--profile", X86, "--seed", "3", "--examples", "3000", *KINDS]
    assert main([*arguments, "--save", str(wrong_run)]) == 1
    text = capsys.readouterr().out
    assert text.startswith(f"emu and run, profile {X86} differ in the last of these calls:\n    1  ")
    assert f"\nPlay it again: kvmvfio-emu fuzz --replay {wrong_run}\n" in text
    assert "% of the calls succeeded" in text
    assert main(["fuzz", "--replay", str(wrong_run)]) == 1
    again = capsys.readouterr().out
    assert again.splitlines()[1:4] == text.splitlines()[1:4]
    assert main(["fuzz", "--replay", str(wrong_run), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["difference"]["answers"].keys() == {"emu", "run"}
    assert data["difference"]["calls"] == replay.read(wrong_run)[1]


def test_the_database_remembers(wrong_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fuzz", "--targets", "emu,run", "--profile", X86, "--examples", "3000", *KINDS, "--json"]
    more = ["--database", str(tmp_path / "db"), "--save", str(wrong_run)]
    assert main([*arguments, *more, "--seed", "3"]) == 1
    first = json.loads(capsys.readouterr().out)["reached"]["sequences"]
    assert main([*arguments, *more, "--seed", "2"]) == 1
    assert json.loads(capsys.readouterr().out)["reached"]["sequences"] == 1 < first


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--targets", "emu"], "two different targets are compared, of emu, run, host, not emu"),
        (["--targets", "emu,emu"], "two different targets"),
        (["--targets", "emu,qemu"], "no target 'qemu'"),
        (["--targets", "emu,run", "--profile", "linux-0.1"], "no profile 'linux-0.1'"),
        (["--targets", "emu,run", "--kinds", "kvm,disk"], "no kind of file 'disk'"),
        (["--targets", "emu,run", "--machine", "toaster"], "toaster"),
        (["--targets", "emu,host", "--kinds", "group"], "group files are not played with on this host"),
        (["--replay", "/nonexistent"], "No such file"),
    ],
)
def test_wrong_uses_are_told(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--time", "0"], ["--time", "nan"], ["--examples", "-1"], ["--gic", "v4"]])
def test_numbers_that_are_none(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fuzz", *arguments])
    assert ended.value.code == 2
    assert "invalid" in capsys.readouterr().err


def test_no_kvm_and_a_profile_of_another_architecture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(real, "missing", lambda: "no real KVM here: [Errno 2]")
    assert main(["fuzz"]) == 2
    assert "no real KVM here" in capsys.readouterr().err
    monkeypatch.setattr(real, "missing", lambda: None)
    monkeypatch.setattr(real.platform, "machine", lambda: "x86_64")
    assert main(["fuzz", "--profile", "linux-6.12"]) == 2
    assert "profile linux-6.12 is a kernel for arm64, this host's is for x86_64" in capsys.readouterr().err


HEAD = '{"targets": ["emu", "host"], "profile": "linux-6.18-x86"}\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ("# only\n{nonsense\n", ":2: Expecting"),
        ("[]\n", ":1: not an object"),
        ('{"profile": "x"}\n', ':1: the first line names "targets"'),
        ('{"targets": ["emu", "host"]}\n', ':1: the first line names a "profile"'),
        (HEAD[:-2] + ', "more": 1}\n', ":1: .*more"),
        (HEAD + '{"do": "fork"}\n', ":2: \"do\" is one of open, .*, not 'fork'"),
        (HEAD + '\n{"do": "close", "kind": "vm"}\n', ":3: missing a required argument: 'place'"),
        (HEAD + '{"do": "open", "path": "/etc/passwd", "kind": "kvm"}\n', ":2: open: path cannot be"),
        (HEAD + '{"do": "ioctl", "on": ["vm", 0], "number": 21505}\n', ":2: ioctl: number cannot be"),
        (HEAD + '{"do": "ioctl", "on": ["vm", 0], "number": 44672}\n', ":2: KVM_RUN would run"),
        (
            HEAD + '{"do": "ioctl", "on": ["vm", 0], "number": 44609, "memory": [[65535, "0000"]]}\n',
            ":2: ioctl: memory",
        ),
    ],
)
def test_files_that_cannot_be_replayed(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(KvmVfioEmuError, match=told):
        replay.read(path)


@pytest.mark.skipif(
    (real.missing() or real.cannot_serve(X86)) is not None, reason="no real KVM that the x86 profile stands for"
)
def test_the_host_answers_as_we_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Only what is x86's, and what all have in common."""
    arguments = ["--targets", "emu,host", "--seed", "1", "--examples", "40", "--save", str(tmp_path / "found.txt")]
    status = main(["fuzz", *arguments])
    assert status == 0, capsys.readouterr().out
