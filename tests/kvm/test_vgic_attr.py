"""The VGIC's attributes ADDR, NR_IRQS and CTRL. Contract 6.2 to 6.4."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import (
    ADDR,
    BAD_POINTERS,
    CPU,
    CPU_BASE,
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
FRESH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
FRAMES = pytest.mark.parametrize("frame", [DIST, CPU])


@pytest.fixture
def vgic(client: Client, vm: int) -> int:
    return client.vgic(vm)


# -- ADDR ----------------------------------------------------------------------------------------------------------


@FRAMES
def test_unset_address_reads_as_all_ones(client: Client, vgic: int, frame: int) -> None:
    assert client.get(vgic, ADDR, frame, 8) == UNSET


@FRAMES
@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_address_payload_is_efault(client: Client, vgic: int, frame: int, pointer: int) -> None:
    client.refused("EFAULT", client.set_at, vgic, ADDR, frame, pointer)
    client.refused("EFAULT", client.get_at, vgic, ADDR, frame, pointer)


def test_address_payload_at_the_last_bytes_of_a_mapping(client: Client, vgic: int) -> None:
    edge, payload = Edge(), DIST_BASE.to_bytes(8, "little")
    client.refused("EFAULT", client.set_at, vgic, ADDR, DIST, edge.put(payload, beyond=1))
    assert client.set_at(vgic, ADDR, DIST, edge.put(payload)) == 0
    client.refused("EFAULT", client.get_at, vgic, ADDR, DIST, Edge(writable=False).put(payload))


@pytest.mark.parametrize("frame", [2, 3, 4, 5, 6, 7, 1 << 32])
def test_unknown_frame_is_enxio_but_a_wild_payload_efault(client: Client, vgic: int, frame: int) -> None:
    client.refused("ENXIO", client.has, vgic, ADDR, frame)
    client.refused("ENXIO", client.set_u64, vgic, ADDR, frame, 1)
    client.refused("ENXIO", client.get, vgic, ADDR, frame, 8)
    client.refused("EFAULT", client.set_at, vgic, ADDR, frame, 0)


@FRAMES
@pytest.mark.parametrize("address", [1 << 40, 1 << 50, (1 << 50) + 1, UNSET])
def test_address_beyond_40_bits_is_e2big_even_if_unaligned(client: Client, vgic: int, frame: int, address: int) -> None:
    client.refused("E2BIG", client.set_u64, vgic, ADDR, frame, address)


@FRAMES
@pytest.mark.parametrize("address", [1, DIST_BASE + 0x10, DIST_BASE + 0x800, (1 << 40) - 1])
def test_unaligned_address_is_einval(client: Client, vgic: int, frame: int, address: int) -> None:
    client.refused("EINVAL", client.set_u64, vgic, ADDR, frame, address)
    client.set_u64(vgic, ADDR, frame, 0x1000)
    client.refused("EINVAL", client.set_u64, vgic, ADDR, frame, address)


@FRAMES
@pytest.mark.parametrize("address", [DIST_BASE, 0x7000])
def test_address_twice_is_eexist_even_the_same(client: Client, vgic: int, frame: int, address: int) -> None:
    client.set_u64(vgic, ADDR, frame, DIST_BASE)
    client.refused("EEXIST", client.set_u64, vgic, ADDR, frame, address)
    assert client.get(vgic, ADDR, frame, 8) == DIST_BASE


@FRAMES
def test_lowest_and_last_page(client: Client, frame: int) -> None:
    for address in (0, (1 << 40) - (0x1000 if frame == DIST else 0x2000)):
        vgic = client.vgic(client.vm())
        client.set_u64(vgic, ADDR, frame, address)
        assert client.get(vgic, ADDR, frame, 8) == address


@pytest.mark.parametrize("distance", [-0x1000, 0])
def test_overlap_of_the_frames_is_ebusy_and_the_new_one_unset(client: Client, vgic: int, distance: int) -> None:
    client.set_u64(vgic, ADDR, DIST, DIST_BASE)
    client.refused("EBUSY", client.set_u64, vgic, ADDR, CPU, DIST_BASE + distance)
    assert client.get(vgic, ADDR, CPU, 8) == UNSET
    client.set_u64(vgic, ADDR, CPU, CPU_BASE)


@pytest.mark.parametrize(("address", "overlaps"), [(-0x1000, False), (0, True), (0x1000, True), (0x2000, False)])
def test_distributor_after_the_cpu_interface(client: Client, vgic: int, address: int, overlaps: bool) -> None:
    client.set_u64(vgic, ADDR, CPU, CPU_BASE)
    if overlaps:
        client.refused("EBUSY", client.set_u64, vgic, ADDR, DIST, CPU_BASE + address)
    else:
        client.set_u64(vgic, ADDR, DIST, CPU_BASE + address)


@FRESH
@given(address=st.one_of(st.integers(0, UNSET), st.integers(0, (1 << 28) - 1).map(lambda page: page << 12)))
def test_any_address_is_set_or_refused_by_the_first_rule_it_breaks(client: Client, address: int) -> None:
    vgic = client.vgic(client.vm())
    if address >> 40:
        client.refused("E2BIG", client.set_u64, vgic, ADDR, DIST, address)
    elif address % 4096:
        client.refused("EINVAL", client.set_u64, vgic, ADDR, DIST, address)
    else:
        client.set_u64(vgic, ADDR, DIST, address)
        assert client.get(vgic, ADDR, DIST, 8) == address


# -- NR_IRQS -------------------------------------------------------------------------------------------------------


def _valid(count: int) -> bool:
    return 64 <= count <= 1024 and not count % 32


@pytest.mark.parametrize("count", [0, 31, 32, 33, 63, 65, 80, 95, 1023, 1025, 1056, 0xFFFFFFFF])
def test_number_of_irqs_that_cannot_be_is_einval(client: Client, vgic: int, count: int) -> None:
    client.refused("EINVAL", client.set_u32, vgic, NR_IRQS, 0, count)
    assert client.get(vgic, NR_IRQS, 0) == 0


@pytest.mark.parametrize("count", [64, 96, 256, 992, 1024])
def test_number_of_irqs_once_then_ebusy(client: Client, vgic: int, count: int) -> None:
    client.set_u32(vgic, NR_IRQS, 0, count)
    assert client.get(vgic, NR_IRQS, 0) == count
    for again in (count, 64, 128):
        client.refused("EBUSY", client.set_u32, vgic, NR_IRQS, 0, again)
    client.refused("EINVAL", client.set_u32, vgic, NR_IRQS, 0, 13)
    assert client.get(vgic, NR_IRQS, 0) == count


def test_number_of_irqs_is_256_and_ebusy_once_initialised(client: Client) -> None:
    vm, vgic = client.machine()
    client.irq_line(vm, 1, 32, 0)
    assert client.get(vgic, NR_IRQS, 0) == 256
    client.refused("EBUSY", client.set_u32, vgic, NR_IRQS, 0, 64)
    client.refused("EINVAL", client.set_u32, vgic, NR_IRQS, 0, 32)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_number_of_irqs_is_efault(client: Client, vgic: int, pointer: int) -> None:
    client.refused("EFAULT", client.set_at, vgic, NR_IRQS, 0, pointer)
    client.refused("EFAULT", client.get_at, vgic, NR_IRQS, 0, pointer)


@pytest.mark.parametrize("attr", [1, 7, (1 << 64) - 1])
def test_attribute_number_of_nr_irqs_is_ignored(client: Client, vgic: int, attr: int) -> None:
    assert client.has(vgic, NR_IRQS, attr) == 0
    client.set_u32(vgic, NR_IRQS, attr, 128)
    assert client.get(vgic, NR_IRQS, attr) == 128


@FRESH
@given(count=st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0, 40).map(lambda n: 32 * n)))
def test_any_number_of_irqs(client: Client, count: int) -> None:
    vm, vgic = client.machine()
    if not _valid(count):
        client.refused("EINVAL", client.set_u32, vgic, NR_IRQS, 0, count)
        return
    client.set_u32(vgic, NR_IRQS, 0, count)
    assert client.get(vgic, DIST_REGS, 4) == count // 32 - 1
    client.irq_line(vm, 1, min(count, 1020) - 1, 1)
    client.refused("EINVAL", client.irq_line, vm, 1, min(count, 1020), 1)


# -- CTRL ----------------------------------------------------------------------------------------------------------


def test_ctrl_is_enxio_in_2014(client: Client, vgic: int) -> None:
    client.refused("ENXIO", client.has, vgic, CTRL, 0)
    client.refused("ENXIO", client.set_at, vgic, CTRL, 0, 0)
    client.refused("ENXIO", client.get, vgic, CTRL, 0)


@pytest.fixture
def young(boot: Callable[..., Client]) -> Client:
    """A kernel with the CTRL group."""
    return boot("mainline")


def test_init_takes_no_payload_and_may_be_repeated(young: Client) -> None:
    vm, vgic = young.machine()
    assert young.has(vgic, CTRL, 0) == 0
    for pointer in (0, 0x10):
        assert young.set_at(vgic, CTRL, 0, pointer) == 0
    assert young.get(vgic, NR_IRQS, 0) == 256
    young.refused("EBUSY", young.vcpu, vm, 1)


def test_init_without_vcpu_is_enodev(young: Client) -> None:
    young.refused("ENODEV", young.set_at, young.vgic(young.vm()), CTRL, 0, 0)


def test_init_keeps_the_number_of_irqs(young: Client) -> None:
    _, vgic = young.machine()
    young.set_u32(vgic, NR_IRQS, 0, 96)
    young.set_at(vgic, CTRL, 0, 0)
    assert young.get(vgic, NR_IRQS, 0) == 96


@pytest.mark.parametrize("attr", [1, 2, 7, 1 << 32])
def test_other_ctrl_attr_is_enxio(young: Client, attr: int) -> None:
    vgic = young.machine()[1]
    young.refused("ENXIO", young.has, vgic, CTRL, attr)
    young.refused("ENXIO", young.set_at, vgic, CTRL, attr, 0)


def test_ctrl_cannot_be_read_so_enxio(young: Client) -> None:
    young.refused("ENXIO", young.get, young.machine()[1], CTRL, 0)


@pytest.mark.parametrize("group", [5, 6, 7, 8, 9, 10, 0xFFFFFFFF])
def test_unknown_group_is_enxio_whatever_the_pointer(client: Client, vgic: int, group: int) -> None:
    for attr in (0, 1):
        client.refused("ENXIO", client.has, vgic, group, attr)
        client.refused("ENXIO", client.set_at, vgic, group, attr, 0)
        client.refused("ENXIO", client.get_at, vgic, group, attr, 0)


def test_kvm_run_without_addresses_is_enxio(client: Client, vm: int) -> None:
    vcpu, vgic = client.vcpu(vm, init=True), client.vgic(vm)
    client.refused("ENXIO", client.ioctl, vcpu, uapi.KVM_RUN)
    client.set_u64(vgic, ADDR, DIST, DIST_BASE)
    client.refused("ENXIO", client.ioctl, vcpu, uapi.KVM_RUN)
    client.set_u64(vgic, ADDR, CPU, CPU_BASE)
    assert client.ioctl(vcpu, uapi.KVM_RUN) == 0
