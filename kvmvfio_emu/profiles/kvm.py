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
    psci: str = differs(
        "0.2",
        "The newest version of PSCI that a vCPU with the feature PSCI_0_2 has.",
        since="1.0 in 4.17, 1.1 in 5.18",
    )
    smc_served: bool = differs(
        False,
        "A guest's SMC is a call of firmware as HVC is (else it answers -1).",
        since="6.4",
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
    irqfd_exclusive: bool = differs(
        False,
        "An eventfd can have one irqfd on the whole host (else one in each virtual machine).",
        since="6.17",
    )
    one_reg: bool = differs(
        False,
        "vCPUs show registers to KVM_GET_ONE_REG and KVM_GET_REG_LIST. (Real kernels always had them; the older "
        "profiles model none.)",
    )
    demux_all_caches: bool = differs(
        False,
        "There is a CCSIDR register for each of 14 caches, and it can be written (else for those that the CPU has).",
        since="6.3",
    )
    invariant_registers: tuple[str, ...] = differs(
        ("MIDR_EL1", "REVIDR_EL1", "CLIDR_EL1", "AIDR_EL1", "CTR_EL0"),
        "System registers that show the host's value and come first in KVM_GET_REG_LIST.",
    )
    unhidden_registers: tuple[str, ...] = differs(
        (),
        "System registers that KVM_GET_REG_LIST names although this host's CPU has not got them.",
        since="6.4 to 6.12",
    )
    ptimer_registers: bool = differs(
        False,
        "The physical timer's registers can be read and written as the virtual one's.",
        since="6.4",
    )
    timer_interrupts: int = differs(
        2,
        "How many timers of a vCPU have an interrupt attribute: 2, or 4 with those of a nested hypervisor.",
        since="6.4",
    )
    timer_interrupts_per_vm: bool = differs(
        False,
        "The interrupts of the timers are set for all vCPUs of a virtual machine, before any has run.",
        since="6.4",
    )
    vcpu_features_per_vm: bool = differs(
        False,
        "All vCPUs of a virtual machine have the same features, and POWER_OFF is no lasting one of them: a further "
        "KVM_ARM_VCPU_INIT may differ in it.",
        since="6.4",
    )
    vcpu_features_fixed: bool = differs(
        False,
        "A further KVM_ARM_VCPU_INIT needs the features of the first (else it may change them).",
        since="4.8",
    )
    vm_attributes: bool = differs(
        False,
        "The virtual machine's own descriptor has device attributes (the filter of SMCCC calls).",
        since="6.4",
    )
    counter_offset: bool = differs(
        False,
        "KVM_ARM_SET_COUNTER_OFFSET works.",
        since="6.4",
    )
    memory_region2: bool = differs(
        False,
        "KVM_SET_USER_MEMORY_REGION2 works.",
        since="6.8",
    )
    vcpu_id_truncated: bool = differs(
        True,
        "KVM_CREATE_VCPU looks at the lower 32 bits of the id only.",
        since="until 6.10",
    )
    ioeventfd_fast_flag: bool = differs(
        False,
        "KVM_IOEVENTFD takes the flag of the kernel's own fast doorbells (bit 4), which means nothing.",
        since="4.4",
    )
    vcpu_events_need_init: bool = differs(
        False,
        "KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS before KVM_ARM_VCPU_INIT are ENOEXEC.",
        since="6.18 and the stable kernels of its time",
    )
