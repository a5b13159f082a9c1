"""A request-response workload through the whole model: netperf's TCP_RR as far as interrupts can tell.

Closed loop (the default): each stream sends its next request when it has the response, as TCP_RR does. Open loop:
requests come at a rate, whether or not the last ones are answered. All times are ticks of `account.TICKS` to a cycle,
which is also the unit of the model's clock here.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.doors.inprocess import Kernel
from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.engine.work import Work
from kvmvfio_emu.guest.xgmac import GSI
from kvmvfio_emu.rr.account import TICKS, VCPU_CPU, Account
from kvmvfio_emu.rr.costs import Costs
from kvmvfio_emu.rr.guest import Server, answered
from kvmvfio_emu.rr.vmm import RrVmm, board


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked for.

    ``coalesce``: requests for each interrupt; ``rate``: requests per second for each device, None for a closed loop;
    ``jitter``: by which part the time on the wire varies; ``irq_cpu``: the physical CPU that takes the interrupts, of
    ``cpus`` (the vCPU's is 0); ``idle``: the vCPU waits in WFI, else it computes; ``poll``: the guest answers after it
    has completed the interrupt (NAPI), else before.
    """

    idle: bool = True
    poll: bool = True
    devices: int = 1
    coalesce: int = 1
    transactions: int = 200
    rate: float | None = None
    jitter: float = 0.1
    cpus: int = 1
    irq_cpu: int = 0
    profile: str = profiles.DEFAULT


class Answer(NamedTuple):
    """A response: the index of the step that started it, and when its request had arrived."""

    step: int
    arrived: int


class Run(NamedTuple):
    """What happened. Measured are the steps from index ``first`` up to ``last``: from after one response to another."""

    account: Account
    first: int
    last: int
    answers: list[Answer]


def run(workload: Workload, costs: Costs, *, forward: bool) -> Run:
    """Run ``workload`` through a kernel of its own."""
    with Kernel(profile=workload.profile, machine=board(workload.devices, workload.cpus)) as kernel:
        client = _Client(kernel, workload, costs)
        vmm = RrVmm(kernel, forward=forward, guest=client.guest)
        try:
            return client.drive(vmm)
        finally:
            vmm.close()


class _Client:
    """The other end of the wire, and the clock's keeper."""

    def __init__(self, kernel: Kernel, workload: Workload, costs: Costs) -> None:
        self.devices = workload.devices
        self.guest = Server(self, idle=workload.idle, early=workload.poll)
        self._kernel = kernel
        self._clock = kernel.host.clock
        self._workload = workload
        self._account = Account(costs, workload.irq_cpu)
        second = costs.value("clock") * 1e9 * TICKS
        self._wire = costs.value("wire") * second / 1e9
        self._period = None if workload.rate is None else second / workload.rate
        self._random = [random.Random(device) for device in range(self.devices)]
        self._rings: list[deque[int]] = [deque() for _ in range(self.devices)]  # when each request arrived
        self._taken: list[int | None] = [None] * self.devices
        self._coming: list[list[int]] = [[] for _ in range(self.devices)]
        self._answers: list[Answer] = []
        self._first = 2 * self.devices * workload.coalesce  # responses before the measured ones
        self._last = self._first + workload.transactions
        self._hold = costs_of_injection(costs)

    # -- what the guest asks ----------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """As `guest.Requests`."""
        return len(self._answers) >= self._last

    def take(self, device: int) -> bool:
        """As `guest.Requests`: the next request in a device's receive ring."""
        ring = self._rings[device]
        self._taken[device] = ring.popleft() if ring and not self.over else None
        return self._taken[device] is not None

    def pace(self) -> None:
        """As `guest.Requests`. What is due on the way happens at its own moment."""
        late = self._account.free(VCPU_CPU) - self._clock.now
        if late > 0:
            self._clock.advance(late)

    def pause(self) -> int:
        """As `guest.Requests`."""
        due = self._clock.next_due()
        if due is None:
            raise RuntimeError("tcp-rr: an interrupt was lost, the guest waits for ever")
        return max(due - self._clock.now, 1)

    # -- the run --------------------------------------------------------------------------------------------------

    def drive(self, vmm: RrVmm) -> Run:
        """Send requests until enough were answered."""
        host = self._kernel.host
        host.scheduler.slice = 1  # deferred work runs between any two operations of the guest
        host.work.hold = self._held
        for number in range(self.devices):
            host.machine.gic.set_target(32 + GSI + number, self._workload.irq_cpu)
        self._vmm = vmm
        stop = self._kernel.listen(self._listen)
        start = self._clock.now
        for device in range(self.devices):
            base = start + round(self._wire * device / self.devices)
            for _ in range(self._workload.coalesce):
                self._next(device, base)
        self._kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)
        stop()
        host.work.hold = None
        before = self._answers[self._first - 1].step
        return Run(self._account, before + 1, self._answers[-1].step + 1, self._answers[self._first :])

    def _next(self, device: int, sent: int) -> None:
        """A client sends its next request; the device's interrupt waits until there are enough."""
        spread = 1 + self._workload.jitter * (2 * self._random[device].random() - 1)
        coming = self._coming[device]
        coming.append(sent + round((self._wire if self._period is None else self._period) * spread))
        if len(coming) == self._workload.coalesce:
            self._coming[device] = []
            self._kernel.after(max(max(coming) - self._clock.now, 0), lambda: self._arrive(device, sorted(coming)))

    def _arrive(self, device: int, requests: list[int]) -> None:
        if self.over:
            return
        self._rings[device].extend(requests)
        trace = self._kernel.host.trace
        before = trace.resume(0)  # it comes from outside, whatever the model is doing
        self._account.outside = requests[-1]
        self._vmm.request(device)
        trace.end(before)
        if self._period is not None:
            sent = requests[-1]
            for _ in range(self._workload.coalesce):
                self._next(device, sent)
                sent = self._coming[device][-1] if self._coming[device] else sent

    def _listen(self, event: Event) -> None:
        self._account(event)
        if event.name == "guest_write" and (device := answered(event.fields["address"])) is not None:
            arrived = self._taken[device]
            assert arrived is not None, "a response without a request"
            step = len(self._account.steps) - 1
            self._answers.append(Answer(step, arrived))
            if self._period is None:
                self._next(device, self._account.steps[step].end)

    # -- work on another CPU --------------------------------------------------------------------------------------

    def _held(self, work: Work) -> bool:
        """On another CPU than the vCPU's, work takes its time while the guest goes on."""
        cpu = self._account.cpu_of(work.cause)
        if cpu == VCPU_CPU:
            return False
        self._wait(work, cpu)
        return True

    def _wait(self, work: Work, cpu: int) -> None:
        done = self._account.free(cpu) + self._hold
        self._kernel.after(max(done - self._clock.now, 0), lambda: self._admit(work, cpu, done))

    def _admit(self, work: Work, cpu: int, done: int) -> None:
        if self._account.free(cpu) + self._hold > done:  # the CPU got more to do meanwhile
            self._wait(work, cpu)
        else:
            self._kernel.host.work.admit(work)


def costs_of_injection(costs: Costs) -> int:
    """How long, in ticks, after it has begun an irqfd's work reaches the vCPU."""
    return sum(round(costs.value(name) * TICKS) for event in ("work", "set_irq") for name in costs.of(event))
