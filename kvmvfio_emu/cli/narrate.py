"""Events of the model as sentences, for people who watch."""

from __future__ import annotations

from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.hw.gich import lr_text
from kvmvfio_emu.hw.ich import IchInterface

#: Event name -> (actor, what happened; the event's fields are filled in).
_SENTENCES = {
    "line_up": ("device", "raises its line ({line})"),
    "line_down": ("device", "drops its line ({line})"),
    "vmentry": ("host", "enters the guest"),
    "vmexit_irq": ("CPU", "leaves the guest: a physical interrupt"),
    "vmexit_kick": ("CPU", "leaves the guest: another CPU kicked it"),
    "vmexit_maint": ("CPU", "leaves the guest: maintenance interrupt, the guest completed a level interrupt"),
    "vmexit_mmio": ("CPU", "leaves the guest: an access that someone has to emulate"),
    "vmexit_wfi": ("CPU", "leaves the guest: it waits for an interrupt"),
    "vmexit_hvc": ("CPU", "leaves the guest: it powers off"),
    "host_irq": ("host irq", "takes GIC interrupt {irq}, VFIO's handler runs"),
    "host_irq_lazy": ("host irq", "{irq} again, but it is disabled: mask it in the hardware now"),
    "host_deactivate": ("host irq", "deactivates {irq} on the guest's behalf"),
    "eventfd_trigger": ("VFIO", "signals the trigger eventfd"),
    "eventfd_resample": ("irqfd", "signals the resample eventfd, on which VFIO unmasks"),
    "work": ("irqfd", "deferred work injects gsi {gsi}"),
    "set_irq": ("KVM", "guest line {gsi} = {level}"),
    "resample_ack": ("irqfd", "the resampler hears of the guest's EOI"),
    "gicd_mask": ("GIC", "{irq} masked in the distributor"),
    "gicd_unmask": ("GIC", "{irq} unmasked in the distributor"),
    "hw_deactivate": ("GIC", "deactivates physical {irq} by itself: no exit, the host does nothing"),
    "guest_irq": ("guest", "takes its interrupt exception"),
    "guest_iar": ("guest", "acknowledges {irq}"),
    "guest_eoi": ("guest", "signals end of interrupt {irq}"),
    "guest_eret": ("guest", "returns from its handler"),
    "forward_assign": ("KVM-VFIO", "forwards physical {irq} as gsi {gsi}"),
    "forward_deassign": ("KVM-VFIO", "takes physical {irq} back"),
}


def narrate(event: Event) -> tuple[str, str]:
    """(actor, sentence) of an event; an event without a sentence is shown with its fields."""
    if event.name == "lr_queued":
        lr = event.fields["value"]
        # With a state in its upper bits it is one of a GICv3.
        return "VGIC", f"list register {event.fields['lr']}: {IchInterface.text(lr) if lr >> 32 else lr_text(lr)}"
    actor, sentence = _SENTENCES.get(event.name, ("model", event.name + "".join(f" {k}={{{k}}}" for k in event.fields)))
    return actor, sentence.format(**event.fields)
