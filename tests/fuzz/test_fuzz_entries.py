"""The fuzzers' entries without a fuzzer: what is kept, and any bytes; nothing of an input outlives it."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.memory import release
from fuzz.run import TARGETS, kept
from kvmvfio_emu.kernel.host import Host

EXAMPLES = 300


@pytest.fixture(scope="module", autouse=True)
def _arena() -> Iterator[None]:
    yield
    release()


@pytest.fixture(params=TARGETS)
def entry(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"fuzz.{request.param}")


def test_what_is_kept_holds(entry: ModuleType) -> None:
    inputs = kept(entry.__name__.removeprefix("fuzz."))
    assert len(inputs) > 20
    for data in inputs:
        entry.one_input(data)


@settings(
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=200))
def test_any_bytes_hold(entry: ModuleType, data: bytes) -> None:
    entry.one_input(data)


def test_nothing_outlives_an_input(entry: ModuleType) -> None:
    inputs = kept(entry.__name__.removeprefix("fuzz."))[-20:]
    for data in inputs:
        entry.one_input(data)
    gc.collect()
    hosts = [thing for thing in gc.get_objects() if isinstance(thing, Host)]
    for data in inputs:
        entry.one_input(data)
    gc.collect()
    after = [thing for thing in gc.get_objects() if isinstance(thing, Host)]
    assert len(after) <= len(hosts), "a kernel is still referred to"
