"""KVM_DEV_VFIO_GROUP_ADD and DEL, as in 3.17 and as after the fix of 2017. Contract 2.3."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support import CLOSED, GROUP, GROUP_ADD, GROUP_DEL, PCI, Client, Edge

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.board import Board, DeviceSpec

BOTH = pytest.mark.parametrize("attr", [GROUP_ADD, GROUP_DEL])


@pytest.fixture
def fixed(boot: Callable[..., Client]) -> Client:
    """A kernel after the fix: DEL goes by the file."""
    return boot(group_del_by_file=True)


def _others(client: Client, vm: int, control: int) -> list[int]:
    """Descriptors of all that is no group."""
    device = client.device(PCI)
    return [vm, control, client.kvm, client.container(), client.eventfd(), client.vcpu(vm), device]


@BOTH
@pytest.mark.parametrize("fd", [CLOSED, 0xFFFFFFFF, 0x80000000])
def test_closed_fd_is_ebadf(client: Client, control: int, attr: int, fd: int) -> None:
    client.refused("EBADF", client.set_u32, control, GROUP, attr, fd)


def test_add_of_what_is_no_group_is_einval(client: Client, vm: int, control: int) -> None:
    for fd in _others(client, vm, control):
        client.refused("EINVAL", client.set_u32, control, GROUP, GROUP_ADD, fd)


def test_del_of_what_is_no_group_is_einval_in_2014(client: Client, vm: int, control: int) -> None:
    for fd in _others(client, vm, control):
        client.refused("EINVAL", client.set_u32, control, GROUP, GROUP_DEL, fd)


def test_del_of_what_is_no_group_is_enoent_after_the_fix(fixed: Client) -> None:
    vm = fixed.vm()
    control = fixed.kvm_vfio(vm)
    for fd in _others(fixed, vm, control):
        fixed.refused("ENOENT", fixed.set_u32, control, GROUP, GROUP_DEL, fd)


def test_add_without_vfio_is_einval_and_closed_fd_still_ebadf(client: Client, control: int) -> None:
    group = client.group()
    vfio = client.host.modules.pop("vfio")
    client.refused("EINVAL", client.set_u32, control, GROUP, GROUP_ADD, group)
    client.refused("EBADF", client.set_u32, control, GROUP, GROUP_ADD, CLOSED)
    client.host.modules["vfio"] = vfio


def test_add_of_a_group_without_container_is_einval(client: Client, control: int) -> None:
    client.refused("EINVAL", client.set_u32, control, GROUP, GROUP_ADD, client.kernel.open("/dev/vfio/1"))


def test_add_of_a_group_whose_container_has_no_iommu_is_einval(client: Client, control: int) -> None:
    client.refused("EINVAL", client.set_u32, control, GROUP, GROUP_ADD, client.group(iommu=False))


def test_add_of_a_group_that_is_not_viable_is_einval(boot: Callable[..., Client]) -> None:
    ours = DeviceSpec("a.dev", "none", 1)
    client = boot(board=Board("shared", devices=(ours, DeviceSpec("b.dev", "none", 1, driver=""))))
    control, group = client.kvm_vfio(client.vm()), client.group()
    client.host.modules["vfio"].devices["b.dev"].driver = "some-nic"
    client.refused("EINVAL", client.set_u32, control, GROUP, GROUP_ADD, group)


def test_add_twice_is_eexist(client: Client, control: int) -> None:
    group = client.group()
    client.set_u32(control, GROUP, GROUP_ADD, group)
    client.refused("EEXIST", client.set_u32, control, GROUP, GROUP_ADD, group)


def test_add_of_a_dup_is_eexist(client: Client, control: int) -> None:
    group = client.group()
    client.set_u32(control, GROUP, GROUP_ADD, group)
    client.refused("EEXIST", client.set_u32, control, GROUP, GROUP_ADD, os.dup(group))


def test_add_holds_the_group_and_del_gives_it_back(client: Client, control: int) -> None:
    group = client.group()
    before = client.state()
    client.set_u32(control, GROUP, GROUP_ADD, group)
    client.refused("EBUSY", client.ioctl, group, uapi.VFIO_GROUP_UNSET_CONTAINER)
    client.set_u32(control, GROUP, GROUP_DEL, os.dup(group))
    assert client.state() == before
    assert client.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER) == 0


@pytest.mark.parametrize("fixture", ["client", "fixed"])
def test_del_of_a_group_that_was_not_added_is_enoent(request: pytest.FixtureRequest, fixture: str) -> None:
    client: Client = request.getfixturevalue(fixture)
    control, group = client.kvm_vfio(client.vm()), client.group()
    client.refused("ENOENT", client.set_u32, control, GROUP, GROUP_DEL, group)
    client.set_u32(control, GROUP, GROUP_ADD, client.group(2))
    client.refused("ENOENT", client.set_u32, control, GROUP, GROUP_DEL, group)


@pytest.mark.parametrize(("fixture", "name"), [("client", "EINVAL"), ("fixed", "ENOENT")])
def test_del_of_a_group_without_container(request: pytest.FixtureRequest, fixture: str, name: str) -> None:
    client: Client = request.getfixturevalue(fixture)
    control, group = client.kvm_vfio(client.vm()), client.kernel.open("/dev/vfio/1")
    client.refused(name, client.set_u32, control, GROUP, GROUP_DEL, group)


def test_del_twice_is_enoent(fixed: Client) -> None:
    control, group = fixed.kvm_vfio(fixed.vm()), fixed.group()
    fixed.set_u32(control, GROUP, GROUP_ADD, group)
    fixed.set_u32(control, GROUP, GROUP_DEL, group)
    fixed.refused("ENOENT", fixed.set_u32, control, GROUP, GROUP_DEL, group)


def test_one_group_in_two_vms(client: Client, control: int) -> None:
    group = client.group()
    for device in (control, client.kvm_vfio(client.vm())):
        client.set_u32(device, GROUP, GROUP_ADD, group)
        client.refused("EEXIST", client.set_u32, device, GROUP, GROUP_ADD, group)


def test_vm_that_goes_gives_its_groups_back(client: Client, vm: int) -> None:
    control, group = client.kvm_vfio(vm), client.group()
    client.set_u32(control, GROUP, GROUP_ADD, group)
    client.close(control)
    client.refused("EBUSY", client.ioctl, group, uapi.VFIO_GROUP_UNSET_CONTAINER)
    client.close(vm)
    assert client.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER) == 0


def test_payload_at_the_last_bytes_of_a_mapping(client: Client, control: int) -> None:
    payload, edge = client.group().to_bytes(4, "little"), Edge()
    client.refused("EFAULT", client.set_at, control, GROUP, GROUP_ADD, edge.put(payload, beyond=1))
    assert client.set_at(control, GROUP, GROUP_ADD, edge.put(payload)) == 0
