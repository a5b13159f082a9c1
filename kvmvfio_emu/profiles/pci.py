"""In what kernels differ in VFIO PCI."""

from __future__ import annotations

from dataclasses import dataclass

from kvmvfio_emu.profiles.difference import differs


@dataclass(frozen=True, kw_only=True)
class PciDifferences:
    """See each field's first argument after its default: what the value means."""

    pci_device_info_size: int = differs(
        16,
        "Bytes that VFIO_DEVICE_GET_INFO answers on PCI devices at most, 16 at least: 16, 20 (those 4 whole "
        "or not at all) or 24 (as many as argsz allows).",
    )
    pci_msix_mappable: bool = differs(
        False,
        "The BAR of the MSI-X table can be mapped whole, and its region says so (capability MSIX_MAPPABLE).",
        since="4.16",
    )
    pci_small_bar_mappable: bool = differs(
        False,
        "A memory BAR smaller than a page can be mapped (it has the page for itself).",
        since="4.8",
    )
    pci_memory_checked: bool = differs(
        False,
        "read and write of a memory BAR are EIO while the user has memory decoding off (else they reach the bus).",
        since="5.8",
    )
    pci_intx_steady: bool = differs(
        False,
        "The INTx handler is installed once, with or without a trigger; a bad new trigger leaves the old one.",
        since="6.9",
    )
    pci_msi_range_checked: bool = differs(
        True,
        "SET_IRQS on MSI and MSI-X in use is EINVAL beyond the allocated vectors (else those are passed over).",
    )
    pci_notice_checked: bool = differs(
        False,
        "Loopback of ERR and REQ without an eventfd is EINVAL, and count 0 removes it (else 0, and it is signalled).",
    )
    pci_notice_ignores_bad_fd: bool = differs(
        False,
        "The ERR and REQ triggers ignore descriptors below -1 (else EINVAL).",
    )
    pci_ioeventfd: bool = differs(
        False,
        "VFIO_DEVICE_IOEVENTFD works.",
        since="4.17",
    )
