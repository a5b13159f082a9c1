"""Which kernel answers: capabilities and known differences, as data. Nothing else asks for a kernel's version."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError

DEFAULT = "rfc-2014"
_HERE = os.path.dirname(__file__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kernel. Each field is one thing in which kernels differ; its comment says what the value means."""

    name: str
    summary: str
    arch: str = "arm64"
    #: KVM_CHECK_EXTENSION: capability name -> answer; what is not listed answers 0.
    capabilities: dict[str, int] = field(default_factory=dict)
    #: The KVM-VFIO device's DEVICE group: "" absent (ENXIO), "assign" as in the first RFC, "forward" the later drafts.
    forward_control: str = ""
    #: C name of the struct that the DEVICE group takes.
    forward_struct: str = "struct kvm_arch_forwarded_irq"
    #: Forwarding an interrupt that is in flight: "allow", "strict" (EBUSY if active), "armed" (EBUSY if a trigger
    #: is set), "again" (EAGAIN if active or masked).
    forward_active: str = "allow"
    #: KVM_IRQFD before the VGIC is initialised is EAGAIN (else accepted; injection initialises lazily).
    irqfd_needs_init: bool = False
    #: An irqfd or virqfd takes the eventfd's counter when it is signalled.
    eventfd_drained: bool = False
    #: A closed KVM device is destroyed at once (else it lives, and counts, until its VM goes).
    device_release: bool = False
    #: The VGIC has the CTRL attribute group (explicit initialisation).
    vgic_ctrl: bool = False
    #: KVM_SET_GSI_ROUTING works.
    irq_routing: bool = False
    #: KVM_IOEVENTFD works.
    ioeventfd: bool = False
    #: GICD_I[SC]ACTIVER act (else read as zero, writes ignored).
    vgic_active_registers: bool = False
    #: KVM_DEV_VFIO_GROUP_DEL finds its entry by the file alone, ENOENT for anything else.
    group_del_by_file: bool = False
    #: KVM_DEV_VFIO_GROUP_ADD wants a group with a container and an IOMMU.
    group_add_needs_iommu: bool = True
    #: VFIO_IOMMU_GET_INFO sets the PGSIZES flag and appends capabilities.
    iommu_info_caps: bool = False
    #: The GIC driver has no irq_disable hook: disable_irq takes effect at the next interrupt.
    gic_lazy_disable: bool = True
    #: VFIO_CHECK_EXTENSION: the numbers that type1 has (9 and 10 also enable the flags that belong to them).
    type1_extensions: list[int] = field(default_factory=lambda: [1, 3, 6])
    #: SET_IOMMU with the nesting type works (else EPERM).
    type1_nesting: bool = True
    #: MAP_DMA checks the IOVA against the IOMMU's valid ranges, EINVAL (else the IOMMU refuses, ERANGE).
    type1_iova_ranges: bool = False
    #: How many DMA mappings a container may have, ENOSPC beyond; 0 for no limit.
    type1_dma_limit: int = 0
    #: VFIO_IOMMU_DIRTY_PAGES and the dirty bitmap of UNMAP_DMA.
    type1_dirty: bool = False
    #: Bytes to which each capability of an info chain is padded.
    info_cap_align: int = 4
    #: VFIO_GROUP_SET_CONTAINER judges the descriptor (EBADF) before the group's state (EINVAL).
    set_container_fd_first: bool = False
    #: The errno of VFIO_GROUP_SET_CONTAINER for a descriptor of something else.
    not_container_errno: str = "EINVAL"
    #: VFIO_GROUP_GET_DEVICE_FD looks the name up (ENODEV) before it looks for a container (EINVAL).
    device_name_first: bool = False
    #: VFIO_DEVICE_FEATURE is known to the VFIO core.
    device_feature: bool = False
    #: VFIO_DEVICE_SET_IRQS on platform devices bounds start and count, and copies count elements (else one).
    irq_set_range_checked: bool = False
    #: Bytes that VFIO_DEVICE_GET_INFO answers on PCI devices at most, 16 at least: 16, 20 (those 4 whole or not at
    #: all) or 24 (as many as argsz allows).
    pci_device_info_size: int = 16
    #: The BAR of the MSI-X table can be mapped whole, and its region says so (capability MSIX_MAPPABLE).
    pci_msix_mappable: bool = False
    #: A memory BAR smaller than a page can be mapped (it has the page for itself).
    pci_small_bar_mappable: bool = False
    #: read and write of a memory BAR are EIO while the user has memory decoding off (else they reach the bus).
    pci_memory_checked: bool = False
    #: The INTx handler is installed once, with or without a trigger; a bad new trigger leaves the old one.
    pci_intx_steady: bool = False
    #: SET_IRQS on MSI and MSI-X in use is EINVAL beyond the allocated vectors (else those are passed over).
    pci_msi_range_checked: bool = True
    #: Loopback of ERR and REQ without an eventfd is EINVAL, and count 0 removes it (else 0, and it is signalled).
    pci_notice_checked: bool = False
    #: The ERR and REQ triggers ignore descriptors below -1 (else EINVAL).
    pci_notice_ignores_bad_fd: bool = False
    #: VFIO_DEVICE_IOEVENTFD works.
    pci_ioeventfd: bool = False

    def capability(self, name: str) -> int:
        """The answer to KVM_CHECK_EXTENSION for ``name`` (a KVM_CAP_* constant's name)."""
        return self.capabilities.get(name, 0)


def names() -> list[str]:
    """The profiles that come with the package, sorted."""
    return sorted(name.removesuffix(".toml") for name in os.listdir(_HERE) if name.endswith(".toml"))


def load(name: str = DEFAULT) -> Profile:
    """The profile called ``name``. KvmVfioEmuError when there is none."""
    if name not in names():
        raise KvmVfioEmuError(f"no profile {name!r}; known: {', '.join(names())}")
    return Profile(**_read(name))


def _read(name: str) -> dict[str, Any]:
    import tomllib  # here, as it would be a good part of the time to import the package

    with open(os.path.join(_HERE, f"{name}.toml"), "rb") as file:
        own = tomllib.load(file)
    base = own.pop("base", None)
    data = _read(base) if base else {}
    capabilities = {**data.get("capabilities", {}), **own.get("capabilities", {})}
    data = {**data, **own, "name": name, "capabilities": capabilities}
    unknown = set(data) - {f.name for f in fields(Profile)}
    if unknown:
        raise KvmVfioEmuError(f"profile {name}: unknown keys {', '.join(sorted(unknown))}")
    return data
