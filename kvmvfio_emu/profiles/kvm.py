"""In what kernels differ in KVM outside of the VGIC."""

from __future__ import annotations

from dataclasses import dataclass

from kvmvfio_emu.profiles.difference import differs


@dataclass(frozen=True, kw_only=True)
class KvmDifferences:
    """See each field's first argument after its default: what the value means."""

    forward_control: str = differs(
        "",
        'The KVM-VFIO device\'s DEVICE group: "" absent (ENXIO), "assign" as in the first RFC, "forward" the '
        "later drafts.",
        since="the series of 2014, never merged",
    )
    forward_struct: str = differs(
        "struct kvm_arch_forwarded_irq",
        "C name of the struct that the DEVICE group takes.",
        since="draft 4 of the series",
    )
    forward_active: str = differs(
        "allow",
        'Forwarding an interrupt that is in flight: "allow", "strict" (EBUSY if active), "armed" (EBUSY if a '
        'trigger is set), "again" (EAGAIN if active or masked).',
        since="draft 3 of the series",
    )
    vcpus_counted: bool = differs(
        False,
        "KVM_CREATE_VCPU is EINVAL with as many vCPUs as there can be, before anything else is looked at.",
        since="4.8",
    )
    irq_line_by_id: bool = differs(
        False,
        "KVM_IRQ_LINE names a vCPU by the number it was created with (else by the order of creation).",
        since="6.7",
    )
    irqfd_needs_init: bool = differs(
        False,
        "KVM_IRQFD before the VGIC is initialised is EAGAIN (else accepted; injection initialises lazily).",
        since="4.1",
    )
    eventfd_drained: bool = differs(
        False,
        "An irqfd or virqfd takes the eventfd's counter when it is signalled.",
        since="5.10",
    )
    irqfd_atomic: bool = differs(
        False,
        "An irqfd's signal raises its interrupt at once and never lowers it (else a deferred pulse; a resampling one "
        "is only raised in either).",
        since="5.8",
    )
    device_release: bool = differs(
        False,
        "A closed KVM device is destroyed at once (else it lives, and counts, until its VM goes).",
        since="6.1",
    )
    irq_routing: bool = differs(
        False,
        "KVM_SET_GSI_ROUTING works.",
        since="4.8",
    )
    ioeventfd: bool = differs(
        False,
        "KVM_IOEVENTFD works.",
        since="4.1",
    )
    group_del_by_file: bool = differs(
        False,
        "KVM_DEV_VFIO_GROUP_DEL finds its entry by the file alone, ENOENT for anything else.",
        since="4.13",
    )
    group_add_needs_iommu: bool = differs(
        True,
        "KVM_DEV_VFIO_GROUP_ADD wants a group with a container and an IOMMU.",
        since="until 5.18",
    )
