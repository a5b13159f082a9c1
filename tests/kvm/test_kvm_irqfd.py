"""KVM_IRQFD: every refusal, and what is not one. Contract 5.2."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import BAD_POINTERS, CLOSED, CTRL, Client, Edge

from kvmvfio_emu import uapi

DEASSIGN, RESAMPLE = uapi.KVM_IRQFD_FLAG_DEASSIGN, uapi.KVM_IRQFD_FLAG_RESAMPLE
LATE = ["draft-v4", "mainline"]


@pytest.fixture
def vm(client: Client) -> int:
    """A virtual machine that could take interrupts."""
    return client.machine()[0]


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_argument_is_efault(client: Client, vm: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, vm, uapi.KVM_IRQFD, pointer)


def test_struct_at_the_last_bytes_of_a_mapping(client: Client, vm: int) -> None:
    edge, irqfd = Edge(), uapi.pack("struct kvm_irqfd", fd=client.eventfd(), gsi=5)
    client.refused("EFAULT", client.ioctl, vm, uapi.KVM_IRQFD, edge.put(irqfd, beyond=1))
    assert client.ioctl(vm, uapi.KVM_IRQFD, edge.put(irqfd)) == 0


@pytest.mark.parametrize("flags", [4, 8, 0x10, 0x80000000, DEASSIGN | 4, RESAMPLE | 8, 0xFFFFFFFF])
def test_unknown_flag_is_einval_even_with_a_closed_fd(client: Client, vm: int, flags: int) -> None:
    client.refused("EINVAL", client.irqfd, vm, client.eventfd(), 5, flags)
    client.refused("EINVAL", client.irqfd, vm, CLOSED, 5, flags)


@pytest.mark.parametrize("flags", [0, DEASSIGN])
@pytest.mark.parametrize("fd", [CLOSED, -1, 0x80000000])
def test_closed_fd_is_ebadf(client: Client, vm: int, fd: int, flags: int) -> None:
    client.refused("EBADF", client.irqfd, vm, fd, 5, flags)


@pytest.mark.parametrize("flags", [0, DEASSIGN])
def test_fd_that_is_no_eventfd_is_einval(client: Client, vm: int, flags: int) -> None:
    pipe = os.pipe()
    for fd in (vm, client.kvm, *pipe):
        client.refused("EINVAL", client.irqfd, vm, fd, 5, flags)
    for fd in pipe:
        os.close(fd)


@pytest.mark.parametrize("fd", [CLOSED, -1])
def test_closed_resamplefd_is_ebadf(client: Client, vm: int, fd: int) -> None:
    client.refused("EBADF", client.irqfd, vm, client.eventfd(), 5, RESAMPLE, fd)
    client.refused("EBADF", client.irqfd, vm, CLOSED, 5, RESAMPLE, vm)


def test_resamplefd_that_is_no_eventfd_is_einval(client: Client, vm: int) -> None:
    client.refused("EINVAL", client.irqfd, vm, client.eventfd(), 5, RESAMPLE, vm)


def test_resamplefd_is_ignored_without_its_flag(client: Client, vm: int) -> None:
    client.irqfd(vm, client.eventfd(), 5, 0, CLOSED)


def test_resamplefd_may_be_the_trigger_itself(client: Client, vm: int) -> None:
    fd = client.eventfd()
    client.irqfd(vm, fd, 5, RESAMPLE, fd)


@pytest.mark.parametrize("flags", [0, RESAMPLE])
@pytest.mark.parametrize("gsi", [5, 6])
def test_eventfd_that_has_an_irqfd_is_ebusy_whatever_the_gsi(client: Client, vm: int, gsi: int, flags: int) -> None:
    fd = client.eventfd()
    client.irqfd(vm, fd, 5)
    client.refused("EBUSY", client.irqfd, vm, fd, gsi, flags, client.eventfd())


def test_eventfd_through_a_dup_is_ebusy(client: Client, vm: int) -> None:
    fd = client.eventfd()
    client.irqfd(vm, fd, 5)
    dup = os.dup(fd)
    client.refused("EBUSY", client.irqfd, vm, dup, 6)
    os.close(dup)


def test_one_eventfd_in_two_vms(client: Client, vm: int) -> None:
    fd = client.eventfd()
    for one in (vm, client.machine()[0]):
        client.irqfd(one, fd, 5)
    os.eventfd_write(fd, 1)
    client.kernel.run()
    assert client.kernel.counters["work"] == 2


def test_many_eventfds_on_one_gsi(client: Client, vm: int) -> None:
    for flags in (0, RESAMPLE, RESAMPLE):
        client.irqfd(vm, client.eventfd(), 5, flags, client.eventfd())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(gsi=st.integers(0, 0xFFFFFFFF))
def test_gsi_is_never_checked(client: Client, vm: int, gsi: int) -> None:
    fd = client.eventfd()
    client.irqfd(vm, fd, gsi)
    client.irqfd(vm, fd, gsi, DEASSIGN)


@pytest.mark.parametrize("gsi", [256 - 32, 988, 0xFFFFFFFF])
def test_injection_into_a_gsi_that_does_not_exist_is_lost(client: Client, vm: int, gsi: int) -> None:
    fd = client.eventfd()
    client.irqfd(vm, fd, gsi)
    os.eventfd_write(fd, 1)
    client.kernel.run()
    assert client.kernel.counters["irq_lost"] > 0


# -- untying -------------------------------------------------------------------------------------------------------


def test_deassign_unties(client: Client, vm: int) -> None:
    fd, before = client.eventfd(), client.state()
    client.irqfd(vm, fd, 5, RESAMPLE, client.eventfd())
    client.irqfd(vm, fd, 5, DEASSIGN)
    assert client.state() == before
    os.eventfd_write(fd, 1)
    client.kernel.run()
    assert client.kernel.counters["work"] == 0


@pytest.mark.parametrize("gsi", [6, 0xFFFFFFFF])
def test_deassign_needs_fd_and_gsi_to_match_else_0_and_nothing(client: Client, vm: int, gsi: int) -> None:
    fd = client.eventfd()
    client.irqfd(vm, fd, 5)
    before = client.state()
    client.irqfd(vm, fd, gsi, DEASSIGN)
    client.irqfd(vm, client.eventfd(), 5, DEASSIGN)
    assert client.state() == before
    client.refused("EBUSY", client.irqfd, vm, fd, 7)


def test_deassign_with_the_resample_flag_does_not_look_at_resamplefd(client: Client, vm: int) -> None:
    fd = client.eventfd()
    client.irqfd(vm, fd, 5)
    client.irqfd(vm, fd, 5, DEASSIGN | RESAMPLE, CLOSED)
    client.irqfd(vm, fd, 6)


def test_closing_the_eventfd_unties(client: Client, vm: int) -> None:
    fd, before = os.eventfd(0), client.state()
    client.irqfd(vm, fd, 5)
    client.close(fd)
    assert client.state() == before


def test_closing_the_vm_unties_though_a_vcpu_keeps_it(client: Client) -> None:
    vm, fd = client.vm(), client.eventfd()
    client.vcpu(vm)
    client.irqfd(vm, fd, 5)
    client.close(vm)
    assert client.host.eventfds.held() == []


# -- the counter ---------------------------------------------------------------------------------------------------


def test_count_that_is_there_at_assign_injects_once_and_stays(client: Client, vm: int) -> None:
    fd = client.eventfd(3)
    client.irqfd(vm, fd, 5)
    assert client.kernel.counters["work"] == 1
    assert os.eventfd_read(fd) == 3


@pytest.mark.parametrize(("drained", "left"), [(False, 2), (True, 0)])
def test_signals_stay_in_the_counter_unless_drained(boot: Callable[..., Client], drained: bool, left: int) -> None:
    client = boot(eventfd_drained=drained)
    fd = client.eventfd()
    client.irqfd(client.machine()[0], fd, 5)
    for _ in range(2):
        os.eventfd_write(fd, 1)
        client.kernel.run()
    assert client.kernel.counters["work"] == 2
    try:
        assert os.eventfd_read(fd) == left
    except BlockingIOError:
        assert left == 0


# -- before the VGIC is there --------------------------------------------------------------------------------------


def test_irqfd_before_the_vgic_is_accepted_and_its_injection_lost(client: Client) -> None:
    vm, fd = client.vm(), client.eventfd()
    client.irqfd(vm, fd, 5)
    client.vgic(vm)
    os.eventfd_write(fd, 1)
    client.kernel.run()
    assert client.kernel.counters["irq_lost"] == 2  # a pulse: up and down, ENODEV both times


@pytest.mark.parametrize("profile", LATE)
def test_assign_before_init_is_eagain_even_with_a_closed_fd(boot: Callable[..., Client], profile: str) -> None:
    client = boot(profile)
    vm = client.vm()
    client.refused("EAGAIN", client.irqfd, vm, client.eventfd(), 5)
    client.refused("EINVAL", client.irqfd, vm, client.eventfd(), 5, 4)
    vm, vgic = client.machine()
    client.refused("EAGAIN", client.irqfd, vm, CLOSED, 5)
    client.refused("EAGAIN", client.irqfd, vm, client.eventfd(), 5, RESAMPLE, CLOSED)
    client.set_at(vgic, CTRL, 0, 0)
    client.refused("EBADF", client.irqfd, vm, CLOSED, 5)
    client.irqfd(vm, client.eventfd(), 5)


@pytest.mark.parametrize("profile", LATE)
def test_deassign_before_init_is_0_or_the_fds_errno(boot: Callable[..., Client], profile: str) -> None:
    client = boot(profile)
    vm = client.vm()
    client.irqfd(vm, client.eventfd(), 5, DEASSIGN)
    client.refused("EBADF", client.irqfd, vm, CLOSED, 5, DEASSIGN)
    client.refused("EINVAL", client.irqfd, vm, vm, 5, DEASSIGN)
