"""A virtual machine with the VGIC of Linux 4.7 and later, and guests that do one thing at a time."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from support import ADDR, CPU, CPU_BASE, CTRL, DIST, DIST_BASE, DIST_REGS, NR_IRQS, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, read, write
from kvmvfio_emu.guest.script import Operation, Routine

KERNELS = ["linux-6.1", "linux-6.12"]
SPI, PPI = 1, 2
CTLR, TYPER, IIDR = 0x000, 0x004, 0x008
IGROUPR, ISENABLER, ICENABLER = 0x080, 0x100, 0x180
ISPENDR, ICPENDR, ISACTIVER, ICACTIVER = 0x200, 0x280, 0x300, 0x380
IPRIORITYR, ITARGETSR, ICFGR, SGIR, CPENDSGIR, SPENDSGIR = 0x400, 0x800, 0xC00, 0xF00, 0xF10, 0xF20
ONES = 0xFFFFFFFF
#: A guest access there ends KVM_RUN.
_DOORBELL = 0x0D000000
_IAR, _EOIR, _RPR, _DIR = 0x0C, 0x10, 0x14, 0x1000


class Guest:
    """One vCPU that executes what it is told, each time by a KVM_RUN."""

    def __init__(self, client: Client, vm: int, number: int) -> None:
        self.client = client
        self.todo: deque[Operation] = deque()  #: what it executes next; when that is done, KVM_RUN ends
        self.results: list[int] = []  #: of all that it executed
        client.kernel.attach_guest(number, Script(self._main))
        self.fd = client.vcpu(vm, number, init=True)
        self.model = client.host.modules["kvm"].vms[-1].vcpus[-1]

    def _main(self, cpu: Cpu) -> Routine:
        while True:
            if self.todo:
                self.results.append((yield self.todo.popleft()))
            else:
                yield write(_DOORBELL, 0)

    def do(self, *operations: Operation) -> int:
        """Execute ``operations``; the result of the last one."""
        self.todo.extend(operations)
        assert self.client.ioctl(self.fd, uapi.KVM_RUN) == 0
        assert not self.todo
        return self.results[-1] if operations else 0

    def read(self, offset: int, size: int = 4) -> int:
        """Load from the distributor."""
        return self.do(read(DIST_BASE + offset, size))

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Store to the distributor."""
        self.do(write(DIST_BASE + offset, value, size))

    def enable(self, eoi_mode: int = 0) -> None:
        """Let the CPU interface signal everything."""
        self.do(write(CPU_BASE + 4, 0xFF), write(CPU_BASE, 1 | eoi_mode << 9))

    def ack(self) -> int:
        """GICC_IAR."""
        return self.do(read(CPU_BASE + _IAR))

    def eoi(self, irq: int) -> None:
        """GICC_EOIR."""
        self.do(write(CPU_BASE + _EOIR, irq))

    def deactivate(self, irq: int) -> None:
        """GICC_DIR."""
        self.do(write(CPU_BASE + _DIR, irq))

    def handle(self) -> int:
        """Acknowledge and complete what there is; its id, 1023 for nothing."""
        irq = self.ack()
        if irq & 0x3FF < 1020:
            self.eoi(irq)
        return irq

    @property
    def signalled(self) -> bool:
        """Whether the guest, just entered, sees its IRQ input asserted (ISR_EL1.I)."""
        seen: list[bool] = []
        stop = self.client.kernel.listen(
            lambda event: event.name == "vmentry" and seen.append(self.model.irq_asserted)  # type: ignore[func-returns-value]
        )
        self.do()
        stop()
        return seen[-1]


class Machine:
    """``vcpus`` vCPUs, ``irqs`` interrupts, frames in place, initialised."""

    def __init__(self, client: Client, vcpus: int = 1, irqs: int = 96) -> None:
        self.client = client
        self.vm = client.vm()
        self.guests = [Guest(client, self.vm, number) for number in range(vcpus)]
        self.guest = self.guests[0]
        self.fd = client.vgic(self.vm)
        client.set_u64(self.fd, ADDR, DIST, DIST_BASE)
        client.set_u64(self.fd, ADDR, CPU, CPU_BASE)
        client.set_u32(self.fd, NR_IRQS, 0, irqs)
        client.set_at(self.fd, CTRL, 0, 0)
        self.core: Any = client.host.modules["kvm"].vms[-1].vgic

    # -- userspace --------------------------------------------------------------------------------------------------

    def get(self, offset: int, cpu: int = 0, group: int = DIST_REGS) -> int:
        """A register as userspace saves it."""
        return self.client.get(self.fd, group, offset | cpu << 32)

    def set(self, offset: int, value: int, cpu: int = 0, group: int = DIST_REGS) -> None:
        """A register as userspace restores it."""
        self.client.set_u32(self.fd, group, offset | cpu << 32, value)

    def line(self, irq: int, level: int) -> None:
        """KVM_IRQ_LINE on a shared interrupt."""
        self.client.irq_line(self.vm, SPI, irq, level)

    def bit(self, register: int, irq: int, cpu: int = 0) -> int:
        """One interrupt's bit of a register, as userspace sees it."""
        return self.get(register + irq // 32 * 4, cpu) >> irq % 32 & 1

    def put_bit(self, register: int, irq: int, cpu: int = 0) -> None:
        """Write one interrupt's 1, as userspace."""
        self.set(register + irq // 32 * 4, 1 << irq % 32, cpu)

    def configure(self, irq: int, *, edge: bool) -> None:
        """GICD_ICFGR, as userspace."""
        register, field = ICFGR + irq // 16 * 4, 2 << irq % 16 * 2
        value = self.get(register)
        self.set(register, value | field if edge else value & ~field)

    def state(self, irq: int) -> str:
        """P, A, PA or I as userspace sees it."""
        return ("P" if self.bit(ISPENDR, irq) else "") + ("A" if self.bit(ISACTIVER, irq) else "") or "I"

    # -- guests --------------------------------------------------------------------------------------------------------

    def boot(self, *irqs: int, edge: bool = False, eoi_mode: int = 0) -> Machine:
        """Distributor and CPU interfaces on, ``irqs`` configured, routed to vCPU 0 and enabled."""
        self.set(CTLR, 1)
        for irq in irqs:
            self.configure(irq, edge=edge)
            word = ITARGETSR + irq // 4 * 4
            self.set(word, self.get(word) | 1 << irq % 4 * 8)
            self.put_bit(ISENABLER, irq)
        for guest in self.guests:
            guest.enable(eoi_mode)
        return self

    def count(self, eventfd: int) -> int:
        """Take an eventfd's counter."""
        try:
            return os.eventfd_read(eventfd)
        except BlockingIOError:
            return 0

    def signal(self, eventfd: int) -> None:
        """Write 1 and let the kernel see to it."""
        os.eventfd_write(eventfd, 1)
        self.client.host.settle()
