"""Between a vCPU and what it executes: one step at a time, and why a step may have to leave the guest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Exit:
    """Why a guest cannot go on by itself."""


@dataclass(frozen=True, slots=True)
class Mmio(Exit):
    """An access to guest physical ``address`` where there is no memory; ``value`` None for a read of ``size`` bytes."""

    address: int
    size: int
    value: int | None = None


@dataclass(frozen=True, slots=True)
class NoSyndrome(Exit):
    """As `Mmio`, by an instruction that the hardware says nothing of: ``iss`` of ESR_EL2 has only the fault."""

    address: int
    iss: int


@dataclass(frozen=True, slots=True)
class Hypercall(Exit):
    """A call of firmware, by its ``function``, that userspace asked to serve; ``flags`` KVM_HYPERCALL_EXIT_*."""

    function: int
    flags: int


class Wfi(Exit):
    """Wait for interrupt, with none pending."""


class Pause(Exit):
    """Nothing: it has used its slice of time and can go on."""


class PowerOff(Exit):
    """PSCI SYSTEM_OFF."""


class Reset(Exit):
    """PSCI SYSTEM_RESET."""


class CpuOff(Exit):
    """PSCI CPU_OFF: this vCPU stops, the others go on."""


class Call(Exit):
    """A call of firmware that the host has served."""


class GuestBus(Protocol):
    """What a program sees of its vCPU: memory, interrupts, time."""

    @property
    def irq_asserted(self) -> bool:
        """The vCPU's IRQ input."""

    @property
    def must_exit(self) -> bool:
        """Whether the host wants the CPU before the next step."""

    def load(self, address: int, size: int) -> int | Mmio:
        """The value at guest physical ``address``, or the exit that will fetch it."""

    def store(self, address: int, size: int, value: int) -> Mmio | None:
        """Store, or the exit that will."""

    def has_system(self, register: int, *, read: bool) -> bool:
        """Whether `read_system` (or `write_system`) knows a register."""

    def read_system(self, register: int) -> int:
        """MRS of a system register by its 16-bit encoding: those of a GICv3's CPU interface."""

    def write_system(self, register: int, value: int) -> None:
        """MSR."""

    def pass_time(self, nanoseconds: int) -> int:
        """Compute; ends early when the host wants the CPU. Returns what is left."""

    def note(self, name: str, **fields: object) -> None:
        """Show an event of the guest in the trace."""


class GuestProgram(Protocol):
    """Something that a vCPU can execute."""

    def step(self, bus: GuestBus) -> Exit | None:
        """Execute one operation; None when the guest can go on."""

    def complete(self, value: int) -> None:
        """The value that the read of the last `Mmio` exit returned; also called, with 0, after a write."""
