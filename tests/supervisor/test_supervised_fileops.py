"""File operations on emulated descriptors, by an unmodified program: as the real kernel's kinds of files answer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from supervisor.test_supervised_clients import answers

Build = Callable[..., str]
Run = Callable[..., subprocess.CompletedProcess[str]]

LARGE = os.O_RDWR | {"x86_64": 0x8000, "aarch64": 0x20000}[os.uname().machine]
NO_DATA = {
    **dict.fromkeys(("read", "write", "readv", "read-after", "write-after", "pread"), "-1 EINVAL"),
    "seek-odd": "-1 EINVAL",
    "truncate": "-1 EINVAL",
    "allocate": "-1 ENODEV",
    "poll": "5 0",
}
UNMAPPED = dict.fromkeys(("map", "map-private"), "-1 ENODEV")
SEEKS = dict.fromkeys(("seek", "seek-by"), "0 0")
NO_SEEK = dict.fromkeys(("seek", "seek-by"), "-1 ESPIPE")
EXPECTED = {
    "kvm": {**NO_DATA, **UNMAPPED, **SEEKS, "foreign": "-1 EINVAL", "flags": f"{LARGE} 0"},
    "vm": {**NO_DATA, **UNMAPPED, **SEEKS, "foreign": "-1 EINVAL", "flags": "2 0"},
    "vcpu": {
        **NO_DATA,
        **SEEKS,
        **dict.fromkeys(("map", "map-private"), "0 0"),
        "foreign": "-1 EINVAL",
        "flags": "2 0",
    },
    "kvmdev": {**NO_DATA, **UNMAPPED, **NO_SEEK, "foreign": "-1 ENOTTY", "flags": "2 0"},
    "container": {**NO_DATA, **UNMAPPED, **NO_SEEK, "foreign": "-1 EINVAL", "flags": f"{LARGE} 0"},
    "group": {**NO_DATA, **UNMAPPED, **NO_SEEK, "foreign": "-1 ENOTTY", "flags": f"{LARGE} 0"},
    "device": {
        **NO_DATA,
        **NO_SEEK,
        "pread": "1 0",
        "map": "0 0",
        "map-private": "-1 EINVAL",
        "foreign": "-1 ENOTTY",
        "flags": "2 0",
    },
}


@pytest.fixture(scope="module")
def said(build: Build, supervised: Run) -> dict[str, str]:
    """The client's answers."""
    return answers(supervised("--", build("fileops")))


@pytest.mark.parametrize("kind", EXPECTED)
def test_each_kind_answers_as_its_kernel_file(said: dict[str, str], kind: str) -> None:
    ours = {name.partition("-")[2]: answer for name, answer in said.items() if name.startswith(f"{kind}-")}
    assert ours == EXPECTED[kind]


def test_the_access_mode_of_open_stays(said: dict[str, str]) -> None:
    assert said["readonly-flags"] == f"{LARGE & ~os.O_RDWR | os.O_NONBLOCK} 0"
    assert said["readonly-write"] == "-1 EBADF"
    assert said["readonly-api"] == "12 0"


def test_files_of_the_host_are_left_alone(said: dict[str, str]) -> None:
    ours = {name.partition("-")[2]: answer for name, answer in said.items() if name.startswith("host-")}
    assert ours == {
        "write": "8 0",
        "seek": "4 0",
        "tell": "4 0",
        "read": "4 0",
        "truncate": "0 0",
        "map": "0 0",
        "foreign": "-1 ENOTTY",
        "flags": f"{LARGE} 0",
    }
