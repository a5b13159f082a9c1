"""The virtual GICv3 (vgic-v3.c, and its part of vgic-init.c): affinity, redistributors, list registers of 64 bits."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import ich
from kvmvfio_emu.hw.gich import HCR_EN
from kvmvfio_emu.hw.ich import (
    LR_ACTIVE,
    LR_EOI,
    LR_GROUP1,
    LR_HW,
    LR_PENDING,
    LR_PRIORITY_SHIFT,
    LR_STATE,
    LR_VIRTUAL_ID,
    IchInterface,
)
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE, UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.modern import its_mmio, mmio_v3
from kvmvfio_emu.kernel.kvm.vgic.modern.baser import PENDBASER
from kvmvfio_emu.kernel.kvm.vgic.modern.core import VgicCore
from kvmvfio_emu.kernel.kvm.vgic.modern.cpu import VgicCpu
from kvmvfio_emu.kernel.kvm.vgic.modern.mmio import Frame
from kvmvfio_emu.kernel.kvm.vgic.modern.redist import DIST_SIZE, FRAMES_SIZE, Redistributors, Region

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq
    from kvmvfio_emu.kernel.kvm.vm import Vm

# ICC_SGI1R_EL1 and its like.
_SGI_SHIFT, _SGI_MASK = 24, 0xF
_SGI_OTHERS = 1 << 40
_SGI_AFF1_SHIFT, _SGI_AFF2_SHIFT, _SGI_AFF3_SHIFT = 16, 32, 48


class VgicCpuV3(VgicCpu):
    """With the redistributor."""

    def __init__(self, vcpu: Vcpu) -> None:
        super().__init__(vcpu)
        self.region: Region | None = None
        self.region_index = 0
        self.frames_mapped = False  #: the guest finds the redistributor's frames
        self.lpis_enabled = False
        self.pendbaser = 0
        # What ICC_CTLR_EL1 says; userspace may lower both.
        self.priority_bits = ich.PRIORITY_BITS
        self.id_bits = ich.ID_BITS

    @property
    def interface(self) -> IchInterface:
        """ICH and virtual ICC."""
        interface = self.vcpu.interface
        assert isinstance(interface, IchInterface)
        return interface

    @property
    def frames(self) -> int:
        """Guest address of RD_base, behind which is SGI_base; undefined without a place in a region."""
        return UNDEFINED_ADDRESS if self.region is None else self.region.base + self.region_index * FRAMES_SIZE


class VgicV3(VgicCore):
    """KVM_DEV_TYPE_ARM_VGIC_V3."""

    model = uapi.KVM_DEV_TYPE_ARM_VGIC_V3
    lazy_init = False
    sgi_sources = False
    line_apart = True
    cpu_class = VgicCpuV3
    cpus: list[VgicCpuV3]  # type: ignore[assignment]  # as `cpu_class` says

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.redistributors = Redistributors(self)
        vm.lpis.core = self

    @property
    def has_its(self) -> bool:
        """Whether there are LPIs."""
        return self.vm.lpis.possible

    def destroy(self) -> None:
        """No frame has an address any more."""
        super().destroy()
        self.redistributors.regions.clear()
        for cpu in self.cpus:
            cpu.region, cpu.frames_mapped = None, False

    def add_vcpu(self, vcpu: Vcpu) -> None:
        """A new vCPU gets the next free redistributor, if a region is there. EINVAL frames overlap."""
        super().add_vcpu(vcpu)
        try:
            self.redistributors.place(self.cpus[-1])
        except KernelError:
            super().remove_vcpu(vcpu)
            raise

    def remove_vcpu(self, vcpu: Vcpu) -> None:
        """Its redistributor is free again."""
        region = self.cpus[vcpu.index].region
        if region is not None:
            region.used -= 1
        super().remove_vcpu(vcpu)

    def reset_irq(self, irq: Irq, cpu: VgicCpu | None) -> None:
        """Group 1; a private interrupt has its vCPU's affinity, a shared one 0 (and goes to the first vCPU)."""
        irq.group = 1
        irq.mpidr = 0 if cpu is None else cpu.affinity

    def enable_cpu(self, cpu: VgicCpu) -> None:
        """Models vgic_v3_enable: nothing is signalled until the guest sets a mask and enables a group."""
        assert isinstance(cpu, VgicCpuV3)
        cpu.interface.reset()
        cpu.interface.hcr = HCR_EN
        cpu.pendbaser = PENDBASER.initial

    def map_frames(self) -> None:
        """ENXIO a frame has no address, EINVAL overlap, EBUSY not initialised; models vgic_v3_map_resources."""
        if any(cpu.region is None for cpu in self.cpus):
            raise KernelError(errno.ENXIO, "a vCPU's redistributor has no guest address yet")
        if self.dist_base == UNDEFINED_ADDRESS:
            raise KernelError(errno.ENXIO, "the distributor has no guest address yet")
        self.redistributors.check_base()
        self.need_init()

    # -- accesses -----------------------------------------------------------------------------------------------------

    def lpi(self, intid: int) -> Irq | None:
        """An LPI that some event is mapped to."""
        return self.vm.lpis.get(intid)

    def mmio(self, vcpu: Vcpu, address: int, size: int, value: int | None) -> int | None:
        """The distributor, a redistributor (of any vCPU), or an ITS."""
        if self.mapped and 0 <= address - self.dist_base < DIST_SIZE:
            return self._frame(mmio_v3.DIST, self.cpus[vcpu.index], address - self.dist_base, size, value)
        for cpu in self.cpus:
            if cpu.frames_mapped and 0 <= address - cpu.frames < FRAMES_SIZE:
                return self._frame(mmio_v3.REDIST, cpu, address - cpu.frames, size, value)
        for its in self.vm.lpis.its:
            if 0 <= address - its.base < its_mmio.FRAME_SIZE:
                if value is None:
                    return its_mmio.read(its, address - its.base, size)
                its_mmio.write(its, address - its.base, size, value)
                return 0
        return None

    def _frame(self, frame: Frame, cpu: VgicCpuV3, offset: int, size: int, value: int | None) -> int:
        if value is None:
            return frame.read(self, cpu, offset, size)
        frame.write(self, cpu, offset, size, value)
        return 0

    def send_sgi(self, sender: Vcpu, value: int, *, group1: bool = True) -> None:
        """A guest wrote ``value`` to ICC_SGI1R_EL1 (``group1``) or ICC_SGI0R_EL1; models vgic_v3_dispatch_sgi."""
        number = value >> _SGI_SHIFT & _SGI_MASK
        aff1, aff2 = value >> _SGI_AFF1_SHIFT & 0xFF, value >> _SGI_AFF2_SHIFT & 0xFF
        cluster = (value >> _SGI_AFF3_SHIFT & 0xFF) << 24 | aff2 << 16 | aff1 << 8
        for cpu in self.cpus:
            if value & _SGI_OTHERS:
                chosen = cpu.vcpu is not sender
            else:
                aff0 = cpu.affinity & 0xFF
                chosen = cpu.affinity & ~0xFF == cluster and aff0 < 16 and bool(value >> aff0 & 1)
            irq = cpu.private[number]
            if chosen and (group1 or not irq.group):
                irq.pending_latch = True
                self.queue(irq)

    # -- list registers -----------------------------------------------------------------------------------------------

    def populate_lr(self, cpu: VgicCpu, irq: Irq) -> int:
        """Models vgic_v3_populate_lr."""
        lr = irq.intid | irq.priority << LR_PRIORITY_SHIFT
        if irq.group:
            lr |= LR_GROUP1
        if irq.active:
            lr |= LR_ACTIVE
        if not irq.edge:
            # The line is looked at again when the guest is through, so it must not see it twice before.
            lr |= LR_EOI
        if irq.pending and (irq.edge or not irq.active):
            lr |= LR_PENDING
            if irq.edge:
                irq.pending_latch = False
        return lr

    def fold_lr(self, cpu: VgicCpu, lr: int) -> None:
        """Models vgic_v3_fold_lr_state."""
        intid = lr & LR_VIRTUAL_ID
        if lr & LR_EOI and not lr & (LR_STATE | LR_HW) and PRIVATE <= intid < self.nr_irqs:
            # Before the line is looked at: a resampler lowers it here.
            self.vm.notify_acked(intid - PRIVATE)
        irq = self.irq(cpu, intid)
        if irq is None:
            return  # an LPI that was unmapped meanwhile
        irq.active = bool(lr & LR_ACTIVE)
        if irq.edge:
            if lr & LR_PENDING:
                irq.pending_latch = True
        elif not lr & LR_STATE:
            irq.pending_latch = False
