"""KVM_CREATE_DEVICE and the life of what it makes. Contract 2.1, 2.7."""

from __future__ import annotations

import os
import resource

import pytest
from support import BAD_POINTERS, Client, Edge

from kvmvfio_emu import uapi

VFIO, VGIC_V2 = uapi.KVM_DEV_TYPE_VFIO, uapi.KVM_DEV_TYPE_ARM_VGIC_V2
TEST = uapi.KVM_CREATE_DEVICE_TEST
UNCHANGED = 0xFFFFFFFF


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_argument_is_efault(client: Client, vm: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, vm, uapi.KVM_CREATE_DEVICE, pointer)


@pytest.mark.parametrize("flags", [0, TEST, 2, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 6, 7, 8, 9, 20, 4096, 0xFFFFFFFF])
def test_type_without_operations_is_enodev(client: Client, vm: int, kind: int, flags: int) -> None:
    client.refused("ENODEV", client.create_device, vm, kind, flags)


@pytest.mark.parametrize("flags", [TEST, TEST | 2, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", [VFIO, VGIC_V2])
def test_test_flag_creates_nothing_and_leaves_fd(client: Client, vm: int, kind: int, flags: int) -> None:
    before = client.state()
    assert client.create_device(vm, kind, flags) == UNCHANGED
    assert client.state() == before


@pytest.mark.parametrize("flags", [2, 0x80000000, 0xFFFFFFFE])
@pytest.mark.parametrize("kind", [VFIO, VGIC_V2])
def test_other_flag_bits_are_ignored(client: Client, vm: int, kind: int, flags: int) -> None:
    assert client.kernel.emulates(client.create_device(vm, kind, flags))


def test_second_kvm_vfio_is_ebusy_but_test_is_0(client: Client, vm: int, control: int) -> None:
    client.refused("EBUSY", client.kvm_vfio, vm)
    assert client.create_device(vm, VFIO, TEST) == UNCHANGED


def test_kvm_vfio_in_two_vms(client: Client, control: int) -> None:
    assert client.kernel.emulates(client.kvm_vfio(client.vm()))


def test_closed_kvm_vfio_still_counts_so_a_second_is_ebusy(client: Client, vm: int, control: int) -> None:
    client.close(control)
    client.refused("EBUSY", client.kvm_vfio, vm)


def test_descriptor_is_read_write_and_cloexec(control: int) -> None:
    assert not os.get_inheritable(control)
    assert os.readlink(f"/proc/self/fd/{control}").startswith("/memfd:anon_inode:kvm-vfio")


def test_device_keeps_its_vm(client: Client, vm: int, control: int) -> None:
    client.close(vm)
    assert client.kernel.counters["vm_destroy"] == 0
    client.close(control)
    assert client.kernel.counters["vm_destroy"] == 1


def test_full_descriptor_table_is_emfile_and_the_device_is_gone(client: Client, vm: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # below what is open: nothing more fits
    try:
        create = uapi.pack("struct kvm_create_device", type=VFIO)
        with pytest.raises(OSError, match="Too many open files"):
            client.ioctl(vm, uapi.KVM_CREATE_DEVICE, create)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert client.kernel.open_files() == ["kvm", "vm"]
    assert client.kernel.emulates(client.kvm_vfio(vm))


def test_result_that_cannot_be_copied_out_is_efault_though_the_device_exists(client: Client, vm: int) -> None:
    address = Edge(writable=False).put(uapi.pack("struct kvm_create_device", type=VFIO))
    with pytest.raises(OSError, match="Bad address"):
        client.ioctl(vm, uapi.KVM_CREATE_DEVICE, address)
    assert client.kernel.open_files() == ["device", "kvm", "vm"]
    client.refused("EBUSY", client.kvm_vfio, vm)
