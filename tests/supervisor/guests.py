"""Guests for the supervised clients."""

from __future__ import annotations

from kvmvfio_emu.guest import Cpu, Script, wait_for_interrupt
from kvmvfio_emu.guest.script import Routine


def _sleep(cpu: Cpu) -> Routine:
    while True:
        yield wait_for_interrupt()


def sleeper(vcpu: int) -> Script:
    """Waits for an interrupt that never comes."""
    return Script(_sleep)
