"""Guests for the supervised part of the benchmark; imported by name, with this directory on the path."""

from __future__ import annotations

from kvmvfio_emu.guest import Cpu, Script, wait_for_interrupt, work
from kvmvfio_emu.guest.script import Routine
from kvmvfio_emu.guest.xgmac import GIC_CPU, GIC_DISTRIBUTOR, SPI


def _compute(cpu: Cpu) -> Routine:
    while True:
        yield work(1000)


def busy(vcpu: int) -> Script:
    """Never waits."""
    return Script(_compute)


def _driver(cpu: Cpu) -> Routine:
    yield from cpu.enable_gic()
    yield from cpu.enable_irq(SPI)
    while True:
        yield wait_for_interrupt()


def _handler(cpu: Cpu) -> Routine:
    irq = yield cpu.acknowledge()
    yield cpu.end_of_interrupt(irq)


def completer(vcpu: int) -> Script:
    """Completes each interrupt, without a device."""
    return Script(_driver, _handler, distributor=GIC_DISTRIBUTOR, interface=GIC_CPU)
