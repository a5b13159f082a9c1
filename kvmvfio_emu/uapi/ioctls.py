"""Which ioctls each kind of file takes: for naming a request, which its number alone cannot do.

KVM_ARM_SET_DEVICE_ADDR (VM) and KVM_GET_ONE_REG (vCPU) are the same number, and VFIO gives those from 0x3B70
on several meanings.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from . import constants
from ._types import ffi

Kind = Literal["kvm", "vm", "vcpu", "device", "container", "group", "vfio-device", "iommufd"]
Direction = Literal["none", "in", "out", "inout"]

KINDS: tuple[Kind, ...] = get_args(Kind)


class Ioctl(NamedTuple):  # not a dataclass: importing those takes longer than all of this package
    """One request that one kind of file takes.

    ``struct`` is what the argument points at, as a C type, or None if it is a plain number or nothing.
    ``direction`` is what the kernel does with it. The number does not always say so; VFIO's never do.
    ``size`` is in bytes, without flexible arrays.
    """

    number: int
    name: str
    struct: str | None
    direction: Direction
    size: int


# NAME [struct [direction]]; the direction defaults to the number's own. A number's _IOW means "in" here.
_TABLE: dict[Kind, str] = {
    "kvm": """
        KVM_GET_API_VERSION
        KVM_CREATE_VM
        KVM_CHECK_EXTENSION
        KVM_GET_VCPU_MMAP_SIZE
        KVM_GET_DEVICE_ATTR         kvm_device_attr
        KVM_HAS_DEVICE_ATTR         kvm_device_attr
    """,
    "vm": """
        KVM_CHECK_EXTENSION
        KVM_SET_MEMORY_REGION       kvm_memory_region
        KVM_CREATE_VCPU
        KVM_GET_DIRTY_LOG           kvm_dirty_log
        KVM_SET_USER_MEMORY_REGION  kvm_userspace_memory_region
        KVM_SET_USER_MEMORY_REGION2 kvm_userspace_memory_region2
        KVM_CREATE_IRQCHIP
        KVM_IRQ_LINE                kvm_irq_level
        KVM_IRQ_LINE_STATUS         kvm_irq_level
        KVM_REGISTER_COALESCED_MMIO kvm_coalesced_mmio_zone
        KVM_UNREGISTER_COALESCED_MMIO kvm_coalesced_mmio_zone
        KVM_SET_GSI_ROUTING         kvm_irq_routing
        KVM_IRQFD                   kvm_irqfd
        KVM_IOEVENTFD               kvm_ioeventfd
        KVM_ENABLE_CAP              kvm_enable_cap
        KVM_SIGNAL_MSI              kvm_msi
        KVM_ARM_SET_DEVICE_ADDR     kvm_arm_device_addr
        KVM_ARM_PREFERRED_TARGET    kvm_vcpu_init
        KVM_ARM_MTE_COPY_TAGS       kvm_arm_copy_mte_tags   in
        KVM_ARM_SET_COUNTER_OFFSET  kvm_arm_counter_offset
        KVM_ARM_GET_REG_WRITABLE_MASKS reg_mask_range       in
        KVM_CLEAR_DIRTY_LOG         kvm_clear_dirty_log     in
        KVM_RESET_DIRTY_RINGS
        KVM_GET_STATS_FD
        KVM_SET_MEMORY_ATTRIBUTES   kvm_memory_attributes
        KVM_CREATE_GUEST_MEMFD      kvm_create_guest_memfd  in
        KVM_CREATE_DEVICE           kvm_create_device
        KVM_SET_DEVICE_ATTR         kvm_device_attr
        KVM_GET_DEVICE_ATTR         kvm_device_attr
        KVM_HAS_DEVICE_ATTR         kvm_device_attr
    """,
    "vcpu": """
        KVM_RUN
        KVM_GET_REGS                kvm_regs
        KVM_SET_REGS                kvm_regs
        KVM_TRANSLATE               kvm_translation
        KVM_INTERRUPT               kvm_interrupt
        KVM_SET_SIGNAL_MASK         kvm_signal_mask
        KVM_GET_MP_STATE            kvm_mp_state
        KVM_SET_MP_STATE            kvm_mp_state
        KVM_SET_GUEST_DEBUG         kvm_guest_debug
        KVM_GET_VCPU_EVENTS         kvm_vcpu_events
        KVM_SET_VCPU_EVENTS         kvm_vcpu_events
        KVM_ENABLE_CAP              kvm_enable_cap
        KVM_GET_ONE_REG             kvm_one_reg
        KVM_SET_ONE_REG             kvm_one_reg
        KVM_ARM_VCPU_INIT           kvm_vcpu_init
        KVM_GET_REG_LIST            kvm_reg_list
        KVM_ARM_VCPU_FINALIZE       int
        KVM_GET_STATS_FD
        KVM_PRE_FAULT_MEMORY        kvm_pre_fault_memory
        KVM_SET_DEVICE_ATTR         kvm_device_attr
        KVM_GET_DEVICE_ATTR         kvm_device_attr
        KVM_HAS_DEVICE_ATTR         kvm_device_attr
    """,
    "device": """
        KVM_SET_DEVICE_ATTR         kvm_device_attr
        KVM_GET_DEVICE_ATTR         kvm_device_attr
        KVM_HAS_DEVICE_ATTR         kvm_device_attr
    """,
    "container": """
        VFIO_GET_API_VERSION
        VFIO_CHECK_EXTENSION
        VFIO_SET_IOMMU
        VFIO_IOMMU_GET_INFO         vfio_iommu_type1_info    inout
        VFIO_IOMMU_MAP_DMA          vfio_iommu_type1_dma_map in
        VFIO_IOMMU_UNMAP_DMA        vfio_iommu_type1_dma_unmap inout
        VFIO_IOMMU_ENABLE
        VFIO_IOMMU_DISABLE
        VFIO_IOMMU_DIRTY_PAGES      vfio_iommu_type1_dirty_bitmap inout
    """,
    "group": """
        VFIO_GROUP_GET_STATUS       vfio_group_status        inout
        VFIO_GROUP_SET_CONTAINER    int                      in
        VFIO_GROUP_UNSET_CONTAINER
        VFIO_GROUP_GET_DEVICE_FD    char                     in
    """,
    "vfio-device": """
        VFIO_DEVICE_GET_INFO        vfio_device_info         inout
        VFIO_DEVICE_GET_REGION_INFO vfio_region_info         inout
        VFIO_DEVICE_GET_IRQ_INFO    vfio_irq_info            inout
        VFIO_DEVICE_SET_IRQS        vfio_irq_set             in
        VFIO_DEVICE_RESET
        VFIO_DEVICE_GET_PCI_HOT_RESET_INFO vfio_pci_hot_reset_info inout
        VFIO_DEVICE_PCI_HOT_RESET   vfio_pci_hot_reset       in
        VFIO_DEVICE_QUERY_GFX_PLANE vfio_device_gfx_plane_info inout
        VFIO_DEVICE_GET_GFX_DMABUF  uint32_t                 in
        VFIO_DEVICE_IOEVENTFD       vfio_device_ioeventfd    in
        VFIO_DEVICE_FEATURE         vfio_device_feature      inout
        VFIO_DEVICE_BIND_IOMMUFD    vfio_device_bind_iommufd inout
        VFIO_DEVICE_ATTACH_IOMMUFD_PT vfio_device_attach_iommufd_pt inout
        VFIO_DEVICE_DETACH_IOMMUFD_PT vfio_device_detach_iommufd_pt in
    """,
    "iommufd": """
        VFIO_GET_API_VERSION
        VFIO_CHECK_EXTENSION
        VFIO_SET_IOMMU
        VFIO_IOMMU_GET_INFO         vfio_iommu_type1_info    inout
        VFIO_IOMMU_MAP_DMA          vfio_iommu_type1_dma_map in
        VFIO_IOMMU_UNMAP_DMA        vfio_iommu_type1_dma_unmap inout
        IOMMU_DESTROY               iommu_destroy            in
        IOMMU_IOAS_ALLOC            iommu_ioas_alloc         inout
        IOMMU_IOAS_ALLOW_IOVAS      iommu_ioas_allow_iovas   in
        IOMMU_IOAS_COPY             iommu_ioas_copy          inout
        IOMMU_IOAS_IOVA_RANGES      iommu_ioas_iova_ranges   inout
        IOMMU_IOAS_MAP              iommu_ioas_map           inout
        IOMMU_IOAS_UNMAP            iommu_ioas_unmap         inout
        IOMMU_OPTION                iommu_option             inout
        IOMMU_VFIO_IOAS             iommu_vfio_ioas          inout
        IOMMU_HWPT_ALLOC            iommu_hwpt_alloc         inout
        IOMMU_GET_HW_INFO           iommu_hw_info            inout
        IOMMU_HWPT_SET_DIRTY_TRACKING iommu_hwpt_set_dirty_tracking in
        IOMMU_HWPT_GET_DIRTY_BITMAP iommu_hwpt_get_dirty_bitmap in
        IOMMU_HWPT_INVALIDATE       iommu_hwpt_invalidate    inout
        IOMMU_FAULT_QUEUE_ALLOC     iommu_fault_alloc        inout
    """,
}

_DIRECTIONS: tuple[Direction, ...] = ("none", "in", "out", "inout")
_MACROS = ("_IO", "_IOW", "_IOR", "_IOWR")
_PLAIN_TYPES = ("int", "char", "uint32_t")


def _row(name: str, ctype: str | None = None, direction: Direction | None = None) -> Ioctl:
    number: int = getattr(constants, name)
    if ctype is None:
        return Ioctl(number, name, None, "none", 0)
    struct = ctype if ctype in _PLAIN_TYPES else f"struct {ctype}"
    return Ioctl(number, name, struct, direction or _DIRECTIONS[number >> 30], ffi.sizeof(struct))


def _rows() -> dict[tuple[Kind, int], Ioctl]:
    table = {}
    for kind, lines in _TABLE.items():
        for line in lines.strip().splitlines():
            row = _row(*line.split())  # type: ignore[arg-type]  # the third word is a Direction, as a test makes sure
            table[kind, row.number] = row
    return table


IOCTLS: dict[tuple[Kind, int], Ioctl] = _rows()
"""Every request by kind of file and number."""


def ioctl_name(number: int, kind: str | None = None) -> str:
    """A readable name of a request, for people: never fails.

    ``kind`` is the kind of file that got it, one of `KINDS`. Without it, a number that several kinds use
    gives all its names, ``"KVM_ARM_SET_DEVICE_ADDR|KVM_GET_ONE_REG"``. A number that nobody uses gives its
    parts, ``"_IOW(0xAE, 0xFE, 8)"``.
    """
    names = [row.name for (where, known), row in IOCTLS.items() if known == number and kind in (None, where)]
    return "|".join(dict.fromkeys(names)) or _parts(number)


def _parts(number: int) -> str:
    if not 0 <= number < 1 << 32:
        return hex(number)
    macro, size = _MACROS[number >> 30], number >> 16 & 0x3FFF
    head = f"{macro}(0x{number >> 8 & 0xFF:02X}, 0x{number & 0xFF:02X}"
    return head + (f", {size})" if size else ")")
