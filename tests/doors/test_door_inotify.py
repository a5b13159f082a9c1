"""The inotify instance that is kept for the next kernel: it hears nothing of the last one, and a child has its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmvfio_emu import Kernel
from kvmvfio_emu.doors import inotify

_IN_CLOSE_WRITE = 0x8


@pytest.fixture(autouse=True)
def none_kept() -> Iterator[None]:
    inotify._forget()
    yield
    inotify._forget()


def test_one_is_kept_and_taken_again() -> None:
    first, second = inotify.create(), inotify.create()
    inotify.give_back(first, [])
    inotify.give_back(second, [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second)
    assert inotify.create() == first
    os.close(first)


def test_what_the_last_owner_watched_is_forgotten(tmp_path: Path) -> None:
    heard, not_yet_read = tmp_path / "heard", tmp_path / "not yet read"
    instance = inotify.create()
    watches = []
    for path in (heard, not_yet_read):
        path.touch()
        watches.append(inotify.add_watch(instance, bytes(path), _IN_CLOSE_WRITE))
    not_yet_read.write_text("x")
    inotify.give_back(instance, watches)
    heard.write_text("x")
    assert inotify.create() == instance
    with pytest.raises(BlockingIOError):
        os.read(instance, inotify.BATCH)
    os.close(instance)


def test_kernels_follow_each_other_on_it() -> None:
    with Kernel() as first:
        left_open = first.open("/dev/kvm")
        kept = first._descriptors._inotify
    with Kernel() as second:
        assert second._descriptors._inotify == kept
        fd = second.open("/dev/kvm")
        os.close(left_open)  # no file of this kernel, though its watch may have the number of one
        assert second.open_files() == ["kvm"]
        os.close(fd)
        assert second.open_files() == []


def test_a_child_does_not_share_it() -> None:
    instance = inotify.create()
    inotify.give_back(instance, [])
    child = os.fork()
    if child == 0:
        os._exit(0 if not inotify._kept else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert inotify._kept == [instance]
