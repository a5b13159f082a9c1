"""KVM_IOEVENTFD: which doorbells there can be. The oracle's mem/ioeventfd answers."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support import BAD_POINTERS, CLOSED, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, write
from kvmvfio_emu.guest.script import Routine

DATAMATCH, PIO, DEASSIGN = (
    uapi.KVM_IOEVENTFD_FLAG_DATAMATCH,
    uapi.KVM_IOEVENTFD_FLAG_PIO,
    uapi.KVM_IOEVENTFD_FLAG_DEASSIGN,
)
Bell = Callable[..., None]


@pytest.fixture
def bell(client: Client, vm: int) -> Bell:
    """Sets a doorbell of ``vm``: by default 4 bytes at 0x1000."""

    def bell(fd: int, addr: int = 0x1000, size: int = 4, flags: int = 0, match: int = 0) -> None:
        fields = {"fd": fd, "addr": addr, "len": size, "flags": flags, "datamatch": match}
        client.call(vm, uapi.KVM_IOEVENTFD, "kvm_ioeventfd", **fields)

    return bell


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_argument_is_efault(client: Client, vm: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, vm, uapi.KVM_IOEVENTFD, pointer)


def test_kernel_without_ioeventfd_is_enosys(boot: Callable[..., Client]) -> None:
    client = boot(ioeventfd=False)
    vm = client.vm()
    client.refused("ENOSYS", client.call, vm, uapi.KVM_IOEVENTFD, "kvm_ioeventfd", fd=CLOSED)


@pytest.mark.parametrize("size", [3, 5, 7, 9, 16, 0xFFFFFFFF])
def test_length_that_no_access_has_is_einval(client: Client, bell: Bell, size: int) -> None:
    client.refused("EINVAL", bell, client.eventfd(), size=size)


@pytest.mark.parametrize("size", [0, 1, 2, 4, 8])
def test_lengths(client: Client, bell: Bell, size: int) -> None:
    bell(client.eventfd(), size=size)


@pytest.mark.parametrize("addr", [(1 << 64) - 1, (1 << 64) - 4])
def test_address_that_wraps_is_einval(client: Client, bell: Bell, addr: int) -> None:
    client.refused("EINVAL", bell, client.eventfd(), addr)


@pytest.mark.parametrize("flags", [0x10, 0x80000000, 0xFFFFFFF0])
def test_unknown_flag_is_einval_before_the_fd_is_looked_at(client: Client, bell: Bell, flags: int) -> None:
    client.refused("EINVAL", bell, CLOSED, flags=flags)


def test_any_length_with_datamatch_is_einval(client: Client, bell: Bell) -> None:
    client.refused("EINVAL", bell, client.eventfd(), size=0, flags=DATAMATCH, match=5)


@pytest.mark.parametrize("flags", [0, DEASSIGN, DEASSIGN | DATAMATCH])
@pytest.mark.parametrize("fd", [CLOSED, -1])
def test_closed_fd_is_ebadf(client: Client, bell: Bell, fd: int, flags: int) -> None:
    client.refused("EBADF", bell, fd, flags=flags)


def test_fd_that_is_no_eventfd_is_einval(client: Client, vm: int, bell: Bell) -> None:
    client.refused("EINVAL", bell, vm)


@pytest.mark.parametrize("other", [{}, {"size": 0}, {"flags": DATAMATCH, "match": 7}], ids=str)
@pytest.mark.parametrize("same", [True, False])
def test_two_for_one_write_is_eexist(client: Client, bell: Bell, other: dict[str, int], same: bool) -> None:
    fd = client.eventfd()
    bell(fd)
    client.refused("EEXIST", bell, fd if same else client.eventfd(), **other)


def test_wildcard_after_datamatch_is_eexist(client: Client, bell: Bell) -> None:
    bell(client.eventfd(), flags=DATAMATCH, match=1)
    client.refused("EEXIST", bell, client.eventfd(), flags=DATAMATCH, match=1)
    client.refused("EEXIST", bell, client.eventfd())


def test_what_differs_in_address_length_data_or_space_is_another_doorbell(client: Client, bell: Bell) -> None:
    fd = client.eventfd()
    bell(fd, flags=DATAMATCH, match=1)
    bell(fd, flags=DATAMATCH, match=2)
    bell(fd, size=8)
    bell(fd, addr=0x1004)
    bell(fd, flags=PIO)


def test_deassign(client: Client, bell: Bell) -> None:
    fd, before = client.eventfd(), client.state()
    bell(fd, flags=DATAMATCH, match=1)
    bell(fd, flags=DATAMATCH | DEASSIGN, match=1)
    assert client.state() == before


@pytest.mark.parametrize(
    "other",
    [{"addr": 0x1004}, {"size": 8}, {"size": 0}, {"match": 2}, {"flags": DEASSIGN}, {"flags": 7}],
    ids=str,
)
def test_deassign_of_what_is_not_there_is_enoent(client: Client, bell: Bell, other: dict[str, int]) -> None:
    fd = client.eventfd()
    bell(fd, flags=DATAMATCH, match=1)
    client.refused("ENOENT", bell, fd, **{"flags": DATAMATCH | DEASSIGN, "match": 1, **other})
    client.refused("ENOENT", bell, client.eventfd(), flags=DATAMATCH | DEASSIGN, match=1)


@pytest.mark.parametrize(
    ("size", "flags", "match", "rings"),
    [(4, 0, 0, 2), (0, 0, 0, 3), (2, 0, 0, 1), (4, DATAMATCH, 7, 1), (4, DATAMATCH, 8, 0), (8, 0, 0, 0)],
)
def test_guest_write_rings(client: Client, vm: int, bell: Bell, size: int, flags: int, match: int, rings: int) -> None:
    def main(cpu: Cpu) -> Routine:
        yield write(0x1000, 7)
        yield write(0x1000, 9)
        yield write(0x1000, 7, 2)
        yield write(0x2000, 7)

    fd = client.eventfd()
    bell(fd, size=size, flags=flags, match=match)
    client.kernel.attach_guest(0, Script(main))
    vcpu = client.vcpu(vm, init=True)
    for _ in range(5 - rings):
        client.ioctl(vcpu, uapi.KVM_RUN)
    try:
        assert os.eventfd_read(fd) == rings
    except BlockingIOError:
        assert rings == 0


def test_doorbell_keeps_its_eventfd_until_the_vm_goes(client: Client, vm: int, bell: Bell) -> None:
    fd = os.eventfd(0)
    bell(fd)
    client.close(fd)
    assert len(client.host.eventfds.held()) == 1
    client.close(vm)
    assert client.host.eventfds.held() == []
