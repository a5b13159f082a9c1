"""CPU_SYSREGS of a VGICv3: the CPU interface as userspace saves and restores it."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from gicv3_rig import SYSREGS, Machine, boot_v3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import BAD_POINTERS, Client

FRESH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
QUAD = st.integers(0, (1 << 64) - 1)
PMR, BPR0, BPR1, CTLR, SRE, IGRPEN0, IGRPEN1 = 0xC230, 0xC643, 0xC663, 0xC664, 0xC665, 0xC666, 0xC667
AP0R, AP1R = range(0xC644, 0xC648), range(0xC648, 0xC64C)
KNOWN = {PMR, BPR0, BPR1, CTLR, SRE, IGRPEN0, IGRPEN1, *AP0R, *AP1R}
RESET_CTLR = 0x8C00


@pytest.fixture
def client(boot: Callable[..., Client]) -> Client:
    return boot_v3(boot)


@pytest.fixture
def machine(client: Client) -> Machine:
    return Machine(client, 2)


def test_which_registers_there_are(machine: Machine) -> None:
    found = set()
    for encoding in range(0xC000, 0xD000):
        try:
            machine.client.has(machine.gic, SYSREGS, encoding)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        else:
            found.add(encoding)
    assert found == KNOWN


@pytest.mark.parametrize("encoding", [0, 0xC660, 0xC659, 0xFFFF])
def test_unknown_register_is_enoent_after_the_payload(machine: Machine, encoding: int) -> None:
    machine.client.refused("ENOENT", machine.sysreg, encoding)
    machine.client.refused("ENOENT", machine.sysreg, encoding, 0)
    machine.client.refused("EFAULT", machine.client.set_at, machine.gic, SYSREGS, encoding, 0)


def test_bits_between_encoding_and_affinity_do_not_matter(machine: Machine) -> None:
    machine.client.set_u64(machine.gic, SYSREGS, 1 << 32 | 0x5A5A0000 | PMR, 0x70)
    assert machine.sysreg(PMR, affinity=1) == 0x70
    assert machine.sysreg(PMR) == 0


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_pointers(machine: Machine, pointer: int) -> None:
    machine.client.refused("EFAULT", machine.client.get_at, machine.gic, SYSREGS, PMR, pointer)
    machine.client.refused("EFAULT", machine.client.set_at, machine.gic, SYSREGS, PMR, pointer)


def test_before_initialisation_is_ebusy_even_before_the_pointer(client: Client) -> None:
    machine = Machine(client, 1, ready=False)
    client.refused("EBUSY", client.set_at, machine.gic, SYSREGS, PMR, 0)
    client.refused("EBUSY", machine.sysreg, PMR)


def test_reset_values(machine: Machine) -> None:
    expected = dict.fromkeys((PMR, BPR0, BPR1, IGRPEN0, IGRPEN1, AP0R[0], AP1R[0]), 0) | {CTLR: RESET_CTLR, SRE: 7}
    assert {encoding: machine.sysreg(encoding) for encoding in expected} == expected


@given(value=QUAD)
@FRESH
def test_fields_that_are_kept(machine: Machine, value: int) -> None:
    masks = {PMR: 0xFF, BPR0: 7, BPR1: 7, IGRPEN0: 1, IGRPEN1: 1, AP0R[0]: 0xFFFFFFFF, AP1R[0]: 0xFFFFFFFF}
    for encoding, mask in masks.items():
        machine.sysreg(encoding, value)
        assert machine.sysreg(encoding) == value & mask


def test_active_priorities_beyond_five_bits_are_einval(machine: Machine) -> None:
    for encoding in (*AP0R[1:], *AP1R[1:]):
        machine.client.refused("EINVAL", machine.sysreg, encoding)
        machine.client.refused("EINVAL", machine.sysreg, encoding, 0)


def test_system_registers_cannot_be_turned_off(machine: Machine) -> None:
    machine.sysreg(SRE, 1)
    machine.client.refused("EINVAL", machine.sysreg, SRE, 6)
    assert machine.sysreg(SRE) == 7


def test_common_binary_point(machine: Machine) -> None:
    machine.sysreg(BPR1, 2)
    machine.sysreg(BPR0, 4)
    machine.sysreg(CTLR, RESET_CTLR | 1)
    assert machine.sysreg(BPR1) == 5
    machine.sysreg(BPR1, 7)
    machine.sysreg(BPR0, 7)
    assert machine.sysreg(BPR1) == 7
    machine.sysreg(CTLR, RESET_CTLR)
    assert machine.sysreg(BPR1) == 2


@pytest.mark.parametrize("value", [0x8D00, 0x9400, 0x0C00, 0xCC00])
def test_control_of_another_cpu_is_einval(machine: Machine, value: int) -> None:
    machine.client.refused("EINVAL", machine.sysreg, CTLR, value)
    assert machine.sysreg(CTLR) == RESET_CTLR


def test_control_keeps_what_came_before_the_refused_field(machine: Machine) -> None:
    machine.client.refused("EINVAL", machine.sysreg, CTLR, 0x0303)
    assert machine.sysreg(CTLR) == 0x8300
    # Fewer bits are for good.
    machine.client.refused("EINVAL", machine.sysreg, CTLR, 0x8400)
    machine.client.refused("EINVAL", machine.sysreg, CTLR, 0x8B00)
    machine.sysreg(CTLR, 0x8202)
    assert machine.sysreg(CTLR) == 0x8202
