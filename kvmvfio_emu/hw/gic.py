"""The physical interrupt controller: a GICv2 distributor and its CPU interfaces (Arm IHI 0048B, chapters 3 and 4).

States of an interrupt are those of the architecture: inactive, pending, active, active and pending. A level-sensitive
interrupt is pending while its line is high; an edge-triggered one from the edge until it is acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable

#: What GICC_IAR reads when nothing is to be acknowledged.
SPURIOUS = 1023
#: The first shared peripheral interrupt (SPI).
FIRST_SPI = 32
#: Interrupt identifiers end here; 1020 to 1023 are special.
LIMIT = 1020
#: The priority of "nothing running": lower than any that can be signalled.
IDLE_PRIORITY = 0x100
_DEFAULT_PRIORITY = 0xA0


class CpuInterface:
    """The GICC registers of one CPU, as its driver uses them.

    ``eoi_mode`` is GICC_CTLR.EOImode: 0, EOIR drops the priority and deactivates; 1 (split), EOIR only drops the
    priority and DIR deactivates.
    """

    __slots__ = ("_gic", "_running", "eoi_mode", "index")

    def __init__(self, gic: Gic, index: int) -> None:
        self._gic = gic
        self.index = index
        self.eoi_mode = 0
        self._running: list[tuple[int, int]] = []

    @property
    def running_priority(self) -> int:
        """GICC_RPR; `IDLE_PRIORITY` when nothing runs."""
        return self._running[-1][0] if self._running else IDLE_PRIORITY

    def iar(self) -> int:
        """Acknowledge: the interrupt becomes active, its priority the running one. `SPURIOUS` if none is signalled."""
        irq = self._gic.highest(self)
        if irq is None:
            return SPURIOUS
        self._running.append((self._gic.priority(irq), irq))
        self._gic.acknowledge(irq)
        return irq

    def eoir(self, irq: int) -> None:
        """End of interrupt: priority drop, and deactivation when ``eoi_mode`` is 0."""
        if self._running and self._running[-1][1] == irq:
            self._running.pop()
        if self.eoi_mode == 0:
            self._gic.deactivate(irq)
        self._gic.signal(self)  # what waited for the priority to drop

    def dir(self, irq: int) -> None:
        """Deactivate ``irq``; only meaningful in split mode, ignored otherwise."""
        if self.eoi_mode == 1:
            self._gic.deactivate(irq)


class Gic:
    """Distributor state of every SPI, and the CPU interfaces.

    ``cpus`` is the number of CPU interfaces. `handlers` holds, per CPU, what runs when its nIRQ input is asserted:
    the one way from the hardware into the kernel, registered at boot.
    """

    def __init__(self, cpus: int = 1) -> None:
        self.cpu = [CpuInterface(self, index) for index in range(cpus)]
        self.handlers: list[Callable[[], None]] = [lambda: None] * cpus
        self._line: set[int] = set()
        self._latch: set[int] = set()  # edge seen, or set by software
        self._active: set[int] = set()
        self._enabled: set[int] = set()
        self._edge: set[int] = set()
        self._priority: dict[int, int] = {}
        self._target: dict[int, int] = {}

    # -- what devices and drivers do ------------------------------------------------------------------------

    def set_line(self, irq: int, level: bool) -> None:
        """A device drives the input of SPI ``irq``."""
        self._check(irq)
        rising = level and irq not in self._line
        if level:
            self._line.add(irq)
        else:
            self._line.discard(irq)
        if rising:
            if irq in self._edge:
                self._latch.add(irq)
            self._signal_irq(irq)

    def configure(self, irq: int, *, edge: bool) -> None:
        """GICD_ICFGR: edge-triggered or level-sensitive."""
        self._check(irq)
        (self._edge.add if edge else self._edge.discard)(irq)
        self._signal_irq(irq)

    def enable(self, irq: int) -> None:
        """GICD_ISENABLER."""
        self._check(irq)
        self._enabled.add(irq)
        self._signal_irq(irq)

    def disable(self, irq: int) -> None:
        """GICD_ICENABLER: not signalled any more, the state is kept."""
        self._check(irq)
        self._enabled.discard(irq)

    def set_pending(self, irq: int) -> None:
        """GICD_ISPENDR."""
        self._check(irq)
        self._latch.add(irq)
        self._signal_irq(irq)

    def clear_pending(self, irq: int) -> None:
        """GICD_ICPENDR: a high level-sensitive line stays pending."""
        self._check(irq)
        self._latch.discard(irq)

    def set_active(self, irq: int) -> None:
        """GICD_ISACTIVER."""
        self._check(irq)
        self._active.add(irq)

    def set_priority(self, irq: int, priority: int) -> None:
        """GICD_IPRIORITYR: 0 (highest) to 255."""
        self._check(irq)
        self._priority[irq] = priority & 0xFF
        self._signal_irq(irq)

    def set_target(self, irq: int, cpu: int) -> None:
        """GICD_ITARGETSR, with one CPU (index)."""
        self._check(irq)
        if not 0 <= cpu < len(self.cpu):
            raise ValueError(f"no CPU interface {cpu}")
        self._target[irq] = cpu
        self._signal_irq(irq)

    def deactivate(self, irq: int) -> None:
        """Active to inactive; pending again if the line is still high. By EOIR, DIR, ICACTIVER, or by the
        hardware itself when a guest completes a list register with the HW bit."""
        self._active.discard(irq)
        self._signal_irq(irq)

    # -- reading the state ----------------------------------------------------------------------------------

    def is_line_high(self, irq: int) -> bool:
        """The level that the device drives."""
        return irq in self._line

    def is_enabled(self, irq: int) -> bool:
        """GICD_ISENABLER as read."""
        return irq in self._enabled

    def is_pending(self, irq: int) -> bool:
        """GICD_ISPENDR as read."""
        return irq in self._latch or (irq in self._line and irq not in self._edge)

    def is_active(self, irq: int) -> bool:
        """GICD_ISACTIVER as read."""
        return irq in self._active

    def is_edge(self, irq: int) -> bool:
        """Whether ``irq`` is configured edge-triggered."""
        return irq in self._edge

    def state(self, irq: int) -> str:
        """I, P, A or AP: the names that the architecture manual and the contract use."""
        return ("A" if self.is_active(irq) else "") + ("P" if self.is_pending(irq) else "") or "I"

    def priority(self, irq: int) -> int:
        """GICD_IPRIORITYR as read."""
        return self._priority.get(irq, _DEFAULT_PRIORITY)

    # -- signalling, for the CPU interfaces -----------------------------------------------------------------

    def highest(self, cpu: CpuInterface) -> int | None:
        """The interrupt that ``cpu`` would acknowledge now: best priority, then lowest id."""
        best: tuple[int, int] | None = None
        for irq in self._line | self._latch:  # few, however many are enabled
            if not self._takeable(irq):
                continue
            if self._target.get(irq, 0) == cpu.index:
                candidate = (self.priority(irq), irq)
                if candidate[0] < cpu.running_priority and (best is None or candidate < best):
                    best = candidate
        return best[1] if best else None

    def acknowledge(self, irq: int) -> None:
        """Pending to active; an edge is used up, a level stays pending as long as the line is high."""
        self._active.add(irq)
        self._latch.discard(irq)

    def signal(self, cpu: CpuInterface) -> None:
        """Assert the nIRQ input of ``cpu`` if there is something to take."""
        if self.highest(cpu) is not None:
            self.handlers[cpu.index]()

    def _takeable(self, irq: int) -> bool:
        return irq in self._enabled and irq not in self._active and self.is_pending(irq)

    def _signal_irq(self, irq: int) -> None:
        if self._takeable(irq):
            self.signal(self.cpu[self._target.get(irq, 0)])

    def _check(self, irq: int) -> None:
        if not FIRST_SPI <= irq < LIMIT:
            raise ValueError(f"{irq} is not an SPI (32 to 1019)")

    def check(self) -> None:
        """Raise AssertionError if the state is not one that the hardware can be in."""
        for cpu in self.cpu:
            running = [priority for priority, _ in cpu._running]
            assert running == sorted(running, reverse=True), f"CPU {cpu.index}: running priorities {running}"
