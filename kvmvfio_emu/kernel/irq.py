"""Host interrupts: descriptors and the fasteoi flow; models kernel/irq/{chip,manage,handle}.c and irq-gic.c.

The driver of the GIC is in here too, since the flow and the chip only make sense together: split EOI mode, the
"forwarded" flag that leaves the deactivation to a guest, and masking that is lazy.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.gic import LIMIT, CpuInterface, Gic

#: A driver's handler: True when the interrupt was its own (IRQ_HANDLED).
Handler = Callable[[], bool]


class IrqDesc:
    """``struct irq_desc`` of one wired interrupt. ``irq`` is Linux's number, ``hwirq`` the GIC's."""

    __slots__ = (
        "depth",
        "forwarded",
        "handler",
        "hits",
        "hwirq",
        "irq",
        "level",
        "name",
        "pending",
        "unbalanced",
    )

    def __init__(self, irq: int, hwirq: int, *, level: bool, name: str) -> None:
        self.irq = irq
        self.hwirq = hwirq
        self.level = level
        self.name = name
        self.handler: Handler | None = None
        self.depth = 1  #: how often disabled; 0 is enabled
        self.pending = False  #: IRQS_PENDING: it came while disabled
        self.forwarded = False  #: the host's end of interrupt only drops the priority
        self.hits = 0  #: as /proc/interrupts counts them
        self.unbalanced = 0  #: enable_irq calls too many, of which Linux warns

    @property
    def disabled(self) -> bool:
        """IRQD_IRQ_DISABLED."""
        return self.depth > 0

    def __repr__(self) -> str:
        return f"<IrqDesc {self.irq} {self.name} hwirq {self.hwirq} depth {self.depth}>"


class IrqSubsystem:
    """All descriptors, and the GIC driver below them.

    ``split_eoi``: the driver uses EOImode 1 (needs HYP mode); without it nothing can be forwarded.
    ``lazy_disable``: disable_irq leaves the hardware enabled until the interrupt comes.
    """

    def __init__(self, gic: Gic, trace: Trace, *, split_eoi: bool, lazy_disable: bool) -> None:
        self.gic = gic
        self.split_eoi = split_eoi
        self.lazy_disable = lazy_disable
        self.descs: dict[int, IrqDesc] = {}
        self._by_hwirq: dict[int, IrqDesc] = {}
        self._trace = trace
        self._event = trace.event
        for interface in gic.cpu:
            interface.eoi_mode = int(split_eoi)

    def create_mapping(self, hwirq: int, *, level: bool, name: str) -> IrqDesc:
        """Give GIC interrupt ``hwirq`` a Linux number and a descriptor; models irq_create_of_mapping."""
        if hwirq in self._by_hwirq:
            raise ValueError(f"interrupt {hwirq} is mapped already, to {self._by_hwirq[hwirq]}")
        desc = IrqDesc(16 + len(self.descs), hwirq, level=level, name=name)
        self.gic.configure(hwirq, edge=not level)
        self.descs[desc.irq] = self._by_hwirq[hwirq] = desc
        return desc

    # -- what drivers call ------------------------------------------------------------------------------------

    def request_irq(self, desc: IrqDesc, handler: Handler, *, autoenable: bool = True) -> None:
        """Install ``handler``; with ``autoenable`` off (IRQ_NOAUTOEN) the line waits for `enable_irq`."""
        if desc.handler is not None:
            raise ValueError(f"{desc} has a handler already")
        desc.handler = handler
        desc.pending = False
        desc.depth = 1
        if autoenable:
            self.enable_irq(desc)

    def free_irq(self, desc: IrqDesc) -> None:
        """Remove the handler and shut the line down."""
        desc.handler = None
        desc.depth = 1
        self._mask(desc)

    def disable_irq_nosync(self, desc: IrqDesc) -> None:
        """Disable, nested; the hardware may learn of it only when the interrupt comes."""
        desc.depth += 1
        if desc.depth == 1 and not self.lazy_disable:
            self._mask(desc)

    def enable_irq(self, desc: IrqDesc) -> None:
        """Undo one disable; the last one unmasks. A level that is still high comes again by itself."""
        if desc.depth == 0:
            desc.unbalanced += 1
            self._event("irq_unbalanced", irq=desc.hwirq)
            return
        desc.depth -= 1
        if desc.depth == 0:
            desc.pending = False
            self._unmask(desc)

    def set_forwarded(self, desc: IrqDesc, forwarded: bool) -> None:
        """Leave the deactivation to the guest, or take it back; models irqd_{set,clr}_irq_forwarded."""
        desc.forwarded = forwarded

    def is_active(self, desc: IrqDesc) -> bool:
        """The active state of the hardware; models irq_get_fwd_state / irq_get_irqchip_state."""
        return self.gic.is_active(desc.hwirq)

    def complete(self, desc: IrqDesc) -> None:
        """Deactivate on the guest's behalf, when nobody else will any more."""
        if self.gic.is_active(desc.hwirq):
            self._event("host_deactivate", irq=desc.hwirq)
            self.gic.deactivate(desc.hwirq)

    # -- what the hardware calls --------------------------------------------------------------------------------

    def handle_irq(self, interface: CpuInterface) -> None:
        """Take interrupts from ``interface`` until none is signalled; models gic_handle_irq."""
        while (hwirq := interface.iar()) < LIMIT:
            if self.split_eoi:
                interface.eoir(hwirq)  # priority drop only
            self._fasteoi(self._by_hwirq[hwirq], interface)

    def _fasteoi(self, desc: IrqDesc, interface: CpuInterface) -> None:
        desc.hits += 1
        if desc.handler is None or desc.disabled:
            desc.pending = True
            before = self._trace.begin_step(("hwirq", desc.hwirq), "host_irq_lazy", irq=desc.hwirq)
            self._mask(desc)
        else:
            before = self._trace.begin_step(("hwirq", desc.hwirq), "host_irq", irq=desc.hwirq)
            desc.handler()
        if not self.split_eoi:
            interface.eoir(desc.hwirq)
        elif not desc.forwarded:
            interface.dir(desc.hwirq)
        self._trace.end(before)

    def _mask(self, desc: IrqDesc) -> None:
        self._event("gicd_mask", irq=desc.hwirq)
        self.gic.disable(desc.hwirq)
        if desc.forwarded:
            # Nobody would complete it: the guest is about to lose it, and masked it could never come again.
            self.complete(desc)

    def _unmask(self, desc: IrqDesc) -> None:
        before = self._trace.begin("gicd_unmask", irq=desc.hwirq)
        self._trace.remember(("hwirq", desc.hwirq))  # a line that is high comes in now
        try:
            self.gic.enable(desc.hwirq)
        finally:
            self._trace.end(before)

    def check(self) -> None:
        """Raise AssertionError when descriptors and hardware contradict each other."""
        for desc in self.descs.values():
            if desc.handler is not None and not desc.disabled:
                assert self.gic.is_enabled(desc.hwirq), f"{desc} is enabled, but masked in the GIC"
            if desc.handler is None:
                assert not self.gic.is_enabled(desc.hwirq), f"{desc} has no handler, but is unmasked in the GIC"
