"""Fixtures of the VFIO tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from vfio_bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A host; at the end everything must be given back."""
    bench = Bench()
    yield bench
    bench.close(*sorted(bench.task.files))
    for fd in bench.eventfds:
        os.close(fd)
    assert bench.host.open_files() == []
    assert bench.host.eventfds.held() == []
