"""How lines, latches and configuration make an interrupt pending. Recorded answers, lessons 3 to 7."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from modern import (
    ICACTIVER,
    ICENABLER,
    ICFGR,
    ICPENDR,
    ISACTIVER,
    ISENABLER,
    ISPENDR,
    PPI,
    SPI,
    Machine,
)
from support import DIST_REGS, Client

from kvmvfio_emu import uapi

RESAMPLE, DEASSIGN = uapi.KVM_IRQFD_FLAG_RESAMPLE, uapi.KVM_IRQFD_FLAG_DEASSIGN


# -- edge and level --------------------------------------------------------------------------------------------------


def test_an_spi_is_edge_triggered_at_reset_a_pulse_stays(machine: Machine) -> None:
    machine.line(33, 1)
    machine.line(33, 0)
    assert machine.state(33) == "P"
    machine.put_bit(ICPENDR, 33)
    assert machine.state(33) == "I"
    machine.line(33, 0)
    assert machine.state(33) == "I"
    machine.line(33, 1)
    machine.put_bit(ICPENDR, 33)
    machine.line(33, 1)  # no lowering between: every 1 is an edge
    assert machine.state(33) == "P"


def test_a_level_is_pending_as_long_as_the_line_is_high(machine: Machine) -> None:
    machine.configure(33, edge=False)
    for _ in range(2):
        machine.line(33, 1)
        assert machine.state(33) == "P"
    machine.put_bit(ICPENDR, 33)
    assert machine.state(33) == "P"
    machine.line(33, 0)
    assert machine.state(33) == "I"


def test_the_latch_of_a_level_survives_its_line(machine: Machine) -> None:
    machine.configure(33, edge=False)
    machine.put_bit(ISPENDR, 33)
    machine.line(33, 1)
    machine.line(33, 0)
    assert machine.state(33) == "P"
    machine.put_bit(ICPENDR, 33)
    assert machine.state(33) == "I"


def test_the_line_is_remembered_through_a_change_to_edge(machine: Machine) -> None:
    machine.configure(35, edge=False)
    machine.line(35, 1)
    machine.configure(35, edge=True)
    assert machine.state(35) == "I"
    machine.configure(35, edge=False)
    assert machine.state(35) == "P"


def test_an_edge_that_became_level_keeps_its_latch(machine: Machine) -> None:
    machine.line(35, 1)
    machine.configure(35, edge=False)
    assert machine.state(35) == "P"
    machine.line(35, 0)  # the line never was high, as far as a level goes
    assert machine.state(35) == "P"


def test_a_configuration_may_change_while_enabled(machine: Machine) -> None:
    machine.put_bit(ISENABLER, 34)
    machine.configure(34, edge=False)
    assert machine.get(ICFGR + 8) >> 4 & 3 == 0


def test_active_and_pending_are_apart(machine: Machine) -> None:
    machine.put_bit(ISACTIVER, 33)
    machine.line(33, 1)
    assert machine.state(33) == "PA"
    machine.put_bit(ICACTIVER, 33)
    assert machine.state(33) == "P"


# -- KVM_IRQ_LINE ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 15, 16, 31, 96, 255, 1019, 1020, 1023, 8192, 0xFFFF])
@pytest.mark.parametrize("vcpu", [0, 1, 255])
def test_an_spi_outside_32_to_95_is_einval(machine: Machine, number: int, vcpu: int) -> None:
    machine.client.refused("EINVAL", machine.client.irq_line, machine.vm, SPI, number, 1, vcpu)


@pytest.mark.parametrize("number", [0, 1, 32, 0xFFFF])
@pytest.mark.parametrize("vcpu", [0, 9])
def test_cpu_inputs_are_the_vgics(machine: Machine, number: int, vcpu: int) -> None:
    machine.client.refused("ENXIO", machine.client.irq_line, machine.vm, 0, number, 1, vcpu)


@pytest.mark.parametrize("kind", range(3, 16))
def test_another_type_is_einval(machine: Machine, kind: int) -> None:
    machine.client.refused("EINVAL", machine.client.irq_line, machine.vm, kind, 40, 1)


def test_any_level_but_0_is_high_and_the_status_call_is_the_same(machine: Machine) -> None:
    client = machine.client
    for request, irq, level in ((uapi.KVM_IRQ_LINE, 41, 2), (uapi.KVM_IRQ_LINE_STATUS, 42, 1 << 31)):
        client.call(machine.vm, request, "kvm_irq_level", irq=SPI << 24 | irq, level=level)
        assert machine.state(irq) == "P"


@pytest.mark.parametrize("number", [16, 22, 31])
def test_a_ppi_is_level_sensitive_and_its_vcpus_own(machine: Machine, number: int) -> None:
    machine.client.irq_line(machine.vm, PPI, number, 1, vcpu=1)
    assert [machine.bit(ISPENDR, number, cpu) for cpu in (0, 1)] == [0, 1]
    machine.client.irq_line(machine.vm, PPI, number, 0, vcpu=1)
    assert machine.bit(ISPENDR, number, 1) == 0


@pytest.mark.parametrize(("kernel", "named"), [("linux-6.1", 0), ("linux-6.12", 5)])
def test_a_ppis_vcpu_is_named_by_index_and_since_6_7_by_number(boot: Any, kernel: str, named: int) -> None:
    client: Client = boot(kernel)
    vm = client.vm()
    client.vcpu(vm, 5, init=True)
    vgic = client.vgic(vm)
    client.refused("EINVAL", client.irq_line, vm, PPI, 20, 1, 5 - named)
    client.irq_line(vm, PPI, 20, 1, named)
    assert client.get(vgic, DIST_REGS, ISPENDR | 5 << 32) == 1 << 20


# -- irqfd -----------------------------------------------------------------------------------------------------------


def test_a_plain_irqfd_only_raises(machine: Machine) -> None:
    fd = machine.client.eventfd()
    machine.configure(40, edge=False)
    machine.client.irqfd(machine.vm, fd, 8)
    machine.signal(fd)
    assert (machine.count(fd), machine.state(40)) == (0, "P")  # drained, and left high
    machine.put_bit(ICPENDR, 40)
    assert machine.state(40) == "P"
    machine.line(40, 0)
    assert machine.state(40) == "I"


def test_what_was_signalled_before_is_one_pulse_and_stays_in_the_counter(machine: Machine) -> None:
    fd = machine.client.eventfd(3)
    machine.configure(40, edge=False)
    machine.client.irqfd(machine.vm, fd, 8)
    machine.client.host.settle()
    assert (machine.count(fd), machine.state(40)) == (3, "I")
    edge = machine.client.eventfd(1)
    machine.client.irqfd(machine.vm, edge, 10)
    machine.client.host.settle()
    assert (machine.count(edge), machine.state(42)) == (1, "P")


def test_an_irqfd_of_a_gsi_beyond_the_vgic_is_taken_and_lost(machine: Machine) -> None:
    fd = machine.client.eventfd()
    for gsi in (64, 1000, 0xFFFFFFFF):
        machine.client.irqfd(machine.vm, fd, gsi)
        machine.signal(fd)
        assert machine.count(fd) == 0
        assert [machine.get(ISPENDR + 4 * word) for word in range(3)] == [0, 0, 0]
        machine.client.irqfd(machine.vm, fd, gsi, DEASSIGN)


def test_a_resampler_lowers_the_line_when_the_last_one_leaves(machine: Machine) -> None:
    client, first, second, resample = machine.client, *(machine.client.eventfd() for _ in range(3))
    machine.configure(41, edge=False)
    client.irqfd(machine.vm, first, 9, RESAMPLE, resample)
    client.irqfd(machine.vm, second, 9, RESAMPLE, resample)
    machine.signal(first)
    assert machine.state(41) == "P"
    machine.put_bit(ICPENDR, 41)
    client.irqfd(machine.vm, first, 9, DEASSIGN)
    assert machine.state(41) == "P"
    client.irqfd(machine.vm, second, 9, DEASSIGN)
    assert (machine.state(41), machine.count(resample)) == ("I", 0)


def test_userspace_clearing_active_is_no_completion(machine: Machine) -> None:
    fd, resample = machine.client.eventfd(), machine.client.eventfd()
    machine.configure(41, edge=False)
    machine.client.irqfd(machine.vm, fd, 9, RESAMPLE, resample)
    machine.signal(fd)
    machine.put_bit(ISACTIVER, 41)
    machine.put_bit(ICACTIVER, 41)
    assert (machine.state(41), machine.count(resample)) == ("P", 0)


def test_every_pin_of_the_vgic_is_the_gsi_of_its_number(machine: Machine) -> None:
    for pin in (0, 31, 32, 63):
        fd = machine.client.eventfd()
        machine.client.irqfd(machine.vm, fd, pin)
        os.eventfd_write(fd, 1)
        machine.client.host.settle()
        assert machine.state(pin + 32) == "P"


# -- against a small reference ---------------------------------------------------------------------------------------


@dataclass
class Reference:
    """What the architecture and lessons 5 and 6 say of one SPI, without any VGIC."""

    edge: bool = True
    line: bool = False
    latch: bool = False
    active: bool = False
    enabled: bool = False

    @property
    def pending(self) -> bool:
        return self.latch if self.edge else self.latch or self.line


class Lines(RuleBasedStateMachine):
    """Two SPIs, driven and configured in any order."""

    @initialize(kernel=st.sampled_from(["linux-6.1", "linux-6.12"]))
    def boot(self, kernel: str) -> None:
        self.client = Client(kernel)
        self.machine = Machine(self.client)
        self.irqs = {40: Reference(), 95: Reference()}

    @rule(irq=st.sampled_from([40, 95]), level=st.booleans())
    def drive(self, irq: int, level: bool) -> None:
        self.machine.line(irq, int(level))
        one = self.irqs[irq]
        if one.edge:
            one.latch |= level
        else:
            one.line = level

    @rule(irq=st.sampled_from([40, 95]), edge=st.booleans())
    def configure(self, irq: int, edge: bool) -> None:
        self.machine.configure(irq, edge=edge)
        self.irqs[irq].edge = edge

    @rule(
        irq=st.sampled_from([40, 95]),
        what=st.sampled_from(
            [
                (ISPENDR, "latch", True),
                (ICPENDR, "latch", False),
                (ISACTIVER, "active", True),
                (ICACTIVER, "active", False),
                (ISENABLER, "enabled", True),
                (ICENABLER, "enabled", False),
            ]
        ),
    )
    def write(self, irq: int, what: tuple[int, str, bool]) -> None:
        register, name, value = what
        self.machine.put_bit(register, irq)
        setattr(self.irqs[irq], name, value)

    @invariant()
    def agrees(self) -> None:
        for irq, one in getattr(self, "irqs", {}).items():
            for register, value in (
                (ISPENDR, one.pending),
                (ICPENDR, one.pending),
                (ISACTIVER, one.active),
                (ISENABLER, one.enabled),
                (ICFGR, None),
            ):
                if value is None:
                    assert self.machine.get(ICFGR + irq // 16 * 4) >> irq % 16 * 2 & 3 == 2 * one.edge
                else:
                    assert self.machine.bit(register, irq) == value

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.client.finish()


TestLines = Lines.TestCase
TestLines.settings = settings(max_examples=50, deadline=None)
