"""Registers: what each action does to a write, and how accesses that fit no register are split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmvfio_emu.hw.registers import Action, Field, Register, RegisterBank


class Bank(RegisterBank):
    """One of everything."""

    PLAIN = Register(0x00, reset=0x11223344)
    FIXED = Register(0x04, Action.RO, reset=0xCAFE)
    EVENTS = Register(0x08, Action.W1C)
    LEVERS = Register(0x0C, Action.W1S)
    SECRET = Register(0x10, Action.WO, reset=7)
    ABSENT = Register(0x14, Action.RAZ_WI, reset=7)
    MASKED = Register(0x18, mask=0xF0, reset=0x0F)
    MIXED = Register(
        0x1C,
        fields=(Field(0, 4), Field(4, 4, Action.RO), Field(8, 8, Action.W1C), Field(16, 1, Action.WO)),
        reset=0xFF_FF_A5,
    )
    HOOKED = Register(0x20, on_read="taken", on_write="given")
    BYTE = Register(0x24, width=8)
    HALF = Register(0x26, width=16)
    WIDE = Register(0x28, width=64)
    ROW = tuple(Register(0x40 + 4 * n, name=f"ROW{n}") for n in range(4))

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        super().__init__()

    def taken(self, value: int) -> int:
        self.log.append(("taken", value))
        self.HOOKED = 0
        return value

    def given(self, value: int) -> None:
        self.log.append(("given", value))


@pytest.fixture
def bank() -> Bank:
    return Bank()


def test_rw_stores(bank: Bank) -> None:
    assert bank.read(0, 4) == 0x11223344
    bank.write(0, 4, 0x55667788)
    assert bank.read(0, 4) == bank.PLAIN == 0x55667788


def test_ro_ignores_writes(bank: Bank) -> None:
    bank.write(4, 4, 0)
    assert bank.read(4, 4) == 0xCAFE


def test_w1c_clears_the_ones_and_keeps_the_zeroes(bank: Bank) -> None:
    bank.EVENTS |= 0b111
    bank.write(8, 4, 0b1010)
    assert bank.read(8, 4) == 0b101


def test_w1s_sets_and_never_clears(bank: Bank) -> None:
    bank.write(0xC, 4, 0b01)
    bank.write(0xC, 4, 0b10)
    assert bank.read(0xC, 4) == 0b11


def test_wo_reads_as_zero_and_keeps_what_was_written(bank: Bank) -> None:
    bank.write(0x10, 4, 99)
    assert bank.read(0x10, 4) == bank.peek(0x10, 4) == 0
    assert bank.SECRET == 99


def test_raz_wi(bank: Bank) -> None:
    bank.write(0x14, 4, 99)
    assert bank.read(0x14, 4) == 0
    assert bank.ABSENT == 7


def test_mask_limits_what_a_write_changes(bank: Bank) -> None:
    bank.write(0x18, 4, 0xFFFFFFFF)
    assert bank.read(0x18, 4) == 0xFF
    bank.write(0x18, 4, 0)
    assert bank.read(0x18, 4) == 0x0F


def test_fields_of_one_register_act_on_their_own(bank: Bank) -> None:
    assert bank.read(0x1C, 4) == 0xFFA5, "the write-only bit and the bits of no field read as zero"
    bank.write(0x1C, 4, 0x01_0F_5A)
    assert bank.read(0x1C, 4) == 0xF0AA


def test_hooks_run_once_per_access(bank: Bank) -> None:
    bank.write(0x20, 4, 5)
    assert bank.read(0x20, 4) == 5
    assert bank.read(0x20, 4) == 0
    assert bank.log == [("given", 5), ("taken", 5), ("taken", 0)]


def test_peek_has_no_side_effect(bank: Bank) -> None:
    bank.HOOKED = 5
    assert bank.peek(0x20, 4) == 5
    assert bank.peek(0x21, 1) == 0
    assert bank.HOOKED == 5
    assert bank.log == []


def test_a_hook_runs_once_for_a_partial_write_and_sees_zero_elsewhere(bank: Bank) -> None:
    bank.HOOKED = 0xAABBCCDD
    bank.write(0x21, 2, 0x1122)
    assert bank.HOOKED == 0xAA1122DD
    assert bank.log == [("given", 0x112200)]


def test_hooks_of_an_owner() -> None:
    class Owner:
        def bumped(self, value: int) -> None:
            self.got = value

    class Small(RegisterBank):
        KNOB = Register(0, on_write="bumped")

    owner = Owner()
    Small(owner).write(0, 4, 3)
    assert owner.got == 3


def test_a_byte_write_to_w1c_clears_only_in_that_byte(bank: Bank) -> None:
    bank.EVENTS = 0xFFFF
    bank.write(9, 1, 0xFF)
    assert bank.EVENTS == 0x00FF


def test_an_8_byte_access_covers_two_registers(bank: Bank) -> None:
    assert bank.read(0, 8) == 0xCAFE_11223344
    bank.write(0x40, 8, 0x22222222_11111111)
    assert (bank["ROW0"], bank["ROW1"]) == (0x11111111, 0x22222222)


def test_an_unaligned_access_straddles(bank: Bank) -> None:
    bank["ROW0"], bank["ROW1"] = 0x44332211, 0x88776655
    assert bank.read(0x42, 4) == 0x66554433
    bank.write(0x43, 2, 0xBBAA)
    assert (bank["ROW0"], bank["ROW1"]) == (0xAA332211, 0x887766BB)


def test_a_narrow_register_inside_a_wide_access(bank: Bank) -> None:
    bank.write(0x24, 4, 0xDDCCBBAA)
    assert (bank.BYTE, bank.HALF) == (0xAA, 0xDDCC)
    assert bank.read(0x24, 4) == 0xDDCC00AA, "the byte between them belongs to no register"


def test_half_of_a_64_bit_register(bank: Bank) -> None:
    bank.write(0x2C, 4, 0x12345678)
    assert bank.WIDE == 0x12345678_00000000
    assert bank.read(0x28, 8) == bank.WIDE


@pytest.mark.parametrize("offset", [0x30, 0x3FC, 1 << 40])
def test_unknown_offsets_are_raz_wi(bank: Bank, offset: int) -> None:
    before = [bank[register.name] for register in bank]
    bank.write(offset, 4, 0xFFFFFFFF)
    assert bank.read(offset, 4) == 0
    assert [bank[register.name] for register in bank] == before


def test_reset(bank: Bank) -> None:
    bank.PLAIN = bank.EVENTS = 1
    bank.reset()
    assert (bank.PLAIN, bank.EVENTS) == (0x11223344, 0)


def test_values_written_too_wide_are_cut(bank: Bank) -> None:
    bank.write(0x24, 1, 0x1FF)
    bank.HALF = 0x12345
    assert (bank.BYTE, bank.HALF) == (0xFF, 0x2345)


def test_a_subclass_adds_and_replaces() -> None:
    class More(Bank):
        FIXED = Register(0x04, Action.RO, reset=0xBEEF)
        EXTRA = Register(0x80)

    more = More()
    assert more.read(4, 4) == 0xBEEF
    more.write(0x80, 4, 1)
    assert more.EXTRA == 1
    assert Bank().read(4, 4) == 0xCAFE


def test_declarations_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match=r"B and A overlap at 0x3"):

        class Bad(RegisterBank):
            A = Register(0)
            B = Register(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Register(0, width=24),
        lambda: Register(-4),
        lambda: Register(0, width=8, reset=0x100),
        lambda: Register(0, fields=(Field(0, 4), Field(3, 2))),
        lambda: Register(0, width=8, fields=(Field(7, 2),)),
        lambda: type("Bad", (RegisterBank,), {"ROW": (Register(0),)}),
    ],
)
def test_impossible_declarations_are_refused(make) -> None:
    with pytest.raises(ValueError, match=r"register|field"):
        make()


class Memory(RegisterBank):
    """All plain registers of mixed widths with gaps: behaves as memory where there is a register."""

    A = Register(0, width=32)
    B = Register(4, width=8)
    C = Register(6, width=16)
    D = Register(8, width=64)
    E = Register(17, width=32)


COVERED = {register.offset + n for register in Memory() for n in range(register.size)}


@given(st.lists(st.tuples(st.integers(0, 24), st.sampled_from((1, 2, 4, 8)), st.integers(0, 2**64 - 1)), min_size=1))
def test_any_access_matches_a_byte_array(accesses: list[tuple[int, int, int]]) -> None:
    bank, reference = Memory(), bytearray(40)
    for offset, size, value in accesses:
        bank.write(offset, size, value)
        for n in range(size):
            if offset + n in COVERED:
                reference[offset + n] = value >> 8 * n & 0xFF
        for at in range(25):
            expected = int.from_bytes(reference[at : at + size], "little")
            assert bank.read(at, size) == bank.peek(at, size) == expected
