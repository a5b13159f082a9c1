"""The virtual GICv2 (vgic-v2.c, and its part of vgic-init.c): frames, list registers, SGIs with a source."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.gich import (
    HCR_EN,
    LR_ACTIVE,
    LR_EOI,
    LR_GROUP1,
    LR_HW,
    LR_PENDING,
    LR_PRIORITY_SHIFT,
    LR_SOURCE_SHIFT,
    LR_STATE,
    lr_source,
    lr_virtual_id,
)
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE, UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.modern import mmio_v2
from kvmvfio_emu.kernel.kvm.vgic.modern.core import VgicCore

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vgic.modern.cpu import VgicCpu
    from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq
    from kvmvfio_emu.kernel.kvm.vm import Vm

DIST_SIZE = 0x1000
CPU_SIZE = 0x2000


class VgicV2(VgicCore):
    """KVM_DEV_TYPE_ARM_VGIC_V2."""

    model = uapi.KVM_DEV_TYPE_ARM_VGIC_V2
    lazy_init = True
    sgi_sources = True
    line_apart = False

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.cpu_base = UNDEFINED_ADDRESS
        #: Userspace wrote GICD_IIDR, so it knows that groups are real now.
        self.groups_user_writable = False

    def destroy(self) -> None:
        """Both frames have no address any more."""
        super().destroy()
        self.cpu_base = UNDEFINED_ADDRESS

    def reset_irq(self, irq: Irq, cpu: VgicCpu | None) -> None:
        """Group 0; private interrupts belong to their vCPU, shared ones name nobody (and go to the first)."""
        irq.group = 0
        irq.targets = 0 if cpu is None else 1 << cpu.index

    def enable_cpu(self, cpu: VgicCpu) -> None:
        """Models vgic_v2_enable: GICH_VMCR is 0, so nothing is signalled until the guest says so."""
        interface = cpu.vcpu.interface
        interface.enabled = False
        interface.eoi_mode = interface.ctlr_kept = 0
        interface.pmr = interface.bpr = interface.abpr = 0
        interface.hcr = HCR_EN

    def map_frames(self) -> None:
        """ENXIO a frame has no address, EINVAL the two overlap."""
        if UNDEFINED_ADDRESS in (self.dist_base, self.cpu_base):
            raise KernelError(errno.ENXIO, "the VGIC's frames have no guest address yet")
        if self.dist_base < self.cpu_base + CPU_SIZE and self.cpu_base < self.dist_base + DIST_SIZE:
            raise KernelError(errno.EINVAL, "distributor and CPU interface overlap")
        self.init()

    # -- accesses -----------------------------------------------------------------------------------------------

    def mmio(self, vcpu: Vcpu, address: int, size: int, value: int | None) -> int | None:
        """The distributor's frame, as ``vcpu`` sees it."""
        offset = address - self.dist_base
        if not self.mapped or not 0 <= offset <= DIST_SIZE - size:
            return None
        cpu = self.cpus[vcpu.index]
        if value is None:
            return mmio_v2.DIST.read(self, cpu, offset, size)
        mmio_v2.DIST.write(self, cpu, offset, size, value)
        return 0

    def cpu_interface(self, address: int) -> int | None:
        """The virtual CPU interface's frame, which the hardware serves."""
        offset = address - self.cpu_base
        return offset if self.mapped and 0 <= offset < CPU_SIZE else None

    # -- list registers -------------------------------------------------------------------------------------------

    def populate_lr(self, cpu: VgicCpu, irq: Irq) -> int:
        """Models vgic_v2_populate_lr."""
        lr = irq.intid | irq.priority >> 3 << LR_PRIORITY_SHIFT
        allow_pending = True
        if irq.active:
            lr |= LR_ACTIVE
            if irq.is_sgi:
                lr |= irq.active_source << LR_SOURCE_SHIFT
            if irq.source.bit_count() > 1:
                # The next requests wait for the end of this one, which is to be told.
                allow_pending = False
                lr |= LR_EOI
        if irq.group:
            lr |= LR_GROUP1
        if not irq.edge:
            # The line is looked at again when the guest is through, so it must not see it twice before.
            lr |= LR_EOI
            allow_pending &= not irq.active
        if not allow_pending or not irq.pending:
            return lr
        if irq.edge:
            irq.pending_latch = False
        if irq.is_sgi:
            source = (irq.source & -irq.source).bit_length() - 1
            if source < 0:
                return lr  # userspace took the requests away and left the interrupt pending
            irq.source &= irq.source - 1
            lr |= source << LR_SOURCE_SHIFT
            if irq.source:
                irq.pending_latch = True
                lr |= LR_EOI
        return lr | LR_PENDING

    def fold_lr(self, cpu: VgicCpu, lr: int) -> None:
        """Models vgic_v2_fold_lr_state."""
        intid = lr_virtual_id(lr)
        if lr & LR_EOI and not lr & (LR_STATE | LR_HW) and PRIVATE <= intid < self.nr_irqs:
            # Before the line is looked at: a resampler lowers it here.
            self.vm.notify_acked(intid - PRIVATE)
        irq = self.irq(cpu, intid)
        assert irq is not None, f"a list register with interrupt {intid}, which does not exist"
        irq.active = bool(lr & LR_ACTIVE)
        if irq.active and irq.is_sgi:
            irq.active_source = lr_source(lr)
        if irq.edge:
            if lr & LR_PENDING:
                irq.pending_latch = True
                if irq.is_sgi:
                    irq.source |= 1 << lr_source(lr)
        elif not lr & LR_STATE:
            irq.pending_latch = False
