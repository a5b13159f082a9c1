"""Programs in A32 and T32 (encodings: Arm DDI 0406, A5 and A6)."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from programs import model as m
from programs.drawing import Kind, addresses, control, runs, sequence, tables, values, word

THUMB = 1 << 5
_SUPERVISOR = 0x1D3
# Handlers of A32, which use R12.
_GO_ON = (0xE1B0F00E,)  # movs pc, lr
_SKIP = (0xE25EF004,)  # subs pc, lr, #4
_MASK = (0xE14FC000, 0xE38CC0C0, 0xE161F00C, 0xE25EF004)  # spsr |= 0xc0; subs pc, lr, #4
_END = (0xE3A0C40A, 0xE58CCFF8, 0xEAFFFFFE)  # mov r12, #MAILBOX; str r12, [r12, #0xff8]; b .
_END_THUMB = bytes.fromhex("00bf00bf 00bf00bf 4ff02064 c4f8f84f fee7 fee7")
#: By vector: reset, undefined, SVC, prefetch abort, data abort, HVC, IRQ, FIQ.
_HANDLERS = (_END, _GO_ON, _GO_ON, _END, _SKIP, _GO_ON, _MASK, _MASK)
#: Branches to what follows them: the handlers, each with room for eight instructions.
_VECTORS = b"".join(word(0xEA000000 | 6 + 7 * entry) for entry in range(8)) + b"".join(
    struct.pack(f"<{len(handler)}I", *handler).ljust(0x20, b"\0") for handler in _HANDLERS
)

_registers = st.integers(0, 15)
_BASE = st.sampled_from((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 15))
_LOW = st.integers(0, 7)


def _bits(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << count) - 1)


_CONDITION = st.sampled_from((14, 14, 14, 14, 14, 14, 0, 1, 11, 15))
_OFFSET = st.sampled_from((0, 0, 1, 2, 3, 4, 0x7FC, 0xFFC, 0xFFF))


def _a32(draw: st.DrawFn, fields: int) -> bytes:
    return word(draw(_CONDITION) << 28 | fields)


# -- A32 --------------------------------------------------------------------------------------------------------------


def _single(draw: st.DrawFn) -> bytes:
    """LDR, STR, LDRB, STRB and the forms with writeback or without privilege, by an immediate."""
    mode = draw(st.sampled_from((0b1000, 0b1100, 0b1100, 0b1100, 0b1101, 0b0100, 0b0101)))  # P, U, B, W without B
    fields = (mode >> 2) << 23 | (mode & 1) << 21 | draw(_bits(1)) << 22 | draw(_bits(1)) << 20
    return _a32(draw, 0x04000000 | fields | draw(_BASE) << 16 | draw(_registers) << 12 | draw(_OFFSET))


def _single_register(draw: st.DrawFn) -> bytes:
    fields = draw(st.sampled_from((0b11, 0b10, 0b11, 0b01))) << 23 | draw(_bits(3)) << 20
    shift = draw(st.sampled_from((0, 0, 1, 2, 31))) << 7 | draw(_bits(2)) << 5
    return _a32(draw, 0x06000000 | fields | draw(_BASE) << 16 | draw(_registers) << 12 | shift | draw(_registers))


def _halves(draw: st.DrawFn) -> bytes:
    """LDRH, STRH, LDRSB, LDRSH, LDRD, STRD."""
    fields = (
        draw(st.sampled_from((0b110, 0b100, 0b111, 0b010, 0b100))) << 22 | draw(st.sampled_from((0, 0, 0, 1))) << 21
    )
    more = draw(_bits(1)) << 20 | draw(st.integers(1, 3)) << 5 | draw(st.sampled_from((0, 1, 2, 0xF00, 0xF0F, 3)))
    return _a32(draw, 0x00000090 | fields | more | draw(_BASE) << 16 | draw(_registers) << 12)


def _multiple(draw: st.DrawFn) -> bytes:
    return _a32(draw, 0x08000000 | draw(_bits(5)) << 20 | draw(_BASE) << 16 | draw(_bits(16)))


def _exclusive(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from((0xF9F, 0xF90 | draw(_BASE), 0xE90, 0xC90)))
    fields = draw(_bits(3)) << 20 | draw(_BASE) << 16 | draw(_registers) << 12
    return _a32(draw, 0x01800000 | fields | kind)


def _vectors(draw: st.DrawFn) -> bytes:
    """VLDR, VSTR, VLDM, VSTM; VLD1 and its kin."""
    if draw(st.booleans()):
        fields = draw(_bits(5)) << 20 | draw(_BASE) << 16 | draw(_bits(4)) << 12 | draw(_bits(1)) << 8
        return _a32(draw, 0x0C000A00 | fields | draw(_bits(8)))
    fields = draw(_bits(1)) << 23 | draw(_bits(2)) << 21 | draw(_BASE) << 16 | draw(_bits(16))
    return word(0xF4000000 | fields)


#: opc1, CRn, CRm, opc2: SCTLR, TTBR0, TTBCR, VBAR, DFSR, DFAR, ICC_*, CNTV_*, CNTP_*, CNTFRQ, MPIDR, ISR, caches, TLBs.
_COPROCESSOR = (
    *((0, 1, 0, 0), (0, 2, 0, 0), (0, 2, 0, 2), (0, 12, 0, 0), (0, 5, 0, 0), (0, 6, 0, 0), (0, 3, 0, 0)),
    *((0, 4, 6, 0), (0, 12, 12, 0), (0, 12, 12, 1), (0, 12, 12, 7), (0, 12, 12, 4), (0, 12, 8, 3)),
    *((0, 14, 3, 0), (0, 14, 3, 1), (0, 14, 2, 0), (0, 14, 2, 1), (0, 14, 0, 0), (0, 14, 1, 0)),
    *(
        (0, 0, 0, 5),
        (0, 12, 1, 0),
        (0, 7, 5, 0),
        (0, 7, 14, 1),
        (0, 7, 8, 0),
        (0, 8, 7, 0),
        (0, 7, 10, 5),
        (0, 1, 0, 2),
    ),
    *((4, 1, 1, 0), (0, 1, 1, 0), (0, 9, 12, 0), (2, 0, 0, 0)),
)


def _coprocessor_fields(draw: st.DrawFn) -> int:
    if draw(st.integers(0, 3)):
        opc1, crn, crm, opc2 = draw(st.sampled_from(_COPROCESSOR))
    else:
        opc1, crn, crm, opc2 = draw(_bits(3)), draw(_registers), draw(_registers), draw(_bits(3))
    number = draw(st.sampled_from((15, 15, 15, 15, 14, 10, 11, 0)))
    fields = opc1 << 21 | draw(_bits(1)) << 20 | crn << 16 | draw(_registers) << 12 | number << 8 | opc2 << 5 | crm
    return 0x0E000010 | fields


def _coprocessor(draw: st.DrawFn) -> bytes:
    return _a32(draw, _coprocessor_fields(draw))


def _double_fields(draw: st.DrawFn) -> int:
    """MRRC, MCRR: TTBR0, PAR, CNTVCT, CNTV_CVAL, ICC_SGI1R, anything."""
    opc1, crm = draw(st.sampled_from(((0, 2), (0, 7), (1, 14), (3, 14), (2, 14), (0, 12), (6, 2), (5, 9))))
    fields = draw(_bits(1)) << 20 | draw(_registers) << 16 | draw(_registers) << 12 | opc1 << 4 | crm
    return 0x0C400F00 | fields


def _double(draw: st.DrawFn) -> bytes:
    return _a32(draw, _double_fields(draw))


def _state(draw: st.DrawFn) -> bytes:
    """MRS, MSR, CPS, SETEND, banked registers, RFE, SRS."""
    kind = draw(st.integers(0, 5))
    mode = draw(st.sampled_from((0x10, 0x11, 0x12, 0x13, 0x17, 0x1B, 0x1F, 0x16, 0x1A, 0x00)))
    if kind == 0:
        return _a32(draw, 0x010F0000 | draw(_bits(1)) << 22 | draw(_registers) << 12)
    if kind == 1:
        return _a32(draw, 0x0120F000 | draw(_bits(1)) << 22 | draw(_bits(4)) << 16 | draw(_registers))
    if kind == 2:
        return word(0xF1000000 | draw(_bits(2)) << 18 | draw(_bits(1)) << 17 | draw(_bits(3)) << 6 | mode)
    if kind == 3:
        return word(0xF1010000 | draw(_bits(1)) << 9)
    if kind == 4:
        fields = draw(_bits(1)) << 22 | draw(_bits(1)) << 21 | draw(_bits(1)) << 8 | draw(_bits(4)) << 16
        return _a32(draw, 0x01000200 | fields | draw(_registers) << 12 | draw(_registers))
    return word(0xF8000000 | draw(_bits(5)) << 20 | draw(_BASE) << 16 | 0x0A00 | draw(_bits(1)) << 8 | mode)


def _call(draw: st.DrawFn) -> bytes:
    """SVC, HVC, SMC, BKPT, UDF, ERET."""
    kind = draw(st.sampled_from((0x0F000000, 0x01400070, 0x01600070, 0x01200070, 0x07F000F0, 0x0160006E)))
    return _a32(draw, kind | draw(st.sampled_from((0, 1, 0xF))))


def _hint(draw: st.DrawFn) -> bytes:
    number = draw(st.sampled_from((0, 1, 2, 3, 4, 5, 0x14, 0xF0)))
    return draw(st.sampled_from((word(0xE320F000 | number), word(0xF57FF040 | draw(_bits(6))), word(0xF57FF01F))))


def _branch(draw: st.DrawFn) -> bytes:
    distance = draw(st.sampled_from((-1, 0, 0, 1, 1, 2, 0x800, -2, -3)))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return _a32(draw, 0x0A000000 | draw(_bits(1)) << 24 | distance & 0xFFFFFF)
    if kind == 1:
        return word(0xFA000000 | draw(_bits(1)) << 24 | distance & 0xFFFFFF)
    if kind == 2:
        return _a32(draw, 0x012FFF10 | draw(st.sampled_from((0, 1, 2))) << 4 | draw(_BASE))
    return _a32(draw, draw(st.sampled_from((0x01B0F00E, 0x025EF004, 0x01A0F000 | draw(_BASE), 0x008FF001))))


def _self_modifying(draw: st.DrawFn) -> bytes:
    """A store over one of the next instructions."""
    ahead = draw(st.sampled_from((0, 0, 1, 2)))
    value = draw(st.sampled_from((0xE3A0B000, 0xE3E0B000, 0xE59FB000)))  # mov, mvn r11, #; ldr r11, [pc]
    return word(value | draw(_bits(8))) + word(0xE58FB000 | 4 * ahead)


def _move(draw: st.DrawFn) -> bytes:
    value, number = draw(values), draw(st.integers(0, 14))
    low, high = value & 0xFFFF, value >> 16 & 0xFFFF
    return b"".join(
        word(kind | (half >> 12) << 16 | number << 12 | half & 0xFFF)
        for kind, half in ((0xE3000000, low), (0xE3400000, high))
    )


def _anything(draw: st.DrawFn) -> bytes:
    return word(draw(_bits(32)))


A32: tuple[Kind, ...] = (
    *[_single] * 6,
    *[_single_register] * 2,
    *[_halves] * 4,
    *(_multiple, _exclusive, _vectors, _vectors, _coprocessor, _coprocessor, _coprocessor, _double, _state, _state),
    *(_call, _call, _hint, _hint, _branch, _branch, _self_modifying, _move, _move, _anything, _anything),
)


# -- T32 --------------------------------------------------------------------------------------------------------------


def _half(value: int) -> bytes:
    return (value & 0xFFFF).to_bytes(2, "little")


def _halves_of(value: int) -> bytes:
    """An instruction of 32 bits: the upper half comes first."""
    return _half(value >> 16) + _half(value)


def _short_access(draw: st.DrawFn) -> bytes:
    kind = draw(
        st.sampled_from((0x5000, 0x5000, 0x6000, 0x6800, 0x7000, 0x7800, 0x8000, 0x8800, 0x9000, 0x9800, 0x4800))
    )
    size = 12 if kind == 0x5000 else 11
    return _half(kind | draw(_bits(size)))


def _long_access(draw: st.DrawFn) -> bytes:
    """LDR, STR, LDRB, LDRSB, LDRH, LDRSH with 12 bits, 8 bits in all their forms, a register."""
    first = 0xF800 | draw(_bits(2)) << 5 | draw(_bits(1)) << 8 | draw(_bits(1)) << 4 | draw(_BASE)
    form = draw(st.integers(0, 2))
    if form == 0:
        first, second = first | 1 << 7, draw(_OFFSET)
    elif form == 1:
        second = draw(st.sampled_from((0x900, 0xB00, 0xC00, 0xC00, 0xD00, 0xE00, 0xF00))) | draw(_bits(8))
    else:
        second = draw(_bits(2)) << 4 | draw(_registers)
    return _half(first) + _half(draw(_registers) << 12 | second)


def _short_multiple(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from((0xB400, 0xBC00, 0xC000, 0xC800)))
    return _half(kind | draw(_bits(9 if kind < 0xC000 else 11)))


def _long_multiple(draw: st.DrawFn) -> bytes:
    """LDM, STM, LDRD, STRD, exclusives, TBB, RFE, SRS."""
    return _half(0xE800 | draw(_bits(5)) << 4 | draw(_BASE)) + _half(draw(_bits(16)))


def _block(draw: st.DrawFn) -> bytes:
    """IT and what is in it."""
    mask = draw(st.integers(1, 15))
    inside = b"".join(_short_access(draw) for _ in range(4 - (mask & -mask).bit_length() + 1))
    return _half(0xBF00 | draw(_bits(4)) << 4 | mask) + inside


def _short_other(draw: st.DrawFn) -> bytes:
    """SVC, BKPT, UDF, CPS, SETEND, hints, BX, BLX, CBZ, moves of high registers."""
    kinds = (
        *(0xDF00 | draw(_bits(8)), 0xBE00 | draw(_bits(8)), 0xDE00 | draw(_bits(8)), 0xB660 | draw(_bits(5))),
        *(0xB650 | draw(_bits(1)) << 3, 0xBF00 | draw(_bits(3)) << 4, 0xBF00 | draw(_bits(3)) << 4),
        *(0x4700 | draw(_bits(5)) << 3, 0xB100 | draw(_bits(3)) << 3 | draw(_LOW), 0x4600 | draw(_bits(8))),
        *(
            0xE000 | draw(st.sampled_from((0, 1, 2, 0x7FE))),
            0xD000 | draw(_bits(4)) << 8 | draw(st.sampled_from((0, 1, 0xFD))),
        ),
    )
    return _half(draw(st.sampled_from(kinds)))


def _long_system(draw: st.DrawFn) -> bytes:
    return _halves_of(0xE0000000 | draw(st.sampled_from((_coprocessor_fields(draw), _double_fields(draw)))))


def _long_other(draw: st.DrawFn) -> bytes:
    """MSR, MRS, CPS, hints, barriers, HVC, SMC, UDF, ERET, BL, BLX, VLDR, VLD1."""
    kinds = (
        *(
            0xF3808000 | draw(_bits(5)) << 16 | draw(_bits(4)) << 8,
            0xF3EF8000 | draw(_bits(1)) << 20 | draw(_bits(4)) << 8,
        ),
        *(
            0xF3AF8000 | draw(_bits(11)),
            0xF3AF8000 | draw(_bits(3)),
            0xF3BF8F00 | draw(_bits(7)),
            0xF7E08000,
            0xF7F08000,
        ),
        *(0xF7F0A000, 0xF3DE8F00, 0xF000F800 | draw(_bits(3)), 0xF000E800 | draw(_bits(3)) << 1),
        *(0xED000A00 | draw(_bits(6)) << 20 | draw(_BASE) << 16, 0xF9000000 | draw(_bits(1)) << 21 | draw(_BASE) << 16),
    )
    return _halves_of(draw(st.sampled_from(kinds)))


def _any_half(draw: st.DrawFn) -> bytes:
    return _half(draw(_bits(16)))


T32: tuple[Kind, ...] = (
    *[_short_access] * 5,
    *[_long_access] * 5,
    *(_short_multiple, _long_multiple, _block, _block, _short_other, _short_other, _long_system, _long_system),
    *(_long_other, _long_other, _any_half, _any_half),
)


@st.composite
def programs(draw: st.DrawFn) -> m.Steps:
    """A program in A32 or T32 and what userspace does with it."""
    steps = m.Steps(32, draw(st.sampled_from((1, 1, 2))), gic=draw(st.sampled_from((2, 3))), nisv=draw(st.booleans()))
    thumb = draw(st.booleans())
    end = _END_THUMB if thumb else struct.pack(f"<{len(_END)}I", *_END)
    steps.poke(0, sequence(draw, T32 if thumb else A32, 24) + end)
    steps.poke(m.VECTORS, _VECTORS)
    tables(draw, steps)
    for vcpu in range(steps.vcpus):
        for register in m.X[:15]:
            steps.put(vcpu, register, draw(addresses) & 0xFFFFFFFF)
        for register in m.X[16:]:
            steps.put(vcpu, register, draw(values) & 0xFFFFFFFF)
        steps.put(vcpu, m.PC, m.RAM)
        steps.put(vcpu, m.PSTATE, _SUPERVISOR | (THUMB if thumb else 0))
        steps.put(vcpu, m.VBAR, m.RAM + m.VECTORS)
        for register, value in draw(st.one_of(st.just([]), st.lists(control(), max_size=4))):
            steps.put(vcpu, register, value)
    runs(draw, steps)
    return steps
