"""Between distributor and list registers: queueing before entry, learning after exit (vgic.c flush and sync)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.hw.gich import (
    HCR_EN,
    HCR_UIE,
    LR_ACTIVE,
    LR_EOI,
    LR_HW,
    LR_PENDING,
    LR_PHYSICAL_SHIFT,
    LR_SOURCE_SHIFT,
    LR_STATE,
    MISR_EOI,
    lr_source,
    lr_virtual_id,
)
from kvmvfio_emu.kernel.kvm.vgic.state import SGIS, VgicCpu, VirtualIrq

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.dist import Vgic


def enable(cpu: VgicCpu) -> None:
    """Turn the virtual interface on; models vgic_v2_enable."""
    cpu.vcpu.interface.hcr = HCR_EN


# -- before entry ---------------------------------------------------------------------------------------------


def flush(vgic: Vgic, cpu: VgicCpu) -> None:
    """Queue all that is selected; what finds no room asks for a maintenance interrupt (underflow)."""
    if cpu.index not in vgic.oracle:
        return
    overflow = waits = False
    for irq in sorted(cpu.selected, key=lambda one: one.number):
        if irq.number < SGIS:
            overflow |= not _queue_sgi(vgic, cpu, irq)
        elif _completes_later(vgic, cpu, irq):
            waits = True
        elif irq.edge or not irq.queued:
            overflow |= not _queue_irq(vgic, cpu, irq)
    interface = cpu.vcpu.interface
    if overflow:
        interface.hcr |= HCR_UIE
    else:
        interface.hcr &= ~HCR_UIE
        if not waits:
            vgic.oracle.discard(cpu.index)


def _completes_later(vgic: Vgic, cpu: VgicCpu, irq: VirtualIrq) -> bool:
    """Whether the guest is still busy with the last hit of a forwarded interrupt, so that a new one waits for an exit.

    Pending and active is illegal in a list register with the HW bit. And one that was left to the guest when forwarding
    ended says nothing of its end, so the VMM would never hear that an ordinary hit in it is over.
    """
    held = cpu.lr_of.get((irq.number, 0))
    if held is None or not (lr := cpu.vcpu.interface.lr[held]) & LR_HW:
        return False
    return bool(lr & LR_ACTIVE) or (bool(lr & LR_STATE) and vgic.forwarded(irq) is None)


def _queue_sgi(vgic: Vgic, cpu: VgicCpu, irq: VirtualIrq) -> bool:
    for source in range(8):
        if irq.sources >> source & 1 and _to_list_register(vgic, cpu, irq, source):
            irq.sources &= ~(1 << source)
    if irq.sources:
        return False
    irq.pending = False
    cpu.selected.discard(irq)
    return True


def _queue_irq(vgic: Vgic, cpu: VgicCpu, irq: VirtualIrq) -> bool:
    if not _to_list_register(vgic, cpu, irq, 0):
        return False
    if irq.edge or (vgic.forwarded_fix and vgic.forwarded(irq) is not None):
        # A forwarded interrupt gets no EOI maintenance that could clear its state later, so it is done with now.
        irq.pending = False
        cpu.selected.discard(irq)
    else:
        irq.queued = True
    return True


def _to_list_register(vgic: Vgic, cpu: VgicCpu, irq: VirtualIrq, source: int) -> bool:
    """Put ``irq`` into a list register; False when there is no room. Models vgic_queue_irq."""
    interface = cpu.vcpu.interface
    key = (irq.number, source)
    held = cpu.lr_of.get(key)
    if held is not None:
        lr = interface.lr[held]
        if lr & LR_STATE:
            interface.lr[held] = lr | LR_PENDING  # piggyback
            return True
    else:
        free = set(range(len(interface.lr))) - set(cpu.lr_of.values())
        if not free:
            return False
        held = min(free)
    interface.lr[held] = _build(vgic, irq, source)
    irq.active = False
    interface.eisr &= ~(1 << held)
    cpu.lr_of[key] = held
    cpu.vcpu.list_register_filled(held)
    return True


def _build(vgic: Vgic, irq: VirtualIrq, source: int) -> int:
    lr = irq.number | (LR_PENDING if irq.pending else 0) | (LR_ACTIVE if irq.active else 0)
    phys = vgic.forwarded(irq)
    if phys is not None:
        return lr | LR_HW | phys << LR_PHYSICAL_SHIFT  # these bits are the place of the EOI bit, too
    if irq.number < SGIS:
        return lr | source << LR_SOURCE_SHIFT
    return lr if irq.edge else lr | LR_EOI


# -- after exit ------------------------------------------------------------------------------------------------


def sync(vgic: Vgic, cpu: VgicCpu) -> None:
    """Take note of completed interrupts, free empty list registers, and see whether work is left."""
    interface = cpu.vcpu.interface
    level_pending = _process_maintenance(vgic, cpu)
    empty = interface.elrsr
    for key, index in list(cpu.lr_of.items()):
        if empty >> index & 1:
            del cpu.lr_of[key]
            interface.lr[index] = 0
    if level_pending or cpu.lr_of or cpu.selected:
        vgic.oracle.add(cpu.index)


def _process_maintenance(vgic: Vgic, cpu: VgicCpu) -> bool:
    """Models vgic_process_maintenance. Returns whether a completed level interrupt is pending again."""
    interface = cpu.vcpu.interface
    status = interface.misr
    level_pending = False
    if status & MISR_EOI:
        for index in range(len(interface.lr)):
            if interface.eisr >> index & 1:
                interface.eisr &= ~(1 << index)
                irq = vgic.irq(cpu.index, lr_virtual_id(interface.lr[index]))
                interface.lr[index] &= ~LR_STATE
                irq.queued = False
                irq.soft_pending = False
                # Listeners run before the line is sampled: a resampler lowers it here.
                vgic.vm.notify_acked(irq.number - 32)
                if irq.level:
                    irq.pending = True
                    cpu.selected.add(irq)
                    level_pending = True
                else:
                    irq.pending = False
                    cpu.selected.discard(irq)
    interface.hcr &= ~HCR_UIE
    return level_pending


# -- on the guest's or the user's behalf --------------------------------------------------------------------------


def retire(vgic: Vgic, cpu: VgicCpu, irq: VirtualIrq) -> None:
    """Take a now disabled interrupt out of its list register, active or not (vgic_retire_disabled_irqs).

    As in 3.18 its completion is lost with it: no maintenance, no deactivation of a forwarded physical interrupt.
    """
    for key in [key for key in cpu.lr_of if key[0] == irq.number]:
        index = cpu.lr_of.pop(key)
        cpu.vcpu.interface.lr[index] = 0
        cpu.vcpu.interface.eisr &= ~(1 << index)
    irq.queued = False


def unqueue(vgic: Vgic) -> None:
    """Move pending state back from the list registers, so that it can be read and changed (vgic_unqueue_irqs)."""
    for cpu in vgic.cpus:
        interface = cpu.vcpu.interface
        for key, index in list(cpu.lr_of.items()):
            lr = interface.lr[index]
            if not lr & LR_PENDING:
                continue
            irq = vgic.irq(cpu.index, key[0])
            irq.pending = True
            if irq.number < SGIS:
                irq.sources |= 1 << lr_source(lr)
            interface.lr[index] = lr & ~LR_PENDING
            irq.queued = False
            if not interface.lr[index] & LR_STATE:
                del cpu.lr_of[key]
                interface.lr[index] = 0
            cpu.selected.add(irq)
            vgic.oracle.add(cpu.index)


def is_active(cpu: VgicCpu, irq: VirtualIrq) -> bool:
    """Whether a list register holds ``irq`` as active."""
    held = cpu.lr_of.get((irq.number, 0))
    return held is not None and bool(cpu.vcpu.interface.lr[held] & LR_ACTIVE)


def deactivate(cpu: VgicCpu, irq: VirtualIrq) -> None:
    """Clear the active state of ``irq`` in its list register, on a write to GICD_ICACTIVER."""
    held = cpu.lr_of.get((irq.number, 0))
    if held is not None:
        cpu.vcpu.interface.lr[held] &= ~LR_ACTIVE
