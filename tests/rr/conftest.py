"""What the tests of `kvmvfio_emu.rr` share: the default costs, and answers that take a while to get."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from kvmvfio_emu.rr import costs as cost_files
from kvmvfio_emu.rr.costs import Costs
from kvmvfio_emu.rr.sweep import Answer, ask
from kvmvfio_emu.rr.workload import Workload


@pytest.fixture(scope="session")
def costs() -> Costs:
    """The costs that come along."""
    return cost_files.load()


@pytest.fixture(scope="session")
def asked(costs: Costs) -> Callable[..., Answer]:
    """``asked(idle=False)``: both modes of a small workload by the default costs; each is run once a session."""

    @functools.cache
    def ask_once(**fields: object) -> Answer:
        return ask(Workload(**{"transactions": 24, **fields}), costs)  # type: ignore[arg-type]

    return ask_once
