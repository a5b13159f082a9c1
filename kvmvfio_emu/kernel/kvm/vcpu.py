"""A vCPU: its state, its interrupt inputs, and how others wake or interrupt it (kvm_vcpu)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.gich import VirtualInterface
from kvmvfio_emu.hw.ich import IchInterface
from kvmvfio_emu.kernel.kvm.guestbus import VcpuBus
from kvmvfio_emu.kernel.kvm.timerirq import TimerLines
from kvmvfio_emu.kernel.kvm.vcpuattr import VcpuAttributes
from kvmvfio_emu.kernel.lib.shared import map_shared

if TYPE_CHECKING:
    from kvmvfio_emu.guest.base import GuestProgram, Mmio
    from kvmvfio_emu.kernel.host import Host
    from kvmvfio_emu.kernel.kvm.registers import RegisterFile
    from kvmvfio_emu.kernel.kvm.run import RunCall
    from kvmvfio_emu.kernel.kvm.vm import Vm
    from kvmvfio_emu.profiles import Profile

_PAGE = 4096


def run_size(profile: Profile) -> int:
    """Bytes that a vCPU shares with userspace: ``struct kvm_run``, x86's port data, the ring of coalesced writes."""
    return _PAGE * (1 + profile.capability("KVM_CAP_COALESCED_MMIO"))


class Vcpu:
    """vCPU ``number`` of a virtual machine; `index` counts the vCPUs in the order of their creation."""

    def __init__(self, vm: Vm, number: int) -> None:
        self.vm = vm
        self.host: Host = vm.host
        self.number: int = number
        self.index: int = len(vm.vcpus)
        #: The physical CPU that it runs on; it does not migrate by itself.
        self.cpu = vm.host.cpus[self.index % len(vm.host.cpus)]
        board = vm.host.machine.board
        interface = VirtualInterface if board.gic_version == 2 else IchInterface
        self.interface: VirtualInterface = interface(board.list_registers, self._hw_deactivate)
        self.interface.enabled = False  # GICH_VMCR is zero at reset, and with it what GICV shows of it
        self.interface.pmr = self.interface.bpr = self.interface.abpr = 0
        self.bus = VcpuBus(self)
        self.program: GuestProgram | None = vm.host.guest_program(number)
        self.initialized = vm.arch.vcpus_start_ready  #: KVM_ARM_VCPU_INIT was called
        self.features = 0  #: of KVM_ARM_VCPU_INIT, bits, without POWER_OFF
        self.requested = 0  #: the same with POWER_OFF, also those of calls that failed, where the profile keeps them
        self.registers: RegisterFile | None = None
        self.mp_state = uapi.KVM_MP_STATE_RUNNABLE
        self.serror_pending = False  #: KVM_SET_VCPU_EVENTS
        self.abort_pending = False  #: the same: a synchronous external abort, at the next entry
        self.guest_debug = 0  #: KVM_SET_GUEST_DEBUG's control word
        self.attributes = VcpuAttributes(self)
        self.timer_lines = TimerLines(self)
        self.exits: Counter[str] = Counter()  #: how often it left the guest, by the names of its statistics
        self.has_run = False
        self.calls: list[RunCall] = []  #: KVM_RUNs: the one in progress, then those that wait for it
        self.in_guest = False  #: loaded on its CPU, executing guest code
        self.blocked = False  #: in WFI
        self.forced: str | None = None  #: why the guest must be left at the next boundary
        self.inputs = 0  #: IRQ (bit 0) and FIQ (bit 1) inputs, without an in-kernel controller
        self.signal_mask: int | None = None  #: of KVM_SET_SIGNAL_MASK
        self.mmio: Mmio | None = None  #: the access that the last exit left to userspace
        self._own_pages = uapi.ffi.new(
            "char[]", run_size(vm.host.profile)
        )  #: until there is a descriptor, to share memory with
        self.run: Any = uapi.ffi.cast("struct kvm_run *", self._own_pages)

    # -- the shared run page ----------------------------------------------------------------------------------

    def attach_run_page(self, fd: int) -> None:
        """Share `run_size` bytes of memfd ``fd`` with userspace."""
        self.run = map_shared(fd, run_size(self.host.profile), "struct kvm_run *")

    # -- being told ---------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a KVM_RUN is in progress (the vCPU's mutex is taken)."""
        return bool(self.calls)

    @property
    def call(self) -> RunCall | None:
        """The KVM_RUN in progress."""
        return self.calls[0] if self.calls else None

    def kick(self) -> None:
        """Make it look at its interrupts soon: wake it, or take it out of the guest. Models kvm_vcpu_kick."""
        self.blocked = False
        if self.in_guest:
            self.force_exit("kick")

    def force_exit(self, why: str) -> None:
        """Leave the guest at the next boundary. The first reason counts."""
        if self.forced is None and self.host.trace.listening:
            self.host.trace.remember(("exit", id(self)))
        self.forced = self.forced or why

    def give_way(self) -> None:
        """Leave the physical CPU to another vCPU."""
        assert self.call is not None
        self.call.preempt()

    def set_input(self, number: int, level: bool) -> None:
        """Drive the IRQ (0) or FIQ (1) input; models vcpu_interrupt_line."""
        bit = 1 << number
        if bool(self.inputs & bit) != level:
            self.inputs ^= bit
            self.kick()

    @property
    def powered_off(self) -> bool:
        """It does not run until somebody makes it runnable."""
        return self.mp_state == uapi.KVM_MP_STATE_STOPPED

    @property
    def suspended(self) -> bool:
        """It does not run until it has an interrupt to take."""
        return self.mp_state == uapi.KVM_MP_STATE_SUSPENDED

    @property
    def irq_asserted(self) -> bool:
        """What the guest sees at its IRQ input."""
        return self.interface.signalled or bool(self.inputs & 1)

    @property
    def has_code(self) -> bool:
        """Whether there is memory where its PC points to."""
        pc = 0 if self.registers is None else int(self.registers.core.regs.pc)
        return self.vm.memory.find(pc) is not None and not self.bus.is_device(pc)

    @property
    def fiq_asserted(self) -> bool:
        """What the guest sees at its FIQ input."""
        return self.interface.fiq_signalled or bool(self.inputs & 2)

    @property
    def runnable(self) -> bool:
        """Whether a WFI would return; models kvm_arch_vcpu_runnable."""
        vgic = self.vm.vgic
        return bool(self.inputs) or (vgic is not None and vgic.pending_for(self))

    @property
    def mpidr(self) -> int:
        """MPIDR_EL1 as reset from the vCPU's number; 0 before KVM_ARM_VCPU_INIT. Models reset_mpidr."""
        if not self.initialized:
            return 0
        return 1 << 31 | (self.number >> 12 & 0xFF) << 16 | (self.number >> 4 & 0xFF) << 8 | self.number & 0xF

    def list_register_filled(self, index: int) -> None:
        """The VGIC has put an interrupt into list register ``index``."""
        trace, value = self.host.trace, self.interface.lr[index]
        key = self.vm.history(self.interface.virtual_id(value)) if trace.listening else None
        trace.step(key, "lr_queued", lr=index, value=value, vcpu=self.index)

    def acknowledged(self, intid: int) -> None:
        """The guest has taken interrupt ``intid``."""
        trace = self.host.trace
        if self.registers is not None and self.registers.live is not None:
            self.registers.live.acknowledging()
        key = self.vm.history(intid) if trace.listening else None
        trace.step(key, "guest_iar", irq=intid, vcpu=self.index)

    def completing(self, intid: int) -> int:
        """The guest ends interrupt ``intid``; what the hardware does is the effect of that, until `Trace.end`."""
        trace = self.host.trace
        if not trace.listening:
            return trace.begin("guest_eoi", irq=intid, vcpu=self.index)
        before = trace.begin_step(self.vm.history(intid), "guest_eoi", irq=intid, vcpu=self.index)
        trace.remember(("exit", id(self)))  # it may raise the maintenance interrupt
        return before

    def _hw_deactivate(self, irq: int) -> None:
        """The hardware completes a physical interrupt on the guest's EOI: no exit, the host does nothing."""
        trace = self.host.trace
        before = trace.begin("hw_deactivate", irq=irq, vcpu=self.index)
        trace.remember(("hwirq", irq))  # a line that is high comes in again
        self.host.machine.gic.deactivate(irq)
        trace.end(before)

    # -- life -------------------------------------------------------------------------------------------------

    def destroy(self) -> None:
        """The virtual machine goes."""
        if self.cpu.guest is self:
            self.cpu.guest = None
        self.in_guest = False

    def check(self) -> None:
        """Raise AssertionError when the state contradicts itself."""
        assert not (self.in_guest and self.blocked), "a vCPU in the guest and in WFI at once"
        assert self.in_guest == (self.cpu.guest is self), "vCPU and CPU disagree on who is in guest mode"
        self.interface.check()
