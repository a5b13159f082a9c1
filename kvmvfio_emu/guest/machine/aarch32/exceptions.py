"""Exception entry to a mode of PL1, which the engine does not do by itself (Arm DDI 0406, B1.8 and B1.9)."""

from __future__ import annotations

from typing import NamedTuple

from kvmvfio_emu.guest.machine import syndrome as s
from kvmvfio_emu.guest.machine.aarch32 import cpu as c
from kvmvfio_emu.kernel.kvm.arch import aarch32 as a

BIG_ENDIAN = 1 << 9
_MASKS = s.FIQ | s.IRQ | s.SERROR
_IT, _JAZELLE = 0x0600FC00, 1 << 24

SCTLR = c.Coprocessor(0, 1, 0, 0)
VBAR = c.Coprocessor(0, 12, 0, 0)
TTBCR = c.Coprocessor(0, 2, 0, 2)
DFSR, IFSR = c.Coprocessor(0, 5, 0, 0), c.Coprocessor(0, 5, 0, 1)
DFAR, IFAR = c.Coprocessor(0, 6, 0, 0), c.Coprocessor(0, 6, 0, 2)
_HIGH_VECTORS, _EXCEPTION_ENDIAN, _THUMB_EXCEPTIONS = 1 << 13, 1 << 25, 1 << 30
_LONG_DESCRIPTORS = 1 << 31
_HIGH = 0xFFFF0000

# Fault status: with long descriptors, else with short ones.
_STATUS = {s.EXTERNAL: (0x210, 0x008), s.ALIGNMENT: (0x221, 0x001), s.SERROR: (0x211, 0x406)}
_WRITE = 1 << 11


class Kind(NamedTuple):
    """One kind of exception. ``arm``, ``thumb``: what the link register is beyond the preferred return address."""

    mode: int
    vector: int
    arm: int
    thumb: int
    masks: int


UNDEFINED = Kind(a.UNDEFINED, 0x04, 4, 2, s.IRQ)
SUPERVISOR_CALL = Kind(a.SUPERVISOR, 0x08, 0, 0, s.IRQ)
PREFETCH_ABORT = Kind(a.ABORT, 0x0C, 4, 4, s.IRQ | s.SERROR)
DATA_ABORT = Kind(a.ABORT, 0x10, 8, 8, s.IRQ | s.SERROR)
IRQ = Kind(a.IRQ, 0x18, 4, 4, s.IRQ | s.SERROR)
FIQ = Kind(a.FIQ, 0x1C, 4, 4, _MASKS)


def enter(cpu: c.Cpu, kind: Kind, pc: int) -> None:
    """Take an exception whose preferred return address is ``pc``; of a call, the instruction after it."""
    before = cpu.read(c.CPSR)
    control = cpu.read_system(SCTLR) or 0
    after = before & ~(a.MODE | _IT | _JAZELLE | c.THUMB | BIG_ENDIAN) | kind.mode | kind.masks
    after |= BIG_ENDIAN if control & _EXCEPTION_ENDIAN else 0
    after |= c.THUMB if control & _THUMB_EXCEPTIONS else 0
    cpu.write(c.CPSR, after)  # the mode's own registers from here on
    cpu.write(c.SPSR, before)
    cpu.write(c.LR, pc + (kind.thumb if before & c.THUMB else kind.arm))
    cpu.pc = (_HIGH if control & _HIGH_VECTORS else cpu.read_system(VBAR) or 0) + kind.vector
    cpu.write_system(SCTLR, control)  # the last one, which makes the engine see the new CPSR


def status(cpu: c.Cpu, fault: int, *, write: bool = False) -> int:
    """DFSR or IFSR of an abort that KVM makes: ``fault`` is `syndrome`'s EXTERNAL, ALIGNMENT or SERROR."""
    long = bool((cpu.read_system(TTBCR) or 0) & _LONG_DESCRIPTORS)
    return _STATUS[fault][not long] | (_WRITE if write else 0)
