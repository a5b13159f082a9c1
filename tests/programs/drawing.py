"""What the strategies of all instruction sets share: values that mean something, and what userspace does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from programs import model as m

#: Addresses at every kind of edge: of slots and pages, of devices, of the physical and the virtual space. A third
#: are a device's, as it is its accesses that the most can be said of.
ADDRESSES = (
    m.RAM + m.DATA,
    m.RAM + m.DATA + 0x100,
    m.RAM + m.DATA + 0xFFD,
    m.RAM + 0x5FFC,
    m.RAM + 0xBFFA,
    m.RAM + 0xC000,
    m.RAM + 0xDFFE,
    m.RAM + 0x1FFFF,
    m.RAM + 0x20000,
    m.RAM + 0x20FFC,
    m.RAM,
    *[m.MAILBOX] * 8,
    *[m.MAILBOX + 0x100] * 8,
    m.MAILBOX + 0xFFE,
    m.MAILBOX + 0x101,
    m.NOTHING,
    m.DIST,
    m.CPU,
    m.REDIST,
    0,
    4,
    0xFFFF_FFF8,
    1 << 32,
    (1 << 40) - 0x2000000,
    1 << 40,
    1 << 43,
    1 << 48,
    0xFFFF_0000_0000_0000,
    (1 << 64) - 4,
)
PSCI = (0x84000000, 0x84000002, 0x84000003, 0xC4000003, 0x84000004, 0x84000008, 0x84000009, 0x8400000A, 0xC400000E)
VALUES = (*ADDRESSES, *PSCI, 1, 0x80, 0x80000000, (1 << 63), 0x123456789ABCDEF0, m.RAM + m.VECTORS)

values = st.one_of(st.sampled_from(VALUES), st.integers(0, (1 << 64) - 1))
addresses = st.sampled_from(ADDRESSES)
registers = st.integers(0, 31)

#: Registers that decide how everything else is understood; nonsense is sometimes plausible.
CONTROL = {
    m.SCTLR: (0, 1, 1 << 25 | 1 << 24, 0x30C50830, 0x30C50831, 0xC50078, 0xC50079, 2, 1 << 30, 1 << 13, (1 << 64) - 1),
    m.TTBR0: (m.RAM + m.DATA, m.RAM + 0x6000, m.MAILBOX, 1 << 43, (1 << 48) - 1, 0),
    m.TTBR1: (m.RAM + m.DATA, m.MAILBOX, 0),
    m.TCR: (0, 25 | 25 << 16, 16 | 16 << 16 | 2 << 30, 0x80000000, 1 << 37, 39 | 1 << 14, (1 << 64) - 1),
    m.MAIR: (0, 0xFF, 0xFF44),
    m.VBAR: (
        m.RAM + m.VECTORS,
        m.RAM + m.VECTORS,
        m.RAM + m.VECTORS + 1,
        m.NOTHING,
        m.RAM + 0x5800,
        m.RAM + 0x1001,
        (1 << 64) - 1,
    ),
    m.CPACR: (0, 3 << 20, 0xF << 20, (1 << 64) - 1),
}


@st.composite
def control(draw: st.DrawFn) -> tuple[int, int]:
    """A control register and something that it may be set to."""
    register = draw(st.sampled_from(tuple(CONTROL)))
    return register, draw(st.one_of(*[st.sampled_from(CONTROL[register])] * 3, st.integers(0, (1 << 64) - 1)))


def tables(draw: st.DrawFn, steps: m.Steps) -> None:
    """A page that may be taken for a translation table: blocks, pages, tables to anywhere, noise."""
    leaf = st.sampled_from((0x701, 0x711, 0x705, 0x7C1, 0x70D, 0x401, 0x703, 3, 2, 0, 0xC02, 0xC0E, 0x12))
    target = st.sampled_from((0, m.RAM, m.RAM + m.DATA, m.RAM + 0x6000, m.MAILBOX, 1 << 43, 0x4020_0000))
    entries = [draw(target) | draw(leaf) for _ in range(draw(st.sampled_from((1, 2, 4))))]
    steps.poke(m.DATA, b"".join(entry.to_bytes(8, "little") for entry in entries), 512 // len(entries))


Kind = Callable[[st.DrawFn], bytes]


def sequence(draw: st.DrawFn, kinds: Sequence[Kind], most: int) -> bytes:
    """Up to ``most`` instructions of these kinds, a kind being likelier that is there several times."""
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=4, max_size=most))
    return b"".join(kind(draw) for kind in chosen)


def word(value: int) -> bytes:
    """An instruction of 32 bits."""
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


# -- userspace --------------------------------------------------------------------------------------------------------


def _slot(draw: st.DrawFn, steps: m.Steps, _: int) -> None:
    number, address, size, offset, flags = draw(st.sampled_from(m.SLOTS))
    change = draw(st.sampled_from(("delete", "again", "shrink", "move", "read-only", "logged", "gone")))
    if change != "logged":  # which is the one change that needs no deletion
        steps.slot(number, address, 0, offset, 0)
    if change == "shrink":
        steps.slot(number, address, size // 2 & ~0xFFF or 0x1000, offset, flags)
    elif change == "move":
        steps.slot(
            number, draw(st.sampled_from((m.MAILBOX, 0, m.RAM + 0x30000, (1 << 40) - 0x6000))), size, offset, flags
        )
    elif change == "read-only":
        steps.slot(number, address, size, offset, m.READONLY)
    elif change == "logged":
        steps.slot(number, address, size, offset, flags ^ m.LOGGED)
    elif change == "gone":
        steps.slot(number, address, 0x1000, m.BACKING, flags)
    elif change == "again":
        steps.slot(number, address, size, offset, flags)


def _code(draw: st.DrawFn, steps: m.Steps, _: int) -> None:
    """Another instruction; a register is set, too, as the vCPUs need not see the new one otherwise."""
    steps.poke(draw(st.integers(0, 32)) * 4, draw(st.binary(min_size=4, max_size=4)))
    for vcpu in range(steps.vcpus):
        steps.put(vcpu, m.ESR, 0)


def _control(draw: st.DrawFn, steps: m.Steps, vcpu: int) -> None:
    steps.put(vcpu, *draw(control()))


def _pc(draw: st.DrawFn, steps: m.Steps, vcpu: int) -> None:
    steps.put(
        vcpu, m.PC, draw(st.sampled_from((m.RAM, m.RAM + 2, m.RAM + 5, m.RAM + 0x20, m.MAILBOX, 0, (1 << 64) - 1)))
    )


def _state(draw: st.DrawFn, steps: m.Steps, vcpu: int) -> None:
    modes = (0x3C5, 0x3C4, 0x3C0, 5, 0, 0x1D3, 0x10, 0x1F, 0x1DA, 0x1F3, 0x1D1, 0x1D7, 0x13, 0x02000030, 0x3C9, 0x3CD)
    steps.put(vcpu, m.PSTATE, draw(st.one_of(st.sampled_from(modes), st.integers(0, (1 << 32) - 1))))


def _register(draw: st.DrawFn, steps: m.Steps, vcpu: int) -> None:
    steps.put(vcpu, draw(st.sampled_from((*m.X, m.SP_EL0, m.SP_EL1, m.ESR, m.FAR))), draw(values))


def _events(draw: st.DrawFn, steps: m.Steps, vcpu: int) -> None:
    steps.events(vcpu, draw(st.integers(0, 1)), draw(st.integers(0, 1)))


def _line(draw: st.DrawFn, steps: m.Steps, _: int) -> None:
    steps.line(draw(st.sampled_from((32, 40))), draw(st.integers(0, 1)))


def _every(_: st.DrawFn, steps: m.Steps, vcpu: int) -> None:
    steps.every(vcpu)


ACTIONS = (_slot, _slot, _code, _control, _control, _pc, _state, _register, _events, _line, _every)


def runs(draw: st.DrawFn, steps: m.Steps) -> None:
    """KVM_RUN again and again, with something in between."""
    for _ in range(draw(st.integers(3, 12))):
        vcpu = draw(st.integers(0, steps.vcpus - 1))
        if draw(st.booleans()):
            steps.complete(vcpu)
        for action in draw(st.lists(st.sampled_from(ACTIONS), max_size=2)):
            action(draw, steps, vcpu)
        steps.run(vcpu, draw(values))
