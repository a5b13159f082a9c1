"""Locality-specific interrupts: what all ITSs and redistributors of a virtual machine share (vgic-its.c, vgic-v3.c).

An LPI exists while some ITS maps an event to it. Its priority and enable bit are those of the byte that the guest has
in memory at GICR_PROPBASER, read when the guest says so; the pending bit is taken over from the table at
GICR_PENDBASER, and written back when userspace asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmvfio_emu.hw import gicv3
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.guestmem import read_guest, write_guest
from kvmvfio_emu.kernel.kvm.vgic.modern.baser import ADDRESS_4K, ADDRESS_64K, PROPBASER
from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.its import Its
    from kvmvfio_emu.kernel.kvm.vgic.modern.v3 import VgicCpuV3, VgicV3
    from kvmvfio_emu.kernel.kvm.vm import Vm

_ID_BITS = 16


class Lpi(Irq):
    """An LPI, edge-triggered and in group 1; ``events`` counts what is mapped to it."""

    __slots__ = ("events",)
    target: VgicCpuV3 | None

    def __init__(self, intid: int, target: VgicCpuV3 | None) -> None:
        super().__init__(intid, target)
        self.group = 1
        self.events = 0


class Lpis:
    """The LPIs of one virtual machine, its ITSs, and GICR_PROPBASER, which all redistributors have in common."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.core: VgicV3 | None = None  #: the virtual machine's interrupt controller, once it is there
        self.its: list[Its] = []
        self.possible = False  #: there was an ITS, even if it found no descriptor (has_its, msis_require_devid)
        self.propbaser = 0
        self._irqs: dict[int, Lpi] = {}

    def add_its(self, its: Its) -> None:
        """A new ITS; it resets GICR_PROPBASER."""
        self.its.append(its)
        self.possible = True
        self.propbaser = PROPBASER.initial

    def remove_its(self, its: Its) -> None:
        """It goes."""
        self.its.remove(its)

    @property
    def limit(self) -> int:
        """The first interrupt id beyond what GICR_PROPBASER says the guest's table has."""
        return 1 << min((self.propbaser & 0x1F) + 1, _ID_BITS)

    # -- life of an LPI -----------------------------------------------------------------------------------------------

    def get(self, intid: int) -> Lpi | None:
        """The LPI, if an event is mapped to it or a vCPU still has it on its list."""
        irq = self._irqs.get(intid)
        if irq is not None and not irq.events and irq.vcpu is None:
            del self._irqs[intid]
            return None
        return irq

    def __iter__(self) -> Iterator[Lpi]:
        present = (self.get(intid) for intid in sorted(self._irqs))
        return (irq for irq in present if irq is not None)

    def add(self, intid: int, target: VgicCpuV3 | None) -> Lpi:
        """One more event for LPI ``intid``; a new one is read in. EFAULT its bytes are in no guest memory."""
        irq = self.get(intid)
        if irq is None:
            irq = self._irqs[intid] = Lpi(intid, target)
            irq.events = 1
            try:
                self.configure(irq)
                self._take_pending(irq)
            except KernelError:
                self.put(irq)
                raise
        else:
            irq.events += 1
        return irq

    def put(self, irq: Lpi) -> None:
        """One event less."""
        irq.events -= 1
        self.get(irq.intid)

    # -- configuration ------------------------------------------------------------------------------------------------

    def configure(self, irq: Lpi, only: VgicCpuV3 | None = None) -> None:
        """Read the configuration byte, unless ``only`` is another vCPU than the target. EFAULT."""
        byte = read_guest(self.vm, (self.propbaser & ADDRESS_4K) + irq.intid - gicv3.FIRST_LPI, 1)[0]
        if only is None or irq.target is only:
            irq.priority = byte & gicv3.LPI_PRIORITY_MASK
            irq.enabled = bool(byte & gicv3.LPI_ENABLED)
            self.queue(irq)

    def invalidate(self, intid: int) -> None:
        """GICR_INVLPIR: configure one LPI, if it is there and its byte can be read."""
        irq = self.get(intid)
        if irq is not None:
            self._try_configure(irq, None)

    def invalidate_all(self, cpu: VgicCpuV3) -> None:
        """GICR_INVALLR and INVALL: configure those that go to ``cpu``."""
        for irq in self:
            self._try_configure(irq, cpu)

    def _try_configure(self, irq: Lpi, only: VgicCpuV3 | None) -> None:
        try:
            self.configure(irq, only)
        except KernelError as refused:
            self.vm.host.event("lpi_unreadable", irq=irq.intid, reason=refused.reason)

    def queue(self, irq: Irq) -> None:
        """Pending or not may have changed."""
        if self.core is not None:
            self.core.queue(irq)

    # -- pending tables -----------------------------------------------------------------------------------------------

    def _take_pending(self, irq: Lpi) -> None:
        cpu = irq.target
        if cpu is None:
            return
        address, bit = _pending_place(cpu, irq.intid)
        byte = read_guest(self.vm, address, 1)[0]
        irq.pending_latch = bool(byte & bit)
        self.queue(irq)
        if byte & bit:
            write_guest(self.vm, address, bytes([byte & ~bit]))

    def enable(self, cpu: VgicCpuV3) -> None:
        """GICR_CTLR.EnableLPIs: take over the pending table, unless it is said to be zero."""
        if cpu.pendbaser & gicv3.GICR_PENDBASER_PTZ:
            return
        for irq in self:
            address, bit = _pending_place(cpu, irq.intid)
            try:
                byte = read_guest(self.vm, address, 1)[0]
            except KernelError as refused:
                self.vm.host.event("lpi_unreadable", irq=irq.intid, reason=refused.reason)
                return
            if irq.target is cpu:
                irq.pending_latch = bool(byte & bit)
            self.queue(irq)

    def disable(self, cpu: VgicCpuV3) -> None:
        """GICR_CTLR.EnableLPIs cleared: no LPI stays on the vCPU's list."""
        for irq in [irq for irq in cpu.ap_list if irq.intid >= gicv3.FIRST_LPI]:
            cpu.ap_list.remove(irq)
            irq.vcpu = None
        for its in self.its:
            its.forget_cached()

    def save_pending(self) -> None:
        """KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES. EFAULT a table is in no guest memory."""
        for irq in self:
            if irq.target is None:
                continue
            address, bit = _pending_place(irq.target, irq.intid)
            byte = read_guest(self.vm, address, 1)[0]
            if bool(byte & bit) != irq.pending_latch:
                write_guest(self.vm, address, bytes([byte ^ bit]))

    def check(self) -> None:
        """Raise AssertionError when the ITSs and the LPIs contradict each other."""
        mapped = Counter(one.irq for its in self.its for one in its.translations())
        for irq in self:
            assert irq.events == mapped[irq], f"{irq} counts {irq.events} events, the ITSs map {mapped[irq]}"
        assert all(self.get(irq.intid) is irq for irq in mapped), "an event is mapped to an LPI that is not there"


def _pending_place(cpu: VgicCpuV3, intid: int) -> tuple[int, int]:
    """Guest address of the byte in the vCPU's pending table, and the bit in it."""
    return (cpu.pendbaser & ADDRESS_64K) + intid // 8, 1 << intid % 8
