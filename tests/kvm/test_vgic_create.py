"""Creating a VGICv2, by KVM_CREATE_DEVICE and by the older KVM_CREATE_IRQCHIP. Contract 5.4, 6.1."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from support import ADDR, BAD_POINTERS, BOARD, CPU, DIST, DIST_BASE, NR_IRQS, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, wait_for_interrupt
from kvmvfio_emu.guest.script import Routine

IRQCHIP, SET_ADDR = uapi.KVM_CREATE_IRQCHIP, uapi.KVM_ARM_SET_DEVICE_ADDR


def _by_device(client: Client, vm: int) -> None:
    client.vgic(vm)


def _by_irqchip(client: Client, vm: int) -> None:
    client.ioctl(vm, IRQCHIP)


BOTH = pytest.mark.parametrize("create", [_by_device, _by_irqchip])
Create = Callable[[Client, int], None]


def _place(client: Client, vm: int, identifier: int, addr: int) -> None:
    client.call(vm, SET_ADDR, "kvm_arm_device_addr", id=identifier, addr=addr)


@BOTH
@pytest.mark.parametrize("again", [_by_device, _by_irqchip])
def test_second_vgic_by_either_way_is_eexist(client: Client, vm: int, create: Create, again: Create) -> None:
    create(client, vm)
    client.refused("EEXIST", again, client, vm)


def test_closed_vgic_stays_so_a_second_is_eexist(client: Client, vm: int) -> None:
    client.close(client.vgic(vm))
    client.refused("EEXIST", client.vgic, vm)


@BOTH
def test_after_a_vcpu_ran_is_ebusy(client: Client, vm: int, create: Create) -> None:
    def main(cpu: Cpu) -> Routine:
        yield from ()

    client.kernel.attach_guest(0, Script(main))
    client.ioctl(client.vcpu(vm, init=True), uapi.KVM_RUN)
    client.refused("EBUSY", create, client, vm)


@BOTH
def test_while_a_vcpu_runs_is_ebusy(client: Client, vm: int, create: Create) -> None:
    def main(cpu: Cpu) -> Routine:
        while True:
            yield wait_for_interrupt()

    client.kernel.attach_guest(0, Script(main))
    vcpu = client.vcpu(vm, init=True)
    call = client.kernel.start(vcpu, uapi.KVM_RUN)  # begun, but the guest has not been entered yet
    client.refused("EBUSY", create, client, vm)
    call.interrupt()


@BOTH
def test_before_and_after_vcpus(client: Client, create: Create) -> None:
    for with_vcpu in (False, True):
        vm = client.vm()
        if with_vcpu:
            client.vcpu(vm, init=True)
        create(client, vm)


@pytest.mark.parametrize(("create", "name"), [(_by_device, "ENODEV"), (_by_irqchip, "ENXIO")])
def test_host_without_a_gicv2(boot: Callable[..., Client], create: Create, name: str) -> None:
    client = boot(board=dataclasses.replace(BOARD, gic_version=3))
    vm = client.vm()
    client.refused(name, create, client, vm)
    client.refused("ENXIO", _place, client, vm, DIST, DIST_BASE)


# -- KVM_ARM_SET_DEVICE_ADDR ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_set_device_addr_with_a_wild_argument_is_efault(client: Client, vm: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, vm, SET_ADDR, pointer)


@pytest.mark.parametrize("identifier", [1 << 16, 0xFFFF << 16, 1 << 16 | 2])
def test_set_device_addr_of_another_device_is_enodev(client: Client, vm: int, identifier: int) -> None:
    client.refused("ENODEV", _place, client, vm, identifier, DIST_BASE)
    _by_irqchip(client, vm)
    client.refused("ENODEV", _place, client, vm, identifier, DIST_BASE)


@pytest.mark.parametrize("frame", [2, 3, 4, 0xFFFF])
def test_set_device_addr_of_another_frame_is_enodev(client: Client, vm: int, frame: int) -> None:
    client.refused("ENODEV", _place, client, vm, frame, DIST_BASE)
    _by_irqchip(client, vm)
    client.refused("ENODEV", _place, client, vm, frame, 1 << 50)


@pytest.mark.parametrize(
    ("addr", "name"),
    [(DIST_BASE + 1, "EINVAL"), (DIST_BASE + 0x800, "EINVAL"), (1 << 40, "E2BIG"), (1 << 50 | 1, "E2BIG")],
)
def test_set_device_addr_of_a_bad_address(client: Client, vm: int, addr: int, name: str) -> None:
    _by_irqchip(client, vm)
    client.refused(name, _place, client, vm, DIST, addr)


def test_set_device_addr_before_the_vgic_is_eexist_as_its_frames_are_at_0(client: Client, vm: int) -> None:
    client.refused("EEXIST", _place, client, vm, DIST, DIST_BASE)
    client.refused("EINVAL", _place, client, vm, DIST, DIST_BASE + 1)
    client.refused("E2BIG", _place, client, vm, DIST, 1 << 40)
    _by_irqchip(client, vm)
    _place(client, vm, DIST, DIST_BASE)


def test_set_device_addr_twice_is_eexist_and_overlap_ebusy(client: Client, vm: int) -> None:
    _by_irqchip(client, vm)
    _place(client, vm, DIST, DIST_BASE)
    client.refused("EEXIST", _place, client, vm, DIST, DIST_BASE)
    client.refused("EBUSY", _place, client, vm, CPU, DIST_BASE - 0x1000)
    _place(client, vm, CPU, DIST_BASE + 0x1000)


def test_both_ways_set_the_same_addresses(client: Client, vm: int) -> None:
    vgic = client.vgic(vm)
    _place(client, vm, DIST, DIST_BASE)
    assert client.get(vgic, ADDR, DIST, 8) == DIST_BASE
    client.refused("EEXIST", client.set_u64, vgic, ADDR, DIST, DIST_BASE)


def test_upper_half_of_the_id_is_ignored(client: Client, vm: int) -> None:
    vgic = client.vgic(vm)
    _place(client, vm, 0xDEAD << 32 | CPU, 0x4000)
    assert client.get(vgic, ADDR, CPU, 8) == 0x4000
    client.set_u32(vgic, NR_IRQS, 0, 64)
