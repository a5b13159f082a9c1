"""What a vCPU executes: scripted programs."""

from kvmvfio_emu.guest.base import Exit, GuestProgram, Mmio, PowerOff, Wfi
from kvmvfio_emu.guest.script import Cpu, Script, read, wait_for_interrupt, work, write

__all__ = [
    "Cpu",
    "Exit",
    "GuestProgram",
    "Mmio",
    "PowerOff",
    "Script",
    "Wfi",
    "read",
    "wait_for_interrupt",
    "work",
    "write",
]
