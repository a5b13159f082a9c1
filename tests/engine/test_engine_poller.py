"""News from real descriptors: once for all that happened, and never of what we did ourselves."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from kvmvfio_emu.engine.poller import Poller


class Watched:
    """Eventfds that a poller watches; `seen` has the index of each whose callback ran."""

    def __init__(self, count: int = 3) -> None:
        self.poller = Poller()
        self.fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
        self.seen: list[int] = []
        for index in range(count):
            self.watch(index)

    def watch(self, index: int) -> None:
        self.poller.register(self.fds[index], lambda: self.seen.append(index))

    def write(self, *indices: int) -> None:
        for index in indices:
            os.eventfd_write(self.fds[index], 1)

    def poll(self) -> list[int]:
        """What is news."""
        self.seen.clear()
        assert self.poller.poll() == bool(self.seen)
        return sorted(self.seen)


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.poller.close()
    for fd in watched.fds:
        os.close(fd)


def test_nothing_is_no_news(watched: Watched) -> None:
    assert watched.poll() == []
    assert watched.poller.look(0) == []


def test_one_callback_for_all_that_happened_since(watched: Watched) -> None:
    watched.write(0, 0, 2)
    assert watched.poll() == [0, 2]
    assert watched.poll() == []  # though both are still readable
    watched.write(0)
    assert watched.poll() == [0]


def test_what_is_readable_at_registration_is_no_news() -> None:
    watched = Watched(0)
    watched.fds.append(os.eventfd(5))
    watched.watch(0)
    assert watched.poll() == []
    watched.write(0)
    assert watched.poll() == [0]
    watched.poller.close()
    os.close(watched.fds[0])


def test_registration_keeps_the_news_of_others(watched: Watched) -> None:
    watched.write(1)
    watched.fds.append(os.eventfd(5))
    watched.watch(3)
    assert watched.poll() == [1]


def test_forget_drops_the_news_of_one_and_keeps_that_of_others(watched: Watched) -> None:
    watched.write(0, 1, 2)
    watched.poller.forget(watched.fds[1])
    assert watched.poll() == [0, 2]
    assert watched.poll() == []
    watched.write(1)
    assert watched.poll() == [1]


def test_news_that_survived_is_seen_by_look_and_by_whoever_waits(watched: Watched) -> None:
    """The door looks without `poll`; nothing may hide from it."""
    watched.write(0, 1)
    watched.poller.forget(watched.fds[1])
    poll = select.poll()
    poll.register(watched.poller.fileno(), select.POLLIN)
    assert poll.poll(0)
    events = watched.poller.look(0)
    assert [fd for fd, _ in events] == [watched.fds[0]]
    assert watched.poller.poll(events)
    assert watched.seen == [0]


def test_wait_leaves_the_news_where_it_is(watched: Watched) -> None:
    watched.poller.wait(0)
    watched.write(2)
    watched.poller.wait(10_000)
    assert watched.poll() == [2]


def test_no_callback_after_unregister(watched: Watched) -> None:
    watched.write(0, 1)
    watched.poller.unregister(watched.fds[0])
    assert watched.poll() == [1]
    watched.write(0)
    assert watched.poll() == []


def test_a_callback_may_end_the_watch_on_another() -> None:
    watched = Watched(2)
    poller = Poller()
    called: list[int] = []

    def first_ends_the_other(index: int) -> None:
        called.append(index)
        poller.unregister(watched.fds[1 - index])

    for index in (0, 1):
        poller.register(watched.fds[index], lambda index=index: first_ends_the_other(index))  # type: ignore[misc]
    watched.write(0, 1)
    assert poller.poll()
    assert len(called) == 1
    poller.close()
    watched.poller.close()
    for fd in watched.fds:
        os.close(fd)


def test_in_a_child_there_is_no_news_and_the_parents_stays(watched: Watched) -> None:
    watched.write(0)
    child = os.fork()
    if not child:
        watched.poller.forked()
        news = watched.poll()
        watched.poller.unregister(watched.fds[1])
        watched.poller.close()
        os._exit(len(news))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    watched.write(1)
    assert watched.poll() == [0, 1]
