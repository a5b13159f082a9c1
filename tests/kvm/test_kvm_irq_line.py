"""KVM_IRQ_LINE: which numbers there are. Contract 5.3, oracle 7."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import BAD_POINTERS, DIST_REGS, NR_IRQS, Client

from kvmvfio_emu import uapi

CPU, SPI, PPI = 0, 1, 2
OTHER = [3, 4, 0x7F, 0xFF]


@pytest.fixture
def machine(client: Client) -> tuple[int, int]:
    """(VM, VGIC) with two vCPUs and 96 interrupts."""
    vm, vgic = client.machine(vcpus=2)
    client.set_u32(vgic, NR_IRQS, 0, 96)
    return vm, vgic


def _pending(client: Client, vgic: int, word: int, vcpu: int = 0) -> int:
    return client.get(vgic, DIST_REGS, 0x200 + 4 * word | vcpu << 32)


@pytest.mark.parametrize("request_", [uapi.KVM_IRQ_LINE, uapi.KVM_IRQ_LINE_STATUS])
@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_argument_is_efault(client: Client, vm: int, request_: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, vm, request_, pointer)


# -- no in-kernel interrupt controller -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
def test_cpu_input_without_vgic_is_driven(client: Client, vm: int, number: int) -> None:
    client.vcpu(vm, 0)
    client.vcpu(vm, 1)
    client.irq_line(vm, CPU, number, 1, vcpu=1)
    assert [vcpu.inputs for vcpu in client.host.modules["kvm"].vms[0].vcpus] == [0, 1 << number]
    client.irq_line(vm, CPU, number, 0, vcpu=1)
    assert client.host.modules["kvm"].vms[0].vcpus[1].inputs == 0


@pytest.mark.parametrize("number", [2, 32, 0xFFFF])
def test_cpu_input_that_does_not_exist_is_einval(client: Client, vm: int, number: int) -> None:
    client.vcpu(vm)
    client.refused("EINVAL", client.irq_line, vm, CPU, number, 1)


@pytest.mark.parametrize("vcpu", [1, 2, 255])
def test_cpu_input_of_a_vcpu_that_does_not_exist_is_einval(client: Client, vm: int, vcpu: int) -> None:
    client.vcpu(vm)
    client.refused("EINVAL", client.irq_line, vm, CPU, 0, 1, vcpu)


@pytest.mark.parametrize("kind", [SPI, PPI])
@pytest.mark.parametrize("number", [0, 16, 31, 32, 1019, 0xFFFF])
def test_spi_and_ppi_without_vgic_are_enxio_whatever_the_number(
    client: Client, vm: int, kind: int, number: int
) -> None:
    client.vcpu(vm)
    client.refused("ENXIO", client.irq_line, vm, kind, number, 1)
    client.refused("ENXIO", client.irq_line, vm, kind, number, 1, vcpu=9)


@pytest.mark.parametrize("kind", OTHER)
def test_other_type_without_vgic_is_einval(client: Client, vm: int, kind: int) -> None:
    client.refused("EINVAL", client.irq_line, vm, kind, 32, 1)


# -- with a VGIC ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "vcpu"), [(0, 0), (1, 1), (2, 0), (0, 9)])
def test_cpu_input_with_vgic_is_enxio(client: Client, machine: tuple[int, int], number: int, vcpu: int) -> None:
    client.refused("ENXIO", client.irq_line, machine[0], CPU, number, 1, vcpu)


@pytest.mark.parametrize("number", [0, 15, 16, 31, 96, 97, 255, 1019, 1020, 1023, 0xFFFF])
def test_spi_outside_32_to_95_is_einval(client: Client, machine: tuple[int, int], number: int) -> None:
    client.refused("EINVAL", client.irq_line, machine[0], SPI, number, 1)


@pytest.mark.parametrize("number", [32, 33, 63, 64, 95])
@pytest.mark.parametrize("vcpu", [0, 1, 255])
def test_spi_number_is_the_gic_id_and_the_vcpu_is_ignored(
    client: Client, machine: tuple[int, int], number: int, vcpu: int
) -> None:
    vm, vgic = machine
    client.irq_line(vm, SPI, number, 1, vcpu)
    assert _pending(client, vgic, number // 32) == 1 << number % 32
    client.irq_line(vm, SPI, number, 0, vcpu)
    assert _pending(client, vgic, number // 32) == 0


@pytest.mark.parametrize(("irqs", "last"), [(64, 63), (992, 991), (1024, 1019)])
def test_last_spi_is_nr_irqs_but_never_1020(client: Client, irqs: int, last: int) -> None:
    vm, vgic = client.machine()
    client.set_u32(vgic, NR_IRQS, 0, irqs)
    client.irq_line(vm, SPI, last, 1)
    client.refused("EINVAL", client.irq_line, vm, SPI, last + 1, 1)


@pytest.mark.parametrize("vcpu", [0, 1])
def test_ppi_is_private_to_its_vcpu(client: Client, machine: tuple[int, int], vcpu: int) -> None:
    vm, vgic = machine
    client.irq_line(vm, PPI, 22, 1, vcpu)
    assert [_pending(client, vgic, 0, cpu) for cpu in (0, 1)] == [(1 << 22) * (cpu == vcpu) for cpu in (0, 1)]


@pytest.mark.parametrize("number", [0, 15, 32, 95, 0xFFFF])
def test_ppi_outside_16_to_31_is_einval(client: Client, machine: tuple[int, int], number: int) -> None:
    client.refused("EINVAL", client.irq_line, machine[0], PPI, number, 1)


@pytest.mark.parametrize("vcpu", [2, 255])
def test_ppi_of_a_vcpu_that_does_not_exist_is_einval(client: Client, machine: tuple[int, int], vcpu: int) -> None:
    client.refused("EINVAL", client.irq_line, machine[0], PPI, 22, 1, vcpu)


@pytest.mark.parametrize("kind", OTHER)
def test_other_type_with_vgic_is_einval(client: Client, machine: tuple[int, int], kind: int) -> None:
    client.refused("EINVAL", client.irq_line, machine[0], kind, 32, 1)


def test_spi_before_there_is_a_vcpu_is_enodev(client: Client, vm: int) -> None:
    client.vgic(vm)
    client.refused("ENODEV", client.irq_line, vm, SPI, 32, 1)
    client.refused("EINVAL", client.irq_line, vm, SPI, 31, 1)


def test_redundant_level_is_0_and_changes_nothing(client: Client, machine: tuple[int, int]) -> None:
    vm, vgic = machine
    for level in (0, 1, 1, 0, 0):
        client.irq_line(vm, SPI, 40, level)
        assert _pending(client, vgic, 1) == level << 8


@pytest.mark.parametrize("level", [2, 0x80000000, 0xFFFFFFFF])
def test_level_is_a_boolean(client: Client, machine: tuple[int, int], level: int) -> None:
    vm, vgic = machine
    client.irq_line(vm, SPI, 40, level)
    assert _pending(client, vgic, 1) == 1 << 8


def test_edge_needs_a_rising_one_and_stays_pending(client: Client, machine: tuple[int, int]) -> None:
    vm, vgic = machine
    client.set_u32(vgic, DIST_REGS, 0xC08, 2 << 16)  # interrupt 40
    client.irq_line(vm, SPI, 40, 0)
    assert _pending(client, vgic, 1) == 0
    for level in (1, 0):
        client.irq_line(vm, SPI, 40, level)
        assert _pending(client, vgic, 1) == 1 << 8


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(irq=st.integers(0, 0xFFFFFFFF), level=st.integers(0, 0xFFFFFFFF))
def test_any_number_is_0_or_a_listed_errno(client: Client, machine: tuple[int, int], irq: int, level: int) -> None:
    kind, vcpu, number = irq >> 24, irq >> 16 & 0xFF, irq & 0xFFFF
    valid = {SPI: 32 <= number < 96, PPI: 16 <= number < 32 and vcpu < 2}.get(kind, False)
    if valid:
        client.irq_line(machine[0], kind, number, level, vcpu)
    else:
        client.refused("ENXIO" if kind == CPU else "EINVAL", client.irq_line, machine[0], kind, number, level, vcpu)
