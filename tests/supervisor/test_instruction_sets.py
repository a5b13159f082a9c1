"""What machine code is understood to want of memory, without executing it."""

from __future__ import annotations

from typing import Any

import pytest

from kvmvfio_emu.doors.supervisor.arm64 import Arm64
from kvmvfio_emu.doors.supervisor.isa import Move, Operand
from kvmvfio_emu.doors.supervisor.x86 import X86

#: x0 to x30 hold 0x1100, 0x1101, ...; sp, pc, pstate.
A64 = [*(0x1100 + number for number in range(31)), 0x8000, 0x4000, 0]
LOADED = 0x81828384858687F8


def arm64(word: int, value: int = LOADED) -> tuple[Move, dict[int, int]]:
    """The move, and what it changes in the registers but for the program counter, which goes on by 4."""
    words: list[int] = list(A64)
    move = Arm64().decode(word.to_bytes(4, "little"), words, 0x1000)
    assert isinstance(move, Move)
    Arm64().finish(move, words, value & (1 << 8 * move.size) - 1)
    assert words[32] == 0x4004
    return move, {at: new for at, (old, new) in enumerate(zip(A64, words, strict=True)) if old != new and at != 32}


@pytest.mark.parametrize(
    ("word", "size", "changed"),
    [
        (0xB9400020, 4, {0: 0x858687F8}),  # ldr w0, [x1]
        (0xF9400420, 8, {0: LOADED}),  # ldr x0, [x1, #8]
        (0x39400420, 1, {0: 0xF8}),  # ldrb w0, [x1, #1]
        (0x79400020, 2, {0: 0x87F8}),  # ldrh w0, [x1]
        (0x39800020, 1, {0: 0xFFFFFFFFFFFFFFF8}),  # ldrsb x0, [x1]
        (0x39C00020, 1, {0: 0xFFFFFFF8}),  # ldrsb w0, [x1]
        (0xB9800020, 4, {0: 0xFFFFFFFF858687F8}),  # ldrsw x0, [x1]
        (0xB940003F, 4, {}),  # ldr wzr, [x1]
        (0xF8408420, 8, {0: LOADED, 1: 0x1109}),  # ldr x0, [x1], #8
        (0xF85F8FE0, 8, {0: LOADED, 31: 0x7FF8}),  # ldr x0, [sp, #-8]!
        (0xB85FC020, 4, {0: 0x858687F8}),  # ldur w0, [x1, #-4]
        (0xB8626820, 4, {0: 0x858687F8}),  # ldr w0, [x1, x2]
        (0x88DFFC20, 4, {0: 0x858687F8}),  # ldar w0, [x1]
        (0x08DFFC20, 1, {0: 0xF8}),  # ldarb w0, [x1]
    ],
)
def test_a64_loads(word: int, size: int, changed: dict[int, int]) -> None:
    move, seen = arm64(word)
    assert (move.load, move.size, seen) == (True, size, changed)


@pytest.mark.parametrize(
    ("word", "size", "value", "changed"),
    [
        (0xB9000020, 4, 0x1100, {}),  # str w0, [x1]
        (0x39000022, 1, 0x02, {}),  # strb w2, [x1]
        (0xF900003F, 8, 0, {}),  # str xzr, [x1]
        (0xF81F8C20, 8, 0x1100, {1: 0x10F9}),  # str x0, [x1, #-8]!
        (0x889FFC20, 4, 0x1100, {}),  # stlr w0, [x1]
    ],
)
def test_a64_stores(word: int, size: int, value: int, changed: dict[int, int]) -> None:
    move, seen = arm64(word)
    assert (move.load, move.size, move.value, seen) == (False, size, value, changed)


@pytest.mark.parametrize(
    "word",
    [
        0x29400440,  # ldp w0, w1, [x2]
        0x3DC00020,  # ldr q0, [x1]
        0xF9800020,  # prfm pldl1keep, [x1]
        0xB8200020,  # ldadd w0, w0, [x1]
        0x885F7C20,  # ldxr w0, [x1]
        0xB4000000,  # cbz x0
    ],
)
def test_other_a64_code_has_to_be_tried_out(word: int) -> None:
    assert Arm64().decode(word.to_bytes(4, "little"), list(A64), 0x1000) is None


def test_a32_code_has_to_be_tried_out() -> None:
    words = [*A64[:33], 1 << 4]
    assert Arm64().decode((0xB9400020).to_bytes(4, "little"), words, 0x1000) is None


def x86(code: str, cs: int = 0x33) -> Any:
    """What the code wants at 0x1000, with rax = 0x1111222233334444, rsi = 0x2000, rdi = 0x1000."""
    words = [0] * 27
    words[10], words[13], words[14], words[17] = 0x1111222233334444, 0x2000, 0x1000, cs
    return X86().decode(bytes.fromhex(code), words, 0x1000)


@pytest.mark.parametrize(
    ("code", "size", "length"),
    [
        ("8b 07 90", 4, 2),  # mov eax, [rdi]
        ("48 8b 44 8f 10 90", 8, 5),  # mov rax, [rdi + 4*rcx + 16]
        ("66 8b 05 00 01 00 00 90", 2, 7),  # mov ax, [rip + 256]
        ("8a 04 25 00 10 00 00 90", 1, 7),  # mov al, [0x1000]
        ("44 0f b6 bf 00 01 00 00 90", 1, 8),  # movzx r15d, byte [rdi + 256]
        ("48 63 07 90", 4, 3),  # movsxd rax, dword [rdi]
        ("a1 00 10 00 00 00 00 00 00 90", 4, 9),  # mov eax, [abs 0x1000]
    ],
)
def test_x86_loads(code: str, size: int, length: int) -> None:
    move = x86(code)
    assert (move.load, move.size, move.length) == (True, size, length)


@pytest.mark.parametrize(
    ("code", "size", "length", "value"),
    [
        ("89 07", 4, 2, 0x33334444),  # mov [rdi], eax
        ("88 27", 1, 2, 0x44),  # mov [rdi], ah
        ("40 88 37", 1, 3, 0x00),  # mov [rdi], sil
        ("c6 07 80", 1, 3, 0x80),  # mov byte [rdi], -128
        ("66 c7 47 01 34 12", 2, 6, 0x1234),  # mov word [rdi + 1], 0x1234
        ("48 c7 07 ff ff ff ff", 8, 7, 0xFFFFFFFFFFFFFFFF),  # mov qword [rdi], -1
        ("64 48 a3 00 10 00 00 00 00 00 00", 8, 11, 0x1111222233334444),  # mov [fs:abs 0x1000], rax
    ],
)
def test_x86_stores(code: str, size: int, length: int, value: int) -> None:
    move = x86(code)
    assert (move.load, move.size, move.length, move.value) == (False, size, length, value)


@pytest.mark.parametrize(
    ("code", "size", "reads", "writes"),
    [
        ("83 3f 07", 4, True, False),  # cmp dword [rdi], 7
        ("66 83 0f 07", 2, True, True),  # or word [rdi], 7
        ("80 27 07", 1, True, True),  # and byte [rdi], 7
        ("f6 07 01", 1, True, False),  # test byte [rdi], 1
        ("f7 1f", 4, True, True),  # neg dword [rdi]
        ("48 03 07", 8, True, False),  # add rax, [rdi]
        ("39 07", 4, True, False),  # cmp [rdi], eax
        ("ff 37", 8, True, False),  # push qword [rdi]
        ("8f 07", 8, False, True),  # pop qword [rdi]
        ("0f b1 07", 4, True, True),  # cmpxchg [rdi], eax
        ("0f 44 07", 4, True, False),  # cmove eax, [rdi]
        ("0f ba 2f 03", 4, True, True),  # bts dword [rdi], 3
        ("0f 94 07", 1, False, True),  # sete [rdi]
        ("f3 ab", 4, False, True),  # rep stosd
    ],
)
def test_x86_operands(code: str, size: int, reads: bool, writes: bool) -> None:
    assert x86(code) == [Operand(0x1000, size, reads, writes)]


def test_x86_strings_have_two_places() -> None:
    assert x86("f3 a5") == [Operand(0x2000, 4, True, False), Operand(0x1000, 4, False, True)]
    assert x86("a6") == [Operand(0x2000, 1, True, False), Operand(0x1000, 1, True, False)]


@pytest.mark.parametrize("code", ["0f 10 07", "c5 fe 6f 07", "dd 07", "0f 18 0f", "c7 f8 00 00 00 00"])
def test_other_x86_code_has_to_be_tried_out(code: str) -> None:
    assert x86(code) is None


@pytest.mark.parametrize("code", ["8b", "48", "8b 44 8f", "c7 07 00 00", ""])
def test_code_that_is_cut_short_is_not_understood(code: str) -> None:
    found = x86(code)
    assert found is None or found.length > len(bytes.fromhex(code))


def test_32_bit_code_has_to_be_tried_out() -> None:
    assert x86("8b 07", cs=0x23) is None
