"""Fixtures that every directory of tests may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from support import Client

# How fast this machine is at the moment decides no test; a profile on the command line is loaded after this one.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture
def boot() -> Iterator[Callable[..., Client]]:
    """Boots kernels: ``boot()`` or ``boot("draft-v4", irq_routing=True)``. Each must end with nothing left."""
    clients: list[Client] = []

    def boot(*args: object, **kwargs: object) -> Client:
        clients.append(Client(*args, **kwargs))  # type: ignore[arg-type]
        return clients[-1]

    yield boot
    for client in clients:
        client.finish()


@pytest.fixture
def client(boot: Callable[..., Client]) -> Client:
    """A client of a kernel with the default profile."""
    return boot()
