"""What the tables of device attributes say besides the numbers is true: payload, direction, errors. The reference is
written from it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest
from gicv3_rig import GICV3_BOARD
from hypothesis import given
from hypothesis import strategies as st
from support import BAD_POINTERS, BOARD, CLOSED, NIC, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup, offered
from kvmvfio_emu.kernel.kvm.device import KvmDevice
from kvmvfio_emu.kernel.kvm.module import DEVICE_TYPES

#: (profile, version of the host's GIC) that together have every type.
HOSTS = [("rfc-2014", 2), ("rfc-v2", 2), ("draft-v4", 2), ("mainline", 2), ("linux-6.1", 2), ("linux-6.12", 3)]
BOARDS = {2: BOARD, 3: GICV3_BOARD}
SIZES = {"int32_t": 4, "uint32_t": 4, "uint64_t": 8}


def kinds(client: Client) -> list[type[KvmDevice]]:
    """The types of device of a kernel."""
    return list(client.host.modules["kvm"].device_types.values())


def numbers(row: AttrGroup) -> list[int]:
    """Attributes of a row: those with a name, else a few that exist or not."""
    return [getattr(uapi, name) for name in row.names] or [0, 4, 8, 0x100, 0x104, 0x304, 0xC230, 1 << 32, 0xFFF8, 3]


def declared_errors(row: AttrGroup) -> set[str]:
    """What a call on the row may fail with."""
    found = {text.split(" ", 1)[0] for text in row.errors}
    found |= {"EFAULT"} if row.payload else set()
    return found | ({"ENXIO"} if row.encodes else set())


def test_every_row_of_every_type_says_what_it_does_and_each_error_what_it_means() -> None:
    for kind in DEVICE_TYPES:
        for row in kind.attributes:
            assert row.what, f"{kind.__name__}, {row.group}"
            for error in row.errors:
                name, meaning = error.split(" ", 1)
                assert hasattr(errno, name)
                assert meaning, f"{kind.__name__}, {row.group}: {error}"


def test_the_hosts_here_have_every_type() -> None:
    found = set()
    for profile, gic in HOSTS:
        client = Client(profile, BOARDS[gic])
        found |= set(kinds(client))
        client.finish()
    assert found == set(DEVICE_TYPES)


def answer(verb: Callable[..., int], *arguments: int) -> str:
    """The name of the errno of a call, or nothing."""
    try:
        verb(*arguments)
    except OSError as refused:
        return errno.errorcode[refused.errno or 0]
    return ""


@pytest.mark.parametrize(("profile", "gic"), HOSTS)
@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_a_bad_payload_is_efault_exactly_where_there_is_one(profile: str, gic: int, pointer: int) -> None:
    client = Client(profile, BOARDS[gic])
    for kind in kinds(client):
        vm = client.vm()
        client.vcpu(vm, init=True)
        fd = client.create_device(vm, getattr(uapi, kind.type_name))
        rows = sorted(
            offered(kind.attributes, client.host.profile), key=lambda row: bool(row.payload)
        )  # CTRL_INIT first
        for row in rows:
            answers = {answer(client.set_at, fd, row.number, attr, pointer) for attr in numbers(row)}
            assert ("EFAULT" in answers) is bool(row.payload), row
            assert answers <= {*declared_errors(row), "" if not row.payload else "EFAULT"}, row
    client.finish()


@pytest.mark.parametrize(("profile", "gic"), HOSTS)
def test_what_cannot_be_read_is_eperm_or_enxio(profile: str, gic: int) -> None:
    client = Client(profile, BOARDS[gic])
    for kind in kinds(client):
        vm = client.vm()
        client.vcpu(vm, init=True)
        fd = client.create_device(vm, getattr(uapi, kind.type_name))
        for row in offered(kind.attributes, client.host.profile):
            if not row.gettable:
                expected = "EPERM" if kind.get_attr is KvmDevice.get_attr else "ENXIO"
                client.refused(expected, client.get, fd, row.number, numbers(row)[0], 8)
    client.finish()


WORDS = st.sampled_from([0, 1, 31, 64, 96, 0x1000, 0x0800_0000, 0x0801_0000, 0x080A_0000, 1 << 40, (1 << 64) - 1])


def forwarding(client: Client, data: st.DataObject, descriptors: list[int]) -> bytes:
    """A payload of the DEVICE group, in the kernel's form."""
    fields = {"fd": data.draw(st.sampled_from(descriptors)), "index": data.draw(st.integers(0, 3))}
    gsi = data.draw(st.sampled_from([80, 81, 0xFFF]))
    if client.host.profile.forward_struct == "struct kvm_arch_forwarded_irq":
        return bytes(uapi.pack("struct kvm_arch_forwarded_irq", gsi=gsi, **fields))
    header = uapi.pack("struct kvm_vfio_dev_irq", argsz=24, count=data.draw(st.integers(0, 2)), **fields)
    return bytes(header) + gsi.to_bytes(4, "little")


@pytest.mark.parametrize(("profile", "gic"), HOSTS)
@given(data=st.data())
def test_only_declared_errors(profile: str, gic: int, data: st.DataObject) -> None:
    client = Client(profile, BOARDS[gic])
    device = client.device(NIC)
    kind = data.draw(st.sampled_from(kinds(client)))
    vm = client.vm()
    for number in range(data.draw(st.integers(0, 2))):
        client.vcpu(vm, number, init=True)
    fd = client.create_device(vm, getattr(uapi, kind.type_name))
    rows = list(offered(kind.attributes, client.host.profile))
    for _ in range(12):
        row = data.draw(st.sampled_from(rows))
        attr = data.draw(st.sampled_from(numbers(row)))
        if row.payload in SIZES:
            payload = data.draw(WORDS | st.sampled_from([device, client.kvm])).to_bytes(8, "little")
        else:
            payload = forwarding(client, data, [device, client.kvm, CLOSED])
        verb = client.get_at if row.gettable and data.draw(st.booleans()) else client.set_at
        refused = answer(verb, fd, row.number, attr, client.pointer(payload + bytes(8)))
        assert refused in {"", *declared_errors(row)}, f"{kind.__name__}, {row.group}, {attr:#x}: {refused}"
    client.finish()


def test_a_host_without_split_completion_says_enxio() -> None:
    client = Client("rfc-2014", replace(BOARD, split_eoi=False))
    vm = client.vm()
    row = next(row for row in kinds(client)[0].attributes if row.group == "KVM_DEV_VFIO_DEVICE")
    assert "ENXIO" in declared_errors(row)
    client.refused("ENXIO", client.set_at, client.kvm_vfio(vm), row.number, numbers(row)[0], 0)
    client.finish()
