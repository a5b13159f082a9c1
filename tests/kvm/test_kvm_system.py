"""/dev/kvm, what every descriptor answers to a number it does not know, and to another process. Contract 1.1, 1.3."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from support import BOARD, Client

from kvmvfio_emu import profiles, uapi

UNKNOWN = [0xAEFE, 0x3B64, 0xC0DE, 0, 0xFFFFFFFF]


def test_api_version_is_12(client: Client) -> None:
    assert client.ioctl(client.kvm, uapi.KVM_GET_API_VERSION) == 12


@pytest.mark.parametrize("argument", [1, 0xFFFFFFFF, 1 << 63])
def test_api_version_with_an_argument_is_einval(client: Client, argument: int) -> None:
    client.refused("EINVAL", client.ioctl, client.kvm, uapi.KVM_GET_API_VERSION, argument)


def test_vcpu_mmap_size_is_the_run_page_and_the_coalesced_ring(client: Client) -> None:
    assert client.ioctl(client.kvm, uapi.KVM_GET_VCPU_MMAP_SIZE) == 8192


def test_vcpu_mmap_size_with_an_argument_is_einval(client: Client) -> None:
    client.refused("EINVAL", client.ioctl, client.kvm, uapi.KVM_GET_VCPU_MMAP_SIZE, 1)


@pytest.mark.parametrize("machine_type", [1, 2, 0x80000000, 0xFFFFFFFF])
def test_create_vm_of_a_type_is_einval(client: Client, machine_type: int) -> None:
    client.refused("EINVAL", client.ioctl, client.kvm, uapi.KVM_CREATE_VM, machine_type)


def test_create_vm_gives_a_cloexec_descriptor(client: Client, vm: int) -> None:
    assert not os.get_inheritable(vm)
    assert client.kernel.open_files() == ["kvm", "vm"]


@pytest.mark.parametrize("request_", UNKNOWN)
def test_unknown_ioctl_on_dev_kvm_is_einval(client: Client, request_: int) -> None:
    client.refused("EINVAL", client.ioctl, client.kvm, request_)


@pytest.mark.parametrize("request_", [*UNKNOWN, uapi.KVM_GET_API_VERSION, uapi.KVM_CREATE_VM, uapi.KVM_RUN])
def test_unknown_ioctl_on_a_vm_is_einval(client: Client, vm: int, request_: int) -> None:
    client.refused("EINVAL", client.ioctl, vm, request_)


@pytest.mark.parametrize("request_", [*UNKNOWN, uapi.KVM_GET_API_VERSION, uapi.KVM_CREATE_VCPU, uapi.KVM_IRQFD])
def test_unknown_ioctl_on_a_vcpu_is_einval(client: Client, vm: int, request_: int) -> None:
    client.refused("EINVAL", client.ioctl, client.vcpu(vm), request_)


@pytest.mark.parametrize("request_", [*UNKNOWN, uapi.KVM_GET_API_VERSION, uapi.KVM_IRQFD])
def test_unknown_ioctl_on_a_device_is_enotty(client: Client, control: int, request_: int) -> None:
    client.refused("ENOTTY", client.ioctl, control, request_)


def test_device_attr_is_no_ioctl_of_dev_kvm_and_is_einval(client: Client) -> None:
    client.refused("EINVAL", client.has, client.kvm, 0, 0)


# -- capabilities ------------------------------------------------------------------------------------------------


def _check(client: Client, fd: int, capability: int) -> int:
    return int(client.ioctl(fd, uapi.KVM_CHECK_EXTENSION, capability))


#: What a virtual machine answers otherwise than /dev/kvm; see the tests of Linux 6 and of x86.
OF_THE_VM = ("KVM_CAP_MSI_DEVID", "KVM_CAP_X2APIC_API")


@pytest.mark.parametrize("name", profiles.names())
def test_every_capability_answers_as_the_profile_says(boot: Callable[..., Client], name: str) -> None:
    client = boot(name)
    profile = {**profiles.load(name).capabilities, "KVM_CAP_NR_VCPUS": BOARD.cpus}
    if client.host.profile.is_arm:  # a GICv2 has eight CPU interfaces
        limits = {key: min(profile[key], 8) for key in ("KVM_CAP_MAX_VCPUS", "KVM_CAP_MAX_VCPU_ID") if key in profile}
        profile.update(limits)
    expected = {getattr(uapi, capability): answer for capability, answer in profile.items()}
    vm = client.vm()
    for number in set(range(300)) - {getattr(uapi, capability) for capability in OF_THE_VM}:
        assert _check(client, client.kvm, number) == expected.get(number, 0), number
        assert _check(client, vm, number) == expected.get(number, 0), number


@pytest.mark.parametrize(
    ("capability", "answer"),
    [
        ("IRQCHIP", 1),
        ("USER_MEMORY", 1),
        ("SYNC_MMU", 1),
        ("IRQ_ROUTING", 0),
        ("IRQFD", 1),
        ("IRQFD_RESAMPLE", 1),
        ("ENABLE_CAP", 0),
        ("SIGNAL_MSI", 0),
        ("MAX_VCPUS", 4),
        ("DEVICE_CTRL", 1),
        ("ARM_SET_DEVICE_ADDR", 1),
        ("CHECK_EXTENSION_VM", 1),
    ],
)
def test_the_rfc_has_the_capabilities_of_its_base_and_irqfd(client: Client, capability: str, answer: int) -> None:
    assert _check(client, client.kvm, getattr(uapi, f"KVM_CAP_{capability}")) == answer


@pytest.mark.parametrize("number", [9999, 0xFFFFFFFF, (1 << 64) - 1])
def test_unknown_capability_is_0(client: Client, vm: int, number: int) -> None:
    assert _check(client, client.kvm, number) == _check(client, vm, number) == 0


# -- another process ---------------------------------------------------------------------------------------------


def _in_child(call: Callable[[], object]) -> int:
    """The errno that ``call`` meets in a forked child, 0 for none."""
    child = os.fork()
    if not child:
        status = 255
        try:
            call()
            status = 0
        except OSError as error:
            status = error.errno or 254
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_vm_ioctl_of_another_mm_is_eio(client: Client, vm: int) -> None:
    assert _in_child(lambda: client.ioctl(vm, uapi.KVM_CHECK_EXTENSION, 0)) == errno.EIO
    assert _in_child(lambda: client.ioctl(vm, 0xAEFE)) == errno.EIO
    assert client.ioctl(vm, uapi.KVM_CHECK_EXTENSION, 0) == 1


def test_vcpu_ioctl_of_another_mm_is_eio(client: Client, vm: int) -> None:
    vcpu = client.vcpu(vm)
    assert _in_child(lambda: client.ioctl(vcpu, uapi.KVM_RUN)) == errno.EIO


def test_device_ioctl_of_another_mm_works(client: Client, control: int) -> None:
    assert _in_child(lambda: client.has(control, uapi.KVM_DEV_VFIO_GROUP, 1)) == 0


def test_dev_kvm_of_another_mm_works(client: Client) -> None:
    kvm = client.kvm
    assert _in_child(lambda: client.ioctl(kvm, uapi.KVM_GET_API_VERSION)) == 0
