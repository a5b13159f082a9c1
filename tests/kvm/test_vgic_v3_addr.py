"""KVM_DEV_TYPE_ARM_VGIC_V3: creation and where its frames go."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from gicv3_rig import (
    DIST,
    DIST_BASE,
    GICV3_BOARD,
    INIT,
    ITS,
    REDIST,
    REDIST_BASE,
    REGION,
    UNSET,
    V3,
    Machine,
    boot_v3,
    region,
)
from support import ADDR, BAD_POINTERS, CTRL, NR_IRQS, Client

from kvmvfio_emu import uapi

FRAME = 0x20000
END = 1 << 40


@pytest.fixture
def client(boot: Callable[..., Client]) -> Client:
    return boot_v3(boot)


@pytest.fixture
def machine(client: Client) -> Machine:
    """Two vCPUs, no addresses."""
    return Machine(client, 2, ready=False)


def set_addr(machine: Machine, kind: int, value: int) -> None:
    machine.client.set_u64(machine.gic, ADDR, kind, value)


def get_addr(machine: Machine, kind: int, value: int = 0) -> int:
    buffer = machine.client.pointer(value.to_bytes(8, "little"))
    machine.client.get_at(machine.gic, ADDR, kind, buffer)
    return int.from_bytes(uapi.ffi.buffer(uapi.ffi.cast("char *", buffer), 8)[:], "little")


def refused(machine: Machine, name: str, kind: int, value: int) -> None:
    machine.client.refused(name, set_addr, machine, kind, value)


# -- creation ---------------------------------------------------------------------------------------------------------


def test_a_gicv3_host_has_types_7_and_8_only(client: Client) -> None:
    vm = client.vm()
    for kind in (V3, ITS):
        assert client.create_device(vm, kind, uapi.KVM_CREATE_DEVICE_TEST) == 0xFFFFFFFF
    client.refused("ENODEV", client.create_device, vm, uapi.KVM_DEV_TYPE_ARM_VGIC_V2)
    client.refused("ENODEV", client.ioctl, vm, uapi.KVM_CREATE_IRQCHIP, 0)


def test_a_gicv2_host_has_neither(boot: Callable[..., Client]) -> None:
    client = boot("linux-6.12")
    vm = client.vm()
    client.refused("ENODEV", client.create_device, vm, V3)
    client.refused("ENODEV", client.create_device, vm, ITS)


def test_older_kernels_have_neither(boot: Callable[..., Client]) -> None:
    client = boot("mainline", GICV3_BOARD)
    client.refused("ENODEV", client.create_device, client.vm(), V3)


def test_a_second_one_is_eexist_even_when_the_first_is_closed(client: Client) -> None:
    machine = Machine(client, ready=False)
    client.refused("EEXIST", client.create_device, machine.vm, V3)
    client.close(machine.gic)
    client.refused("EEXIST", client.create_device, machine.vm, V3)


def test_there_can_be_512_vcpus(client: Client) -> None:
    vm = client.vm()
    client.create_device(vm, V3)
    assert client.ioctl(vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_MAX_VCPUS) == 512
    client.vcpu(vm, 511)
    client.refused("EINVAL", client.vcpu, vm, 512)


# -- distributor ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DIST, REDIST])
def test_unset_address_reads_as_all_ones(machine: Machine, kind: int) -> None:
    assert get_addr(machine, kind) == UNSET


@pytest.mark.parametrize("kind", [0, 1, 4, 6, 1 << 32 | DIST])
def test_other_types_are_enxio_after_the_payload_was_read(machine: Machine, kind: int) -> None:
    refused(machine, "ENXIO", kind, DIST_BASE)
    machine.client.refused("ENXIO", machine.client.has, machine.gic, ADDR, kind)
    machine.client.refused("ENXIO", machine.client.get_at, machine.gic, ADDR, kind, 0)
    machine.client.refused("EFAULT", machine.client.set_at, machine.gic, ADDR, kind, 0)


@pytest.mark.parametrize("kind", [DIST, REDIST, REGION])
@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_payload_is_efault(machine: Machine, kind: int, pointer: int) -> None:
    machine.client.refused("EFAULT", machine.client.set_at, machine.gic, ADDR, kind, pointer)
    machine.client.refused("EFAULT", machine.client.get_at, machine.gic, ADDR, kind, pointer)


@pytest.mark.parametrize("kind", [DIST, REDIST])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (DIST_BASE + 0x1000, "EINVAL"),
        (DIST_BASE + 0x8000, "EINVAL"),
        (END + 0x8000, "EINVAL"),
        (END, "E2BIG"),
        (1 << 50, "E2BIG"),
        (UNSET & ~0xFFFF, "EINVAL"),
        (UNSET, "EINVAL"),
    ],
)
def test_alignment_wrap_and_end(machine: Machine, kind: int, value: int, name: str) -> None:
    refused(machine, name, kind, value)


def test_the_last_place_is_fine(machine: Machine) -> None:
    set_addr(machine, DIST, END - 0x10000)
    refused(machine, "E2BIG", REDIST, END)
    # Two vCPUs need two frames, of which the second would be beyond the end; that it is on the distributor comes first.
    refused(machine, "EINVAL", REDIST, END - FRAME)
    set_addr(machine, REDIST, END - 4 * FRAME)
    assert get_addr(machine, DIST) == END - 0x10000
    assert get_addr(machine, REDIST) == END - 4 * FRAME


@pytest.mark.parametrize("kind", [DIST, REDIST])
def test_twice_is_eexist_whatever_the_value(machine: Machine, kind: int) -> None:
    set_addr(machine, kind, DIST_BASE)
    for value in (DIST_BASE, DIST_BASE + 0x100000):
        refused(machine, "EEXIST", kind, value)


def test_addresses_may_come_after_initialisation(machine: Machine) -> None:
    machine.init()
    machine.place()
    refused(machine, "EEXIST", DIST, DIST_BASE)


# -- one redistributor region of old style ----------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-3, -2, -1, 0])
def test_redistributors_over_the_distributor_are_einval(machine: Machine, offset: int) -> None:
    set_addr(machine, DIST, DIST_BASE)
    refused(machine, "EINVAL", REDIST, DIST_BASE + offset * 0x10000)
    assert get_addr(machine, REDIST) == UNSET


@pytest.mark.parametrize("offset", [-4 * 0x10000, 0x10000])
def test_redistributors_beside_the_distributor(machine: Machine, offset: int) -> None:
    set_addr(machine, DIST, DIST_BASE)
    set_addr(machine, REDIST, DIST_BASE + offset)


def test_distributor_over_redistributors_is_noticed_by_the_next_vcpu(machine: Machine) -> None:
    set_addr(machine, REDIST, REDIST_BASE)
    set_addr(machine, DIST, REDIST_BASE)
    machine.client.refused("EINVAL", machine.client.vcpu, machine.vm, 2)


def test_old_region_grows_with_its_vcpus(client: Client) -> None:
    machine = Machine(client, 0, ready=False)
    set_addr(machine, DIST, DIST_BASE + FRAME)
    set_addr(machine, REDIST, DIST_BASE)
    client.vcpu(machine.vm, 0)
    # The first fits below the distributor; with it counted, the region of the next one does, too.
    client.vcpu(machine.vm, 1)
    client.refused("EINVAL", client.vcpu, machine.vm, 2)


# -- regions with a count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (region(0, REDIST_BASE, 0), "EINVAL"),
        (region(0, REDIST_BASE, 1, flags=1), "EINVAL"),
        (region(0, REDIST_BASE, 1, flags=8), "EINVAL"),
        (region(1, REDIST_BASE, 1), "EINVAL"),
        (region(0, END, 1), "E2BIG"),
        (region(0, END - FRAME, 2), "E2BIG"),
        (region(0, END - 2 * FRAME, 0xFFF), "E2BIG"),
    ],
)
def test_first_region(machine: Machine, value: int, name: str) -> None:
    refused(machine, name, REGION, value)
    assert machine.model.vgic.redistributors.regions == []


def test_regions_are_read_back_by_their_index(machine: Machine) -> None:
    set_addr(machine, REGION, region(0, REDIST_BASE, 1))
    set_addr(machine, REGION, region(1, REDIST_BASE + 0x100000, 4))
    assert get_addr(machine, REGION, 0) == region(0, REDIST_BASE, 1)
    # Bits beside the index do not matter, and of it only eight do.
    assert get_addr(machine, REGION, 0xABC0_0000_1234_F101) == region(1, REDIST_BASE + 0x100000, 4)
    assert get_addr(machine, REDIST) == REDIST_BASE
    with pytest.raises(OSError, match="region 2") as caught:
        get_addr(machine, REGION, 2)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("index", [0, 2, 255])
def test_regions_come_in_order(machine: Machine, index: int) -> None:
    set_addr(machine, REGION, region(0, REDIST_BASE, 1))
    refused(machine, "EINVAL", REGION, region(index, REDIST_BASE + 0x100000, 1))


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_regions_do_not_overlap(machine: Machine, frames: int) -> None:
    set_addr(machine, REGION, region(0, REDIST_BASE + 2 * FRAME, 1))
    refused(machine, "EINVAL", REGION, region(1, REDIST_BASE + frames * FRAME, 3 - min(frames, 1)))
    set_addr(machine, REGION, region(1, REDIST_BASE, 2))


def test_styles_do_not_mix(client: Client) -> None:
    machine = Machine(client, 1, ready=False)
    set_addr(machine, REGION, region(0, REDIST_BASE, 1))
    refused(machine, "EINVAL", REDIST, REDIST_BASE + 0x100000)
    other = Machine(client, 1, ready=False)
    set_addr(other, REDIST, REDIST_BASE)
    refused(other, "EINVAL", REGION, region(0, REDIST_BASE + 0x100000, 1))
    # Next to a region of old style the kernel takes one with a count.
    set_addr(other, REGION, region(1, REDIST_BASE + 0x100000, 1))


def test_counted_region_over_the_distributor_is_seen_when_a_vcpu_is_placed(client: Client) -> None:
    machine = Machine(client, 0, ready=False)
    set_addr(machine, DIST, DIST_BASE)
    set_addr(machine, REGION, region(0, DIST_BASE, 1))
    client.refused("EINVAL", client.vcpu, machine.vm, 0)
    other = Machine(client, 1, ready=False)
    set_addr(other, DIST, DIST_BASE)
    refused(other, "EINVAL", REGION, region(0, DIST_BASE, 1))
    set_addr(other, REGION, region(0, REDIST_BASE, 1))


def test_vcpus_fill_regions_in_order(client: Client) -> None:
    machine = Machine(client, 0, ready=False)
    set_addr(machine, REGION, region(0, REDIST_BASE, 1))
    set_addr(machine, REGION, region(1, REDIST_BASE + 0x100000, 2))
    for number in (5, 3, 4):
        client.vcpu(machine.vm, number, init=True)
    frames = [cpu.frames for cpu in machine.model.vgic.cpus]
    assert frames == [REDIST_BASE, REDIST_BASE + 0x100000, REDIST_BASE + 0x100000 + FRAME]
    client.vcpu(machine.vm, 6)
    assert machine.model.vgic.cpus[3].frames == UNSET


# -- number of interrupts, initialisation, KVM_RUN --------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 32, 63, 65, 80, 1020, 1024, 2048])
def test_numbers_of_interrupts_that_cannot_be(machine: Machine, count: int) -> None:
    machine.client.refused("EINVAL", machine.client.set_u32, machine.gic, NR_IRQS, 0, count)


@pytest.mark.parametrize("count", [64, 96, 992])
def test_number_of_interrupts(machine: Machine, count: int) -> None:
    machine.client.set_u32(machine.gic, NR_IRQS, 7, count)
    machine.init()
    assert machine.dist(4) == 0x480000 | count // 32 - 1
    machine.client.refused("EBUSY", machine.client.set_u32, machine.gic, NR_IRQS, 0, 64)


def test_no_lazy_initialisation(machine: Machine) -> None:
    machine.client.refused("EBUSY", machine.client.irq_line, machine.vm, 1, 33, 1)
    machine.client.refused("EBUSY", machine.dist, 0)
    machine.init()
    machine.client.irq_line(machine.vm, 1, 33, 1)


def test_vcpu_after_initialisation_is_ebusy(machine: Machine) -> None:
    machine.init()
    machine.client.refused("EBUSY", machine.client.vcpu, machine.vm, 2)


@pytest.mark.parametrize("attribute", [1, 2, 4, 5])
def test_unknown_controls_are_enxio(machine: Machine, attribute: int) -> None:
    machine.client.refused("ENXIO", machine.client.has, machine.gic, CTRL, attribute)
    machine.client.refused("ENXIO", machine.client.set_at, machine.gic, CTRL, attribute, 0)


def run(machine: Machine, number: int = 0) -> str:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is compared by its name
        machine.client.ioctl(machine.vcpus[number], uapi.KVM_RUN, 0)
    return errno.errorcode[caught.value.errno or 0]


def test_run_without_redistributor_is_enxio_and_the_end_of_the_vm(machine: Machine) -> None:
    set_addr(machine, DIST, DIST_BASE)
    machine.init()
    assert run(machine) == "ENXIO"
    with pytest.raises(OSError) as caught:  # noqa: PT011
        machine.client.set_at(machine.gic, CTRL, INIT, 0)
    assert caught.value.errno == errno.EIO


def test_run_without_distributor_is_enxio(machine: Machine) -> None:
    set_addr(machine, REDIST, REDIST_BASE)
    machine.init()
    assert run(machine) == "ENXIO"


def test_run_with_overlap_is_einval_before_it_is_ebusy(machine: Machine) -> None:
    set_addr(machine, REDIST, REDIST_BASE)
    set_addr(machine, DIST, REDIST_BASE + 3 * 0x10000)
    assert run(machine) == "EINVAL"


def test_run_before_initialisation_is_ebusy(machine: Machine) -> None:
    machine.place()
    assert run(machine) == "EBUSY"
