"""Fixtures of the KVM tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from modern import KERNELS, Machine
from support import Client


@pytest.fixture
def vm(client: Client) -> int:
    """A virtual machine with nothing in it."""
    return client.vm()


@pytest.fixture
def control(client: Client, vm: int) -> int:
    """A KVM-VFIO device of ``vm``."""
    return client.kvm_vfio(vm)


@pytest.fixture(params=KERNELS)
def modern(request: pytest.FixtureRequest, boot: Callable[..., Client]) -> Client:
    """A kernel with the VGIC of Linux 4.7 and later."""
    return boot(request.param)


@pytest.fixture
def machine(modern: Client) -> Machine:
    """A virtual machine of that, with two vCPUs and 96 interrupts."""
    return Machine(modern, vcpus=2)
