"""Answers are read, translated and compared case by case."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from kvmvfio_emu.conform import answers
from kvmvfio_emu.conform.abi import OPEN_FLAGS, translate
from kvmvfio_emu.conform.answers import Answer, Answers
from kvmvfio_emu.conform.compare import Difference, compare
from kvmvfio_emu.kernel.errors import KvmVfioEmuError


def line(case: str, ret: int = 0, errno: str = "0", **out: object) -> str:
    return json.dumps({"case": case, "ret": ret, "errno": errno, "out": out})


def run(*lines: str, machine: str = "aarch64") -> Answers:
    found = Answers()
    found.add([line("meta/uname", release="6.1", machine=machine), *lines])
    return found


# -- reading ---------------------------------------------------------------------------------------------------------


def test_reads_what_a_probe_printed_and_nothing_else() -> None:
    read = run("a word of the kernel's", line("kvm/a", -1, "EINVAL"), line("kvm/b", 3, x=1), '{"case": "kvm/c", "re')
    assert read.cases == {"kvm/a": Answer(-1, "EINVAL", {}), "kvm/b": Answer(3, "0", {"x": 1})}
    assert (read.release, read.machine) == ("6.1", "aarch64")


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.jsonl.xz"])
def test_files_are_plain_or_compressed(name: str, tmp_path: Path) -> None:
    path, text = tmp_path / name, line("kvm/a", 12) + "\n"
    path.write_bytes(lzma.compress(text.encode()) if name.endswith("xz") else text.encode())
    assert answers.load(path).cases == {"kvm/a": Answer(12, "0", {})}


@pytest.mark.parametrize("content", [None, b"", b"nothing of ours\n"])
def test_a_file_without_answers_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KvmVfioEmuError, match=r"answers\.jsonl"):
        answers.load(path)


def test_recorded_answers_come_with_the_package() -> None:
    assert set(answers.recorded()) >= {f"linux-{kernel}-gicv{gic}" for kernel in ("6.1", "6.12") for gic in (2, 3)}
    read = answers.load(answers.recorded_path("linux-6.12", 3))
    assert read.release.startswith("6.12.")
    assert len(read.cases) > 5000
    assert answers.load(answers.recorded_path("linux-6.18-x86", 2)).machine == "x86_64"
    with pytest.raises(KvmVfioEmuError, match="rfc-2014"):
        answers.recorded_path("rfc-2014", 2)


# -- comparing -------------------------------------------------------------------------------------------------------


def test_a_case_is_equal_when_result_errno_and_outputs_are() -> None:
    kernel = run(line("kvm/same", 1, x=1), line("kvm/ret", 1), line("mem/errno", -1, "EINVAL"), line("mem/out", x=1))
    ours = run(line("kvm/same", 1, x=1), line("kvm/ret", 2), line("mem/errno", -1, "ENXIO"), line("mem/out", x=2))
    found = compare(kernel, ours)
    assert {name: vars(row) for name, row in found.sections.items()} == {
        "kvm": {"given": 2, "equal": 1, "different": 1, "unanswered": 0},
        "mem": {"given": 2, "equal": 0, "different": 2, "unanswered": 0},
    }
    assert [one.case for one in found.differences] == ["kvm/ret", "mem/errno", "mem/out"]
    assert (found.total.given, found.total.equal, found.total.percent) == (4, 1, 25.0)


def test_a_case_without_our_answer_is_counted_apart() -> None:
    found = compare(run(line("kvm/a"), line("kvm/b")), run(line("kvm/a"), line("kvm/more")))
    assert vars(found.sections["kvm"]) == {"given": 2, "equal": 1, "different": 0, "unanswered": 1}
    assert found.differences == [Difference("kvm/b", Answer(0, "0", {}), None, None)]


def test_only_the_sections_asked_for() -> None:
    kernel = run(line("vfio/a"), line("vfio-info/a"), line("kvm/a"), line("kvmvfio/a"))
    assert list(compare(kernel, kernel, ["vfio"]).sections) == ["vfio", "vfio-info"]
    assert list(compare(kernel, kernel, ["kvm"]).sections) == ["kvm"]


def test_our_reason_stands_beside_the_difference() -> None:
    ours = run()
    ours.add(['{"case": "kvm/a", "ret": -1, "errno": "EINVAL", "out": {}, "reason": "no such thing"}'])
    assert compare(run(line("kvm/a")), ours).differences[0].reason == "no such thing"


# -- architectures ---------------------------------------------------------------------------------------------------


def test_open_flags_of_the_build_host_are_those_of_the_kernels_architecture() -> None:
    kernel = run(line("kvm/fdop/kvmfd/flags", cloexec=1, fl=0o400002), line("kvm/fdop/vmfd/flags", fl=2))
    ours = run(
        line("kvm/fdop/kvmfd/flags", cloexec=1, fl=0o100002), line("kvm/fdop/vmfd/flags", fl=2), machine="x86_64"
    )
    assert compare(kernel, ours).differences == []


def test_a_flag_that_only_one_has_still_differs() -> None:
    kernel = run(line("kvm/fdop/vmfd/flags", fl=2))
    ours = run(line("kvm/fdop/vmfd/flags", fl=0o100002), machine="x86_64")
    assert [one.case for one in compare(kernel, ours).differences] == ["kvm/fdop/vmfd/flags"]


def test_the_same_architecture_is_not_translated() -> None:
    kernel = run(line("kvm/a", fl=0o400002))
    assert compare(kernel, run(line("kvm/a", fl=0o100002))).total.different == 1


def test_every_flag_is_translated_both_ways_and_other_fields_are_not() -> None:
    for numbers in OPEN_FLAGS.values():
        there = translate({"fl": numbers["x86_64"] | 2, "x": numbers["x86_64"]}, "x86_64", "aarch64")
        assert there == {"fl": numbers["aarch64"] | 2, "x": numbers["x86_64"]}
        assert translate(there, "aarch64", "x86_64")["fl"] == numbers["x86_64"] | 2
