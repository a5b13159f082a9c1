"""A vCPU's list of active and pending interrupts, and the list registers (vgic.c flush, fold and prune).

On entry the list fills the list registers; on exit their state comes back and the list is put in order. Between the
two the list registers alone know what the guest did.
"""

from __future__ import annotations

from functools import cmp_to_key
from typing import TYPE_CHECKING

from kvmvfio_emu.hw.gich import HCR_UIE

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.core import VgicCore
    from kvmvfio_emu.kernel.kvm.vgic.modern.cpu import VgicCpu
    from kvmvfio_emu.kernel.kvm.vgic.modern.irq import Irq


def _compare(one: Irq, other: Irq) -> int:
    """Active ones first, then the enabled and pending by priority, then the rest; models vgic_irq_cmp."""
    if one.active or other.active:
        return other.active - one.active
    ready, other_ready = one.enabled and one.pending, other.enabled and other.pending
    if not ready or not other_ready:
        return other_ready - ready
    return one.priority - other.priority


def _several_sources(irq: Irq) -> bool:
    """Whether it is an SGI that more than one CPU requests; models vgic_irq_is_multi_sgi."""
    return irq.source.bit_count() > 1


def flush(core: VgicCore, cpu: VgicCpu) -> None:
    """Before entry: list registers for what is to be taken here; models vgic_flush_lr_state."""
    if not cpu.ap_list:
        return
    interface = cpu.vcpu.interface
    room = len(interface.lr)
    depth = sum(max(irq.source.bit_count(), 1) for irq in cpu.ap_list)
    several = any(_several_sources(irq) for irq in cpu.ap_list)
    if depth > room or several:
        cpu.ap_list.sort(key=cmp_to_key(_compare))
    last_priority = 0xFF
    for place, irq in enumerate(cpu.ap_list):
        # All requests of an SGI are to be seen before anything of lower priority.
        if several and irq.priority > last_priority:
            break
        if core.oracle(irq) is cpu:
            interface.lr[cpu.used_lrs] = core.populate_lr(cpu, irq)
            cpu.vcpu.list_register_filled(cpu.used_lrs)
            cpu.used_lrs += 1
            if irq.source:
                last_priority = irq.priority
        if cpu.used_lrs == room:
            if place + 1 < len(cpu.ap_list):
                interface.hcr |= HCR_UIE  # come back when there is room
            break


def sync(core: VgicCore, cpu: VgicCpu) -> None:
    """After exit: list registers to interrupts, and the list in order; models kvm_vgic_sync_hwstate."""
    interface = cpu.vcpu.interface
    if not cpu.ap_list:
        return
    used = interface.lr[: cpu.used_lrs]
    interface.hcr &= ~HCR_UIE
    interface.eisr = 0
    for index in range(cpu.used_lrs):
        interface.lr[index] = 0
    cpu.used_lrs = 0
    for lr in used:
        core.fold_lr(cpu, lr)
    _prune(core, cpu)


def _prune(core: VgicCore, cpu: VgicCpu) -> None:
    """Let go of what is over, hand on what is another's now; models vgic_prune_ap_list."""
    for irq in tuple(cpu.ap_list):
        target = core.oracle(irq)
        if target is cpu:
            continue
        cpu.ap_list.remove(irq)
        irq.vcpu = target
        if target is not None:
            target.ap_list.append(irq)
            target.vcpu.kick()
