"""The physical GIC: the transition table of the architecture row by row, and who is signalled."""

from __future__ import annotations

import pytest

from kvmvfio_emu.hw.gic import IDLE_PRIORITY, SPURIOUS, CpuInterface, Gic

IRQ = 109
OTHER = 110

both_modes = pytest.mark.parametrize("eoi_mode", [0, 1])


def make(eoi_mode: int = 0, cpus: int = 1) -> tuple[Gic, CpuInterface, list[int]]:
    """A GIC with IRQ and OTHER enabled, CPU interface 0, and a list that gets a CPU number per nIRQ."""
    gic = Gic(cpus)
    signals: list[int] = []
    for index in range(cpus):
        gic.cpu[index].eoi_mode = eoi_mode
        gic.handlers[index] = lambda index=index: signals.append(index)
    gic.enable(IRQ)
    gic.enable(OTHER)
    return gic, gic.cpu[0], signals


def bring(gic: Gic, cpu: CpuInterface, state: str) -> None:
    """IRQ into ``state``; P, AP with the line high, I, A with the line low."""
    if "P" in state or "A" in state:
        gic.set_line(IRQ, True)
    if "A" in state:
        assert cpu.iar() == IRQ
        gic.set_line(IRQ, "P" in state)
    assert gic.state(IRQ) == state


# -- the table ----------------------------------------------------------------------------------------------


@both_modes
def test_line_rises_while_inactive_is_pending_and_signalled(eoi_mode: int) -> None:
    gic, _, signals = make(eoi_mode)
    gic.set_line(IRQ, True)
    assert (gic.state(IRQ), signals) == ("P", [0])


@both_modes
def test_line_rises_while_active_is_not_signalled(eoi_mode: int) -> None:
    gic, cpu, signals = make(eoi_mode)
    bring(gic, cpu, "A")
    signals.clear()
    gic.set_line(IRQ, True)
    assert (gic.state(IRQ), signals) == ("AP", [])


@both_modes
@pytest.mark.parametrize(("before", "after"), [("P", "I"), ("AP", "A")])
def test_line_falls(eoi_mode: int, before: str, after: str) -> None:
    gic, cpu, _ = make(eoi_mode)
    bring(gic, cpu, before)
    gic.set_line(IRQ, False)
    assert gic.state(IRQ) == after


@both_modes
def test_iar_activates_and_raises_the_running_priority(eoi_mode: int) -> None:
    gic, cpu, _ = make(eoi_mode)
    gic.set_line(IRQ, True)
    assert cpu.running_priority == IDLE_PRIORITY
    assert cpu.iar() == IRQ
    assert gic.state(IRQ) == "AP", "the line is still high"
    assert cpu.running_priority == gic.priority(IRQ)
    assert cpu.iar() == SPURIOUS


@both_modes
def test_iar_of_software_pending_leaves_active_only(eoi_mode: int) -> None:
    gic, cpu, _ = make(eoi_mode)
    gic.set_pending(IRQ)
    assert cpu.iar() == IRQ
    assert gic.state(IRQ) == "A"


@pytest.mark.parametrize(("before", "after"), [("A", "I"), ("AP", "P")])
def test_eoir_in_mode_0_drops_the_priority_and_deactivates(before: str, after: str) -> None:
    gic, cpu, signals = make(0)
    bring(gic, cpu, before)
    signals.clear()
    cpu.eoir(IRQ)
    assert gic.state(IRQ) == after
    assert cpu.running_priority == IDLE_PRIORITY
    assert bool(signals) == (after == "P"), "pending again means signalled again"


@pytest.mark.parametrize("state", ["A", "AP"])
def test_eoir_in_mode_1_only_drops_the_priority(state: str) -> None:
    gic, cpu, signals = make(1)
    bring(gic, cpu, state)
    signals.clear()
    cpu.eoir(IRQ)
    assert (gic.state(IRQ), signals) == (state, [])
    assert cpu.running_priority == IDLE_PRIORITY
    assert cpu.iar() == SPURIOUS, "an active interrupt cannot be taken"


@pytest.mark.parametrize(("before", "after"), [("A", "I"), ("AP", "P")])
def test_dir_in_mode_1_deactivates(before: str, after: str) -> None:
    gic, cpu, signals = make(1)
    bring(gic, cpu, before)
    cpu.eoir(IRQ)
    signals.clear()
    cpu.dir(IRQ)
    assert gic.state(IRQ) == after
    assert signals == ([0] if after == "P" else [])


def test_dir_in_mode_0_is_ignored() -> None:
    gic, cpu, _ = make(0)
    bring(gic, cpu, "A")
    cpu.dir(IRQ)
    assert gic.state(IRQ) == "A"


@both_modes
@pytest.mark.parametrize(("before", "after"), [("A", "I"), ("AP", "P")])
def test_deactivation_by_the_guest_or_icactiver(eoi_mode: int, before: str, after: str) -> None:
    gic, cpu, _ = make(eoi_mode)
    bring(gic, cpu, before)
    gic.deactivate(IRQ)
    assert gic.state(IRQ) == after


def test_deactivation_by_the_guest_signals_a_line_that_stayed_high() -> None:
    gic, cpu, signals = make(1)
    bring(gic, cpu, "AP")
    cpu.eoir(IRQ)
    signals.clear()
    gic.deactivate(IRQ)
    assert signals == [0]


@both_modes
def test_deactivating_an_inactive_interrupt_does_nothing(eoi_mode: int) -> None:
    gic, _, signals = make(eoi_mode)
    gic.deactivate(IRQ)
    assert (gic.state(IRQ), signals) == ("I", [])


@both_modes
@pytest.mark.parametrize("state", ["I", "P", "A", "AP"])
def test_icenabler_keeps_the_state_and_stops_the_signal(eoi_mode: int, state: str) -> None:
    gic, cpu, signals = make(eoi_mode)
    bring(gic, cpu, state)
    gic.disable(IRQ)
    signals.clear()
    assert gic.state(IRQ) == state
    assert cpu.iar() == SPURIOUS
    gic.set_line(IRQ, False)
    gic.set_line(IRQ, True)
    assert signals == []


@both_modes
def test_isenabler_signals_what_is_pending(eoi_mode: int) -> None:
    gic, cpu, signals = make(eoi_mode)
    gic.disable(IRQ)
    gic.set_line(IRQ, True)
    assert signals == []
    gic.enable(IRQ)
    assert signals == [0]
    assert cpu.iar() == IRQ


# -- edges --------------------------------------------------------------------------------------------------


@both_modes
def test_an_edge_stays_pending_until_acknowledged(eoi_mode: int) -> None:
    gic, cpu, signals = make(eoi_mode)
    gic.configure(IRQ, edge=True)
    gic.set_line(IRQ, True)
    gic.set_line(IRQ, False)
    assert (gic.state(IRQ), signals) == ("P", [0])
    assert cpu.iar() == IRQ
    assert gic.state(IRQ) == "A"


@both_modes
def test_edges_while_active_become_one(eoi_mode: int) -> None:
    gic, cpu, _ = make(eoi_mode)
    gic.configure(IRQ, edge=True)
    gic.set_pending(IRQ)
    cpu.iar()
    for _ in range(3):
        gic.set_line(IRQ, True)
        gic.set_line(IRQ, False)
    assert gic.state(IRQ) == "AP"
    gic.deactivate(IRQ)
    cpu.eoir(IRQ)
    assert cpu.iar() == IRQ
    assert gic.state(IRQ) == "A"


def test_a_high_edge_line_is_not_pending_after_acknowledge() -> None:
    gic, cpu, _ = make()
    gic.configure(IRQ, edge=True)
    gic.set_line(IRQ, True)
    cpu.iar()
    cpu.eoir(IRQ)
    assert gic.state(IRQ) == "I"


def test_a_line_that_turns_level_sensitive_while_high_is_signalled() -> None:
    gic, cpu, signals = make()
    gic.configure(IRQ, edge=True)
    gic.set_line(IRQ, True)
    cpu.iar()
    cpu.eoir(IRQ)
    signals.clear()
    gic.configure(IRQ, edge=False)
    assert (gic.state(IRQ), signals) == ("P", [0])


def test_icpendr_takes_an_edge_but_not_a_high_level() -> None:
    gic, _, _ = make()
    gic.set_pending(IRQ)
    gic.clear_pending(IRQ)
    assert gic.state(IRQ) == "I"
    gic.set_line(IRQ, True)
    gic.clear_pending(IRQ)
    assert gic.state(IRQ) == "P"


# -- priorities, targets ------------------------------------------------------------------------------------


def test_the_better_priority_then_the_lower_id_is_taken_first() -> None:
    gic, cpu, _ = make(1)
    gic.set_line(IRQ, True)
    gic.set_line(OTHER, True)
    assert cpu.iar() == IRQ
    cpu.eoir(IRQ)
    cpu.dir(IRQ)
    gic.set_priority(OTHER, 0x20)
    assert cpu.iar() == OTHER


def test_only_a_better_priority_preempts() -> None:
    gic, cpu, signals = make()
    gic.set_line(IRQ, True)
    cpu.iar()
    signals.clear()
    gic.set_line(OTHER, True)
    assert signals == []
    assert cpu.iar() == SPURIOUS
    gic.set_priority(OTHER, 0x20)
    assert signals == [0]
    assert cpu.iar() == OTHER
    assert cpu.running_priority == 0x20
    gic.check()


@both_modes
def test_priority_drop_signals_an_interrupt_that_waited_for_it(eoi_mode: int) -> None:
    gic, cpu, signals = make(eoi_mode)
    bring(gic, cpu, "A")
    gic.set_line(OTHER, True)
    signals.clear()
    cpu.eoir(IRQ)
    assert signals == [0]
    assert cpu.iar() == OTHER


def test_split_mode_takes_another_of_equal_priority_while_the_first_is_active() -> None:
    gic, cpu, _ = make(1)
    bring(gic, cpu, "AP")
    cpu.eoir(IRQ)
    gic.set_line(OTHER, True)
    assert cpu.iar() == OTHER
    assert (gic.state(IRQ), gic.state(OTHER)) == ("AP", "AP")


def test_only_the_target_cpu_is_signalled() -> None:
    gic, cpu, signals = make(1, cpus=2)
    gic.set_target(IRQ, 1)
    gic.set_line(IRQ, True)
    assert signals == [1]
    assert cpu.iar() == SPURIOUS
    assert gic.cpu[1].iar() == IRQ


def test_a_pending_interrupt_follows_its_target() -> None:
    gic, _, signals = make(1, cpus=2)
    gic.set_line(IRQ, True)
    gic.set_target(IRQ, 1)
    assert signals == [0, 1]


def test_deactivation_is_global() -> None:
    gic, cpu, _ = make(1, cpus=2)
    bring(gic, cpu, "A")
    gic.cpu[1].dir(IRQ)
    assert gic.state(IRQ) == "I"


def test_completing_the_spurious_id_is_harmless() -> None:
    _, cpu, signals = make()
    cpu.eoir(SPURIOUS)
    assert (cpu.iar(), signals) == (SPURIOUS, [])


@pytest.mark.parametrize("irq", [-1, 0, 31, 1020])
def test_only_spis_have_lines(irq: int) -> None:
    gic, _, _ = make()
    with pytest.raises(ValueError, match="not an SPI"):
        gic.set_line(irq, True)


def test_a_target_must_exist() -> None:
    with pytest.raises(ValueError, match="no CPU interface 1"):
        make()[0].set_target(IRQ, 1)


def test_check_refuses_running_priorities_that_do_not_nest() -> None:
    gic, cpu, _ = make()
    cpu._running = [(0x20, IRQ), (0xA0, OTHER)]
    with pytest.raises(AssertionError, match="running priorities"):
        gic.check()
