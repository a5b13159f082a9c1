"""What is listed of a kernel is what it answers, no more and no less."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest
from support import Client

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.hw import boards
from kvmvfio_emu.hw.board import Board
from kvmvfio_emu.kernel.file import File
from kvmvfio_emu.view.offered import Change, changes, file_classes, offer

NOBODYS = 0xAEFE
EACH_PROFILE = pytest.mark.parametrize("profile", profiles.names())


def board(gic: int = 2) -> Board:
    return replace(boards.load("oracle-virt"), gic_version=gic)


def answer(call: Callable[..., object], *arguments: int) -> str:
    """The errno's name, "0" for none."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "0"


def files(client: Client) -> dict[type[File], int]:
    """A descriptor of each kind of file that the kernel has; the container has an IOMMU."""
    vm, container = client.vm(), client.container()
    group = client.kernel.open(f"/dev/vfio/{client.host.machine.board.devices[0].group}")
    client.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, bytearray(container.to_bytes(4, "little")))
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)
    opened = [client.kvm, vm, client.vcpu(vm), client.kvm_vfio(vm), container, group]
    for number, device in enumerate(client.host.machine.board.devices):
        opened.append(client.device(device.name, group if number == 0 else None))
    if client.host.profile.iommufd:
        opened.append(client.kernel.open("/dev/iommu"))
    found = [(client.kernel._descriptors.find(fd), fd) for fd in opened]
    return {type(file): fd for file, fd in found if file is not None}


@EACH_PROFILE
def test_an_ioctl_is_known_exactly_where_it_is_listed(profile: str, boot: Callable[..., Client]) -> None:
    client = boot(profile, board())
    listing = offer(profiles.load(profile))["ioctls"]
    open_files = files(client)
    for name, cls in file_classes():
        if cls not in open_files:
            assert name not in listing, "not opened above"
            continue
        for decl in cls.ioctls.values():
            if uapi.ioctl_name(decl.number, cls.kind) in listing[name]:
                continue
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is asserted below
                client.ioctl(open_files[cls], decl.number, bytearray(4096))
            with pytest.raises(OSError) as unknown:  # noqa: PT011
                client.ioctl(open_files[cls], NOBODYS)
            assert caught.value.errno == (unknown.value.errno if decl.absent is None else decl.absent), decl.handler
            assert any("knows no ioctl" in note or "not built in" in note for note in caught.value.__notes__)


@EACH_PROFILE
@pytest.mark.parametrize("gic", [2, 3])
def test_a_device_has_exactly_the_named_attributes_that_are_listed(
    profile: str, gic: int, boot: Callable[..., Client]
) -> None:
    client = boot(profile, board(gic))
    listed = offer(profiles.load(profile))["attributes"]
    kvm = client.host.modules["kvm"]
    for number, device_type in kvm.device_types.items():  # type: ignore[attr-defined]
        vm = client.vm()
        client.vcpu(vm, init=client.host.profile.arch != "x86_64")
        fd = client.create_device(vm, number)
        groups = listed[device_type.type_name]
        by_number = {getattr(uapi, group): names for group, names in groups.items()}
        for group in range(16):
            names = by_number.get(group, {})
            if "*" in names:
                continue
            told = {attr: answer(client.has, fd, group, attr) for attr in range(16)}
            assert told == {attr: "0" if attr in names.values() else "ENXIO" for attr in told}, group


@EACH_PROFILE
def test_a_vcpu_has_exactly_the_attributes_that_are_listed(profile: str, boot: Callable[..., Client]) -> None:
    client = boot(profile, board())
    vm = client.vm()
    vcpu = client.vcpu(vm, init=client.host.profile.arch != "x86_64")
    names = offer(profiles.load(profile))["attributes"].get("vcpu", {})
    if uapi.ioctl_name(uapi.KVM_HAS_DEVICE_ATTR, "vcpu") not in offer(profiles.load(profile))["ioctls"]["vcpu"]:
        assert names == {}
        return
    listed = {(getattr(uapi, group), attr) for group, attrs in names.items() for attr in attrs.values()}
    has = {(group, n) for group in range(8) for n in range(16) if answer(client.has, vcpu, group, n) == "0"}
    # Those of the performance monitors need a vCPU that was given them; on x86 there is the TSC's, of no Arm group.
    pmu = {pair for pair in listed if pair[0] == uapi.KVM_ARM_VCPU_PMU_V3_CTRL}
    assert has - {(0, 0)} == listed - pmu - {(0, 0)}


@EACH_PROFILE
def test_create_device_tells_of_the_types_that_are_listed(profile: str, boot: Callable[..., Client]) -> None:
    listed = offer(profiles.load(profile))["devices"]
    for gic in (2, 3):
        client = boot(profile, board(gic))
        vm = client.vm()
        here = {entry["type"] for entry in listed.values() if entry["host_gic"] in (None, gic)}
        for number in range(16):
            told = answer(client.create_device, vm, number, uapi.KVM_CREATE_DEVICE_TEST)
            assert told == ("0" if number in here else "ENODEV"), number


def test_every_kind_of_file_is_listed() -> None:
    listing = offer(profiles.load("linux-6.12"))["ioctls"]
    assert {name.split()[0] for name in listing} == set(uapi.KINDS)
    assert {"vfio-device (pci)", "vfio-device (platform)"} <= set(listing)
    assert "iommufd" not in offer(profiles.load("mainline"))["ioctls"]


def test_every_condition_names_fields_of_a_profile() -> None:
    for name in profiles.names():
        offer(profiles.load(name))  # AttributeError otherwise


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("", True),
        ("ioeventfd", True),
        ("!ioeventfd", False),
        ("irq_routing", False),
        ("forward_control", True),
        ("forward_control=assign", True),
        ("forward_control=forward", False),
        ("arch!=x86_64", True),
        ("arch!=arm64", False),
        ("ioeventfd arch=arm64", True),
        ("ioeventfd arch=x86_64", False),
    ],
)
def test_conditions(condition: str, expected: bool) -> None:
    assert profiles.load("rfc-2014").offers(condition) is expected


def test_a_condition_on_no_field_is_an_error() -> None:
    with pytest.raises(AttributeError):
        profiles.load().offers("no_such_field")


def test_the_forward_control_is_on_one_side_only() -> None:
    found = changes(offer(profiles.load("rfc-2014")), offer(profiles.load("linux-6.1")))
    item = "KVM_DEV_TYPE_VFIO KVM_DEV_VFIO_DEVICE KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ"
    assert Change("attributes", item, 1, None) in found
    assert not [change for change in found if change.item.startswith("KVM_DEV_TYPE_VFIO") and change.right is not None]


def test_no_change_between_a_kernel_and_itself() -> None:
    listing = offer(profiles.load("linux-6.12"))
    assert changes(listing, listing) == []
