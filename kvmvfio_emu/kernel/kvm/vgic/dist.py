"""The virtual distributor: initialisation, injection, and what each vCPU has to take (virt/kvm/arm/vgic.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu.hw.gich import LR_ACTIVE, LR_PENDING
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic import lists
from kvmvfio_emu.kernel.kvm.vgic.api import UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.cpuif import CPU_SIZE
from kvmvfio_emu.kernel.kvm.vgic.physmap import PhysicalMap
from kvmvfio_emu.kernel.kvm.vgic.registers import DIST_SIZE, Distributor
from kvmvfio_emu.kernel.kvm.vgic.state import PRIVATE, SGIS, VgicCpu, VirtualIrq

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vm import Vm

DEFAULT_IRQS = 256
#: Interrupt ids from here on are special.
LIMIT = 1020


class Vgic:
    """The distributor of one virtual machine, and its part of every vCPU.

    ``forwarded_fix`` is patch 1 of the series ("fix multiple injection of level sensitive forwarded IRQ"): a mapped
    interrupt bypasses the checks that assume an EOI maintenance interrupt. Off, it shows the bug that it mends.
    """

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.forwarded_fix = True
        self.ready = False
        self.irqs: int | None = None  #: number of interrupts, once set by the user or by initialisation
        self._limit = 0  #: `limit`, once initialised
        self.dist_base = UNDEFINED_ADDRESS
        self.cpu_base = UNDEFINED_ADDRESS
        self.enabled = False  #: GICD_CTLR
        self.cpus: list[VgicCpu] = []
        self.shared: list[VirtualIrq] = []
        self.physmap = PhysicalMap()
        self.distributor = Distributor(self, active_registers=vm.host.profile.vgic_active_registers)
        #: vCPUs (indices) that have something to take: the oracle, irq_pending_on_cpu.
        self.oracle: set[int] = set()

    # -- life -----------------------------------------------------------------------------------------------

    def init(self) -> None:
        """Allocate for the vCPUs there are; 0 when done already. ENODEV without a vCPU."""
        if self.ready:
            return
        if not self.vm.vcpus:
            raise KernelError(errno.ENODEV, "the VGIC cannot be initialised without a vCPU")
        self.irqs = self.irqs or DEFAULT_IRQS
        self._limit = self.limit
        self.cpus = [VgicCpu(vcpu, index) for index, vcpu in enumerate(self.vm.vcpus)]
        self.shared = [VirtualIrq(number, edge=False, enabled=False, targets=1) for number in range(PRIVATE, self.irqs)]
        for cpu in self.cpus:
            lists.enable(cpu)
        self.ready = True
        self.vm.host.event("vgic_init", irqs=self.irqs, vcpus=len(self.cpus))

    def map_resources(self) -> None:
        """Before the first KVM_RUN. ENXIO when a frame has no address."""
        if UNDEFINED_ADDRESS in (self.dist_base, self.cpu_base):
            raise KernelError(errno.ENXIO, "the VGIC's frames have no guest address yet")
        self.init()

    def add_vcpu(self, vcpu: Vcpu) -> None:
        """Nothing: it allocates for all vCPUs when it is initialised."""

    def remove_vcpu(self, vcpu: Vcpu) -> None:
        """Nothing."""

    def destroy(self) -> None:
        """The virtual machine goes; whatever is still mapped goes with the tree."""
        self.physmap.clear()
        self.ready = False

    # -- finding interrupts -----------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """Ids from here on do not exist in this VGIC."""
        return min(self.irqs or DEFAULT_IRQS, LIMIT)

    def irq(self, cpu: int, number: int) -> VirtualIrq:
        """Interrupt ``number`` as vCPU ``cpu`` (index) sees it."""
        return self.cpus[cpu].private[number] if number < PRIVATE else self.shared[number - PRIVATE]

    def forwarded(self, irq: VirtualIrq) -> int | None:
        """The physical interrupt behind it, None when it is an ordinary one."""
        return self.physmap.lookup(irq.number) if irq.number >= PRIVATE else None

    def map_forwarded(self, number: int, phys: int) -> None:
        """Forward physical interrupt ``phys`` as ``number``. EEXIST. Needs no initialised VGIC."""
        self.physmap.map(number, phys)
        if self.ready:
            self.irq(0, number).level = False  # from now on nobody lowers it

    def target(self, irq: VirtualIrq, cpu: int) -> VgicCpu:
        """The one vCPU that takes it: the lowest that GICD_ITARGETSR names, the first when it names none."""
        if irq.number < PRIVATE:
            return self.cpus[cpu]
        lowest = (irq.targets & -irq.targets).bit_length() - 1
        return self.cpus[lowest if 0 <= lowest < len(self.cpus) else 0]

    # -- injection --------------------------------------------------------------------------------------------

    def inject(self, cpu: int, number: int, level: bool) -> None:
        """Drive input ``number`` (of vCPU ``cpu`` if private). Initialises lazily: ENODEV. EINVAL beyond the limit.

        A level that does not change, an edge that is no rising one: ignored, not an error.
        """
        if not self.ready:
            self.init()
        if number >= self._limit:
            raise KernelError(errno.EINVAL, f"interrupt {number}: this VGIC ends at {self._limit}")
        irq = self.shared[number - PRIVATE] if number >= PRIVATE else self.cpus[cpu].private[number]
        if self.physmap.root.node is not None and self.forwarded_fix and self.forwarded(irq) is not None:
            if level:  # irqfd lowers a line at its end; a forwarded interrupt has no line to lower
                irq.pending = True
                self._select(irq, cpu)
            return
        if irq.edge:
            if not level or irq.pending:
                return
        elif level == irq.level:
            return
        else:
            irq.level = level
        if level:
            irq.pending = True
            if irq.edge or not irq.queued:
                self._select(irq, cpu)
        elif not irq.soft_pending:
            irq.pending = False
            self.target(irq, cpu).selected.discard(irq)

    def _select(self, irq: VirtualIrq, cpu: int) -> None:
        """Let the target vCPU take ``irq`` at its next entry, and make that soon."""
        if irq.enabled and self.enabled:
            target = self.target(irq, cpu)
            target.selected.add(irq)
            self.oracle.add(target.index)
            target.vcpu.kick()

    def update(self) -> None:
        """Work out anew what every vCPU has to take, after the guest changed the distributor (vgic_update_state)."""
        for cpu in self.cpus:
            cpu.selected = {
                irq
                for irq in (*cpu.private, *self.shared)
                if (irq.pending or irq.active)
                and irq.enabled
                and self.enabled
                and self.target(irq, cpu.index) is cpu
                and (irq.edge or not irq.queued)
            }
            if cpu.selected:
                self.oracle.add(cpu.index)
                cpu.vcpu.kick()

    def send_sgi(self, source: int, targets: int, number: int) -> None:
        """A software generated interrupt from vCPU ``source`` to the vCPUs of the mask ``targets``."""
        for cpu in self.cpus:
            if targets >> cpu.index & 1:
                irq = cpu.private[number]
                irq.sources |= 1 << source
                irq.pending = True
                self._select(irq, cpu.index)

    # -- entry and exit -------------------------------------------------------------------------------------

    def pending_for(self, vcpu: Vcpu) -> bool:
        """Whether ``vcpu`` has an interrupt to take; models kvm_vgic_vcpu_pending_irq."""
        return self.ready and vcpu.index in self.oracle

    def flush(self, vcpu: Vcpu) -> None:
        """Before entry: move what is selected into list registers."""
        if self.ready:
            lists.flush(self, self.cpus[vcpu.index])

    def sync(self, vcpu: Vcpu) -> None:
        """After exit: learn from the list registers what the guest completed."""
        if self.ready:
            lists.sync(self, self.cpus[vcpu.index])

    def mmio(self, vcpu: Vcpu, address: int, size: int, value: int | None) -> int | None:
        """The distributor's registers, in pieces of a word."""
        offset = address - self.dist_base
        if not self.ready or not 0 <= offset < DIST_SIZE:
            return None
        word, shift = offset & ~3, 8 * (offset & 3)
        mask = (1 << 8 * size) - 1
        if value is None:
            return self.distributor.read(vcpu.index, word) >> shift & mask
        self.distributor.write(vcpu.index, word, value << shift, mask << shift & 0xFFFFFFFF)
        return 0

    def cpu_interface(self, address: int) -> int | None:
        """The virtual CPU interface's frame."""
        return address - self.cpu_base if self.cpu_base <= address < self.cpu_base + CPU_SIZE else None

    def in_list_register(self, number: int) -> bool:
        """Whether ``number`` is pending or active in any list register."""
        return any(
            cpu.vcpu.interface.lr[index] & (LR_PENDING | LR_ACTIVE)
            for cpu in self.cpus
            for (held, _), index in cpu.lr_of.items()
            if held == number
        )

    def dump(self) -> dict[str, Any]:
        """Interrupts that are not as after reset, and the oracle."""
        return {
            "ready": self.ready,
            "enabled": self.enabled,
            "irqs": self.irqs,
            "oracle": sorted(self.oracle),
            "irq": [
                {
                    "irq": irq.number,
                    "vcpu": cpu.index,
                    "enabled": irq.enabled,
                    "level": irq.level,
                    "pending": irq.pending,
                    "queued": irq.queued,
                    "edge": irq.edge,
                    "targets": irq.targets,
                    "forwarded": self.forwarded(irq),
                }
                for cpu in self.cpus
                for irq in (*cpu.private, *(self.shared if cpu.index == 0 else ()))
                if irq.pending or irq.level or irq.queued or (irq.enabled and irq.number >= 16)
            ],
        }

    def check(self) -> None:
        """Raise AssertionError when distributor, list registers and map contradict each other."""
        self.physmap.check()
        for cpu in self.cpus:
            for irq in cpu.selected:
                assert irq.pending or irq.active, f"interrupt {irq.number} is selected but neither pending nor active"
            used = set(cpu.lr_of.values())
            assert len(used) == len(cpu.lr_of), "two interrupts share a list register"
            for index, _ in cpu.vcpu.interface.valid():
                assert index in used, f"LR{index} holds an interrupt that the VGIC has lost"
            assert all(irq.edge for irq in cpu.private[:SGIS]), "an SGI that is not edge-triggered"
