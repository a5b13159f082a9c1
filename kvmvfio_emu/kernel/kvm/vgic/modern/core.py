"""The distributor's state, injection, and who takes an interrupt (vgic.c, vgic-init.c, vgic-irqfd.c).

Nothing here depends on the version of the GIC: `v2` and its like fill in what does.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, ClassVar

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE, UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.modern import aplist
from kvmvfio_emu.kernel.kvm.vgic.modern.cpu import VgicCpu
from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vm import Vm

_DEFAULT_IRQS = 256
#: KVM_VGIC_IMP_REV_LATEST: what GICD_IIDR gives as the revision.
_LATEST_REVISION = 3


def check_iorange(vm: Vm, current: int, address: int, alignment: int, size: int) -> None:
    """Whether a frame may be put at ``address``. EEXIST, EINVAL, E2BIG; models vgic_check_iorange."""
    if current != UNDEFINED_ADDRESS:
        raise KernelError(errno.EEXIST, f"the frame has address {current:#x}")
    if address % alignment or size % alignment:
        raise KernelError(errno.EINVAL, f"address {address:#x} is not aligned to {alignment:#x}")
    if address + size >= 1 << 64:
        raise KernelError(errno.EINVAL, f"a frame of {size:#x} bytes at {address:#x} wraps")
    end = 1 << vm.memory.phys_bits
    if address + size > end:
        raise KernelError(errno.E2BIG, f"a frame of {size:#x} bytes at {address:#x} is beyond {end:#x}")


class VgicCore:
    """One virtual machine's interrupt controller (struct vgic_dist), and its part of every vCPU."""

    #: KVM_DEV_TYPE_ARM_VGIC_*.
    model: ClassVar[int]
    #: Whether injection, register accesses and KVM_RUN initialise it.
    lazy_init: ClassVar[bool]
    #: Whether SGIs remember the CPU that requests them (GICv2).
    sgi_sources: ClassVar[bool]
    #: Whether userspace saves and restores lines apart from latches (GICv3, LEVEL_INFO).
    line_apart: ClassVar[bool]
    cpu_class: ClassVar[type[VgicCpu]] = VgicCpu

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.ready = False
        self.mapped = False  #: the frames are where the guest finds them (vgic_ready)
        self.enabled = False  #: GICD_CTLR
        self.nr_spis = 0  #: 0 until set by the user or by initialisation
        self.spis: list[Irq] = []
        self.dist_base = UNDEFINED_ADDRESS
        self.implementation_rev = 0
        self.cpus = [self.cpu_class(vcpu) for vcpu in vm.vcpus]

    # -- life -------------------------------------------------------------------------------------------------

    @property
    def nr_irqs(self) -> int:
        """Interrupt ids from here on do not exist, LPIs apart."""
        return self.nr_spis + PRIVATE

    def init(self) -> None:
        """Freeze the number of interrupts and vCPUs; models vgic_init."""
        if self.ready:
            return
        self.nr_spis = self.nr_spis or _DEFAULT_IRQS - PRIVATE
        first = self.cpus[0] if self.cpus else None
        self.spis = [Irq(intid, first) for intid in range(PRIVATE, self.nr_irqs)]
        for irq in self.spis:
            self.reset_irq(irq, None)
        for cpu in self.cpus:
            for irq in cpu.private:
                self.reset_irq(irq, cpu)
            self.enable_cpu(cpu)
        self.vm.routing.set_default(self.nr_spis)
        self.implementation_rev = self.implementation_rev or _LATEST_REVISION
        self.ready = True
        self.vm.host.event("vgic_init", irqs=self.nr_irqs, vcpus=len(self.cpus))

    def need_init(self) -> None:
        """Initialise on demand, where that may be (vgic_lazy_init). EBUSY otherwise."""
        if not self.ready:
            if not self.lazy_init:
                raise KernelError(errno.EBUSY, "this VGIC is to be initialised by KVM_DEV_ARM_VGIC_CTRL_INIT")
            self.init()

    def map_resources(self) -> None:
        """Put the frames in their place. A refusal takes the whole virtual machine down (kvm_vgic_map_resources)."""
        if self.mapped:
            return
        try:
            self.map_frames()
        except KernelError:
            self.destroy()
            self.vm.kill()
            raise
        self.mapped = True

    def destroy(self) -> None:
        """Models kvm_vgic_destroy."""
        self.ready = self.mapped = False
        self.spis = []
        self.nr_spis = 0
        self.dist_base = UNDEFINED_ADDRESS
        for cpu in self.cpus:
            cpu.ap_list.clear()

    def add_vcpu(self, vcpu: Vcpu) -> None:
        """A new vCPU; models kvm_vgic_vcpu_init."""
        self.cpus.append(self.cpu_class(vcpu))

    def remove_vcpu(self, vcpu: Vcpu) -> None:
        """The newest one goes again."""
        self.cpus.remove(self.cpus[vcpu.index])

    # -- what the version fills in --------------------------------------------------------------------------------

    def reset_irq(self, irq: Irq, cpu: VgicCpu | None) -> None:
        """Group and target of an interrupt (private: of ``cpu``) at initialisation."""
        raise NotImplementedError

    def enable_cpu(self, cpu: VgicCpu) -> None:
        """Turn the virtual interface on, at initialisation."""
        raise NotImplementedError

    def map_frames(self) -> None:
        """Check the frames, initialise where that may be, and place them (vgic_v2_map_resources and its like)."""
        raise NotImplementedError

    def populate_lr(self, cpu: VgicCpu, irq: Irq) -> int:
        """The list register for ``irq``, of whose pending state it takes what it holds (vgic_populate_lr)."""
        raise NotImplementedError

    def fold_lr(self, cpu: VgicCpu, lr: int) -> None:
        """Take a list register's state back after the guest had it (vgic_fold_lr_state)."""
        raise NotImplementedError

    def lpi(self, intid: int) -> Irq | None:
        """A message signalled interrupt (8192 and up)."""
        return None

    def mmio(self, vcpu: Vcpu, address: int, size: int, value: int | None) -> int | None:
        """A guest access that exited; None when ``address`` is in none of the frames."""
        raise NotImplementedError

    def cpu_interface(self, address: int) -> int | None:
        """The offset in a CPU interface that guests reach by memory accesses."""
        return None

    # -- finding --------------------------------------------------------------------------------------------------

    def irq(self, cpu: VgicCpu | None, intid: int) -> Irq | None:
        """Interrupt ``intid`` as ``cpu`` sees it; models vgic_get_irq."""
        if intid < PRIVATE:
            assert cpu is not None
            return cpu.private[intid]
        if intid < PRIVATE + len(self.spis):
            return self.spis[intid - PRIVATE]
        return self.lpi(intid)

    def cpu_by_id(self, number: int) -> VgicCpu | None:
        """The part of the vCPU that was created with that number."""
        return next((cpu for cpu in self.cpus if cpu.number == number), None)

    def cpu_by_affinity(self, affinity: int) -> VgicCpu | None:
        """The part of the vCPU with that affinity; models kvm_mpidr_to_vcpu."""
        return next((cpu for cpu in self.cpus if cpu.affinity == affinity), None)

    # -- injection --------------------------------------------------------------------------------------------------

    def inject(self, cpu: int, number: int, level: bool) -> None:
        """Drive input ``number`` (of the vCPU with index ``cpu`` if private); models kvm_vgic_inject_irq.

        EBUSY as `need_init`, EINVAL no such interrupt. A line that stays as it is, or an edge that falls, is nothing.
        """
        if not self.ready:
            self.need_init()
        irq = self.irq(self.cpus[cpu] if number < PRIVATE else None, number)
        if irq is None:
            raise KernelError(errno.EINVAL, f"interrupt {number}: this VGIC ends at {self.nr_irqs}")
        if irq.edge:
            if not level:
                return
            irq.pending_latch = True
        elif irq.line_level == level:
            return
        else:
            irq.line_level = level
        self.queue(irq)

    def oracle(self, irq: Irq) -> VgicCpu | None:
        """On whose list ``irq`` has to be now, if on any; models vgic_target_oracle."""
        if irq.active:
            return irq.vcpu or irq.target
        if irq.enabled and irq.pending and self.enabled:
            return irq.target
        return None

    def queue(self, irq: Irq) -> None:
        """Put ``irq`` on its vCPU's list, unless it is on one; models vgic_queue_irq_unlock."""
        cpu = self.oracle(irq)
        if cpu is None:
            return
        if irq.vcpu is None:
            cpu.ap_list.append(irq)
            irq.vcpu = cpu
        cpu.vcpu.kick()

    def kick_all(self) -> None:
        """The distributor was enabled: whoever has something on its list looks; models vgic_kick_vcpus."""
        for cpu in self.cpus:
            if self.pending_for(cpu.vcpu):
                cpu.vcpu.kick()

    def halt_guests(self) -> None:
        """Take every vCPU out of the guest, so that its list registers are known; models kvm_arm_halt_guest."""
        for cpu in self.cpus:
            if cpu.vcpu.in_guest:
                cpu.vcpu.give_way()

    # -- entry and exit -----------------------------------------------------------------------------------------------

    def pending_for(self, vcpu: Vcpu) -> bool:
        """Whether ``vcpu`` has an interrupt to take; models kvm_vgic_vcpu_pending_irq."""
        if not self.enabled:
            return False
        limit = vcpu.interface.pmr
        return any(
            irq.pending and irq.enabled and not irq.active and irq.priority < limit
            for irq in self.cpus[vcpu.index].ap_list
        )

    def flush(self, vcpu: Vcpu) -> None:
        """Before entry."""
        aplist.flush(self, self.cpus[vcpu.index])

    def sync(self, vcpu: Vcpu) -> None:
        """After exit."""
        aplist.sync(self, self.cpus[vcpu.index])

    # -- showing --------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Interrupts that are not as after reset, and who has them on its list."""
        return {
            "ready": self.ready,
            "enabled": self.enabled,
            "irqs": self.nr_irqs,
            "oracle": [cpu.index for cpu in self.cpus if self.pending_for(cpu.vcpu)],
            "irq": [
                {
                    "irq": irq.intid,
                    "vcpu": cpu.index,
                    "enabled": irq.enabled,
                    "level": irq.line_level,
                    "latch": irq.pending_latch,
                    "active": irq.active,
                    "edge": irq.edge,
                    "targets": irq.targets,
                    "queued": None if irq.vcpu is None else irq.vcpu.index,
                }
                for cpu in self.cpus
                for irq in (*cpu.private, *(self.spis if cpu.index == 0 else ()))
                if irq.pending or irq.active or irq.line_level or (irq.enabled and not irq.is_sgi)
            ],
        }

    def check(self) -> None:
        """Raise AssertionError when lists, interrupts and list registers contradict each other."""
        for cpu in self.cpus:
            assert self.cpus[cpu.vcpu.index] is cpu, "a vCPU's part in the wrong place"
            assert len(cpu.ap_list) == len(set(cpu.ap_list)), "an interrupt is twice on a list"
            for irq in cpu.ap_list:
                assert irq.vcpu is cpu, f"{irq} is on the list of vCPU {cpu.index}, but does not know"
            for irq in (*cpu.private, *self.spis):
                assert irq.vcpu is None or irq in irq.vcpu.ap_list, f"{irq} is not on the list that it names"
            if not cpu.vcpu.in_guest:
                assert not cpu.used_lrs, "list registers in use outside of the guest"
