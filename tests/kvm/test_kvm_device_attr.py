"""The three verbs of device attributes, whatever the device. Contract 2.2."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import ADDR, ASSIGN, BAD_POINTERS, CLOSED, DEASSIGN, DEVICE, GROUP, GROUP_ADD, GROUP_DEL, Client

from kvmvfio_emu import uapi

VERBS = [uapi.KVM_SET_DEVICE_ATTR, uapi.KVM_HAS_DEVICE_ATTR]
UNKNOWN_ATTRS = [
    (GROUP, 0),
    (GROUP, 3),
    (GROUP, (1 << 32) + 1),
    (DEVICE, 0),
    (DEVICE, 3),
    (DEVICE, (1 << 63) + 1),
    (0, 1),
    (3, 1),
    (0xFFFFFFFF, 1),
]


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_get_on_kvm_vfio_is_eperm_before_the_argument_is_read(client: Client, control: int, pointer: int) -> None:
    client.refused("EPERM", client.ioctl, control, uapi.KVM_GET_DEVICE_ATTR, pointer)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
@pytest.mark.parametrize("verb", VERBS)
def test_wild_attr_is_efault(client: Client, control: int, verb: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, control, verb, pointer)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_attr_of_get_on_the_vgic_is_efault(client: Client, vm: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, client.vgic(vm), uapi.KVM_GET_DEVICE_ATTR, pointer)


@pytest.mark.parametrize(("group", "attr"), UNKNOWN_ATTRS)
@pytest.mark.parametrize("verb", VERBS)
def test_unknown_group_or_attr_is_enxio_before_the_payload_is_read(
    client: Client, control: int, verb: int, group: int, attr: int
) -> None:
    client.refused("ENXIO", client.attr, control, verb, group, attr)


@pytest.mark.parametrize(("group", "attr"), [(GROUP, 1), (GROUP, 2), (DEVICE, ASSIGN), (DEVICE, DEASSIGN)])
@pytest.mark.parametrize("addr", BAD_POINTERS)
def test_has_is_0_and_never_looks_at_addr(client: Client, control: int, group: int, attr: int, addr: int) -> None:
    assert client.has(control, group, attr, addr) == 0


@pytest.mark.parametrize("attr", [ASSIGN, DEASSIGN])
def test_has_of_the_device_group_is_enxio_on_mainline(boot: Callable[..., Client], attr: int) -> None:
    client = boot("mainline")
    client.refused("ENXIO", client.has, client.kvm_vfio(client.vm()), DEVICE, attr)


def test_flags_are_ignored(client: Client, control: int) -> None:
    fd = client.pointer(CLOSED.to_bytes(4, "little"))
    assert client.attr(control, uapi.KVM_HAS_DEVICE_ATTR, GROUP, GROUP_ADD, flags=1) == 0
    client.refused("EBADF", client.attr, control, uapi.KVM_SET_DEVICE_ATTR, GROUP, GROUP_DEL, fd, flags=0xFFFFFFFF)


@pytest.mark.parametrize("addr", BAD_POINTERS)
@pytest.mark.parametrize(("group", "attr"), [(GROUP, 1), (GROUP, 2), (DEVICE, ASSIGN), (DEVICE, DEASSIGN)])
def test_wild_payload_is_efault(client: Client, control: int, group: int, attr: int, addr: int) -> None:
    client.refused("EFAULT", client.set_at, control, group, attr, addr)


def test_attr_of_a_device_works_after_its_vm_descriptor_is_closed(client: Client, vm: int) -> None:
    vgic = client.vgic(vm)
    client.close(vm)
    assert client.has(vgic, ADDR, 0) == 0
