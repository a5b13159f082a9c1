"""The registers of an ARM vCPU: what a reset gives, and KVM_GET_ONE_REG and its kin as far as every host has them.

Whatever executes the guest's instructions reads and writes them here. They lie as in an AArch64 CPU, whatever the host
is: a 32-bit guest's are where the architecture maps them (`arch.aarch32`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.kvm.arch.aarch32 import RESET_CPSR
from kvmvfio_emu.kernel.kvm.timers import Timers

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.arch.arm import ArmArch
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

#: PSTATE: EL1h with all interrupts masked.
_RESET_64 = 0x3C5
_THUMB, _BIG_ENDIAN_32 = 1 << 5, 1 << 9  #: of CPSR
_BIG_ENDIAN_64 = 1 << 25  #: SCTLR_EL1.EE


class LiveRegisters(Protocol):
    """What executes the guest, and has the registers while it does."""

    @property
    def pc(self) -> int:
        """Where the guest is."""

    def fetch(self) -> None:
        """The file is about to be read or changed: it must show what the guest has."""

    def acknowledging(self) -> None:
        """The guest acknowledges an interrupt now."""

    def changed(self) -> None:
        """The file was changed, or is about to be: the guest goes on with what it holds then."""


class RegisterFile:
    """One vCPU's, from KVM_ARM_VCPU_INIT on. How its registers are numbered is the host's: see subclasses."""

    def __init__(self, vcpu: Vcpu, arch: ArmArch, *, is_32bit: bool) -> None:
        self._vcpu = vcpu
        self._arch = arch
        self.is_32bit = is_32bit
        #: arm64's ``struct kvm_regs``.
        self.core: Any = uapi.ffi.new("struct kvm_regs *")
        #: System registers by the architecture's AArch64 name.
        self.system: dict[str, int] = {}
        self.timers = Timers(vcpu.host.clock, arch)
        self.live: LiveRegisters | None = None
        self.reset()

    def reset(self) -> None:
        """As after a reset of the CPU."""
        uapi.ffi.memmove(self.core, bytes(uapi.sizeof("struct kvm_regs")), uapi.sizeof("struct kvm_regs"))
        self.core.regs.pstate = RESET_CPSR if self.is_32bit else _RESET_64
        self.system = self._reset_system()
        self.timers.reset()
        if self.live is not None:
            self.live.changed()

    def _reset_system(self) -> dict[str, int]:
        raise NotImplementedError

    def start(self, entry: int, context: int, *, big_endian: bool) -> None:
        """Reset, and begin at ``entry`` with ``context`` in register 0; models the end of kvm_reset_vcpu."""
        self.reset()
        regs = self.core.regs
        if self.is_32bit and entry & 1:
            entry -= 1
            regs.pstate |= _THUMB
        if big_endian and self.is_32bit:
            regs.pstate |= _BIG_ENDIAN_32
        elif big_endian:
            self.system["SCTLR_EL1"] |= _BIG_ENDIAN_64
        regs.pc, regs.regs[0] = entry, context

    @property
    def big_endian(self) -> bool:
        """Whether the guest's kernel accesses data so."""
        self._fetch()
        if self.is_32bit:
            return bool(self.core.regs.pstate & _BIG_ENDIAN_32)
        return bool(self.system["SCTLR_EL1"] & _BIG_ENDIAN_64)

    # -- userspace ------------------------------------------------------------------------------------------------

    def ids(self) -> Iterator[int]:
        """The numbers of all registers, in the kernel's order."""
        raise NotImplementedError

    def get(self, number: int) -> bytes:
        """The value of register ``number``. EINVAL another architecture's or a wrong size; ENOENT unknown."""
        raise NotImplementedError

    def size_to_set(self, number: int) -> int:
        """How many bytes `set` takes. EINVAL, ENOENT that come before the value is read, as the kernel orders them."""
        raise NotImplementedError

    def set(self, number: int, raw: bytes | bytearray) -> None:
        """Set register ``number``. As `get`; EINVAL a value that it cannot have; EBUSY."""
        raise NotImplementedError

    def _fetch(self) -> None:
        """Before registers are looked at."""
        if self.live is not None:
            self.live.fetch()

    def _fetch_to_change(self) -> None:
        """Before any is changed."""
        if self.live is not None:
            self.live.fetch()
            self.live.changed()


def size_of(number: int) -> int:
    """The bytes of register ``number``, by what it says."""
    return 1 << ((number & uapi.KVM_REG_SIZE_MASK) >> uapi.KVM_REG_SIZE_SHIFT)
