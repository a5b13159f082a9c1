"""`kvmvfio-emu conform`: what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from kvmvfio_emu.cli.main import main
from kvmvfio_emu.conform import answers, probe

needs_compiler = pytest.mark.skipif(
    not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler to build the probe with"
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Path:
    """A run of one section, kept."""
    path = tmp_path_factory.mktemp("conform") / "run.jsonl"
    run = probe.ask(program, probe.Target("linux-6.12", "oracle-virt", 2), ["mem"])
    lines = [{"case": case, **answer._asdict()} for case, answer in run.cases.items()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def changed(ours: Path, directory: Path) -> Path:
    """Answers of a kernel that differs from ours in one case, and knows one more."""
    lines = [json.loads(line) for line in ours.read_text().splitlines()]
    lines[0] = {"case": lines[0]["case"], "ret": 77, "errno": "0", "out": {}}
    lines.append({"case": "mem/never-asked", "ret": 0, "errno": "0", "out": {}})
    path = directory / "kernel.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_equal_answers_are_success(ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "--answers", str(ours), "mem"]) == 0
    count = len(answers.load(ours).cases)
    assert count > 40
    assert ["mem", str(count), str(count), "0", "0", "100.0"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]


def test_a_difference_is_shown_and_fails(ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = changed(ours, tmp_path)
    assert main(["conform", "--answers", str(kernel), "--keep", str(tmp_path / "kept.jsonl")]) == 1
    text = capsys.readouterr().out
    assert "mem/null\n    kernel  77\n    ours    -1 EFAULT\n    reason  " in text
    assert "mem/never-asked\n    kernel  0\n    ours    no answer\n" in text
    assert answers.load(tmp_path / "kept.jsonl").cases == answers.load(ours).cases


def test_known_differences_are_success_and_stale_entries_are_told(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = tmp_path / "known.toml"
    known.write_text(
        '[[difference]]\ncases = "mem/n*"\nreason = "looked at"\n'
        '[[difference]]\ncases = "mem/slot0_64k"\nreason = "mended"\n'
        '[[difference]]\ncases = "guest/*"\nreason = "not asked"\n'
    )
    arguments = ["conform", "--answers", str(changed(ours, tmp_path)), "--known", str(known)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "known: mem/n* (2 cases): looked at" in text
    assert "stale: mem/slot0_64k" in text
    assert "not asked" not in text
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["sections"]["mem"]["unanswered"] == 1
    assert [(one["case"], one["known"]) for one in data["differences"]] == [
        ("mem/null", "looked at"),
        ("mem/never-asked", "looked at"),
    ]
    assert data["differences"][0]["ours"] == {"ret": -1, "errno": "EFAULT", "out": {}}
    assert data["differences"][0]["reason"]
    assert [entry["reason"] for entry in data["stale"]] == ["mended"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--profile", "rfc-2014"], "no answers were recorded for rfc-2014"),
        (["--profile", "none"], "no profile 'none'"),
        (["no-such-section"], "no section no-such-section; there are kvm"),
        (["--answers", "/nonexistent"], "/nonexistent: "),
    ],
)
def test_wrong_use(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    assert main(["conform", "mem"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "there is no C compiler (no-such-compiler)" in error


@needs_compiler
def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CC", "gcc -Dint=+")
    assert main(["conform", "mem"]) == 2
    assert "gcc cannot build the probe: " in capsys.readouterr().err


@needs_compiler
def test_host_without_kvm_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(probe, "build", lambda *_args, **_kwargs: Path("/nonexistent"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main(["conform", "--host"]) == 2
    assert "there is nobody to ask" in capsys.readouterr().err


def test_a_run_that_fails_is_no_answer(program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    board = tmp_path / "board.toml"
    board.write_text("cpus = 0")
    assert main(["conform", "--machine", str(board), "mem"]) == 2
    assert "the probe's sections mem: could not be run" in capfd.readouterr().err


def test_every_section_is_asked_once() -> None:
    asked = list(dict.fromkeys(map(answers.section, answers.load(answers.recorded_path("linux-6.12", 2)).cases)))
    shares = probe.shares(asked)
    assert sorted(name for share in shares for name in share) == sorted(name for name in asked if name != "vfio")
    assert probe.shares(["vfio"]) == [["vfio"]]
