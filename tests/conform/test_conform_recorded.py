"""Each emulated kernel answers as the real one that was recorded: all questions, with a GICv2 and with a GICv3."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kvmvfio_emu.conform import answers, known, probe
from kvmvfio_emu.conform.again import ask_until_sure
from kvmvfio_emu.conform.answers import Answers
from kvmvfio_emu.conform.compare import Comparison, compare

RUNS = [(profile, gic) for profile in ("linux-6.1", "linux-6.12") for gic in (2, 3)]
EACH_RUN = pytest.mark.parametrize(("profile", "gic"), RUNS, ids=[f"{profile}-gicv{gic}" for profile, gic in RUNS])
#: What at least must be equal, in percent; a section less than the whole, as small ones weigh each case more.
WHOLE, SECTION = 97, 95
#: Of the sections of one run; the runs themselves go side by side, so that the whole takes little longer than one.
AT_A_TIME = 3
#: They need a vCPU that executes machine code.
GUESTS = ("guest", "vfio-e2e")
try:
    import unicorn  # noqa: F401

    EXTRA = True
except ModuleNotFoundError:
    EXTRA = False


def recorded(profile: str, gic: int) -> Answers:
    """What the real kernel answered, of what can be asked here."""
    kernel = answers.load(answers.recorded_path(profile, gic))
    cases = {case: said for case, said in kernel.cases.items() if EXTRA or answers.section(case) not in GUESTS}
    return replace(kernel, cases=cases)


def every_section(kernel: Answers) -> list[str]:
    return list(dict.fromkeys(map(answers.section, kernel.cases)))


@pytest.fixture(scope="module")
def runs(program: Path) -> Iterator[dict[tuple[str, int], Future[Comparison]]]:
    """All runs, under way."""

    def one(profile: str, gic: int) -> Comparison:
        kernel = recorded(profile, gic)
        target = probe.Target(profile, "oracle-virt", gic)
        entries = known.load(known.REVIEWED, profile, gic)
        sections = every_section(kernel)
        ours, _ = ask_until_sure(program, target, kernel, sections, entries, at_a_time=AT_A_TIME)
        return compare(kernel, ours)

    with ThreadPoolExecutor(len(RUNS)) as pool:
        yield {run: pool.submit(one, *run) for run in RUNS}


def told(found: Comparison, sections: list[str]) -> str:
    return "\n".join(
        f"{one.case}: kernel {one.kernel}, ours {one.ours} ({one.reason})"
        for one in found.differences
        if answers.section(one.case) in sections
    )


@EACH_RUN
def test_answers_are_those_that_were_recorded(
    profile: str, gic: int, runs: dict[tuple[str, int], Future[Comparison]]
) -> None:
    found = runs[profile, gic].result()
    low = {name: round(row.percent, 1) for name, row in found.sections.items() if row.percent < SECTION}
    assert not low, told(found, list(low))
    assert found.total.percent >= WHOLE, told(found, list(found.sections))


@pytest.mark.skipif(not EXTRA, reason="the extra `vcpu` is not installed")
@EACH_RUN
def test_guests_are_asked(profile: str, gic: int, runs: dict[tuple[str, int], Future[Comparison]]) -> None:
    assert all(runs[profile, gic].result().sections[name].given for name in GUESTS)


@EACH_RUN
def test_what_differs_is_known_and_what_is_known_differs(
    profile: str, gic: int, runs: dict[tuple[str, int], Future[Comparison]]
) -> None:
    found = runs[profile, gic].result()
    entries = known.load(known.REVIEWED, profile, gic)
    different = [one.case for one in found.differences]
    assert [case for case in different if known.explain(case, entries) is None] == []
    asked = recorded(profile, gic).cases
    assert known.stale(entries, asked, different) == []


@pytest.mark.usefixtures("program")
def test_the_part_that_x86_has_too(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the probe built here asks the questions of another architecture")
    kernel = answers.load(answers.recorded_path("linux-6.18-x86", 2))
    native = probe.build(tmp_path, arm=False)
    found = compare(kernel, probe.ask(native, probe.Target("linux-6.18-x86", "x86-vm"), every_section(kernel)))
    assert found.total.percent >= WHOLE, told(found, list(found.sections))
