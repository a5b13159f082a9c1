"""ADDR, NR_IRQS and CTRL of the VGICv2 of Linux 4.7 and later. Recorded answers, lessons 8 to 10."""

from __future__ import annotations

import pytest
from modern import Machine
from support import (
    ADDR,
    BAD_POINTERS,
    CPU,
    CPU_BASE,
    CPU_REGS,
    CTRL,
    DIST,
    DIST_BASE,
    DIST_REGS,
    NR_IRQS,
    Client,
    Edge,
)

from kvmvfio_emu import uapi

UNSET = (1 << 64) - 1
LIMIT = 1 << 40
FRAMES = pytest.mark.parametrize(("frame", "size"), [(DIST, 0x1000), (CPU, 0x2000)])


@pytest.fixture
def vgic(modern: Client) -> int:
    """A VGIC of a virtual machine with one vCPU."""
    vm = modern.vm()
    modern.vcpu(vm, init=True)
    return modern.vgic(vm)


# -- ADDR ------------------------------------------------------------------------------------------------------------


@FRAMES
def test_an_unset_address_reads_as_all_ones(modern: Client, vgic: int, frame: int, size: int) -> None:
    assert modern.get(vgic, ADDR, frame, 8) == UNSET


@FRAMES
@pytest.mark.parametrize("address", [1, 0x10, 0x1800, LIMIT + 1, UNSET, UNSET - 1])
def test_a_misaligned_address_is_einval_before_anything_else(
    modern: Client, vgic: int, frame: int, size: int, address: int
) -> None:
    modern.refused("EINVAL", modern.set_u64, vgic, ADDR, frame, address)


@FRAMES
def test_the_end_of_the_guest_physical_space_is_e2big(modern: Client, vgic: int, frame: int, size: int) -> None:
    for address in (LIMIT, LIMIT - size + 0x1000, 1 << 50, UNSET & ~0xFFF & ~0xF000):
        modern.refused("E2BIG", modern.set_u64, vgic, ADDR, frame, address)
    modern.set_u64(vgic, ADDR, frame, LIMIT - size)
    assert modern.get(vgic, ADDR, frame, 8) == LIMIT - size


@FRAMES
def test_a_frame_that_wraps_is_einval(modern: Client, vgic: int, frame: int, size: int) -> None:
    modern.refused("EINVAL", modern.set_u64, vgic, ADDR, frame, (1 << 64) - size)


@FRAMES
@pytest.mark.parametrize("address", [0, DIST_BASE, 0x10, LIMIT, UNSET])
def test_an_address_twice_is_eexist_whatever_the_second_is(
    modern: Client, vgic: int, frame: int, size: int, address: int
) -> None:
    modern.set_u64(vgic, ADDR, frame, DIST_BASE)
    modern.refused("EEXIST", modern.set_u64, vgic, ADDR, frame, address)
    assert modern.get(vgic, ADDR, frame, 8) == DIST_BASE


@pytest.mark.parametrize("frame", [2, 3, 4, 7, 1 << 32, 1 << 63])
def test_another_types_frame_is_enxio_but_a_wild_payload_to_set_efault(modern: Client, vgic: int, frame: int) -> None:
    modern.refused("ENXIO", modern.has, vgic, ADDR, frame)
    modern.refused("ENXIO", modern.set_u64, vgic, ADDR, frame, 0x9000000)
    modern.refused("EFAULT", modern.set_at, vgic, ADDR, frame, 0)
    modern.refused("ENXIO", modern.get_at, vgic, ADDR, frame, 0)  # nothing to give, so nothing is touched


@FRAMES
@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_a_wild_address_payload_is_efault(modern: Client, vgic: int, frame: int, size: int, pointer: int) -> None:
    modern.refused("EFAULT", modern.set_at, vgic, ADDR, frame, pointer)
    modern.refused("EFAULT", modern.get_at, vgic, ADDR, frame, pointer)


@FRAMES
def test_the_address_payload_has_eight_bytes(modern: Client, vgic: int, frame: int, size: int) -> None:
    edge, payload = Edge(), DIST_BASE.to_bytes(8, "little")
    modern.refused("EFAULT", modern.set_at, vgic, ADDR, frame, edge.put(payload, beyond=1))
    assert modern.set_at(vgic, ADDR, frame, edge.put(payload)) == 0
    modern.refused("EFAULT", modern.get_at, vgic, ADDR, frame, Edge(writable=False).put(payload))


@pytest.mark.parametrize("distance", [0, 0x1000, -0x1000])
def test_overlapping_frames_are_taken(modern: Client, vgic: int, distance: int) -> None:
    modern.set_u64(vgic, ADDR, DIST, DIST_BASE)
    modern.set_u64(vgic, ADDR, CPU, DIST_BASE + distance)
    assert modern.get(vgic, ADDR, CPU, 8) == DIST_BASE + distance


def test_addresses_may_come_after_initialisation(modern: Client, vgic: int) -> None:
    modern.set_at(vgic, CTRL, 0, 0)
    modern.set_u64(vgic, ADDR, DIST, DIST_BASE)
    modern.set_u64(vgic, ADDR, CPU, CPU_BASE)
    modern.refused("EEXIST", modern.set_u64, vgic, ADDR, DIST, DIST_BASE)


# -- NR_IRQS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 31, 32, 63, 65, 80, 95, 1000, 1020, 1023, 1024, 1056, 2048, 0xFFFFFFFF])
def test_a_number_of_irqs_that_cannot_be_is_einval_even_when_one_is_set(modern: Client, vgic: int, count: int) -> None:
    modern.refused("EINVAL", modern.set_u32, vgic, NR_IRQS, 0, count)
    assert modern.get(vgic, NR_IRQS, 0) == 32
    modern.set_u32(vgic, NR_IRQS, 0, 128)
    modern.refused("EINVAL", modern.set_u32, vgic, NR_IRQS, 0, count)


@pytest.mark.parametrize("count", range(64, 1024, 32))
def test_every_number_of_irqs_once_then_ebusy(modern: Client, vgic: int, count: int) -> None:
    modern.set_u32(vgic, NR_IRQS, 0, count)
    for again in (count, 64, 992):
        modern.refused("EBUSY", modern.set_u32, vgic, NR_IRQS, 0, again)
    modern.set_at(vgic, CTRL, 0, 0)
    assert modern.get(vgic, NR_IRQS, 0) == count
    assert modern.get(vgic, DIST_REGS, 4) == count // 32 - 1


def test_initialisation_sets_256_irqs(modern: Client, vgic: int) -> None:
    modern.set_at(vgic, CTRL, 0, 0)
    assert modern.get(vgic, NR_IRQS, 0) == 256
    modern.refused("EBUSY", modern.set_u32, vgic, NR_IRQS, 0, 256)


@pytest.mark.parametrize("attr", [1, 7, 1 << 32, UNSET])
def test_the_attribute_number_of_nr_irqs_is_ignored(modern: Client, vgic: int, attr: int) -> None:
    assert modern.has(vgic, NR_IRQS, attr) == 0
    modern.set_u32(vgic, NR_IRQS, attr, 160)
    assert modern.get(vgic, NR_IRQS, attr) == 160


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_a_wild_number_of_irqs_is_efault(modern: Client, vgic: int, pointer: int) -> None:
    modern.refused("EFAULT", modern.set_at, vgic, NR_IRQS, 0, pointer)
    modern.refused("EFAULT", modern.get_at, vgic, NR_IRQS, 0, pointer)


# -- CTRL and the rest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointer", [0, 0x10, UNSET])
def test_initialising_needs_no_addresses_and_no_vcpus_and_may_be_repeated(modern: Client, pointer: int) -> None:
    vgic = modern.vgic(modern.vm())
    for _ in range(2):
        assert modern.set_at(vgic, CTRL, 0, pointer) == 0
    assert modern.get(vgic, NR_IRQS, 0) == 256


@pytest.mark.parametrize("attr", [1, 2, 3, 4, 7, 1 << 32])
def test_a_gicv2_has_no_other_control(modern: Client, vgic: int, attr: int) -> None:
    modern.refused("ENXIO", modern.has, vgic, CTRL, attr)
    modern.refused("ENXIO", modern.set_at, vgic, CTRL, attr, 0)


@pytest.mark.parametrize("attr", [0, 1])
def test_control_cannot_be_read(modern: Client, vgic: int, attr: int) -> None:
    modern.refused("ENXIO", modern.get_at, vgic, CTRL, attr, 0)


@pytest.mark.parametrize("group", [5, 6, 7, 8, 9, 10, 255, 1 << 31])
def test_another_types_group_is_enxio_whatever_the_pointer(modern: Client, vgic: int, group: int) -> None:
    modern.refused("ENXIO", modern.has, vgic, group, 0)
    modern.refused("ENXIO", modern.set_at, vgic, group, 0, 0)
    modern.refused("ENXIO", modern.get_at, vgic, group, 0, 0)


# -- which vCPU a register is of -------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [DIST_REGS, CPU_REGS])
def test_without_a_vcpu_registers_are_einval_first_of_all(modern: Client, group: int) -> None:
    vgic = modern.vgic(modern.vm())
    for offset in (0, 1, 0xC, 0xFFFFFFFF):
        modern.refused("EINVAL", modern.has, vgic, group, offset)
        modern.refused("EINVAL", modern.get_at, vgic, group, offset, 0)
        modern.refused("EINVAL", modern.set_at, vgic, group, offset, 0)
    assert modern.get(vgic, NR_IRQS, 0) == 32  # not initialised by any of them


@pytest.mark.parametrize("group", [DIST_REGS, CPU_REGS])
def test_vcpus_are_named_by_their_number(modern: Client, group: int) -> None:
    vm = modern.vm()
    for number in (5, 2):
        modern.vcpu(vm, number, init=True)
    vgic = modern.vgic(vm)
    for cpu in (0, 1, 3, 255):
        modern.refused("EINVAL", modern.get, vgic, group, cpu << 32)
        modern.refused("EINVAL", modern.has, vgic, group, cpu << 32)
    for cpu in (5, 2, 5 | 0x100, 2 | 0xFFFF00):  # eight bits of it count
        assert modern.has(vgic, group, cpu << 32) == 0
        assert modern.get(vgic, group, cpu << 32) == 0
    # The byte of GICD_ITARGETSR counts vCPUs in the order of their creation.
    assert [modern.get(vgic, DIST_REGS, 0x800 | cpu << 32) & 0xFF for cpu in (5, 2)] == [1, 2]


@pytest.mark.parametrize("group", [DIST_REGS, CPU_REGS])
def test_set_reads_its_payload_before_and_get_writes_it_after_initialisation(
    modern: Client, vgic: int, group: int
) -> None:
    modern.refused("EFAULT", modern.set_at, vgic, group, 0, 0)
    assert modern.get(vgic, NR_IRQS, 0) == 32
    with pytest.raises(OSError, match="Bad address"):
        modern.get_at(vgic, group, 0, 0)
    assert modern.get(vgic, NR_IRQS, 0) == 256


def test_registers_of_a_running_vm_are_ebusy(machine: Machine) -> None:
    client = machine.client
    call = client.kernel.start(machine.guests[1].fd, uapi.KVM_RUN)
    for group in (DIST_REGS, CPU_REGS):
        client.refused("EBUSY", client.get, machine.fd, group, 0)
        client.refused("EBUSY", client.set_u32, machine.fd, group, 0, 0)
        client.refused("EFAULT", client.set_at, machine.fd, group, 0, 0)
        assert client.has(machine.fd, group, 0) == 0
    call.interrupt()
    assert machine.get(0) == 0
