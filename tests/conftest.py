"""Fixtures that every directory of tests may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support import Client


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
