"""Out of descriptors: EMFILE, nothing leaked, nothing half made, and it works again afterwards."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support import NIC, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.doors import inotify


@contextmanager
def only(free: int) -> Iterator[None]:
    """So many descriptor numbers are left to the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probes = [os.open("/dev/null", os.O_RDONLY) for _ in range(free + 1)]
    for fd in probes:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probes[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def vm(client: Client) -> Callable[[], int]:
    kvm = client.kvm
    return lambda: client.ioctl(kvm, uapi.KVM_CREATE_VM)


def vcpu(client: Client) -> Callable[[], int]:
    vm = client.vm()
    return lambda: client.ioctl(vm, uapi.KVM_CREATE_VCPU, 0)


def create_device(kind: str) -> Callable[[Client], Callable[[], int]]:
    def prepare(client: Client) -> Callable[[], int]:
        vm = client.vm()
        return lambda: client.create_device(vm, getattr(uapi, kind))

    return prepare


def vfio_device(client: Client) -> Callable[[], int]:
    group = client.group()
    return lambda: client.device(NIC, group)


def node(path: str) -> Callable[[Client], Callable[[], int]]:
    return lambda client: lambda: client.kernel.open(path)


MAKERS = {
    "open kvm": node("/dev/kvm"),
    "open container": node("/dev/vfio/vfio"),
    "open group": node("/dev/vfio/1"),
    "KVM_CREATE_VM": vm,
    "KVM_CREATE_VCPU": vcpu,
    "KVM-VFIO": create_device("KVM_DEV_TYPE_VFIO"),
    "GET_DEVICE_FD": vfio_device,
}


@pytest.mark.parametrize("free", [0, 1])
@pytest.mark.parametrize("maker", MAKERS)
def test_emfile_leaves_nothing_and_it_works_afterwards(client: Client, maker: str, free: int) -> None:
    make = MAKERS[maker](client)
    before = descriptors()
    with only(free):
        client.refused("EMFILE", make)
    assert descriptors() == before
    fd = make()
    assert client.kernel.emulates(fd)
    assert len(descriptors() - before) <= 2  # the file's, and for registers the memory behind it
    client.close(fd)


@pytest.mark.parametrize("maker", MAKERS)
def test_two_free_numbers_are_enough(client: Client, maker: str) -> None:
    """One more than the real kernel needs, while the file is made."""
    make = MAKERS[maker](client)
    with only(2):
        assert client.kernel.emulates(make())


@pytest.mark.parametrize("maker", MAKERS)
def test_a_watch_that_cannot_be_had_leaves_nothing(client: Client, maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """inotify has limits of its own (fs.inotify.max_user_watches)."""

    def full(instance: int, path: bytes, mask: int) -> int:
        raise OSError(errno.ENOSPC, "no watch left")

    make = MAKERS[maker](client)
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(inotify, "add_watch", full)
        client.refused("ENOMEM", make)
    assert descriptors() == before
    assert client.kernel.emulates(make())


def test_a_vgic_without_a_descriptor_stays_as_in_linux(client: Client) -> None:
    """vgic_destroy frees the device, not what it made of the virtual machine."""
    vm = client.vm()
    with only(0), pytest.raises(OSError, match="Too many open files"):
        client.vgic(vm)
    client.refused("EEXIST", client.vgic, vm)
    assert client.kernel.open_files() == ["kvm", "vm"]


def test_no_number_left_for_a_duplicate(client: Client) -> None:
    kvm, eventfd, vm = client.kvm, client.eventfd(), client.vm()
    with only(0):
        client.refused("EMFILE", client.kernel.dup, kvm)
        # The model keeps a duplicate of an eventfd, where Linux needs no descriptor.
        client.refused("EMFILE", client.irqfd, vm, eventfd, 1)
    assert client.host.eventfds.held() == []
    client.irqfd(vm, eventfd, 1)
