"""Fixtures of the guests' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machine_rig import Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    with Machine() as machine:
        yield machine


@pytest.fixture
def pair() -> Iterator[Machine]:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    with Machine(vcpus=2) as machine:
        yield machine
