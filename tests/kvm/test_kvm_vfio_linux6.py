"""The KVM-VFIO device of Linux 6: it holds open files, of groups and from 6.6 on of devices, and ends with its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from linux6 import ARM, NEW, OLD
from support import GROUP, GROUP_ADD, GROUP_DEL, NIC, Client

from kvmvfio_emu import uapi


@pytest.fixture(params=ARM)
def linux(request: pytest.FixtureRequest, boot: Callable[..., Client]) -> Client:
    return boot(request.param)


def change(client: Client, control: int, attr: int, fd: int) -> None:
    client.set_u32(control, GROUP, attr, fd & 0xFFFFFFFF)


def test_a_group_needs_no_container(linux: Client) -> None:
    control, group = linux.kvm_vfio(linux.vm()), linux.kernel.open("/dev/vfio/1")
    change(linux, control, GROUP_ADD, group)
    linux.refused("EEXIST", change, linux, control, GROUP_ADD, group)
    change(linux, control, GROUP_DEL, group)
    linux.refused("ENOENT", change, linux, control, GROUP_DEL, group)


def test_a_group_in_one_vm_can_go_to_another(linux: Client) -> None:
    first, second = (linux.kvm_vfio(linux.vm()) for _ in range(2))
    group = linux.kernel.open("/dev/vfio/1")
    change(linux, first, GROUP_ADD, group)
    change(linux, second, GROUP_ADD, group)


def test_a_group_that_kvm_holds_stays_open(linux: Client) -> None:
    control, group = linux.kvm_vfio(linux.vm()), linux.kernel.open("/dev/vfio/1")
    change(linux, control, GROUP_ADD, group)
    linux.close(group)
    linux.refused("EBUSY", linux.kernel.open, "/dev/vfio/1")
    linux.close(control)
    linux.close(linux.kernel.open("/dev/vfio/1"))


def test_a_second_device_when_the_first_is_closed(linux: Client) -> None:
    vm = linux.vm()
    control = linux.kvm_vfio(vm)
    linux.refused("EBUSY", linux.kvm_vfio, vm)
    linux.close(control)
    linux.kvm_vfio(vm)


@pytest.mark.parametrize(("profile", "taken"), [(OLD, False), (NEW, True)])
def test_a_device_file_is_taken_from_6_6_on(boot: Callable[..., Client], profile: str, taken: bool) -> None:
    client = boot(profile)
    control, device = client.kvm_vfio(client.vm()), client.device(NIC)
    if not taken:
        client.refused("EINVAL", change, client, control, GROUP_ADD, device)
        client.refused("ENOENT", change, client, control, GROUP_DEL, device)
        return
    change(client, control, GROUP_ADD, device)
    client.refused("EEXIST", change, client, control, GROUP_ADD, device)
    client.close(device)
    assert "vfio-device" in client.kernel.open_files(), "KVM holds it"
    client.close(control)
    assert "vfio-device" not in client.kernel.open_files()


def test_container_and_kvm_files_are_not_vfio_s(linux: Client) -> None:
    vm = linux.vm()
    control = linux.kvm_vfio(vm)
    for fd in (linux.container(), vm, control):
        linux.refused("EINVAL", change, linux, control, GROUP_ADD, fd)
        linux.refused("ENOENT", change, linux, control, GROUP_DEL, fd)


def test_there_is_nothing_to_get_whatever_the_pointer(linux: Client) -> None:
    control = linux.kvm_vfio(linux.vm())
    linux.refused("EPERM", linux.ioctl, control, uapi.KVM_GET_DEVICE_ATTR, 0)
