"""In what kernels differ in VFIO: containers, groups, type1, devices in general, platform devices."""

from __future__ import annotations

from dataclasses import dataclass

from kvmvfio_emu.profiles.difference import differs


@dataclass(frozen=True, kw_only=True)
class VfioDifferences:
    """See each field's first argument after its default: what the value means."""

    iommu_info_caps: bool = differs(
        False,
        "VFIO_IOMMU_GET_INFO sets the PGSIZES flag and appends capabilities.",
        since="5.4",
    )
    type1_extensions: tuple[int, ...] = differs(
        (1, 3, 6),
        "VFIO_CHECK_EXTENSION: the numbers that type1 has (9 and 10 also enable the flags that belong to them).",
    )
    type1_nesting: bool = differs(
        True,
        "SET_IOMMU with the nesting type works (else EPERM).",
        since="until 6.11",
    )
    type1_iova_ranges: bool = differs(
        False,
        "MAP_DMA checks the IOVA against the IOMMU's valid ranges, EINVAL (else the IOMMU refuses, ERANGE).",
        since="5.4",
    )
    type1_dma_limit: int = differs(
        0,
        "How many DMA mappings a container may have, ENOSPC beyond; 0 for no limit.",
        since="5.1",
    )
    type1_dirty: bool = differs(
        False,
        "VFIO_IOMMU_DIRTY_PAGES and the dirty bitmap of UNMAP_DMA.",
        since="5.8",
    )
    info_cap_align: int = differs(
        4,
        "Bytes to which each capability of an info chain is padded.",
        since="6.6",
    )
    set_container_fd_first: bool = differs(
        False,
        "VFIO_GROUP_SET_CONTAINER judges the descriptor (EBADF) before the group's state (EINVAL).",
        since="6.1",
    )
    not_container_errno: str = differs(
        "EINVAL",
        "The errno of VFIO_GROUP_SET_CONTAINER for a descriptor of something else.",
        since="6.2",
    )
    device_name_first: bool = differs(
        False,
        "VFIO_GROUP_GET_DEVICE_FD looks the name up (ENODEV) before it looks for a container (EINVAL).",
        since="6.0",
    )
    device_feature: bool = differs(
        False,
        "VFIO_DEVICE_FEATURE is known to the VFIO core.",
        since="5.7",
    )
    irq_set_range_checked: bool = differs(
        False,
        "VFIO_DEVICE_SET_IRQS on platform devices bounds start and count, and copies count elements (else one).",
        since="4.9",
    )
    platform_idle_resets: tuple[str, ...] = differs(
        (),
        "Compatible strings of the platform devices whose reset module is loaded and succeeds without touching the "
        "device (a board's own ``has_reset`` is one that resets).",
    )
    iommufd: bool = differs(
        False,
        "There is /dev/iommu, which VFIO_GROUP_SET_CONTAINER takes for a container, too.",
        since="6.2",
    )
    vfio_device_cdev: bool = differs(
        False,
        "Each VFIO device has a node of its own, /dev/vfio/devices/vfioN, to be bound to an iommufd.",
        since="6.6",
    )
    vfio_device_file_valid: bool = differs(
        False,
        "KVM may be told of an open VFIO device instead of its group.",
        since="6.6",
    )
