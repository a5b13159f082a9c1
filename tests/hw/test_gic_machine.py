"""The physical GIC against a table of state names, under random lines, acknowledges and completions."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvmvfio_emu.hw.gic import SPURIOUS, Gic

#: (state, event) -> state for one level-sensitive interrupt; what is not here stays.
LEVEL = {
    ("I", "rise"): "P",
    ("A", "rise"): "AP",
    ("P", "fall"): "I",
    ("AP", "fall"): "A",
    ("P", "ack"): "AP",  # the line is still high
    ("A", "deactivate"): "I",
    ("AP", "deactivate"): "P",
    ("I", "activate"): "A",
    ("P", "activate"): "AP",
}
IRQS = (32, 1019)


class GicMachine(RuleBasedStateMachine):
    """Random lines, enables, acknowledges and completions; a table of names says what each must lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.gic = Gic()
        self.cpu = self.gic.cpu[0]
        self.state = dict.fromkeys(IRQS, "I")
        self.enabled = set(IRQS)
        self.stack: list[int] = []
        self.signalled = False
        self.gic.handlers[0] = self._signal
        for irq in IRQS:
            self.gic.enable(irq)

    def _signal(self) -> None:
        self.signalled = True

    def _go(self, irq: int, event: str) -> None:
        self.state[irq] = LEVEL.get((self.state[irq], event), self.state[irq])

    def _takeable(self) -> list[int]:
        """All have one priority, so nothing preempts."""
        return [] if self.stack else [irq for irq in IRQS if self.state[irq] == "P" and irq in self.enabled]

    def _expect_signal(self, before: list[int]) -> None:
        if set(self._takeable()) - set(before):
            assert self.signalled, "something became takeable and nobody was told"
        if not self._takeable():
            assert not self.signalled, "nIRQ with nothing to take"

    @rule(mode=st.sampled_from((0, 1)))
    @precondition(lambda self: not self.stack)
    def set_mode(self, mode: int) -> None:
        self.cpu.eoi_mode = mode

    @rule(irq=st.sampled_from(IRQS), event=st.sampled_from(("rise", "fall", "enable", "disable", "activate")))
    def outside(self, irq: int, event: str) -> None:
        self.signalled, before = False, self._takeable()
        match event:
            case "rise" | "fall":
                self.gic.set_line(irq, event == "rise")
            case "enable":
                self.gic.enable(irq)
                self.enabled.add(irq)
            case "disable":
                self.gic.disable(irq)
                self.enabled.discard(irq)
            case "activate":
                self.gic.set_active(irq)
        self._go(irq, event)
        self._expect_signal(before)

    @rule()
    def acknowledge(self) -> None:
        takeable = self._takeable()
        irq = self.cpu.iar()
        if takeable:
            assert irq == min(takeable)
            self._go(irq, "ack")
            self.stack.append(irq)
        else:
            assert irq == SPURIOUS

    @rule()
    @precondition(lambda self: self.stack)
    def end(self) -> None:
        irq = self.stack.pop()
        self.signalled = False
        self.cpu.eoir(irq)
        if self.cpu.eoi_mode == 0:
            self._go(irq, "deactivate")
        self._expect_signal([])

    @rule(irq=st.sampled_from(IRQS), by=st.sampled_from(("dir", "guest")))
    def deactivate(self, irq: int, by: str) -> None:
        self.signalled, before = False, self._takeable()
        if by == "guest":
            self.gic.deactivate(irq)
        else:
            self.cpu.dir(irq)
        if by == "guest" or self.cpu.eoi_mode == 1:
            self._go(irq, "deactivate")
        self._expect_signal(before)

    @invariant()
    def states_agree(self) -> None:
        assert {irq: self.gic.state(irq) for irq in IRQS} == self.state
        self.gic.check()


TestGicMachine = GicMachine.TestCase
