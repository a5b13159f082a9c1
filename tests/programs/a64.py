"""Programs in A64 (encodings: Arm DDI 0487, C4)."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from programs import model as m
from programs.drawing import Kind, addresses, control, registers, runs, sequence, tables, values, word

#: Goes on after the instruction; to its end when there is none after it, as ESR_EL1 says.
_SYNCHRONOUS = (
    0xD538521B,  # mrs x27, esr_el1
    0xD2A1401A,  # movz x26, #0x0a00, lsl #16
    0x531A7F7B,  # lsr w27, w27, #26
    0x5100837B,  # sub w27, w27, #0x20
    0x71000B7F,  # cmp w27, #2: instruction aborts, PC alignment
    0x540000A9,  # b.ls end
    0xD538403B,  # mrs x27, elr_el1
    0x9100137B,  # add x27, x27, #4
    0xD518403B,  # msr elr_el1, x27
    0xD69F03E0,  # eret
    0xB90FFB5B,  # end: str w27, [x26, #0xff8]
    0x14000000,  # b .
)
#: Masks all, and goes on.
_INTERRUPT = (
    0xD538401B,  # mrs x27, spsr_el1
    0xB27A0F7B,  # orr x27, x27, #0x3c0
    0xD518401B,  # msr spsr_el1, x27
    0xD69F03E0,  # eret
)
#: The entries from one state: synchronous, IRQ, FIQ, SError.
_VECTORS = b"".join(
    struct.pack(f"<{len(handler)}I", *handler).ljust(0x80, b"\0")
    for handler in (_SYNCHRONOUS, _INTERRUPT, _INTERRUPT, _INTERRUPT)
)
_END = (0xD2A1401A, 0xB90FFB5B, 0x14000000)
_SIZE = st.integers(0, 3)
#: Bases and indices: mostly those that hold addresses at first.
_BASE = st.integers(0, 15)


def _bits(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << count) - 1)


def _unsigned_offset(draw: st.DrawFn) -> bytes:
    offset = draw(st.sampled_from((0, 0, 1, 2, 0x3F, 0xFFF)))
    vector = draw(st.sampled_from((0, 0, 0, 0, 1)))
    fields = draw(_SIZE) << 30 | vector << 26 | draw(_bits(2)) << 22 | offset << 10
    return word(0x39000000 | fields | draw(_BASE) << 5 | draw(registers))


def _signed_offset(draw: st.DrawFn) -> bytes:
    """Unscaled, post-indexed, unprivileged, pre-indexed."""
    mode = draw(st.sampled_from((0, 0, 1, 2, 3)))
    offset = draw(st.sampled_from((0, 1, 3, 4, 8, 0x100, 0x1F8, 0x1FF)))
    fields = draw(_SIZE) << 30 | draw(st.sampled_from((0, 0, 0, 1))) << 26 | draw(_bits(2)) << 22
    return word(0x38000000 | fields | offset << 12 | mode << 10 | draw(_BASE) << 5 | draw(registers))


def _register_offset(draw: st.DrawFn) -> bytes:
    fields = draw(_SIZE) << 30 | draw(_bits(2)) << 22 | draw(st.integers(12, 31)) << 16 | draw(_bits(4)) << 12
    return word(0x38200800 | fields | draw(_BASE) << 5 | draw(registers))


def _atomic(draw: st.DrawFn) -> bytes:
    return word(0x38200000 | draw(_SIZE) << 30 | draw(_bits(12)) << 12 | draw(_BASE) << 5 | draw(registers))


def _pair(draw: st.DrawFn) -> bytes:
    fields = draw(_SIZE) << 30 | draw(st.integers(0, 1)) << 26 | draw(_bits(3)) << 22 | draw(_bits(7)) << 15
    return word(0x28000000 | fields | draw(registers) << 10 | draw(_BASE) << 5 | draw(registers))


def _exclusive(draw: st.DrawFn) -> bytes:
    """Exclusives, acquire and release; the fields of registers that should be ones mostly are."""
    status, second = draw(st.sampled_from((31, 3))), draw(st.sampled_from((31, 31, 4)))
    fields = draw(_SIZE) << 30 | draw(_bits(3)) << 21 | status << 16 | draw(_bits(1)) << 15 | second << 10
    return word(0x08000000 | fields | draw(_BASE) << 5 | draw(registers))


def _literal(draw: st.DrawFn) -> bytes:
    offset = draw(st.sampled_from((0, 4, 0x1000, 0x17FF, 0x40000, 0x7FFFF)))
    return word(0x18000000 | draw(_SIZE) << 30 | draw(_bits(1)) << 26 | offset << 5 | draw(registers))


def _structures(draw: st.DrawFn) -> bytes:
    return word(0x0C000000 | draw(_bits(1)) << 30 | draw(_bits(15)) << 10 | draw(_BASE) << 5 | draw(registers))


def _maintenance(draw: st.DrawFn) -> bytes:
    """DC, IC, AT, TLBI, and what else is a SYS."""
    op1, crm, op2 = draw(st.sampled_from((0, 3, 4))), draw(st.integers(1, 14)), draw(_bits(3))
    crn = draw(st.sampled_from((7, 7, 7, 8)))
    return word(0xD5080000 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | draw(_BASE))


#: SCTLR, TTBR, TCR, VBAR, ESR, ELR, SPSR, CPACR, ICC_*, CNTV_*, CNTP_*, CNTVCT, ISR, MPIDR, ID registers, debug, EL2.
_SYSTEM = (
    *((3, 0, 1, 0, 0), (3, 0, 2, 0, 0), (3, 0, 2, 0, 1), (3, 0, 2, 0, 2), (3, 0, 12, 0, 0), (3, 0, 5, 2, 0)),
    *((3, 0, 4, 0, 1), (3, 0, 4, 0, 0), (3, 0, 1, 0, 2), (3, 0, 4, 1, 0), (3, 0, 13, 0, 1), (3, 0, 4, 2, 0)),
    *((3, 0, 4, 6, 0), (3, 0, 12, 12, 0), (3, 0, 12, 12, 1), (3, 0, 12, 12, 7), (3, 0, 12, 11, 5), (3, 0, 12, 12, 4)),
    *((3, 3, 14, 3, 0), (3, 3, 14, 3, 1), (3, 3, 14, 3, 2), (3, 3, 14, 2, 1), (3, 3, 14, 0, 2), (3, 0, 14, 1, 0)),
    *((3, 0, 12, 1, 0), (3, 0, 0, 0, 5), (3, 0, 0, 7, 0), (2, 0, 0, 2, 2), (3, 4, 1, 1, 0), (3, 3, 9, 12, 0)),
    *((3, 3, 4, 4, 0), (3, 3, 4, 2, 1), (3, 0, 7, 4, 0)),
)


def _system(draw: st.DrawFn) -> bytes:
    encoding = draw(st.sampled_from(_SYSTEM))
    op0, op1, crn, crm, op2 = encoding
    fields = op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
    return word(0xD5000000 | draw(_bits(1)) << 21 | fields | draw(registers))


def _any_system(draw: st.DrawFn) -> bytes:
    return word(0xD5000000 | draw(_bits(22)))


def _call(draw: st.DrawFn) -> bytes:
    """SVC, HVC, SMC, BRK, HLT, DCPS."""
    kind = draw(st.sampled_from((0xD4000001, 0xD4000002, 0xD4000003, 0xD4200000, 0xD4400000, 0xD4A00001)))
    return word(kind | draw(st.sampled_from((0, 0, 1, 0xFFFF))) << 5)


def _returns(draw: st.DrawFn) -> bytes:
    """ERET, mostly from an SPSR and to an ELR that are set just before."""
    number = draw(_BASE)
    state = (0xD2800000 | draw(st.sampled_from((0x3C0, 0x3C4, 0x3C5, 0, 0x10, 0x9, 0x1F))) << 5 | 17, 0xD5184011)
    here = (0x10000000 | 3 << 5 | 17, 0xD5184031) if draw(st.booleans()) else (0xD503201F, 0xD5184020 | number)
    return b"".join(map(word, (*state, *here, 0xD69F03E0)))  # adr x17, the one after it; msr elr_el1


def _hint(draw: st.DrawFn) -> bytes:
    number = draw(st.sampled_from((0, 1, 2, 4, 5, 6, 7, 16, 127)))
    return word(draw(st.sampled_from((0xD503201F | number << 5, 0xD503201F, 0xD50330BF | draw(_bits(4)) << 8))))


def _wait(_: st.DrawFn) -> bytes:
    return word(0xD503207F)


def _branch(draw: st.DrawFn) -> bytes:
    """Forward, seldom back or far."""
    distance = draw(st.sampled_from((1, 2, 2, 3, 3, 4, 0x800, -1, 0)))
    kind = draw(_bits(2))
    if kind == 0:
        return word(0x14000000 | draw(_bits(1)) << 31 | distance & 0x3FFFFFF)
    if kind == 1:
        return word(0x54000000 | (distance & 0x7FFFF) << 5 | draw(_bits(4)))
    if kind == 2:
        return word(
            0x34000000 | draw(_bits(1)) << 31 | draw(_bits(1)) << 24 | (distance & 0x7FFFF) << 5 | draw(registers)
        )
    return word(0xD61F0000 | draw(st.integers(0, 2)) << 21 | draw(_BASE) << 5)


def _state(draw: st.DrawFn) -> bytes:
    """MSR (immediate): DAIFSet, DAIFClr, SPSel, and others that may not be there."""
    op1, op2 = draw(st.sampled_from(((3, 6), (3, 7), (0, 5), (0, 4), (0, 3))))
    return word(0xD500401F | op1 << 16 | draw(_bits(4)) << 8 | op2 << 5)


def _self_modifying(draw: st.DrawFn) -> bytes:
    """A store over one of the next instructions, which may not have been translated yet."""
    ahead = draw(st.sampled_from((1, 1, 2, 3, 8)))
    put = (
        0x52800000 | draw(_bits(16)) << 5 | 17,
        0x72A00000 | draw(st.sampled_from((0xD503, 0xB940, 0, 0x1400))) << 5 | 17,
    )
    return b"".join(map(word, (*put, 0x10000000 | (ahead + 1) << 5 | 18, 0xB9000251)))


def _move(draw: st.DrawFn) -> bytes:
    value, number = draw(values), draw(_BASE)
    parts = [0xD2800000 | part << 21 | (value >> 16 * part & 0xFFFF) << 5 | number for part in range(4)]
    return b"".join(word(part if not index else part | 1 << 29) for index, part in enumerate(parts))


def _floats(draw: st.DrawFn) -> bytes:
    return word(draw(st.sampled_from((0x1E200000, 0x0E200000, 0x4E200000))) | draw(_bits(21)))


def _anything(draw: st.DrawFn) -> bytes:
    return word(draw(_bits(32)))


def _any_access(draw: st.DrawFn) -> bytes:
    return word(draw(_bits(32)) & ~0x0A000000 | 0x08000000)


KINDS: tuple[Kind, ...] = (
    *[_unsigned_offset] * 5,
    *[_signed_offset] * 3,
    *[_register_offset] * 3,
    *(_pair, _exclusive, _exclusive, _literal, _structures, _atomic, _any_access, _maintenance, _maintenance),
    *(_system, _system, _any_system, _call, _call, _returns, _hint, _wait, _branch, _branch, _state, _self_modifying),
    *(_move, _move, _floats, _anything),
)


@st.composite
def programs(draw: st.DrawFn) -> m.Steps:
    """A program in A64 and what userspace does with it."""
    steps = m.Steps(64, draw(st.sampled_from((1, 1, 2))), gic=draw(st.sampled_from((2, 3))), nisv=draw(st.booleans()))
    steps.poke(0, sequence(draw, KINDS, 24) + struct.pack(f"<{len(_END)}I", *_END))
    steps.poke(m.VECTORS, _VECTORS, 4)
    tables(draw, steps)
    for vcpu in range(steps.vcpus):
        for register in m.X[:16]:
            steps.put(vcpu, register, draw(addresses))
        for register in (*m.X[16:20], m.SP_EL0, m.SP_EL1):
            steps.put(vcpu, register, draw(values))
        steps.put(vcpu, m.PC, m.RAM)
        steps.put(vcpu, m.VBAR, m.RAM + m.VECTORS)
        for register, value in draw(st.one_of(st.just([]), st.lists(control(), max_size=4))):
            steps.put(vcpu, register, value)
    runs(draw, steps)
    return steps
