"""KVM_SET_GSI_ROUTING and KVM_SIGNAL_MSI. Contract 5.1."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support import BAD_POINTERS, DIST_REGS, Client, Edge

from kvmvfio_emu import uapi

IRQCHIP = uapi.KVM_IRQ_ROUTING_IRQCHIP


@pytest.fixture
def routed(boot: Callable[..., Client]) -> Client:
    """A kernel with interrupt routing."""
    return boot(irq_routing=True)


def _entry(gsi: int = 5, kind: int = IRQCHIP, flags: int = 0, chip: int = 0, pin: int = 5) -> bytearray:
    entry = uapi.pack("struct kvm_irq_routing_entry", gsi=gsi, type=kind, flags=flags)
    struct = uapi.view("struct kvm_irq_routing_entry", entry)
    struct.u.irqchip.irqchip, struct.u.irqchip.pin = chip, pin
    return entry


def _table(*entries: bytearray, **header: int) -> bytearray:
    return uapi.pack("struct kvm_irq_routing", **{"nr": len(entries), **header}) + b"".join(entries)


def _set(client: Client, vm: int, *entries: bytearray, **header: int) -> int:
    return int(client.ioctl(vm, uapi.KVM_SET_GSI_ROUTING, client.pointer(_table(*entries, **header))))


@pytest.mark.parametrize("entries", [0, 1])
def test_profile_without_routing_is_einval(client: Client, vm: int, entries: int) -> None:
    client.refused("EINVAL", _set, client, vm, *[_entry()] * entries)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_profile_without_routing_is_einval_whatever_the_pointer(client: Client, vm: int, pointer: int) -> None:
    client.refused("EINVAL", client.ioctl, vm, uapi.KVM_SET_GSI_ROUTING, pointer)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_header_is_efault(routed: Client, pointer: int) -> None:
    routed.refused("EFAULT", routed.ioctl, routed.vm(), uapi.KVM_SET_GSI_ROUTING, pointer)


@pytest.mark.parametrize("nr", [4097, 100000, 0x80000000, 0xFFFFFFFF])
def test_too_many_routes_is_einval_before_they_are_read(routed: Client, nr: int) -> None:
    routed.refused("EINVAL", _set, routed, routed.vm(), nr=nr)


@pytest.mark.parametrize("nr", [2, 4096])
def test_routes_over_the_end_of_a_mapping_are_efault(routed: Client, nr: int) -> None:
    vm, edge = routed.vm(), Edge()
    assert routed.ioctl(vm, uapi.KVM_SET_GSI_ROUTING, edge.put(_table(_entry()))) == 0
    routed.refused("EFAULT", routed.ioctl, vm, uapi.KVM_SET_GSI_ROUTING, edge.put(_table(_entry(6), nr=nr)))


@pytest.mark.parametrize("flags", [1, 0x80000000])
def test_header_flags_are_einval(routed: Client, flags: int) -> None:
    routed.refused("EINVAL", _set, routed, routed.vm(), _entry(), flags=flags)


@pytest.mark.parametrize(
    "fields",
    [
        {"gsi": 4096},
        {"gsi": 0xFFFFFFFF},
        {"kind": 0},
        {"kind": 9},
        {"kind": uapi.KVM_IRQ_ROUTING_MSI, "flags": 2},
        {"flags": 1},
        {"chip": 1},
        {"chip": 9},
        {"pin": 988},
        {"pin": 9999},
        {"pin": 0xFFFFFFFF},
    ],
    ids=str,
)
def test_bad_entry_is_einval_and_leaves_the_old_table(routed: Client, fields: dict[str, int]) -> None:
    vm = routed.vm()
    _set(routed, vm, _entry(7, pin=7))
    routed.refused("EINVAL", _set, routed, vm, _entry(6, pin=6), _entry(**fields))


def test_one_gsi_twice_to_one_chip_is_einval(routed: Client) -> None:
    routed.refused("EINVAL", _set, routed, routed.vm(), _entry(), _entry(pin=6))


def test_two_gsis_to_one_pin(routed: Client) -> None:
    assert _set(routed, routed.vm(), _entry(5), _entry(6)) == 0


@pytest.mark.parametrize("gsi", [0, 4095])
@pytest.mark.parametrize("pin", [0, 987])
def test_limits_of_gsi_and_pin(routed: Client, gsi: int, pin: int) -> None:
    assert _set(routed, routed.vm(), _entry(gsi, pin=pin)) == 0


@pytest.mark.parametrize(("routes", "pending"), [(None, 1 << 8), ([(8, 20)], 1 << 20), ([(9, 8)], 0), ([], 0)], ids=str)
def test_table_says_where_an_irqfd_leads(routed: Client, routes: list[tuple[int, int]] | None, pending: int) -> None:
    vm, vgic = routed.machine()
    routed.set_u32(vgic, DIST_REGS, 0xC08, 0xAAAAAAAA)  # edge: a pulse stays pending
    routed.set_u32(vgic, DIST_REGS, 0xC0C, 0xAAAAAAAA)
    if routes is not None:
        _set(routed, vm, *[_entry(gsi, pin=pin) for gsi, pin in routes])
    fd = routed.eventfd()
    routed.irqfd(vm, fd, 8)
    os.eventfd_write(fd, 1)
    routed.kernel.run()
    assert routed.get(vgic, DIST_REGS, 0x204) == pending


@pytest.mark.parametrize("flags", [0, 1, 2])
def test_signal_msi_without_msi_controller_is_einval(client: Client, vm: int, flags: int) -> None:
    client.refused("EINVAL", client.call, vm, uapi.KVM_SIGNAL_MSI, "kvm_msi", flags=flags)
    client.refused("EINVAL", client.ioctl, vm, uapi.KVM_SIGNAL_MSI, 0)


@pytest.mark.parametrize("capability", [0, uapi.KVM_CAP_IRQCHIP, 9999])
def test_enable_cap_is_einval(client: Client, vm: int, capability: int) -> None:
    client.refused("EINVAL", client.call, vm, uapi.KVM_ENABLE_CAP, "kvm_enable_cap", cap=capability)
    client.refused("EINVAL", client.ioctl, vm, uapi.KVM_ENABLE_CAP, 0)
    client.refused("EINVAL", client.call, client.vcpu(vm), uapi.KVM_ENABLE_CAP, "kvm_enable_cap", cap=capability)
