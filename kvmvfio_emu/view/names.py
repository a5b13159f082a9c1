"""What the numbers in the structs are: flags, constants, descriptors, addresses; for all that decodes calls.

Bits and values are named by the headers' constants; here is only which constants a field takes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from kvmvfio_emu import uapi


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Numbers that JavaScript, and so most readers of JSON, do not keep exactly.
_EXACT = 1 << 53

#: Struct.field -> the prefix of its bits' constants; the text leaves the prefix away.
FLAGS = {
    "kvm_irqfd.flags": "KVM_IRQFD_FLAG_",
    "kvm_ioeventfd.flags": "KVM_IOEVENTFD_FLAG_",
    "kvm_userspace_memory_region.flags": "KVM_MEM_",
    "kvm_userspace_memory_region2.flags": "KVM_MEM_",
    "kvm_create_device.flags": "KVM_CREATE_DEVICE_",
    "kvm_msi.flags": "KVM_MSI_",
    "kvm_irq_routing_entry.flags": "KVM_MSI_",
    "kvm_create_guest_memfd.flags": "GUEST_MEMFD_FLAG_",
    "vfio_group_status.flags": "VFIO_GROUP_FLAGS_",
    "vfio_device_info.flags": "VFIO_DEVICE_FLAGS_",
    "vfio_region_info.flags": "VFIO_REGION_INFO_FLAG_",
    "vfio_irq_info.flags": "VFIO_IRQ_INFO_",
    "vfio_irq_set.flags": "VFIO_IRQ_SET_",
    "vfio_pci_hot_reset_info.flags": "VFIO_PCI_HOT_RESET_FLAG_",
    "vfio_device_ioeventfd.flags": "VFIO_DEVICE_IOEVENTFD_",
    "vfio_device_bind_iommufd.flags": "VFIO_DEVICE_BIND_FLAG_",
    "vfio_iommu_type1_info.flags": "VFIO_IOMMU_INFO_",
    "vfio_iommu_type1_dma_map.flags": "VFIO_DMA_MAP_FLAG_",
    "vfio_iommu_type1_dma_unmap.flags": "VFIO_DMA_UNMAP_FLAG_",
    "vfio_iommu_type1_dirty_bitmap.flags": "VFIO_IOMMU_DIRTY_PAGES_FLAG_",
    "iommu_ioas_map.flags": "IOMMU_IOAS_MAP_",
    "iommu_ioas_copy.flags": "IOMMU_IOAS_MAP_",
    "iommu_hwpt_alloc.flags": "IOMMU_HWPT_",
    "iommu_hwpt_set_dirty_tracking.flags": "IOMMU_HWPT_DIRTY_TRACKING_",
    "iommu_hwpt_get_dirty_bitmap.flags": "IOMMU_HWPT_GET_DIRTY_BITMAP_",
    "iommu_hw_info.out_capabilities": "IOMMU_HW_CAP_",
}
#: Constants with such a prefix that are no bits of the flags.
_NO_BITS = ("IOMMU_HWPT_DATA_NONE", "IOMMU_HWPT_DATA_VTD_S1")

#: Struct.field, or the name of a request whose argument is a number -> the prefixes of its values' constants.
VALUES = {
    "kvm_create_device.type": ("KVM_DEV_TYPE_",),
    "kvm_irq_routing_entry.type": ("KVM_IRQ_ROUTING_",),
    "kvm_enable_cap.cap": ("KVM_CAP_",),
    "kvm_mp_state.mp_state": ("KVM_MP_STATE_",),
    "kvm_run.exit_reason": ("KVM_EXIT_",),
    "kvm_run.suberror": ("KVM_INTERNAL_ERROR_",),
    "kvm_run.type": ("KVM_SYSTEM_EVENT_",),
    "kvm_vcpu_init.target": ("KVM_ARM_TARGET_",),
    "iommu_option.option_id": ("IOMMU_OPTION_RLIMIT_MODE", "IOMMU_OPTION_HUGE_PAGES"),
    "iommu_option.op": ("IOMMU_OPTION_OP_",),
    "iommu_vfio_ioas.op": ("IOMMU_VFIO_IOAS_GET", "IOMMU_VFIO_IOAS_SET", "IOMMU_VFIO_IOAS_CLEAR"),
    "iommu_hwpt_alloc.data_type": ("IOMMU_HWPT_DATA_",),
    "iommu_hw_info.out_data_type": ("IOMMU_HW_INFO_TYPE_",),
    "vfio_device_feature.feature": ("VFIO_DEVICE_FEATURE_",),
    "KVM_CHECK_EXTENSION": ("KVM_CAP_",),
    "VFIO_CHECK_EXTENSION": ("VFIO_TYPE1", "VFIO_SPAPR_TCE_", "VFIO_DMA_CC_IOMMU", "VFIO_NOIOMMU_IOMMU"),
    "VFIO_SET_IOMMU": ("VFIO_TYPE1", "VFIO_SPAPR_TCE_", "VFIO_NOIOMMU_IOMMU"),
    "vfio_device_info.cap": ("VFIO_DEVICE_INFO_CAP_",),
    "vfio_region_info.cap": ("VFIO_REGION_INFO_CAP_",),
    "vfio_iommu_type1_info.cap": ("VFIO_IOMMU_TYPE1_INFO_CAP_", "VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL"),
}

#: Struct.field that is a descriptor; of an array, each element.
DESCRIPTORS = _words(
    """
    kvm_irqfd.fd kvm_irqfd.resamplefd kvm_ioeventfd.fd kvm_create_device.fd
    kvm_userspace_memory_region2.guest_memfd kvm_arch_forwarded_irq.fd kvm_vfio_dev_irq.fd
    vfio_device_ioeventfd.fd vfio_pci_hot_reset.group_fds vfio_device_bind_iommufd.iommufd
    iommu_fault_alloc.out_fault_fd
    """
)

#: Fields that are addresses, offsets or masks wherever they are: written in hexadecimal.
_HEX = _words(
    """
    addr address address_lo address_hi base userspace_addr guest_phys_addr dirty_bitmap vaddr user_va iova
    dst_iova src_iova data_uptr allowed_iovas offset data_offset start end last size memory_size length id
    iova_pgsizes pgsize_bitmap page_size phys_addr gpa gva esr fault_ipa features sigset datamatch
    """
)
#: Those of them that are small numbers in some structs.
_DECIMAL = _words(
    """
    vfio_irq_set.start kvm_vfio_dev_irq.start iommu_destroy.id iommu_destroy.size iommu_ioas_alloc.size
    iommu_ioas_map.size iommu_ioas_copy.size iommu_ioas_unmap.size iommu_ioas_iova_ranges.size
    iommu_hwpt_alloc.size iommu_ioas_allow_iovas.size iommu_option.size iommu_vfio_ioas.size iommu_hw_info.size
    iommu_fault_alloc.size iommu_hwpt_set_dirty_tracking.size iommu_hwpt_get_dirty_bitmap.size
    iommu_hwpt_invalidate.size
    """
)

#: Fields that nobody means.
PADDING = ("pad", "reserved", "padding")

#: Fields that only the kernel sets, of structs that go both ways.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "kvm_create_device": ("fd",),
    "kvm_irq_level": ("status",),
    "vfio_group_status": ("flags",),
    "vfio_device_info": ("flags", "num_regions", "num_irqs", "cap_offset", "caps"),
    "vfio_region_info": ("flags", "cap_offset", "size", "offset", "caps"),
    "vfio_irq_info": ("flags", "count"),
    "vfio_iommu_type1_info": ("flags", "iova_pgsizes", "cap_offset", "caps"),
    "vfio_pci_hot_reset_info": ("flags", "count", "devices"),
    "vfio_device_bind_iommufd": ("out_devid",),
    "iommu_ioas_alloc": ("out_ioas_id",),
    "iommu_ioas_iova_ranges": ("out_iova_alignment",),
    "iommu_hwpt_alloc": ("out_hwpt_id",),
    "iommu_hw_info": ("out_data_type", "out_capabilities"),
    "iommu_fault_alloc": ("out_fault_id", "out_fault_fd"),
}
#: Fields that mean something only with a bit of ``flags``.
ONLY_WITH = {
    "kvm_irqfd.resamplefd": uapi.KVM_IRQFD_FLAG_RESAMPLE,
    "kvm_ioeventfd.datamatch": uapi.KVM_IOEVENTFD_FLAG_DATAMATCH,
    "kvm_msi.devid": uapi.KVM_MSI_VALID_DEVID,
}

#: Requests whose result is a descriptor.
GIVES_DESCRIPTOR = _words(
    """
    KVM_CREATE_VM KVM_CREATE_VCPU KVM_CREATE_GUEST_MEMFD KVM_GET_STATS_FD VFIO_GROUP_GET_DEVICE_FD
    """
)


@cache
def bits(prefix: str) -> tuple[tuple[int, str], ...]:
    """(bit, short name) of each flag whose constant begins with ``prefix``."""
    found: dict[int, str] = {}
    for name in uapi.constants.__all__:
        value = getattr(uapi, name)
        is_flag = name.startswith(prefix) and name not in _NO_BITS and isinstance(value, int)
        if is_flag and value > 0 and not value & value - 1:
            found.setdefault(value, name.removeprefix(prefix))
    return tuple(sorted(found.items()))


@cache
def values(prefixes: tuple[str, ...]) -> dict[int, str]:
    """The constants that begin with one of ``prefixes``, by their value; the first name of a value counts."""
    found: dict[int, str] = {}
    for name in uapi.constants.__all__:
        value = getattr(uapi, name)
        if name.startswith(prefixes) and isinstance(value, int):
            found.setdefault(value, name)
    return found


def flags(prefix: str, value: int) -> str | int:
    """``A|B|0x40`` of a field of flags; 0 for none."""
    if not value:
        return 0
    names = [name for bit, name in bits(prefix) if value & bit]
    rest = value & ~sum(bit for bit, _ in bits(prefix))
    return "|".join([*names, *([hex(rest)] if rest else [])])


def number(value: int, *, hexadecimal: bool = False) -> int | str:
    """``value`` as JSON readers keep it: hexadecimal text where it is an address or would lose digits."""
    return hex(value) if (hexadecimal and value > 9) or not -_EXACT < value < _EXACT else value


def scalar(place: str, value: int) -> Any:
    """The value of ``struct.field`` called ``place``, as people read it. Descriptors are the decoder's business."""
    if place in FLAGS:
        return flags(FLAGS[place], value)
    if place in VALUES:
        return values(VALUES[place]).get(value, value)
    return number(value, hexadecimal=place.rpartition(".")[2] in _HEX and place not in _DECIMAL)


def argument(request: str, value: int) -> int | str:
    """The argument of a request that takes a number."""
    return values(VALUES[request]).get(value, value) if request in VALUES else number(value)
