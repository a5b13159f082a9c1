"""What is found out about the engine is found whatever the process did with engines before."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")

from kvmvfio_emu.guest.machine.aarch32 import coprocessor
from kvmvfio_emu.guest.machine.aarch32.cpu import Cpu as Cpu32
from kvmvfio_emu.guest.machine.aarch64.cpu import Cpu as Cpu64


@pytest.mark.parametrize("seed", range(10))
def test_the_table_of_registers_is_not_that_of_an_engine_that_is_gone(seed: int) -> None:
    draw, expected = random.Random(seed), coprocessor.find_path()
    kept = []
    for _ in range(4):
        cpu = Cpu32(lambda _: None) if draw.random() < 0.6 else Cpu64(lambda _: None, lambda _: None, lambda *_: False)
        cpu.read(cpu.STATUS)
        if draw.random() < 0.7:
            cpu.close()
        else:
            kept.append(cpu)
    assert coprocessor.find_path() == expected
    for cpu in kept:
        cpu.close()
