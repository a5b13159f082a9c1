"""The CPU interface of a GICv3: list registers of 64 bits, active priorities, binary points, two groups."""

from __future__ import annotations

import pytest

from kvmvfio_emu.hw import gicv3 as g
from kvmvfio_emu.hw.gich import HCR_EN, HCR_UIE, MISR_EOI, MISR_U, SPURIOUS
from kvmvfio_emu.hw.ich import (
    LR_ACTIVE,
    LR_EOI,
    LR_GROUP1,
    LR_HW,
    LR_PENDING,
    LR_PHYSICAL_SHIFT,
    LR_PRIORITY_SHIFT,
    LR_STATE,
    IchInterface,
)


def lr(irq: int, priority: int = 0xA0, state: int = LR_PENDING, *, more: int = LR_GROUP1) -> int:
    """A list register, of group 1 by default."""
    return irq | priority << LR_PRIORITY_SHIFT | state | more


@pytest.fixture
def deactivated() -> list[int]:
    return []


@pytest.fixture
def interface(deactivated: list[int]) -> IchInterface:
    """Both groups enabled, all priorities pass."""
    interface = IchInterface(4, deactivated.append)
    interface.reset()
    interface.hcr = HCR_EN
    for register, value in ((g.ICC_PMR_EL1, 0xFF), (g.ICC_IGRPEN0_EL1, 1), (g.ICC_IGRPEN1_EL1, 1)):
        assert interface.write(register, value)
    return interface


def test_reset_values_as_the_guest_reads_them() -> None:
    interface = IchInterface(4, lambda irq: None)
    interface.reset()
    expected = {g.ICC_PMR_EL1: 0, g.ICC_BPR0_EL1: 2, g.ICC_BPR1_EL1: 3, g.ICC_CTLR_EL1: 0x8C00, g.ICC_SRE_EL1: 7}
    expected |= {g.ICC_IGRPEN0_EL1: 0, g.ICC_IGRPEN1_EL1: 0, g.ICC_RPR_EL1: 0xFF, g.ICC_IAR1_EL1: SPURIOUS}
    assert {register: interface.read(register) for register in expected} == expected


@pytest.mark.parametrize("register", [0, g.ICC_AP0R_EL1[1], g.ICC_AP1R_EL1[3], g.ICC_SGI1R_EL1])
def test_registers_of_somebody_else(interface: IchInterface, register: int) -> None:
    assert interface.read(register) is None
    assert not interface.write(register, 1)


def test_life_of_an_interrupt(interface: IchInterface) -> None:
    interface.lr[2] = lr(40, more=LR_GROUP1 | LR_EOI)
    assert interface.signalled
    assert interface.read(g.ICC_HPPIR1_EL1) == 40
    assert interface.read(g.ICC_IAR1_EL1) == 40
    assert interface.lr[2] & LR_STATE == LR_ACTIVE
    assert interface.read(g.ICC_RPR_EL1) == 0xA0
    assert interface.read(g.ICC_AP1R_EL1[0]) == 1 << (0xA0 >> 3)
    interface.write(g.ICC_EOIR1_EL1, 40)
    assert (interface.lr[2] & LR_STATE, interface.eisr, interface.read(g.ICC_RPR_EL1)) == (0, 1 << 2, 0xFF)
    assert interface.misr == MISR_EOI
    assert interface.maintenance
    assert interface.elrsr == 0b1011


def test_physical_interrupt_is_deactivated_by_the_guest(interface: IchInterface, deactivated: list[int]) -> None:
    interface.lr[0] = lr(40, more=LR_GROUP1 | LR_HW | 77 << LR_PHYSICAL_SHIFT)
    assert interface.text(interface.lr[0]) == "40 pending HW->77"
    interface.write(g.ICC_EOIR1_EL1, interface.read(g.ICC_IAR1_EL1) or 0)
    assert (deactivated, interface.eisr) == ([77], 0)


def test_eoi_mode_1_separates_drop_from_deactivation(interface: IchInterface) -> None:
    interface.write(g.ICC_CTLR_EL1, 2)
    interface.lr[0] = lr(40)
    interface.read(g.ICC_IAR1_EL1)
    interface.write(g.ICC_EOIR1_EL1, 40)
    assert (interface.lr[0] & LR_STATE, interface.read(g.ICC_RPR_EL1)) == (LR_ACTIVE, 0xFF)
    interface.write(g.ICC_DIR_EL1, 40)
    assert interface.lr[0] & LR_STATE == 0


def test_dir_does_nothing_in_eoi_mode_0(interface: IchInterface) -> None:
    interface.lr[0] = lr(40)
    interface.read(g.ICC_IAR1_EL1)
    interface.write(g.ICC_DIR_EL1, 40)
    assert interface.lr[0] & LR_STATE == LR_ACTIVE


def test_lpi_has_no_active_state(interface: IchInterface) -> None:
    interface.lr[0] = lr(8200)
    assert interface.read(g.ICC_IAR1_EL1) == 8200
    assert (interface.lr[0] & LR_STATE, interface.read(g.ICC_RPR_EL1)) == (0, 0xA0)
    interface.write(g.ICC_EOIR1_EL1, 8200)
    assert interface.read(g.ICC_RPR_EL1) == 0xFF


@pytest.mark.parametrize("irq", [1020, 1023, 8191])
def test_end_of_a_special_interrupt_is_nothing(interface: IchInterface, irq: int) -> None:
    interface.lr[0] = lr(40)
    interface.read(g.ICC_IAR1_EL1)
    interface.write(g.ICC_EOIR1_EL1, irq)
    assert interface.read(g.ICC_RPR_EL1) == 0xA0


def test_each_group_has_its_own_registers(interface: IchInterface) -> None:
    interface.lr[0] = lr(40, 0x50, more=0)
    assert interface.read(g.ICC_IAR1_EL1) == SPURIOUS  # the highest is of group 0
    assert interface.read(g.ICC_IAR0_EL1) == 40
    interface.write(g.ICC_EOIR1_EL1, 40)
    assert interface.read(g.ICC_RPR_EL1) == 0x50  # the highest active priority is not of group 1
    interface.lr[0] = lr(40, 0x50, LR_ACTIVE, more=0)
    interface.write(g.ICC_EOIR0_EL1, 40)
    assert interface.read(g.ICC_RPR_EL1) == 0xFF


def test_group_that_is_off_signals_nothing(interface: IchInterface) -> None:
    interface.lr[:2] = [lr(40), lr(41, 0x10, more=0)]
    interface.write(g.ICC_IGRPEN0_EL1, 0)
    assert interface.read(g.ICC_HPPIR1_EL1) == 40
    interface.write(g.ICC_IGRPEN1_EL1, 0)
    assert not interface.signalled


@pytest.mark.parametrize(("mask", "seen"), [(0xA0, False), (0xA8, True), (0xFF, True), (0, False)])
def test_priority_mask(interface: IchInterface, mask: int, seen: bool) -> None:
    interface.write(g.ICC_PMR_EL1, mask)
    interface.lr[0] = lr(40, 0xA0)
    assert interface.signalled == seen


@pytest.mark.parametrize(
    ("point", "second", "preempts"),
    [(0, 0x98, True), (3, 0x98, True), (5, 0x80, False), (5, 0x78, True), (7, 0x80, False), (7, 0x78, True)],
)
def test_binary_point_of_group_1(interface: IchInterface, point: int, second: int, preempts: bool) -> None:
    interface.write(g.ICC_BPR1_EL1, point)
    interface.lr[0] = lr(40, 0xA0 if point < 5 else 0x98)
    assert interface.read(g.ICC_IAR1_EL1) == 40
    interface.lr[1] = lr(41, second)
    assert interface.signalled == preempts


def test_common_binary_point_is_that_of_group_0(interface: IchInterface) -> None:
    interface.write(g.ICC_BPR0_EL1, 4)
    interface.write(g.ICC_CTLR_EL1, 1)
    assert interface.read(g.ICC_BPR1_EL1) == 5
    interface.write(g.ICC_BPR1_EL1, 7)
    interface.write(g.ICC_CTLR_EL1, 0)
    assert interface.read(g.ICC_BPR1_EL1) == 3


def test_nested_interrupts_end_innermost_first(interface: IchInterface) -> None:
    interface.lr[0] = lr(40, 0xA0)
    interface.read(g.ICC_IAR1_EL1)
    interface.lr[1] = lr(41, 0x20)
    assert interface.read(g.ICC_IAR1_EL1) == 41
    interface.write(g.ICC_EOIR1_EL1, 41)
    assert interface.read(g.ICC_RPR_EL1) == 0xA0


def test_underflow_maintenance(interface: IchInterface) -> None:
    interface.hcr |= HCR_UIE
    interface.lr[:2] = [lr(40), lr(41)]
    assert interface.misr == 0
    interface.lr[1] = 0
    assert interface.misr == MISR_U


def test_check_notices_contradictions(interface: IchInterface) -> None:
    interface.lr[:2] = [lr(40), lr(40)]
    with pytest.raises(AssertionError, match="two list registers"):
        interface.check()
    interface.lr[:2] = [lr(40, state=LR_STATE, more=LR_HW), 0]
    with pytest.raises(AssertionError, match="pending and active"):
        interface.check()
