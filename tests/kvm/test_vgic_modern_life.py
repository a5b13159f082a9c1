"""Creation, initialisation and death of the VGIC of Linux 4.7 and later. Recorded answers, lessons 7, 9 to 12."""

from __future__ import annotations

import dataclasses
import os
import resource
from collections.abc import Callable

import pytest
from modern import KERNELS, PPI, SPI, Machine
from support import ADDR, BOARD, CPU, CPU_BASE, CTRL, DIST, DIST_BASE, DIST_REGS, NR_IRQS, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script
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


# -- creation --------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("again", [_by_device, _by_irqchip])
def test_a_second_vgic_is_eexist(modern: Client, create: Create, again: Create) -> None:
    vm = modern.vm()
    create(modern, vm)
    modern.refused("EEXIST", again, modern, vm)


def test_a_closed_vgic_stays_with_its_state(modern: Client) -> None:
    vm = modern.vm()
    modern.vcpu(vm, init=True)
    vgic = modern.vgic(vm)
    modern.set_at(vgic, CTRL, 0, 0)
    modern.close(vgic)
    modern.irq_line(vm, SPI, 33, 1)
    modern.refused("EEXIST", modern.vgic, vm)
    modern.refused("EBUSY", modern.vcpu, vm, 1)


@BOTH
def test_after_a_vcpu_ran_is_ebusy(modern: Client, create: Create) -> None:
    vm = modern.vm()
    modern.kernel.attach_guest(0, Script(_off))
    modern.ioctl(modern.vcpu(vm, init=True), uapi.KVM_RUN)
    modern.refused("EBUSY", create, modern, vm)


@pytest.mark.parametrize("name", KERNELS)
def test_on_a_gicv3_host_nothing_of_a_gicv2_can_be_had(boot: Callable[..., Client], name: str) -> None:
    client = boot(name, dataclasses.replace(BOARD, gic_version=3))
    vm = client.vm()
    for call in (_by_device, _by_irqchip):
        client.refused("ENODEV", call, client, vm)
    client.refused("ENODEV", _place, client, vm, 0, DIST_BASE)


def _off(cpu: Cpu) -> Routine:
    """A guest that powers off."""
    yield from ()


# -- vCPUs -----------------------------------------------------------------------------------------------------------


def test_a_gicv2_host_has_eight_vcpus(modern: Client) -> None:
    vm = modern.vm()
    modern.refused("EINVAL", modern.vcpu, vm, 8)
    for number in range(8):
        modern.vcpu(vm, number)
    for number in (0, 7, 8, 511, 512):  # counted before the number is looked at
        modern.refused("EINVAL", modern.vcpu, vm, number)
    modern.vgic(vm)
    for fd in (modern.kvm, vm):
        for capability in (uapi.KVM_CAP_MAX_VCPUS, uapi.KVM_CAP_MAX_VCPU_ID):
            assert modern.ioctl(fd, uapi.KVM_CHECK_EXTENSION, capability) == 8


def test_after_initialisation_a_vcpu_is_ebusy_unless_its_number_is_beyond_all(modern: Client) -> None:
    vm = modern.vm()
    modern.vcpu(vm)
    modern.set_at(modern.vgic(vm), CTRL, 0, 0)
    for number in (0, 1, 8, 511):
        modern.refused("EBUSY", modern.vcpu, vm, number)
    modern.refused("EINVAL", modern.vcpu, vm, 512)


def test_vcpus_may_come_after_the_vgic(modern: Client) -> None:
    vm = modern.vm()
    vgic = modern.vgic(vm)
    for number in range(3):
        modern.vcpu(vm, number, init=True)
    modern.set_at(vgic, CTRL, 0, 0)
    assert modern.get(vgic, DIST_REGS, 4) >> 5 & 7 == 2
    modern.irq_line(vm, PPI, 20, 1, vcpu=2)
    assert [modern.get(vgic, DIST_REGS, 0x200 | cpu << 32) for cpu in range(3)] == [0, 0, 1 << 20]


def test_a_vcpu_without_a_descriptor_leaves_no_trace_in_the_vgic(modern: Client) -> None:
    vm = modern.vm()
    vgic = modern.vgic(vm)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(vm)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            modern.vcpu(vm, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    modern.vcpu(vm, 0, init=True)
    modern.set_at(vgic, CTRL, 0, 0)
    assert modern.get(vgic, DIST_REGS, 4) >> 5 == 0


# -- initialisation on demand ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "number"), [(SPI, 32), (SPI, 255), (PPI, 16)])
def test_a_line_initialises_a_gicv2(modern: Client, kind: int, number: int) -> None:
    vm = modern.vm()
    modern.vcpu(vm, init=True)
    vgic = modern.vgic(vm)
    modern.irq_line(vm, kind, number, 1)
    assert modern.get(vgic, NR_IRQS, 0) == 256
    assert modern.get(vgic, DIST_REGS, 0x200 + number // 32 * 4) == 1 << number % 32
    modern.set_at(vgic, CTRL, 0, 0)  # changes nothing any more
    assert modern.get(vgic, DIST_REGS, 0x200 + number // 32 * 4) == 1 << number % 32


def test_a_line_that_does_not_exist_initialises_before_it_is_refused(modern: Client) -> None:
    vm = modern.vm()
    vgic = modern.vgic(vm)
    with pytest.raises(OSError, match="Invalid argument"):
        modern.irq_line(vm, SPI, 256, 1)
    assert modern.get(vgic, NR_IRQS, 0) == 256


def test_irqfd_waits_for_initialisation(modern: Client) -> None:
    vm = modern.vm()
    fd = modern.eventfd()
    modern.refused("EAGAIN", modern.irqfd, vm, fd, 0)
    modern.vgic(vm)
    for bad in (fd, -1):
        modern.refused("EAGAIN", modern.irqfd, vm, bad, 0)
    modern.irqfd(vm, -1 & fd, 0, uapi.KVM_IRQFD_FLAG_DEASSIGN)
    modern.irq_line(vm, SPI, 32, 0)
    modern.irqfd(vm, fd, 0)
    modern.refused("EBADF", modern.irqfd, vm, -1, 0)


# -- the first KVM_RUN -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("placed", [(), (DIST,), (CPU,)])
def test_a_run_without_addresses_is_enxio_and_kills_the_vm(modern: Client, init: bool, placed: tuple[int, ...]) -> None:
    vm = modern.vm()
    vcpu = modern.vcpu(vm, init=True)
    vgic = modern.vgic(vm)
    for frame in placed:
        modern.set_u64(vgic, ADDR, frame, DIST_BASE)
    if init:
        modern.set_at(vgic, CTRL, 0, 0)
    _dies(modern, "No such device or address", vm, vcpu, vgic)


@pytest.mark.parametrize("distance", [0, 0x1000])
def test_a_run_with_overlapping_frames_is_einval_and_kills_the_vm(modern: Client, distance: int) -> None:
    vm = modern.vm()
    vcpu = modern.vcpu(vm, init=True)
    vgic = modern.vgic(vm)
    modern.set_u64(vgic, ADDR, CPU, CPU_BASE)
    modern.set_u64(vgic, ADDR, DIST, CPU_BASE + distance)
    _dies(modern, "Invalid argument", vm, vcpu, vgic)


def _dies(client: Client, why: str, vm: int, vcpu: int, vgic: int) -> None:
    other, control = client.vm(), client.kvm_vfio(vm)
    with pytest.raises(OSError, match=why):
        client.ioctl(vcpu, uapi.KVM_RUN)
    assert client.kernel.counters["vm_dead"] == 1
    client.refused("EIO", client.ioctl, vcpu, uapi.KVM_RUN)
    client.refused("EIO", client.ioctl, vcpu, 0xAE00)  # whatever the number
    client.refused("EIO", client.vcpu, vm, 1)
    client.refused("EIO", client.ioctl, vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQCHIP)
    client.refused("EIO", client.set_u64, vgic, ADDR, DIST, DIST_BASE)
    client.refused("EIO", client.has, vgic, ADDR, DIST)
    client.refused("EIO", client.get_at, control, 1, 1, 0)
    client.vcpu(other, 0)  # another one lives


@pytest.mark.parametrize("distance", [0x2000, -0x1000])
def test_a_run_with_adjacent_frames_maps_them(modern: Client, distance: int) -> None:
    machine_vm = modern.vm()
    modern.kernel.attach_guest(0, Script(_off))
    vcpu = modern.vcpu(machine_vm, init=True)
    vgic = modern.vgic(machine_vm)
    modern.set_u64(vgic, ADDR, CPU, CPU_BASE)
    modern.set_u64(vgic, ADDR, DIST, CPU_BASE + distance)
    assert modern.ioctl(vcpu, uapi.KVM_RUN) == 0
    assert modern.get(vgic, NR_IRQS, 0) == 256  # and it initialised
    modern.refused("EEXIST", modern.set_u64, vgic, ADDR, DIST, 0)


def test_frames_are_the_guests_only_once_they_are_mapped(machine: Machine) -> None:
    machine.guest.write(0, 1)
    assert machine.get(0) == 1
    assert machine.guest.read(4) == 0x22


# -- the older API ---------------------------------------------------------------------------------------------------


def test_legacy_addresses(modern: Client) -> None:
    vm = modern.vm()
    modern.refused("ENODEV", _place, modern, vm, 0, DIST_BASE)
    modern.refused("ENODEV", _place, modern, vm, 0, 1)  # no VGIC comes before a bad address
    modern.ioctl(vm, IRQCHIP)
    for identifier in (2, 4, 0xFFFF, 1 << 16, 5 << 16):
        modern.refused("ENODEV", _place, modern, vm, identifier, DIST_BASE)
    for identifier in (0, 1):
        modern.refused("EINVAL", _place, modern, vm, identifier, DIST_BASE + 1)
        modern.refused("E2BIG", _place, modern, vm, identifier, 1 << 40)
        _place(modern, vm, identifier | 7 << 32, DIST_BASE + identifier * 0x10000)  # only 32 bits of it count
        modern.refused("EEXIST", _place, modern, vm, identifier, DIST_BASE)
    modern.irq_line(vm, SPI, 32, 1)
    modern.irqfd(vm, modern.eventfd(), 0)


def test_legacy_addresses_are_those_of_the_device(modern: Client) -> None:
    vm = modern.vm()
    vgic = modern.vgic(vm)
    _place(modern, vm, 1, CPU_BASE)
    assert modern.get(vgic, ADDR, CPU, 8) == CPU_BASE
    assert modern.get(vgic, ADDR, DIST, 8) == (1 << 64) - 1
