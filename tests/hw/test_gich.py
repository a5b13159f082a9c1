"""List registers: transitions, maintenance, deactivation of physical interrupts, priorities."""

from __future__ import annotations

import pytest

from kvmvfio_emu.hw.gich import (
    HCR_EN,
    HCR_UIE,
    LR_ACTIVE,
    LR_EOI,
    LR_GROUP1,
    LR_HW,
    LR_PENDING,
    LR_PHYSICAL_SHIFT,
    LR_PRIORITY_SHIFT,
    LR_SOURCE_SHIFT,
    LR_STATE,
    MISR_EOI,
    MISR_U,
    OTHER_GROUP,
    SPURIOUS,
    VirtualInterface,
    lr_physical_id,
    lr_priority,
    lr_source,
    lr_text,
    lr_virtual_id,
)

both_modes = pytest.mark.parametrize("eoi_mode", [0, 1])


def soft(irq: int, state: int = LR_PENDING, *, priority: int = 0xA0, eoi: bool = False) -> int:
    """A list register of a software interrupt."""
    return irq | priority >> 3 << LR_PRIORITY_SHIFT | state | (LR_EOI if eoi else 0)


def hard(irq: int, physical: int, state: int = LR_PENDING) -> int:
    """A list register with the HW bit."""
    return soft(irq, state) | LR_HW | physical << LR_PHYSICAL_SHIFT


class Setup:
    """An enabled interface and the physical interrupts that it deactivated."""

    def __init__(self, eoi_mode: int = 0, lrs: int = 4) -> None:
        self.deactivated: list[int] = []
        self.interface = VirtualInterface(lrs, self.deactivated.append)
        self.interface.hcr = HCR_EN
        self.interface.eoi_mode = eoi_mode

    def finish(self, irq: int) -> None:
        """The guest completes ``irq`` as its EOImode has it."""
        self.interface.eoir(irq)
        self.interface.dir(irq)


# -- the fields ---------------------------------------------------------------------------------------------


def test_fields_of_a_hardware_list_register() -> None:
    lr = hard(112, 109)
    assert (lr_virtual_id(lr), lr_physical_id(lr), lr_source(lr), lr_priority(lr)) == (112, 109, 0, 0xA0)
    assert lr_text(lr) == "112 pending HW->109"


def test_fields_of_an_sgi() -> None:
    assert lr_source(soft(3) | 5 << LR_SOURCE_SHIFT) == 5


@pytest.mark.parametrize(
    ("lr", "text"),
    [
        (0, "0 invalid"),
        (soft(40, LR_ACTIVE, eoi=True), "40 active EOI"),
        (soft(40, LR_STATE), "40 pending+active"),
    ],
)
def test_list_registers_in_words(lr: int, text: str) -> None:
    assert lr_text(lr) == text


@pytest.mark.parametrize("count", [0, 65])
def test_impossible_numbers_of_list_registers(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        VirtualInterface(count, lambda irq: None)


# -- transitions --------------------------------------------------------------------------------------------


@both_modes
def test_iar_makes_pending_active(eoi_mode: int) -> None:
    interface = Setup(eoi_mode).interface
    interface.lr[2] = soft(40)
    assert interface.signalled
    assert interface.hppir() == 40
    assert interface.iar() == 40
    assert interface.lr[2] & LR_STATE == LR_ACTIVE
    assert not interface.signalled


def test_iar_of_an_sgi_tells_its_source() -> None:
    interface = Setup().interface
    interface.lr[0] = soft(3) | 5 << LR_SOURCE_SHIFT
    assert interface.iar() == 3 | 5 << 10


def test_iar_with_nothing_pending_is_spurious() -> None:
    interface = Setup().interface
    assert (interface.iar(), interface.hppir()) == (SPURIOUS, SPURIOUS)


def test_pending_and_active_cannot_be_taken_again_before_its_eoi() -> None:
    interface = Setup().interface
    interface.lr[0] = soft(40, LR_STATE)
    assert interface.iar() == SPURIOUS
    interface.eoir(40)
    assert interface.lr[0] & LR_STATE == LR_PENDING
    assert interface.iar() == 40


def test_eoir_in_mode_0_completes() -> None:
    setup = Setup(0)
    setup.interface.lr[0] = soft(40)
    setup.interface.iar()
    setup.interface.eoir(40)
    assert setup.interface.lr[0] & LR_STATE == 0
    assert setup.interface.running_priority == 0x100


def test_eoir_in_mode_1_only_drops_the_priority_and_dir_completes() -> None:
    setup = Setup(1)
    setup.interface.lr[0] = hard(40, 109)
    setup.interface.iar()
    setup.interface.eoir(40)
    assert setup.interface.running_priority == 0x100
    assert setup.interface.lr[0] & LR_STATE == LR_ACTIVE
    assert setup.deactivated == []
    setup.interface.dir(40)
    assert setup.interface.lr[0] & LR_STATE == 0
    assert setup.deactivated == [109]


def test_dir_in_mode_0_is_ignored() -> None:
    interface = Setup(0).interface
    interface.lr[0] = soft(40, LR_ACTIVE)
    interface.dir(40)
    assert interface.lr[0] & LR_STATE == LR_ACTIVE


def test_eoir_of_what_is_not_active_changes_nothing() -> None:
    setup = Setup()
    setup.interface.lr[0] = hard(40, 109)
    for irq in (40, 41, SPURIOUS):
        setup.interface.eoir(irq)
    assert setup.interface.lr[0] == hard(40, 109)
    assert (setup.deactivated, setup.interface.eisr) == ([], 0)


# -- maintenance --------------------------------------------------------------------------------------------


@both_modes
def test_the_eoi_bit_asks_for_maintenance_at_completion(eoi_mode: int) -> None:
    setup = Setup(eoi_mode)
    setup.interface.lr[1] = soft(40, eoi=True)
    setup.interface.iar()
    assert not setup.interface.maintenance
    setup.finish(40)
    assert setup.interface.eisr == 0b10
    assert setup.interface.misr == MISR_EOI
    assert setup.interface.maintenance
    assert setup.interface.elrsr == 0b1101, "not empty before the hypervisor has seen it"
    assert setup.deactivated == []


def test_no_eoi_bit_no_maintenance() -> None:
    setup = Setup()
    setup.interface.lr[1] = soft(40)
    setup.interface.iar()
    setup.finish(40)
    assert (setup.interface.eisr, setup.interface.maintenance) == (0, False)


def test_maintenance_waits_for_the_list_register_to_become_invalid() -> None:
    setup = Setup()
    setup.interface.lr[0] = soft(40, LR_STATE, eoi=True)
    setup.finish(40)
    assert setup.interface.eisr == 0
    setup.interface.iar()
    setup.finish(40)
    assert setup.interface.eisr == 1


def test_maintenance_needs_the_interface_enabled() -> None:
    interface = Setup().interface
    interface.eisr = 1
    interface.hcr = 0
    assert not interface.maintenance


@pytest.mark.parametrize(("valid", "underflow"), [(0, True), (1, True), (2, False)])
def test_underflow_means_at_most_one_valid_list_register(valid: int, underflow: bool) -> None:
    interface = Setup().interface
    for index in range(valid):
        interface.lr[index] = soft(40 + index)
    assert interface.misr == 0
    interface.hcr |= HCR_UIE
    assert interface.misr == (MISR_U if underflow else 0)
    assert interface.maintenance == underflow


# -- the HW bit ---------------------------------------------------------------------------------------------


@both_modes
def test_completion_with_the_hw_bit_deactivates_and_asks_for_nothing(eoi_mode: int) -> None:
    setup = Setup(eoi_mode)
    setup.interface.lr[0] = hard(112, 109)
    assert setup.interface.iar() == 112
    setup.finish(112)
    assert setup.deactivated == [109]
    assert (setup.interface.eisr, setup.interface.maintenance) == (0, False)
    assert setup.interface.elrsr == 0b1111


def test_bit_19_of_a_physical_id_is_no_eoi_request() -> None:
    setup = Setup()
    setup.interface.lr[0] = hard(112, 0x200 | 109)
    assert setup.interface.lr[0] & LR_EOI
    setup.interface.iar()
    setup.finish(112)
    assert (setup.deactivated, setup.interface.eisr) == ([0x200 | 109], 0)


def test_the_list_register_is_already_empty_when_the_physical_interrupt_returns() -> None:
    seen: list[int] = []
    interface = VirtualInterface(1, lambda irq: seen.append(interface.elrsr))
    interface.hcr = HCR_EN
    interface.lr[0] = hard(112, 109)
    interface.iar()
    interface.eoir(112)
    assert seen == [1]


# -- priorities and masks -----------------------------------------------------------------------------------


def test_the_better_priority_then_the_lower_id_goes_first() -> None:
    interface = Setup().interface
    interface.lr[0] = soft(42)
    interface.lr[1] = soft(41)
    interface.lr[2] = soft(43, priority=0x20)
    taken = []
    for _ in range(3):
        taken.append(interface.iar())
        interface.eoir(taken[-1])
    assert taken == [43, 41, 42]


def test_only_a_better_priority_preempts() -> None:
    interface = Setup().interface
    interface.lr[0] = soft(40)
    assert interface.iar() == 40
    interface.lr[1] = soft(41)
    assert not interface.signalled
    interface.lr[2] = soft(42, priority=0x20)
    assert interface.iar() == 42
    assert interface.running_priority == 0x20
    interface.eoir(42)
    assert interface.running_priority == 0xA0


def test_split_mode_takes_another_of_equal_priority_while_the_first_is_active() -> None:
    interface = Setup(1).interface
    interface.lr[0], interface.lr[1] = soft(40), soft(41)
    assert interface.iar() == 40
    interface.eoir(40)
    assert interface.iar() == 41
    assert [lr_text(lr) for lr in interface.lr[:2]] == ["40 active", "41 active"]


def test_out_of_order_eoi_drops_the_right_priority() -> None:
    interface = Setup().interface
    interface.lr[0] = soft(40)
    interface.iar()
    interface.lr[1] = soft(41, priority=0x20)
    interface.iar()
    interface.eoir(40)
    assert interface.running_priority == 0x20


def test_pmr_masks_its_own_priority_and_below() -> None:
    interface = Setup().interface
    interface.lr[0] = soft(40, priority=0xA0)
    interface.pmr = 0xA0
    assert not interface.signalled
    interface.pmr = 0xA8
    assert interface.signalled


@pytest.mark.parametrize("off", ["guest", "hypervisor"])
def test_a_disabled_interface_signals_nothing(off: str) -> None:
    interface = Setup().interface
    interface.lr[0] = soft(40)
    if off == "guest":
        interface.enabled = False
    else:
        interface.hcr = 0
    assert (interface.signalled, interface.iar()) == (False, SPURIOUS)


# -- groups and active priorities ---------------------------------------------------------------------------


def test_group_1_needs_its_own_enable_and_its_own_acknowledge() -> None:
    interface = Setup().interface
    interface.lr[0] = soft(40) | LR_GROUP1
    assert (interface.signalled, interface.iar(), interface.aiar()) == (False, SPURIOUS, SPURIOUS)
    interface.ctlr_kept = 1 << 1
    assert (interface.signalled, interface.iar(), interface.hppir()) == (True, OTHER_GROUP, OTHER_GROUP)
    assert interface.lr[0] & LR_STATE == LR_PENDING
    assert (interface.ahppir(), interface.aiar()) == (40, 40)
    assert interface.lr[0] & LR_STATE == LR_ACTIVE


def test_ackctl_lets_the_one_acknowledge_take_both_groups_the_alias_never_does() -> None:
    interface = Setup().interface
    interface.lr[0], interface.lr[1] = soft(40) | LR_GROUP1, soft(41, priority=0x20)
    interface.ctlr_kept = 1 << 1 | 1 << 2
    assert (interface.ahppir(), interface.aiar(), interface.iar()) == (SPURIOUS, SPURIOUS, 41)
    interface.eoir(41)
    assert (interface.hppir(), interface.iar()) == (40, 40)


def test_group_0_can_be_the_fiq() -> None:
    interface = Setup().interface
    interface.lr[0] = soft(40)
    interface.ctlr_kept = 1 << 3
    assert (interface.signalled, interface.iar()) == (False, 40)


def test_active_priorities_are_those_that_run() -> None:
    interface = Setup().interface
    interface.lr[0], interface.lr[1] = soft(40), soft(41, priority=0x20)
    interface.iar()
    assert interface.apr == 1 << 0x20 // 8
    interface.eoir(41)
    interface.iar()
    assert interface.apr == 1 << 0xA0 // 8
    interface.lr[1] = soft(41, priority=0x20)
    interface.iar()
    assert interface.apr == 1 << 0xA0 // 8 | 1 << 0x20 // 8


def test_restored_active_priorities_mask_and_drop_best_first() -> None:
    interface = Setup().interface
    interface.apr = 1 << 0xA0 // 8 | 1 << 0x20 // 8
    interface.lr[0] = soft(40, priority=0x40)
    assert (interface.running_priority, interface.signalled) == (0x20, False)
    interface.eoir(99)
    assert (interface.apr, interface.signalled) == (1 << 0xA0 // 8, True)
    interface.eoir(98)
    assert (interface.apr, interface.running_priority) == (0, 0x100)


# -- check --------------------------------------------------------------------------------------------------


def test_valid_lists_those_with_a_state() -> None:
    interface = Setup().interface
    interface.lr[1], interface.lr[3] = soft(40), soft(41, LR_ACTIVE)
    interface.lr[2] = soft(42, 0)
    assert list(interface.valid()) == [(1, soft(40)), (3, soft(41, LR_ACTIVE))]
    interface.check()


def test_check_refuses_pending_and_active_with_the_hw_bit() -> None:
    interface = Setup().interface
    interface.lr[0] = hard(112, 109, LR_STATE)
    with pytest.raises(AssertionError, match="pending and active with HW"):
        interface.check()


def test_check_refuses_one_interrupt_in_two_list_registers() -> None:
    interface = Setup().interface
    interface.lr[0], interface.lr[1] = soft(40), soft(40, LR_ACTIVE)
    with pytest.raises(AssertionError, match="two list registers"):
        interface.check()


def test_one_sgi_from_two_sources_may_be_in_two_list_registers() -> None:
    interface = Setup().interface
    interface.lr[0], interface.lr[1] = soft(3), soft(3) | 1 << LR_SOURCE_SHIFT
    interface.check()
