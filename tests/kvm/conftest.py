"""Fixtures of the KVM tests."""

from __future__ import annotations

import pytest
from support import Client


@pytest.fixture
def vm(client: Client) -> int:
    """A virtual machine with nothing in it."""
    return client.vm()


@pytest.fixture
def control(client: Client, vm: int) -> int:
    """A KVM-VFIO device of ``vm``."""
    return client.kvm_vfio(vm)
