"""Machine code in KVM_RUN that is none: whatever is executed, from whatever registers, KVM_RUN comes back."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable

import pytest
from machine_rig import MAILBOX, PC, PSTATE, RAM, SIZE, SP_EL0, SP_EL1, VBAR, Machine, system
from support import CPU_BASE, DIST_BASE

from kvmvfio_emu import uapi

SUPERVISOR, THUMB = 0x1D3, 1 << 5
#: SCTLR_EL1, TTBR0_EL1, TCR_EL1, CPACR_EL1.
CONTROL = ((3, 0, 1, 0, 0), (3, 0, 2, 0, 0), (3, 0, 2, 0, 2), (3, 0, 1, 0, 2))


def _random_word(chance: random.Random) -> int:
    """Anything, or more often what reaches us: system instructions, loads and stores, exceptions."""
    bits = chance.getrandbits(26)
    kind = chance.choice((0xD5000000, 0x38000000, 0xF8000000, 0xD4000000, 0xD5380000, 0xD5180000, None))
    return chance.getrandbits(32) if kind is None else kind | bits


def _random_word_32(chance: random.Random) -> int:
    """The same of A32, or two of T32: coprocessor accesses, loads and stores, exceptions."""
    kind = chance.choice((0xEE000F10, 0xEC400F10, 0xE4000000, 0xE1000090, 0xEF000000, 0xE1400070, 0xBF00F8C0, None))
    return chance.getrandbits(32) if kind is None else kind | chance.getrandbits(26) & 0x01FFF0EF


@pytest.mark.parametrize("seed", range(8))
def test_random_code(machine: Machine, seed: int) -> None:
    _try(machine, random.Random(seed), _random_word, mmu=bool(seed % 2))


@pytest.mark.parametrize("gic", [2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_random_code_of_a_32bit_vcpu(seed: int, gic: int) -> None:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    chance = random.Random(seed)
    with Machine(width=32, gic=gic) as machine:
        machine.put(PSTATE, SUPERVISOR | (THUMB if seed & 2 else 0))
        _try(machine, chance, _random_word_32, mmu=bool(seed % 2))


def _try(machine: Machine, chance: random.Random, word: Callable[[random.Random], int], *, mmu: bool) -> None:
    machine.code([word(chance) for _ in range(0x1000)])
    values = [RAM, MAILBOX, RAM + 0xFF8, DIST_BASE, CPU_BASE, (1 << 64) - 1, RAM + SIZE - 4, chance.getrandbits(64)]
    machine.x(**{f"x{number}": chance.choice(values) for number in range(31)})
    for register in (PC, SP_EL0, SP_EL1, VBAR):
        machine.put(register, chance.choice([RAM, RAM + 0x800, RAM + 0x1001, 0, chance.getrandbits(64)]))
    if mmu:
        for encoding in CONTROL:
            machine.put(system(*encoding), chance.getrandbits(64))
    stop = threading.Timer(0.05, lambda: setattr(machine.runs[0], "immediate_exit", 1))
    stop.start()
    with contextlib.suppress(OSError):
        while machine.run().exit_reason == uapi.KVM_EXIT_MMIO:
            pass
    stop.join()
    machine.kernel.check()
    assert machine.get(PC) < 1 << 64


def test_32bit_user_state_is_no_entry(machine: Machine) -> None:
    machine.put(PSTATE, 0x10)
    with pytest.raises(OSError, match="Invalid argument"):
        machine.run()
    assert machine.runs[0].exit_reason == uapi.KVM_EXIT_FAIL_ENTRY


def test_unaligned_pc_is_an_exception(machine: Machine) -> None:
    machine.put(PC, RAM + 2)
    machine.put(VBAR, RAM + 0x1000)
    machine.code([0xB9000120, 0x14000000], RAM + 0x1200)  # str w0, [x9]; b .
    machine.x(x9=MAILBOX)
    machine.written()
    assert machine.get(system(3, 0, 5, 2, 0)) >> 26 == 0x22
    assert machine.get(system(3, 0, 6, 0, 0)) == RAM + 2
