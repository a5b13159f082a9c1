"""The registers of a 32-bit host's vCPU by number: KVM_GET_ONE_REG and its kin (arch/arm/kvm/guest.c, coproc.c)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.cortex_a15 import CACHES, IDENTIFICATION
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.arch import aarch32
from kvmvfio_emu.kernel.kvm.arch.cp15 import coprocessor_registers
from kvmvfio_emu.kernel.kvm.registers import RegisterFile, size_of
from kvmvfio_emu.uapi import arm32

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.arch.arm import ArmArch
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_LOW = 0xFFFFFFFF
_ARCHITECTURE = ~uapi.KVM_REG_SIZE_MASK & ~_LOW & (1 << 64) - 1
_GROUP, _BEYOND = uapi.KVM_REG_ARM_COPROC_MASK, 0xF0000000  #: bits of a number that name no register
_CORE_ID = uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_CORE
_VFP_ID = uapi.KVM_REG_ARM | arm32.KVM_REG_ARM_VFP
_CACHE_ID = uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX | uapi.KVM_REG_ARM_DEMUX_ID_CCSIDR
#: In the kernel's order: the number here -> the one by which `Timers` knows it.
_TIMERS = {
    arm32.KVM_REG_ARM_TIMER_CTL: uapi.KVM_REG_ARM_TIMER_CTL,
    arm32.KVM_REG_ARM_TIMER_CNT: uapi.KVM_REG_ARM_TIMER_CNT,
    arm32.KVM_REG_ARM_TIMER_CVAL: uapi.KVM_REG_ARM_TIMER_CVAL,
}
_COPROCESSOR = {register.id: register for register in coprocessor_registers()}
#: The host's own, found whatever group their number names, as the kernel does.
_INVARIANT = {number & ~_GROUP: register for number, register in _COPROCESSOR.items() if register.invariant}
_DOUBLES = 32
#: In the kernel's order, with the AArch64 name of those that `system` has.
_VFP = {
    arm32.KVM_REG_ARM_VFP_FPEXC: "FPEXC32_EL2",
    arm32.KVM_REG_ARM_VFP_FPSCR: "",
    arm32.KVM_REG_ARM_VFP_FPINST: "FPINST",
    arm32.KVM_REG_ARM_VFP_FPINST2: "FPINST2",
    arm32.KVM_REG_ARM_VFP_MVFR0: "MVFR0",
    arm32.KVM_REG_ARM_VFP_MVFR1: "MVFR1",
    arm32.KVM_REG_ARM_VFP_FPSID: "FPSID",
}
_CPUS_OF_CLUSTER = 4
_L2CTLR_CPUS, _ACTLR_SMP = 24, 1 << 6


def _banked() -> Iterator[tuple[int, str, int]]:
    members, banks = arm32.KVM_REGS, aarch32.BANKS
    for member, mode in (
        ("svc_regs", aarch32.SUPERVISOR),
        ("abt_regs", aarch32.ABORT),
        ("und_regs", aarch32.UNDEFINED),
        ("irq_regs", aarch32.IRQ),
    ):
        yield members[member], "x", banks[mode].stack
        yield members[member] + 1, "x", banks[mode].link
        yield members[member] + 2, "spsr", banks[mode].saved
    fiq = members["fiq_regs"]
    yield from ((fiq + number, "x", aarch32.FIQ_R8 + number) for number in range(5))
    yield fiq + 5, "x", banks[aarch32.FIQ].stack
    yield fiq + 6, "x", banks[aarch32.FIQ].link
    yield fiq + 7, "spsr", banks[aarch32.FIQ].saved


#: Words of ``struct kvm_regs`` -> where `core` has them. The last of usr_regs, ORIG_r0, is none of the guest's.
_WORDS = {number: ("x", number) for number in range(15)} | {15: ("pc", 0), 16: ("pstate", 0), 17: ("none", 0)}
_WORDS |= {word: (kind, number) for word, kind, number in _banked()}
_CPSR = 16


class Arm32Registers(RegisterFile):
    """One vCPU's. All of them are 32-bit."""

    def __init__(self, vcpu: Vcpu, arch: ArmArch) -> None:
        self._none = 0  # ORIG_r0
        super().__init__(vcpu, arch, is_32bit=True)

    def _reset_system(self) -> dict[str, int]:
        """ACTLR and L2CTLR tell how many CPUs there are, so userspace makes all vCPUs before it resets one."""
        system: dict[str, int] = {name: IDENTIFICATION.get(name, 0) for name in _VFP.values() if name}
        for register in _COPROCESSOR.values():
            system.setdefault(register.where, 0)
            register.set(system, register.reset)
        number, online = self._vcpu.number, len(self._vcpu.vm.vcpus)
        cluster, place = divmod(number, _CPUS_OF_CLUSTER)
        system["MPIDR_EL1"] = 1 << 31 | cluster << 8 | place
        others = min(online - 1 - cluster * _CPUS_OF_CLUSTER & _LOW, _CPUS_OF_CLUSTER - 1)
        system["L2CTLR"] = others << _L2CTLR_CPUS
        system["ACTLR_EL1"] = _ACTLR_SMP if online > 1 else 0
        return system

    # -- userspace ------------------------------------------------------------------------------------------------

    def ids(self) -> Iterator[int]:
        yield from (_CORE_ID | word for word in sorted(_WORDS))
        yield from _TIMERS
        yield from _COPROCESSOR
        yield from (_VFP_ID | uapi.KVM_REG_SIZE_U64 | number for number in range(_DOUBLES))
        yield from (_VFP_ID | uapi.KVM_REG_SIZE_U32 | number for number in _VFP)
        yield from (_CACHE_ID | number for number in CACHES)

    def get(self, number: int) -> bytes:
        size = self.size_to_set(number)
        self._fetch()
        group = number & _GROUP
        if group == uapi.KVM_REG_ARM_CORE:
            value = self._word(*_WORDS[number & 0xFFFF])
        elif number in _TIMERS:
            value = self.timers.get(_TIMERS[number])
        elif group == uapi.KVM_REG_ARM_DEMUX:
            value = CACHES[number & uapi.KVM_REG_ARM_DEMUX_VAL_MASK]
        elif group == arm32.KVM_REG_ARM_VFP:
            value = self._vfp(number & arm32.KVM_REG_ARM_VFP_MASK)
        else:
            register = _COPROCESSOR.get(number) or _INVARIANT[number & ~_GROUP]
            value = register.get(self.system)
        return value.to_bytes(8, "little")[:size]

    def size_to_set(self, number: int) -> int:
        if number & _ARCHITECTURE != uapi.KVM_REG_ARM:
            raise KernelError(errno.EINVAL, f"register {number:#x} is not of this architecture")
        size, group = size_of(number), number & _GROUP
        if group == uapi.KVM_REG_ARM_CORE:
            found = size == 4 and not number & _BEYOND and number & 0xFFFF in _WORDS
        elif number in _TIMERS:
            found = True
        elif group == uapi.KVM_REG_ARM_DEMUX:
            found = number & ~uapi.KVM_REG_ARM_DEMUX_VAL_MASK == _CACHE_ID
            found = found and number & uapi.KVM_REG_ARM_DEMUX_VAL_MASK in CACHES
        elif group == arm32.KVM_REG_ARM_VFP:
            index = number & arm32.KVM_REG_ARM_VFP_MASK
            found = not number & _BEYOND and (size == 8 if index < _DOUBLES else size == 4 and index in _VFP)
        else:
            found = number in _COPROCESSOR or number & ~_GROUP in _INVARIANT
        if not found:
            raise KernelError(errno.ENOENT, f"no register {number:#x}")
        return size

    def set(self, number: int, raw: bytes | bytearray) -> None:
        self.size_to_set(number)
        self._fetch_to_change()
        value, group = int.from_bytes(raw, "little"), number & _GROUP
        if group == uapi.KVM_REG_ARM_CORE:
            self._set_word(number & 0xFFFF, value)
        elif number in _TIMERS:
            self.timers.set(_TIMERS[number], value)
        elif group == uapi.KVM_REG_ARM_DEMUX:
            _invariant(number, value, CACHES[number & uapi.KVM_REG_ARM_DEMUX_VAL_MASK])
        elif group == arm32.KVM_REG_ARM_VFP:
            self._set_vfp(number, value)
        else:
            register = _COPROCESSOR.get(number) or _INVARIANT[number & ~_GROUP]
            if register.invariant:
                _invariant(number, value, register.reset)
            register.set(self.system, value)

    # -- words of struct kvm_regs -----------------------------------------------------------------------------------

    def _word(self, kind: str, number: int) -> int:
        regs = self.core.regs
        match kind:
            case "x":
                value = regs.regs[number]
            case "spsr":
                value = self.core.spsr[number]
            case "pc":
                value = regs.pc
            case "pstate":
                value = regs.pstate
            case _:
                value = self._none
        return int(value) & _LOW

    def _set_word(self, word: int, value: int) -> None:
        mode = value & aarch32.MODE
        if word == _CPSR and mode != aarch32.USER and mode not in aarch32.BANKS:
            raise KernelError(errno.EINVAL, f"no mode {mode:#x}")
        regs = self.core.regs
        match _WORDS[word]:
            case "x", number:
                regs.regs[number] = value
            case "spsr", number:
                self.core.spsr[number] = value
            case "pc", _:
                regs.pc = value
            case "pstate", _:
                regs.pstate = value
            case _:
                self._none = value

    # -- floating point -----------------------------------------------------------------------------------------------

    def _vfp(self, index: int) -> int:
        registers = self.core.fp_regs
        if index < _DOUBLES:
            return int(registers.vregs[index // 2][index % 2])
        name = _VFP[index]
        return self.system[name] if name else int(registers.fpsr | registers.fpcr)

    def _set_vfp(self, number: int, value: int) -> None:
        registers, index = self.core.fp_regs, number & arm32.KVM_REG_ARM_VFP_MASK
        if index < _DOUBLES:
            registers.vregs[index // 2][index % 2] = value
        elif index == arm32.KVM_REG_ARM_VFP_FPSCR:
            registers.fpsr, registers.fpcr = value & aarch32.FPSR_BITS, value & aarch32.FPCR_BITS
        else:
            if _VFP[index] in IDENTIFICATION:
                _invariant(number, value, IDENTIFICATION[_VFP[index]])
            self.system[_VFP[index]] = value


def _invariant(number: int, value: int, host: int) -> None:
    if value != host:
        raise KernelError(errno.EINVAL, f"register {number:#x} is the host's {host:#x}, it cannot become {value:#x}")
