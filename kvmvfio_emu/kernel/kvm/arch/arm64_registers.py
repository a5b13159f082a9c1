"""The registers of an arm64 host's vCPU by number: KVM_GET_ONE_REG and its kin (arch/arm64/kvm/guest.c, sys_regs.c)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.cortex_a72 import CACHES
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm import firmware
from kvmvfio_emu.kernel.kvm.arch import aarch32
from kvmvfio_emu.kernel.kvm.registers import RegisterFile, size_of
from kvmvfio_emu.kernel.kvm.sysregs import SystemRegister, system_registers, virtual_clidr
from kvmvfio_emu.kernel.kvm.timers import REGISTERS as TIMER_REGISTERS

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.arch.arm import ArmArch
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_ARCHITECTURE = ~uapi.KVM_REG_SIZE_MASK & ~0xFFFFFFFF & (1 << 64) - 1
_FIRMWARE = (uapi.KVM_REG_ARM_FW, uapi.KVM_REG_ARM_FW_FEAT_BMAP)
_CORE_ID = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM_CORE
_WORDS = uapi.sizeof("struct kvm_regs") // 4
_CACHE_INDEX = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX | uapi.KVM_REG_ARM_DEMUX_ID_CCSIDR
_ALL_CACHES = 14
_LINE_64_BYTES = 2  #: CCSIDR_EL1.LineSize; no smaller one can be set

# Modes of PSTATE.
_MODE_32BIT = 0x10
_MODES_64 = {0x0, 0x4, 0x5}  # EL0t, EL1t, EL1h


def _layout() -> dict[int, int]:
    """The core registers: offset in words -> bytes."""

    def word(*field: str | int) -> int:
        return uapi.ffi.offsetof("struct kvm_regs", *field) // 4

    sizes = {word("regs", "regs", number): 8 for number in range(31)}
    sizes |= {word("regs", name): 8 for name in ("sp", "pc", "pstate")}
    sizes |= {word(name): 8 for name in ("sp_el1", "elr_el1")}
    sizes |= {word("spsr", number): 8 for number in range(uapi.KVM_NR_SPSR)}
    sizes |= {word("fp_regs", "vregs", number): 16 for number in range(32)}
    sizes |= {word("fp_regs", name): 4 for name in ("fpsr", "fpcr")}
    return sizes


_CORE = _layout()
_PSTATE = uapi.ffi.offsetof("struct kvm_regs", "regs", "pstate") // 4


class Arm64Registers(RegisterFile):
    """One vCPU's, whose ``features`` (bits of KVM_ARM_VCPU_INIT) decide what it holds."""

    def __init__(self, vcpu: Vcpu, arch: ArmArch, features: int) -> None:
        self._profile = vcpu.host.profile
        self._psci_0_2 = bool(features >> uapi.KVM_ARM_VCPU_PSCI_0_2 & 1)
        #: The system registers that there are.
        self.declared = system_registers(
            self._profile,
            pmu=bool(features >> uapi.KVM_ARM_VCPU_PMU_V3 & 1),
            gic_version=vcpu.host.machine.board.gic_version,
        )
        self._caches: dict[int, int] = {}
        super().__init__(vcpu, arch, is_32bit=bool(features >> uapi.KVM_ARM_VCPU_EL1_32BIT & 1))

    def _reset_system(self) -> dict[str, int]:
        system = dict(self.declared.resets)
        system["MPIDR_EL1"] = self._vcpu.mpidr
        if "CLIDR_EL1" not in self._profile.invariant_registers:
            system["CLIDR_EL1"] = virtual_clidr()
        return system

    # -- the list ---------------------------------------------------------------------------------------------

    def ids(self) -> Iterator[int]:
        for word, size in sorted(_CORE.items()):
            yield _CORE_ID | (size.bit_length() - 1) << uapi.KVM_REG_SIZE_SHIFT | word
        yield from firmware.REGISTERS
        yield from self._timer_ids
        yield from (register.id for register in self.declared.all)
        yield from (_CACHE_INDEX | number for number in self._cache_numbers)

    @property
    def _timer_ids(self) -> tuple[int, ...]:
        return TIMER_REGISTERS if self._profile.ptimer_registers else TIMER_REGISTERS[:3]

    @property
    def _cache_numbers(self) -> tuple[int, ...]:
        return tuple(range(_ALL_CACHES)) if self._profile.demux_all_caches else tuple(CACHES)

    # -- one register -----------------------------------------------------------------------------------------

    def get(self, number: int) -> bytes:
        kind, size = self._kind(number), size_of(number)
        self._fetch()
        if kind == uapi.KVM_REG_ARM_CORE:
            return bytes(self._core_slice(number))
        if kind in _FIRMWARE:
            return self._arch.firmware.get(number, psci_0_2=self._psci_0_2).to_bytes(8, "little")[:size]
        if number in self._timer_ids:
            return self.timers.get(number).to_bytes(8, "little")
        if kind == uapi.KVM_REG_ARM_DEMUX:
            return self._cache(self._cache_number(number)).to_bytes(4, "little")
        return self.system[self._system(number, kind).name].to_bytes(8, "little")

    def size_to_set(self, number: int) -> int:
        kind, size = self._kind(number), size_of(number)
        if kind == uapi.KVM_REG_ARM_CORE:
            self._core_slice(number)
        elif kind in _FIRMWARE and size != 8:
            raise KernelError(errno.ENOENT, "a firmware register has 64 bits")
        elif kind == uapi.KVM_REG_ARM_DEMUX and number not in self._timer_ids:
            self._cache_number(number)
            return 4
        return size if kind == uapi.KVM_REG_ARM_CORE else 8

    def set(self, number: int, raw: bytes | bytearray) -> None:
        kind, value = self._kind(number), int.from_bytes(raw, "little")
        self._fetch_to_change()
        if kind == uapi.KVM_REG_ARM_CORE:
            self._set_core(number, raw)
        elif kind in _FIRMWARE:
            has_run = any(vcpu.has_run for vcpu in self._vcpu.vm.vcpus)
            self._arch.firmware.set(number, value, psci_0_2=self._psci_0_2, has_run=has_run)
        elif number in self._timer_ids:
            self.timers.set(number, value)
        elif kind == uapi.KVM_REG_ARM_DEMUX:
            self._set_cache(self._cache_number(number), value)
        else:
            register = self._system(number, kind)
            if (value ^ register.reset) & register.fixed & (1 << 64) - 1 and not self._is_virtual_clidr(register):
                raise KernelError(errno.EINVAL, f"{register.name} cannot become {value:#x}")
            self.system[register.name] = value

    def _kind(self, number: int) -> int:
        if number & _ARCHITECTURE != uapi.KVM_REG_ARM64:
            raise KernelError(errno.EINVAL, f"register {number:#x} is not of this architecture")
        return number & uapi.KVM_REG_ARM_COPROC_MASK

    # -- core registers ---------------------------------------------------------------------------------------

    def _core_slice(self, number: int) -> memoryview:
        word = number & ~(uapi.KVM_REG_ARCH_MASK | uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_ARM_CORE)
        size = size_of(number)
        if word >= _WORDS or word + size // 4 >= _WORDS:
            raise KernelError(errno.ENOENT, f"word {word} is beyond struct kvm_regs")
        if _CORE.get(word) != size:
            raise KernelError(errno.EINVAL, f"no core register of {size} bytes at word {word}")
        return memoryview(uapi.ffi.buffer(self.core))[4 * word : 4 * word + size]

    def _set_core(self, number: int, raw: bytes | bytearray) -> None:
        place = self._core_slice(number)
        if number & 0xFFFF == _PSTATE:
            mode = raw[0] & aarch32.MODE
            allowed = aarch32.BANKS if self.is_32bit else _MODES_64
            if mode != aarch32.USER and mode not in allowed:
                raise KernelError(errno.EINVAL, f"a vCPU that is 32-bit = {self.is_32bit} has no mode {mode:#x}")
        place[:] = raw
        if self.core.regs.pstate & _MODE_32BIT:
            self._narrow()

    def _narrow(self) -> None:
        """32-bit registers have no upper halves."""
        regs = self.core.regs
        banks = 15 if regs.pstate & aarch32.MODE in (aarch32.USER, aarch32.SYSTEM) else 31
        for number in range(banks):
            regs.regs[number] &= 0xFFFFFFFF
        regs.pc &= 0xFFFFFFFF

    # -- system registers -------------------------------------------------------------------------------------

    def _system(self, number: int, kind: int) -> SystemRegister:
        index = number & 0xFFFF
        if number & uapi.KVM_REG_SIZE_MASK == uapi.KVM_REG_SIZE_U64 and not number & 0xF0000000:
            # The invariant ones are found whatever the kind of the number says.
            register = self.declared.invariant.get(index)
            if register is None and kind == uapi.KVM_REG_ARM64_SYSREG:
                register = self.declared.by_index.get(index)
            if register is not None:
                return register
        raise KernelError(errno.ENOENT, f"no system register {number:#x}")

    def _is_virtual_clidr(self, register: SystemRegister) -> bool:
        return register.name == "CLIDR_EL1" and "CLIDR_EL1" not in self._profile.invariant_registers

    # -- caches -----------------------------------------------------------------------------------------------

    def _cache_number(self, number: int) -> int:
        """ENOENT no such cache."""
        cache = number & uapi.KVM_REG_ARM_DEMUX_VAL_MASK
        other = number & 0xF0000000 or number & uapi.KVM_REG_ARM_DEMUX_ID_MASK != uapi.KVM_REG_ARM_DEMUX_ID_CCSIDR
        if other or size_of(number) != 4 or cache not in self._cache_numbers:
            raise KernelError(errno.ENOENT, f"no cache register {number:#x}")
        return cache

    def _cache(self, cache: int) -> int:
        """CCSIDR_EL1 of a cache: the CPU's, or made up: one set, one way, the smallest lines."""
        if not self._profile.demux_all_caches:
            return CACHES[cache]
        return self._caches.get(cache, _LINE_64_BYTES)

    def _set_cache(self, cache: int, value: int) -> None:
        if self._profile.demux_all_caches:
            if value & 0x7 < _LINE_64_BYTES:
                raise KernelError(errno.EINVAL, "cache lines cannot be smaller than the host's")
            self._caches[cache] = value
        elif value != CACHES[cache]:
            raise KernelError(errno.EINVAL, "the caches are the host's")
