"""Known differences: which entries explain a case, and which explain nothing any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmvfio_emu import profiles
from kvmvfio_emu.conform import known
from kvmvfio_emu.conform.known import Known
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

TEXT = """
[[difference]]
cases = "guest/*"
profiles = ["linux-6.1"]
gics = [2]
reason = "one"

[[difference]]
cases = "kvm/cap/*/NR_VCPUS"
reason = "two"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "known.toml"
    written.write_text(TEXT)
    return written


def test_an_entry_is_for_the_kernels_and_hosts_that_it_names(path: Path) -> None:
    assert [entry.reason for entry in known.load(path, "linux-6.1", 2)] == ["one", "two"]
    assert [entry.reason for entry in known.load(path, "linux-6.1", 3)] == ["two"]
    assert [entry.reason for entry in known.load(path, "linux-6.12", 2)] == ["two"]


def test_the_first_entry_that_matches_explains(path: Path) -> None:
    entries = known.load(path, "linux-6.1", 2)
    explained = known.explain("kvm/cap/vmfd/NR_VCPUS", entries)
    assert explained is not None
    assert explained.reason == "two"
    assert known.explain("guest/deep/below", entries) is entries[0]
    assert known.explain("kvm/cap/vmfd/NR_VCPUS/more", entries) is None


def test_an_entry_that_no_difference_needs_is_stale() -> None:
    entries = [Known("kvm/a", "r"), Known("kvm/b*", "r"), Known("kvm/gone", "r"), Known("mem/*", "r")]
    asked = ["kvm/a", "kvm/b1", "kvm/b2"]
    assert known.stale(entries, asked, ["kvm/b2"]) == [entries[0], entries[2]]
    assert known.stale(entries, asked, asked) == [entries[2]]
    assert known.stale(entries, [*asked, "mem/x"], asked) == [entries[2], entries[3]]


@pytest.mark.parametrize(
    "text",
    [
        "[[difference]]\ncases = 'a'",
        "[[difference]]\nreason = 'a'",
        "[[difference]]\ncases = 'a'\nreason = ''",
        "[[difference]]\ncases = 'a'\nreason = 'b'\nprofile = ['linux-6.1']",
        "[[difference]]\ncases = 'a'\nreason = 'b'\ngics = 2",
        "[[differences]]\ncases = 'a'\nreason = 'b'",
        "nonsense",
    ],
)
def test_a_file_that_says_something_else_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(KvmVfioEmuError, match=r"known\.toml"):
        known.load(path, "linux-6.1", 2)


def test_the_reviewed_file_can_be_read_for_every_kernel() -> None:
    for profile in profiles.names():
        for gic in (2, 3):
            for entry in known.load(known.REVIEWED, profile, gic):
                assert set(entry.profiles) <= set(profiles.names())
