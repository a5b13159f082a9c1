"""Gives each event of the model its time: costs added up along the stream, by cause and by physical CPU.

The model only knows the order of its steps. Here a step begins when the event that caused it has ended and its CPU is
free, whichever comes last, and ends when it has been paid for. Which of the two it was is kept: followed backwards from
a response, these links are the way that was critical for it, and what is not on that way is not.

Times are integers, so that the parts of a sum make the sum exactly: `TICKS` to a cycle.
"""

from __future__ import annotations

from typing import NamedTuple

from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.rr.costs import Costs

#: Parts of a cycle; so fine that the model's own clock, which moves by one for each guest operation, weighs nothing.
TICKS = 256
#: The physical CPU that the only vCPU runs on.
VCPU_CPU = 0
_TAKEN = ("host_irq", "host_irq_lazy")  # on the CPU that the distributor sends the interrupt to


class Step(NamedTuple):
    """An event with its time, in ticks. ``cpu`` is -1 for what happens on none; ``waited_for`` is an index."""

    name: str
    cpu: int
    start: int
    end: int
    pays: tuple[str, ...]  #: parameters, one for each time that it costs them
    waited_for: int  #: the step that had to end first, -1 for none
    irq: int  #: the interrupt that the event names, -1 for none


class Account:
    """Listens to the model; `steps` are its events with times.

    ``irq_cpu`` is the physical CPU that takes the device interrupts.
    """

    def __init__(self, costs: Costs, irq_cpu: int) -> None:
        self.steps: list[Step] = []
        self.outside = 0  #: the time of what comes from outside, such as a request: set before it happens
        self._costs = costs
        self._irq_cpu = irq_cpu
        self._ticks = {name: round(one.value * TICKS) for name, one in costs.parameters.items() if one.unit == "cycles"}
        self._prices: dict[tuple[str, str], tuple[tuple[str, ...], int]] = {}
        self._free: dict[int, int] = {}  # CPU -> when its last step ended
        self._last: dict[int, int] = {}  # CPU -> index of that step
        self._index: dict[int, int] = {}  # number of an event -> index of its step
        self._exit = ""  # the vCPU's last exit

    def __call__(self, event: Event) -> None:
        """The listener."""
        name, fields = event.name, event.fields
        by = self._index.get(event.cause, -1) if event.cause else -1
        caused = self.steps[by].end if by >= 0 else self.outside if name == "line_up" else 0
        cpu = self._cpu(event, by)
        free = self._free.get(cpu, 0)
        start, waited_for = (free, self._last.get(cpu, -1)) if cpu >= 0 and free > caused else (caused, by)
        pays, price = self._price(name, self._exit if name == "vmentry" else "")
        if name.startswith("vmexit_"):
            self._exit = name
        self._index[event.number] = len(self.steps)
        if cpu >= 0:
            self._free[cpu], self._last[cpu] = start + price, len(self.steps)
        self.steps.append(Step(name, cpu, start, start + price, pays, waited_for, fields.get("irq", -1)))

    def free(self, cpu: int) -> int:
        """When ``cpu`` has done all that it has been given."""
        return self._free.get(cpu, 0)

    def end_of(self, number: int) -> int:
        """When event ``number`` has ended; 0 for one that was not heard of."""
        index = self._index.get(number)
        return 0 if index is None else self.steps[index].end

    def cpu_of(self, number: int) -> int:
        """The CPU of event ``number``; the vCPU's for one that was not heard of."""
        index = self._index.get(number)
        return VCPU_CPU if index is None else self.steps[index].cpu

    def _cpu(self, event: Event, by: int) -> int:
        if event.name in _TAKEN:
            return self._irq_cpu
        if event.name == "line_up":  # a wire
            return -1
        if "vcpu" in event.fields:
            return VCPU_CPU
        # Whatever else is done, is done by who caused it.
        return self.steps[by].cpu if by >= 0 else VCPU_CPU

    def _price(self, name: str, after: str) -> tuple[tuple[str, ...], int]:
        found = self._prices.get((name, after))
        if found is None:
            pays = self._costs.of(name, after)
            found = self._prices[name, after] = (pays, sum(self._ticks[one] for one in pays))
        return found
