"""Every event of the model: who acts, and what happened in a sentence. The one declaration for all views.

A view that draws lanes has one for each of `ACTORS`; docs/reference/events.md says when each event comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Who acts, in the order in which lanes are drawn: from the program and the hardware up to the guest.
ACTORS = ("user", "device", "GIC", "host irq", "VFIO", "eventfd", "irqfd", "KVM", "VGIC", "CPU", "guest")

#: Event name -> (actor, what happened; the record's fields are filled in).
EVENTS: Mapping[str, tuple[str, str]] = {
    "ioctl": ("user", "calls {request}"),
    "ioctl_return": ("user", "{request}"),
    "call": ("user", "calls {call}"),
    "call_return": ("user", "{call}"),
    "errno": ("user", "is refused: {reason}"),
    "release": ("user", "has closed the last descriptor of a {file} file"),
    "line_up": ("device", "raises its line ({line})"),
    "line_down": ("device", "drops its line ({line})"),
    "msi": ("device", "{device} sends message {vector}"),
    "gicd_mask": ("GIC", "{irq} masked in the distributor"),
    "gicd_unmask": ("GIC", "{irq} unmasked in the distributor"),
    "hw_deactivate": ("GIC", "deactivates physical {irq} by itself: no exit, the host does nothing"),
    "host_irq": ("host irq", "takes GIC interrupt {irq}, VFIO's handler runs"),
    "host_irq_lazy": ("host irq", "{irq} again, but it is disabled: mask it in the hardware now"),
    "host_deactivate": ("host irq", "deactivates {irq} on the guest's behalf"),
    "irq_unbalanced": ("host irq", "{irq} enabled once too often, of which Linux warns"),
    "irq_storm": ("VFIO", "{irq} unmasks itself while its line is high: left masked"),
    "eventfd_trigger": ("VFIO", "signals the trigger eventfd"),
    "driver_unbind": ("VFIO", "{driver} is told to leave {device}"),
    "driver_unbound": ("VFIO", "the driver has left {device}"),
    "eventfd_write": ("eventfd", "eventfd {eventfd} is signalled from userspace"),
    "eventfd_lost": ("eventfd", "the wake-up of eventfd {eventfd} is lost (INJECTED)"),
    "eventfd_short": ("eventfd", "a read of eventfd {eventfd} gives {bytes} bytes (INJECTED)"),
    "work": ("irqfd", "deferred work injects gsi {gsi}"),
    "resample_ack": ("irqfd", "the resampler hears of the guest's EOI"),
    "eventfd_resample": ("irqfd", "signals the resample eventfd, on which VFIO unmasks"),
    "set_irq": ("KVM", "guest line {gsi} = {level}"),
    "irq_lost": ("KVM", "guest line {gsi} is refused, and nobody told: {reason}"),
    "msi_unmapped": ("KVM", "the message of {device} leads nowhere: {reason}"),
    "forward_assign": ("KVM", "forwards physical {irq} as gsi {gsi}"),
    "forward_deassign": ("KVM", "takes physical {irq} back"),
    "forward_hazard": ("KVM", "physical {irq} was in flight when it was forwarded"),
    "no_guest_program": ("KVM", "vCPU {vcpu} has nothing to execute"),
    "vm_dead": ("KVM", "the virtual machine is dead: the VGIC could not be mapped"),
    "vm_destroy": ("KVM", "the virtual machine goes"),
    "vgic_init": ("VGIC", "is initialised: {irqs} interrupts, {vcpus} vCPUs"),
    "lr_queued": ("VGIC", "list register {lr}: {text}"),
    "its_command_ignored": ("VGIC", "the ITS passes over a command: {reason}"),
    "lpi_unreadable": ("VGIC", "LPI {irq} is in no guest memory: {reason}"),
    "vmentry": ("CPU", "enters the guest"),
    "vmexit_irq": ("CPU", "leaves the guest: a physical interrupt"),
    "vmexit_kick": ("CPU", "leaves the guest: another CPU kicked it"),
    "vmexit_maint": ("CPU", "leaves the guest: maintenance interrupt, the guest completed a level interrupt"),
    "vmexit_mmio": ("CPU", "leaves the guest: an access that someone has to emulate"),
    "vmexit_wfi": ("CPU", "leaves the guest: it waits for an interrupt"),
    "vmexit_hvc": ("CPU", "leaves the guest: it powers off"),
    "vmexit_preempt": ("CPU", "leaves the guest: another vCPU gets the CPU"),
    "vmexit_signal": ("CPU", "leaves the guest: a signal, or immediate_exit"),
    "guest_exception": ("guest", "takes an exception at {pc}, ESR {esr}"),
    "no_engine": ("KVM", "vCPU {vcpu} has code to execute, which takes the extra vcpu"),
    "guest_irq": ("guest", "takes its interrupt exception"),
    "guest_read": ("guest", "reads a register of its device ({address}), without an exit"),
    "guest_write": ("guest", "writes {value} to a register of its device ({address}), without an exit"),
    "guest_iar": ("guest", "acknowledges {irq}"),
    "guest_packet": ("guest", "handles a request that device {device} received"),
    "guest_eoi": ("guest", "signals end of interrupt {irq}"),
    "guest_eret": ("guest", "returns from its handler"),
}

#: The events that are steps of an interrupt on its way from the line to the guest and back.
INTERRUPT_STEPS = _words(
    """
    line_up line_down msi gicd_mask gicd_unmask hw_deactivate host_irq host_irq_lazy host_deactivate
    irq_unbalanced irq_storm eventfd_trigger eventfd_write eventfd_lost eventfd_resample work set_irq irq_lost
    msi_unmapped lr_queued resample_ack lpi_unreadable guest_irq guest_iar guest_eoi guest_eret vmexit_irq
    vmexit_maint
    """
)
#: Events that tell of what has just been done, and the beginnings of the state paths that they did it to. Every other
#: event comes before its effect.
DONE: Mapping[str, tuple[str, ...]] = {
    "lr_queued": ("lr.",),
    "guest_iar": ("lr.",),
    "vmentry": ("vcpu.", "lr."),
    "vgic_init": ("vgic.",),
    "forward_assign": ("irq.", "rbtree."),
    "forward_deassign": ("irq.", "rbtree."),
}


class _Fields(dict[str, Any]):
    """The fields of a record; what is not there, in a foreign or older trace, is a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"


def actor(name: str) -> str:
    """Who acts in event ``name``; KVM for one that is not declared, as a listener's own."""
    return EVENTS[name][0] if name in EVENTS else "KVM"


def sentence(name: str, fields: Mapping[str, Any]) -> str:
    """What happened, from a record's ``f``; an event that is not declared is shown with its fields."""
    if name in ("ioctl_return", "call_return"):
        call = fields.get("request") or fields.get("call")
        if fields.get("errno"):
            return f"{call} fails with {fields['errno']}: {fields.get('reason', '')}"
        return f"{call} returns {fields.get('result', '?')}"
    if name in EVENTS:
        return EVENTS[name][1].format_map(_Fields(fields))
    return " ".join([name, *(f"{key}={value}" for key, value in fields.items())])
