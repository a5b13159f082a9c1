"""Every ioctl of every kind of file, with every kind of argument: an errno or an answer, never anything else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import CLOSED, Client, Edge

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File

KINDS = ["kvm", "vm", "vcpu", "vgic", "kvm-vfio", "container", "container with iommu", "group", "device"]


def opened(client: Client, kind: str) -> int:
    makers: dict[str, Callable[[], int]] = {
        "kvm": lambda: client.kvm,
        "vm": client.vm,
        "vcpu": lambda: client.vcpu(client.vm()),
        "vgic": lambda: client.machine()[1],
        "kvm-vfio": lambda: client.kvm_vfio(client.vm()),
        "container": client.container,
        "container with iommu": lambda: container_of(client),
        "group": client.group,
        "device": client.device,
    }
    return makers[kind]()


def container_of(client: Client) -> int:
    client.group()
    return next(fd for fd in client.descriptors() if kind_of(client, fd).kind == "container")


def kind_of(client: Client, fd: int) -> File:
    file = client.kernel._descriptors.find(fd)
    assert file is not None
    return file


ARGUMENTS: dict[str, Callable[[], Any]] = {
    "zero": lambda: 0,
    "one": lambda: 1,
    "negative": lambda: -1,
    "wild": lambda: 0x10,
    "kernel address": lambda: 0xFFFF_8000_0000_0000,
    "last byte of all": lambda: (1 << 64) - 1,
    "beyond": lambda: 1 << 64,
    "far beyond": lambda: 1 << 200,
    "empty": bytearray,
    "four bytes": lambda: bytearray(4),
    "ones": lambda: bytearray(b"\xff" * 1024),
    "zeroes": lambda: bytes(1024),
    "large": lambda: bytearray(8192),
    "text": lambda: "text",
    "last bytes of a mapping": lambda: Edge().put(bytes(8)),
    "read-only bytes": lambda: Edge(writable=False).put(bytes(1024)),
}


@pytest.mark.parametrize("form", ARGUMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_ioctl_answers_every_argument(client: Client, kind: str, form: str) -> None:
    fd = opened(client, kind)
    for request in (*kind_of(client, fd).ioctls, 0, 0xFFFFFFFF, 0xAEFF, 0x3BFF):
        if request == uapi.KVM_RUN and form == "zero":
            continue  # nobody would end it
        result = outcome(client, fd, request, ARGUMENTS[form]())
        assert isinstance(result, (int, bytes))
        if request in (uapi.KVM_CREATE_VM, uapi.KVM_CREATE_VCPU) and result in client.descriptors():
            client.close(result)
    client.kernel.check()


#: A container hands what it does not know itself to its IOMMU driver, pointer unseen; so without one there is EINVAL.
COPIED_FIRST = [kind for kind in KINDS if kind != "container"]


@pytest.mark.parametrize("kind", COPIED_FIRST)
def test_every_pointer_of_every_ioctl_is_efault_when_wild(client: Client, kind: str) -> None:
    """Each struct is copied in before anything else is looked at, so nothing happens."""
    fd = opened(client, kind)
    for request, decl in kind_of(client, fd).ioctls.items():
        if decl.struct is not None and client.host.profile.offers(decl.when):
            for pointer in (0, 0x10, -1, (1 << 64) - 1, (1 << 47) - 4):
                client.refused("EFAULT", client.ioctl, fd, request, pointer)


@pytest.mark.parametrize("kind", COPIED_FIRST)
def test_a_struct_at_the_last_bytes_of_a_mapping(client: Client, kind: str) -> None:
    """It is read no further than it is long: one byte less and it faults, and else the answer is that of a buffer."""
    fd = opened(client, kind)
    for request, decl in kind_of(client, fd).ioctls.items():
        if decl.struct is None or not client.host.profile.offers(decl.when):
            continue
        data = bytes(decl.minsz)
        client.refused("EFAULT", client.ioctl, fd, request, Edge().put(data, beyond=1))
        assert outcome(client, fd, request, Edge().put(data)) == outcome(client, fd, request, bytearray(data))


def outcome(client: Client, fd: int, request: int, argument: Any) -> Any:
    try:
        return client.ioctl(fd, request, argument)
    except OSError as error:
        return error.errno


@pytest.mark.parametrize("kind", KINDS)
def test_ioctls_of_another_kind_of_file_are_unknown(client: Client, kind: str) -> None:
    fd = opened(client, kind)
    own = kind_of(client, fd)
    known = {request for cls in every_kind() for request in cls.ioctls}
    for request in known - own.ioctls.keys():
        expected = outcome(client, fd, 0xAEFF, 0)
        assert outcome(client, fd, request, 0) == expected, hex(request)


def every_kind() -> list[type[File]]:
    kinds, new = [], [File]
    while new:
        kinds += new
        new = [sub for cls in new for sub in cls.__subclasses__()]
    return kinds


@pytest.mark.parametrize("kind", KINDS)
def test_closed_numbers_are_ebadf_for_every_ioctl(client: Client, kind: str) -> None:
    fd = opened(client, kind)
    requests = list(kind_of(client, fd).ioctls)
    copy = os.dup(fd)
    client.close(copy)
    for request in requests:
        for closed in (copy, CLOSED):
            with pytest.raises(OSError, match="Bad file descriptor"):
                client.ioctl(closed, request, bytearray(64))


DESCRIPTORS = [-1, -2, CLOSED, 1 << 30, -(1 << 31)]


@pytest.mark.parametrize("number", DESCRIPTORS)
def test_bad_descriptors_inside_of_structs(client: Client, number: int) -> None:
    vm = client.vm()
    group, device = client.kernel.open("/dev/vfio/2"), client.device()
    client.refused("EBADF", client.irqfd, vm, number, 48)
    good = client.eventfd()
    client.refused("EBADF", client.irqfd, vm, good, 48, uapi.KVM_IRQFD_FLAG_RESAMPLE, number)
    assert client.host.eventfds.held() == []  # the good one was given back
    word = (number & 0xFFFFFFFF).to_bytes(4, "little")
    assert outcome(client, group, uapi.VFIO_GROUP_SET_CONTAINER, word) in (9, 22)
    task = client.kernel._task
    for look_up in (task.fget, task.eventfd):
        for form in (number, number & 0xFFFFFFFF):  # signed or not, as the struct has it
            with pytest.raises(KernelError, match="EBADF"):
                look_up(form)
    if number >= 0:  # negative ones mean none
        client.refused("EBADF", client.set_irqs, device, uapi.VFIO_IRQ_SET_ACTION_TRIGGER, number)
    assert client.host.eventfds.held() == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_for_any_ioctl(data: st.DataObject) -> None:
    client = Client()
    try:
        fd = opened(client, data.draw(st.sampled_from(KINDS), "kind"))
        for _ in range(5):
            request = data.draw(st.sampled_from(sorted(kind_of(client, fd).ioctls)), "request")
            argument = data.draw(st.binary(max_size=128), "argument")
            outcome(client, fd, request, bytearray(argument))
        client.kernel.check()
    finally:
        client.finish()
