/* SPDX-License-Identifier: MIT */
/*
 * The VFIO API of the emulated host: ioctls on container, group, device and migration file descriptors.
 *
 * No VFIO ioctl number carries a size. Most structs start with argsz, the bytes that the caller has room for, so that
 * they can grow at the end; an "info" struct may be followed by a chain of capabilities, found by cap_offset.
 *
 * Numbers are plain macros, so that small tools can read this file (kvmvfio_emu/uapi/generate.py is one).
 */
#ifndef KVMVFIO_EMU_LINUX_VFIO_H
#define KVMVFIO_EMU_LINUX_VFIO_H

#include <linux/types.h>
#include <linux/ioctl.h>

#define VFIO_API_VERSION 0

/* Every number is VFIO_BASE + n. Different kinds of file give the same n different meanings, from 12 on. */
#define VFIO_TYPE (';')
#define VFIO_BASE 100

/* The start of every capability. */
struct vfio_info_cap_header {
	__u16 id; /* counted per info struct */
	__u16 version;
	__u32 next; /* where the next one starts, from the start of the info struct; 0 ends the chain */
};

/* ---- container (/dev/vfio/vfio) --------------------------------------------------------------------------------- */

#define VFIO_GET_API_VERSION _IO(VFIO_TYPE, VFIO_BASE + 0)
#define VFIO_CHECK_EXTENSION _IO(VFIO_TYPE, VFIO_BASE + 1) /* argument: one of the numbers below */
#define VFIO_SET_IOMMU       _IO(VFIO_TYPE, VFIO_BASE + 2) /* argument: one that names an IOMMU */

#define VFIO_TYPE1_IOMMU         1
#define VFIO_SPAPR_TCE_IOMMU     2
#define VFIO_TYPE1v2_IOMMU       3
#define VFIO_DMA_CC_IOMMU        4 /* not an IOMMU: asks whether DMA is cache coherent */
#define VFIO_EEH                 5
#define VFIO_TYPE1_NESTING_IOMMU 6 /* v2 as well */
#define VFIO_SPAPR_TCE_v2_IOMMU  7
#define VFIO_NOIOMMU_IOMMU       8
#define VFIO_UNMAP_ALL           9  /* VFIO_DMA_UNMAP_FLAG_ALL works */
#define VFIO_UPDATE_VADDR        10 /* so do the VADDR flags */

/* ---- group (/dev/vfio/N) ---------------------------------------------------------------------------------------- */

struct vfio_group_status {
	__u32 argsz;
	__u32 flags; /* VFIO_GROUP_FLAGS_* */
};
#define VFIO_GROUP_FLAGS_VIABLE        (1 << 0)
#define VFIO_GROUP_FLAGS_CONTAINER_SET (1 << 1)

#define VFIO_GROUP_GET_STATUS      _IO(VFIO_TYPE, VFIO_BASE + 3)
#define VFIO_GROUP_SET_CONTAINER   _IO(VFIO_TYPE, VFIO_BASE + 4) /* argument: pointer to the container's fd */
#define VFIO_GROUP_UNSET_CONTAINER _IO(VFIO_TYPE, VFIO_BASE + 5)
#define VFIO_GROUP_GET_DEVICE_FD   _IO(VFIO_TYPE, VFIO_BASE + 6) /* argument: the device's name */

/* ---- device: what it is ----------------------------------------------------------------------------------------- */

struct vfio_device_info {
	__u32 argsz;
	__u32 flags; /* VFIO_DEVICE_FLAGS_* */
	__u32 num_regions;
	__u32 num_irqs;   /* of indices, not of interrupts */
	__u32 cap_offset; /* newer kernels, with FLAGS_CAPS */
	__u32 pad;
};
#define VFIO_DEVICE_FLAGS_RESET    (1 << 0)
#define VFIO_DEVICE_FLAGS_PCI      (1 << 1)
#define VFIO_DEVICE_FLAGS_PLATFORM (1 << 2)
#define VFIO_DEVICE_FLAGS_AMBA     (1 << 3)
#define VFIO_DEVICE_FLAGS_CCW      (1 << 4)
#define VFIO_DEVICE_FLAGS_AP       (1 << 5)
#define VFIO_DEVICE_FLAGS_FSL_MC   (1 << 6)
#define VFIO_DEVICE_FLAGS_CAPS     (1 << 7)
#define VFIO_DEVICE_FLAGS_CDX      (1 << 8)
#define VFIO_DEVICE_GET_INFO _IO(VFIO_TYPE, VFIO_BASE + 7)

/* The same, as the text that a mediated device's sysfs shows. */
#define VFIO_DEVICE_API_PCI_STRING      "vfio-pci"
#define VFIO_DEVICE_API_PLATFORM_STRING "vfio-platform"
#define VFIO_DEVICE_API_AMBA_STRING     "vfio-amba"
#define VFIO_DEVICE_API_CCW_STRING      "vfio-ccw"
#define VFIO_DEVICE_API_AP_STRING       "vfio-ap"

/* Capabilities of struct vfio_device_info. */
#define VFIO_DEVICE_INFO_CAP_ZPCI_BASE       1
#define VFIO_DEVICE_INFO_CAP_ZPCI_GROUP      2
#define VFIO_DEVICE_INFO_CAP_ZPCI_UTIL       3
#define VFIO_DEVICE_INFO_CAP_ZPCI_PFIP       4
#define VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP 5
struct vfio_device_info_cap_pci_atomic_comp {
	struct vfio_info_cap_header header;
	__u32 flags;
	__u32 reserved;
};
#define VFIO_PCI_ATOMIC_COMP32  (1 << 0)
#define VFIO_PCI_ATOMIC_COMP64  (1 << 1)
#define VFIO_PCI_ATOMIC_COMP128 (1 << 2)

/* ---- device: regions -------------------------------------------------------------------------------------------- */

struct vfio_region_info {
	__u32 argsz;
	__u32 flags; /* VFIO_REGION_INFO_FLAG_* */
	__u32 index; /* which one; given by the caller */
	__u32 cap_offset;
	__u64 size;
	__u64 offset; /* of the region in the device fd, for read, write and mmap */
};
#define VFIO_REGION_INFO_FLAG_READ  (1 << 0)
#define VFIO_REGION_INFO_FLAG_WRITE (1 << 1)
#define VFIO_REGION_INFO_FLAG_MMAP  (1 << 2)
#define VFIO_REGION_INFO_FLAG_CAPS  (1 << 3)
#define VFIO_DEVICE_GET_REGION_INFO _IO(VFIO_TYPE, VFIO_BASE + 8)

/* Only these parts of the region may be mapped. */
#define VFIO_REGION_INFO_CAP_SPARSE_MMAP 1
struct vfio_region_sparse_mmap_area {
	__u64 offset;
	__u64 size;
};
__extension__ struct vfio_region_info_cap_sparse_mmap {
	struct vfio_info_cap_header header;
	__u32 nr_areas;
	__u32 reserved;
	struct vfio_region_sparse_mmap_area areas[];
};

/* A region whose index has no fixed meaning says here what it is. */
#define VFIO_REGION_INFO_CAP_TYPE 2
struct vfio_region_info_cap_type {
	struct vfio_info_cap_header header;
	__u32 type;    /* VFIO_REGION_TYPE_* */
	__u32 subtype; /* VFIO_REGION_SUBTYPE_*, counted per type */
};
#define VFIO_REGION_TYPE_PCI_VENDOR_TYPE         (1U << 31)
#define VFIO_REGION_TYPE_PCI_VENDOR_MASK         (0xffff)
#define VFIO_REGION_TYPE_GFX                     1
#define VFIO_REGION_TYPE_CCW                     2
#define VFIO_REGION_TYPE_MIGRATION_DEPRECATED    3
#define VFIO_REGION_SUBTYPE_INTEL_IGD_OPREGION   1
#define VFIO_REGION_SUBTYPE_INTEL_IGD_HOST_CFG   2
#define VFIO_REGION_SUBTYPE_INTEL_IGD_LPC_CFG    3
#define VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM   1
#define VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD     1
#define VFIO_REGION_SUBTYPE_GFX_EDID             1
#define VFIO_REGION_SUBTYPE_CCW_ASYNC_CMD        1
#define VFIO_REGION_SUBTYPE_CCW_SCHIB            2
#define VFIO_REGION_SUBTYPE_CCW_CRW              3
#define VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED 1

/* The MSI-X table may be mapped with the rest of its BAR. */
#define VFIO_REGION_INFO_CAP_MSIX_MAPPABLE 3

#define VFIO_REGION_INFO_CAP_NVLINK2_SSATGT 4
struct vfio_region_info_cap_nvlink2_ssatgt {
	struct vfio_info_cap_header header;
	__u64 tgt;
};

#define VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD 5
struct vfio_region_info_cap_nvlink2_lnkspd {
	struct vfio_info_cap_header header;
	__u32 link_speed;
	__u32 __pad;
};

/* The layout of a GFX_EDID region. */
struct vfio_region_gfx_edid {
	__u32 edid_offset;
	__u32 edid_max_size;
	__u32 edid_size;
	__u32 max_xres;
	__u32 max_yres;
	__u32 link_state; /* VFIO_DEVICE_GFX_LINK_STATE_* */
};
#define VFIO_DEVICE_GFX_LINK_STATE_UP   1
#define VFIO_DEVICE_GFX_LINK_STATE_DOWN 2

/* The layout of the first migration region, whose place the features below took. */
struct vfio_device_migration_info {
	__u32 device_state; /* VFIO_DEVICE_STATE_V1_* */
	__u32 reserved;
	__u64 pending_bytes;
	__u64 data_offset;
	__u64 data_size;
};
#define VFIO_DEVICE_STATE_V1_STOP     0
#define VFIO_DEVICE_STATE_V1_RUNNING  (1 << 0)
#define VFIO_DEVICE_STATE_V1_SAVING   (1 << 1)
#define VFIO_DEVICE_STATE_V1_RESUMING (1 << 2)
#define VFIO_DEVICE_STATE_MASK                                                                                         \
	(VFIO_DEVICE_STATE_V1_RUNNING | VFIO_DEVICE_STATE_V1_SAVING | VFIO_DEVICE_STATE_V1_RESUMING)

/* ---- device: interrupts ----------------------------------------------------------------------------------------- */

struct vfio_irq_info {
	__u32 argsz;
	__u32 flags; /* VFIO_IRQ_INFO_* */
	__u32 index; /* which one; given by the caller */
	__u32 count; /* of interrupts behind this index */
};
#define VFIO_IRQ_INFO_EVENTFD    (1 << 0)
#define VFIO_IRQ_INFO_MASKABLE   (1 << 1)
#define VFIO_IRQ_INFO_AUTOMASKED (1 << 2) /* masks itself when it hits: a level interrupt */
#define VFIO_IRQ_INFO_NORESIZE   (1 << 3) /* count can only be changed by disabling all */
#define VFIO_DEVICE_GET_IRQ_INFO _IO(VFIO_TYPE, VFIO_BASE + 9)

/* One kind of data and one action; data has count elements: nothing, __u8 or __s32. */
__extension__ struct vfio_irq_set {
	__u32 argsz;
	__u32 flags; /* VFIO_IRQ_SET_* */
	__u32 index;
	__u32 start;
	__u32 count;
	__u8 data[];
};
#define VFIO_IRQ_SET_DATA_NONE      (1 << 0)
#define VFIO_IRQ_SET_DATA_BOOL      (1 << 1)
#define VFIO_IRQ_SET_DATA_EVENTFD   (1 << 2)
#define VFIO_IRQ_SET_ACTION_MASK    (1 << 3)
#define VFIO_IRQ_SET_ACTION_UNMASK  (1 << 4)
#define VFIO_IRQ_SET_ACTION_TRIGGER (1 << 5)
#define VFIO_IRQ_SET_DATA_TYPE_MASK (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_DATA_EVENTFD)
#define VFIO_IRQ_SET_ACTION_TYPE_MASK                                                                                  \
	(VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_ACTION_TRIGGER)
#define VFIO_DEVICE_SET_IRQS _IO(VFIO_TYPE, VFIO_BASE + 10)

#define VFIO_DEVICE_RESET _IO(VFIO_TYPE, VFIO_BASE + 11)

/* ---- device: fixed indices -------------------------------------------------------------------------------------- */

#define VFIO_PCI_BAR0_REGION_INDEX   0
#define VFIO_PCI_BAR1_REGION_INDEX   1
#define VFIO_PCI_BAR2_REGION_INDEX   2
#define VFIO_PCI_BAR3_REGION_INDEX   3
#define VFIO_PCI_BAR4_REGION_INDEX   4
#define VFIO_PCI_BAR5_REGION_INDEX   5
#define VFIO_PCI_ROM_REGION_INDEX    6
#define VFIO_PCI_CONFIG_REGION_INDEX 7
#define VFIO_PCI_VGA_REGION_INDEX    8
#define VFIO_PCI_NUM_REGIONS         9

#define VFIO_PCI_INTX_IRQ_INDEX 0
#define VFIO_PCI_MSI_IRQ_INDEX  1
#define VFIO_PCI_MSIX_IRQ_INDEX 2
#define VFIO_PCI_ERR_IRQ_INDEX  3
#define VFIO_PCI_REQ_IRQ_INDEX  4
#define VFIO_PCI_NUM_IRQS       5

#define VFIO_CCW_CONFIG_REGION_INDEX 0
#define VFIO_CCW_NUM_REGIONS         1
#define VFIO_CCW_IO_IRQ_INDEX        0
#define VFIO_CCW_CRW_IRQ_INDEX       1
#define VFIO_CCW_REQ_IRQ_INDEX       2
#define VFIO_CCW_NUM_IRQS            3

#define VFIO_AP_REQ_IRQ_INDEX     0
#define VFIO_AP_CFG_CHG_IRQ_INDEX 1
#define VFIO_AP_NUM_IRQS          2

/* ---- PCI device ------------------------------------------------------------------------------------------------- */

struct vfio_pci_dependent_device {
	union {
		__u32 group_id;
		__u32 devid; /* if the calling device was opened as a cdev */
	};
	__u16 segment;
	__u8 bus;
	__u8 devfn;
};
#define VFIO_PCI_DEVID_OWNED     0
#define VFIO_PCI_DEVID_NOT_OWNED -1

/* All that a hot reset of this device would reset. */
__extension__ struct vfio_pci_hot_reset_info {
	__u32 argsz;
	__u32 flags; /* VFIO_PCI_HOT_RESET_FLAG_* */
	__u32 count;
	struct vfio_pci_dependent_device devices[];
};
#define VFIO_PCI_HOT_RESET_FLAG_DEV_ID       (1 << 0)
#define VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED (1 << 1)
#define VFIO_DEVICE_GET_PCI_HOT_RESET_INFO _IO(VFIO_TYPE, VFIO_BASE + 12)

/* The fds prove that the caller owns every group that the reset touches. */
__extension__ struct vfio_pci_hot_reset {
	__u32 argsz;
	__u32 flags;
	__u32 count;
	__s32 group_fds[];
};
#define VFIO_DEVICE_PCI_HOT_RESET _IO(VFIO_TYPE, VFIO_BASE + 13)

struct vfio_device_gfx_plane_info {
	__u32 argsz;
	__u32 flags; /* VFIO_GFX_PLANE_TYPE_* */
	__u32 drm_plane_type;
	__u32 drm_format;
	__u64 drm_format_mod;
	__u32 width;
	__u32 height;
	__u32 stride;
	__u32 size;
	__u32 x_pos;
	__u32 y_pos;
	__u32 x_hot;
	__u32 y_hot;
	union {
		__u32 region_index;
		__u32 dmabuf_id;
	};
	__u32 reserved;
};
#define VFIO_GFX_PLANE_TYPE_PROBE   (1 << 0)
#define VFIO_GFX_PLANE_TYPE_DMABUF  (1 << 1)
#define VFIO_GFX_PLANE_TYPE_REGION  (1 << 2)
#define VFIO_DEVICE_QUERY_GFX_PLANE _IO(VFIO_TYPE, VFIO_BASE + 14)
#define VFIO_DEVICE_GET_GFX_DMABUF  _IO(VFIO_TYPE, VFIO_BASE + 15)

/* An eventfd whose signal writes data to the device. */
struct vfio_device_ioeventfd {
	__u32 argsz;
	__u32 flags; /* the width: VFIO_DEVICE_IOEVENTFD_* */
	__u64 offset;
	__u64 data;
	__s32 fd; /* -1 takes it away */
	__u32 reserved;
};
#define VFIO_DEVICE_IOEVENTFD_8         (1 << 0)
#define VFIO_DEVICE_IOEVENTFD_16        (1 << 1)
#define VFIO_DEVICE_IOEVENTFD_32        (1 << 2)
#define VFIO_DEVICE_IOEVENTFD_64        (1 << 3)
#define VFIO_DEVICE_IOEVENTFD_SIZE_MASK (0xf)
#define VFIO_DEVICE_IOEVENTFD _IO(VFIO_TYPE, VFIO_BASE + 16)

/* ---- device: features ------------------------------------------------------------------------------------------- */

/* Low half of flags: which feature. High half: what to do with it. */
__extension__ struct vfio_device_feature {
	__u32 argsz;
	__u32 flags;
	__u8 data[];
};
#define VFIO_DEVICE_FEATURE_MASK  (0xffff)
#define VFIO_DEVICE_FEATURE_GET   (1 << 16)
#define VFIO_DEVICE_FEATURE_SET   (1 << 17)
#define VFIO_DEVICE_FEATURE_PROBE (1 << 18)
#define VFIO_DEVICE_FEATURE _IO(VFIO_TYPE, VFIO_BASE + 17)

/* 16 bytes: the secret that a PF's and its VFs' users share. */
#define VFIO_DEVICE_FEATURE_PCI_VF_TOKEN 0

#define VFIO_DEVICE_FEATURE_MIGRATION 1
struct vfio_device_feature_migration {
	__u64 flags; /* VFIO_MIGRATION_* */
};
#define VFIO_MIGRATION_STOP_COPY (1 << 0)
#define VFIO_MIGRATION_P2P       (1 << 1)
#define VFIO_MIGRATION_PRE_COPY  (1 << 2)

#define VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE 2
struct vfio_device_feature_mig_state {
	__u32 device_state; /* VFIO_DEVICE_STATE_* */
	__s32 data_fd;
};
#define VFIO_DEVICE_STATE_ERROR        0
#define VFIO_DEVICE_STATE_STOP         1
#define VFIO_DEVICE_STATE_RUNNING      2
#define VFIO_DEVICE_STATE_STOP_COPY    3
#define VFIO_DEVICE_STATE_RESUMING     4
#define VFIO_DEVICE_STATE_RUNNING_P2P  5
#define VFIO_DEVICE_STATE_PRE_COPY     6
#define VFIO_DEVICE_STATE_PRE_COPY_P2P 7

/* Asked of the migration data fd, while in a pre-copy state. */
struct vfio_precopy_info {
	__u32 argsz;
	__u32 flags;
	__u64 initial_bytes;
	__u64 dirty_bytes;
};
#define VFIO_MIG_GET_PRECOPY_INFO _IO(VFIO_TYPE, VFIO_BASE + 21)

#define VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY             3
#define VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP 4
#define VFIO_DEVICE_FEATURE_LOW_POWER_EXIT              5
struct vfio_device_low_power_entry_with_wakeup {
	__s32 wakeup_eventfd;
	__u32 reserved;
};

#define VFIO_DEVICE_FEATURE_DMA_LOGGING_START  6
#define VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP   7
#define VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT 8
struct vfio_device_feature_dma_logging_control {
	__u64 page_size;
	__u32 num_ranges;
	__u32 __reserved;
	__u64 ranges; /* address of num_ranges of the next struct */
};
struct vfio_device_feature_dma_logging_range {
	__u64 iova;
	__u64 length;
};
struct vfio_device_feature_dma_logging_report {
	__u64 iova;
	__u64 length;
	__u64 page_size;
	__u64 bitmap; /* its address */
};

#define VFIO_DEVICE_FEATURE_MIG_DATA_SIZE 9
struct vfio_device_feature_mig_data_size {
	__u64 stop_copy_length;
};

#define VFIO_DEVICE_FEATURE_BUS_MASTER 10
struct vfio_device_feature_bus_master {
	__u32 op;
};
#define VFIO_DEVICE_FEATURE_CLEAR_MASTER 0
#define VFIO_DEVICE_FEATURE_SET_MASTER   1

#define VFIO_DEVICE_FEATURE_DMA_BUF 11
struct vfio_region_dma_range {
	__u64 offset;
	__u64 length;
};
__extension__ struct vfio_device_feature_dma_buf {
	__u32 region_index;
	__u32 open_flags;
	__u32 flags;
	__u32 nr_ranges;
	struct vfio_region_dma_range dma_ranges[];
};

/* ---- device opened without a group (/dev/vfio/devices/vfioN) ---------------------------------------------------- */

struct vfio_device_bind_iommufd {
	__u32 argsz;
	__u32 flags; /* VFIO_DEVICE_BIND_FLAG_* */
	__s32 iommufd;
	__u32 out_devid;
	__u64 token_uuid_ptr; /* newer kernels, with FLAG_TOKEN */
};
#define VFIO_DEVICE_BIND_FLAG_TOKEN (1 << 0)
#define VFIO_DEVICE_BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)

struct vfio_device_attach_iommufd_pt {
	__u32 argsz;
	__u32 flags; /* VFIO_DEVICE_ATTACH_PASID */
	__u32 pt_id;
	__u32 pasid; /* newer kernels */
};
#define VFIO_DEVICE_ATTACH_PASID (1 << 0)
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 19)

struct vfio_device_detach_iommufd_pt {
	__u32 argsz;
	__u32 flags; /* VFIO_DEVICE_DETACH_PASID */
	__u32 pasid; /* newer kernels */
};
#define VFIO_DEVICE_DETACH_PASID (1 << 0)
#define VFIO_DEVICE_DETACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 20)

/* ---- container with a type1 IOMMU ------------------------------------------------------------------------------- */

struct vfio_iommu_type1_info {
	__u32 argsz;
	__u32 flags; /* VFIO_IOMMU_INFO_* */
	__u64 iova_pgsizes;
	__u32 cap_offset;
	__u32 pad;
};
#define VFIO_IOMMU_INFO_PGSIZES (1 << 0)
#define VFIO_IOMMU_INFO_CAPS    (1 << 1)
#define VFIO_IOMMU_GET_INFO _IO(VFIO_TYPE, VFIO_BASE + 12)

/* Where mappings may lie; end is the last byte, not the one after it. */
#define VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE 1
struct vfio_iova_range {
	__u64 start;
	__u64 end;
};
__extension__ struct vfio_iommu_type1_info_cap_iova_range {
	struct vfio_info_cap_header header;
	__u32 nr_iovas;
	__u32 reserved;
	struct vfio_iova_range iova_ranges[];
};

#define VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION 2
struct vfio_iommu_type1_info_cap_migration {
	struct vfio_info_cap_header header;
	__u32 flags;
	__u64 pgsize_bitmap;
	__u64 max_dirty_bitmap_size;
};

/* How many more mappings the container takes. */
#define VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL 3
struct vfio_iommu_type1_info_dma_avail {
	struct vfio_info_cap_header header;
	__u32 avail;
};

struct vfio_iommu_type1_dma_map {
	__u32 argsz;
	__u32 flags; /* VFIO_DMA_MAP_FLAG_* */
	__u64 vaddr;
	__u64 iova;
	__u64 size;
};
#define VFIO_DMA_MAP_FLAG_READ  (1 << 0)
#define VFIO_DMA_MAP_FLAG_WRITE (1 << 1)
#define VFIO_DMA_MAP_FLAG_VADDR (1 << 2)
#define VFIO_IOMMU_MAP_DMA _IO(VFIO_TYPE, VFIO_BASE + 13)

struct vfio_bitmap {
	__u64 pgsize; /* of one bit's page */
	__u64 size;   /* of data, in bytes */
	__u64 *data;
};

/* size comes back as what was unmapped. data is a struct vfio_bitmap with FLAG_GET_DIRTY_BITMAP. */
__extension__ struct vfio_iommu_type1_dma_unmap {
	__u32 argsz;
	__u32 flags; /* VFIO_DMA_UNMAP_FLAG_* */
	__u64 iova;
	__u64 size;
	__u8 data[];
};
#define VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP (1 << 0)
#define VFIO_DMA_UNMAP_FLAG_ALL              (1 << 1)
#define VFIO_DMA_UNMAP_FLAG_VADDR            (1 << 2)
#define VFIO_IOMMU_UNMAP_DMA _IO(VFIO_TYPE, VFIO_BASE + 14)

#define VFIO_IOMMU_ENABLE  _IO(VFIO_TYPE, VFIO_BASE + 15)
#define VFIO_IOMMU_DISABLE _IO(VFIO_TYPE, VFIO_BASE + 16)

/* data is a struct vfio_iommu_type1_dirty_bitmap_get with FLAG_GET_BITMAP. */
__extension__ struct vfio_iommu_type1_dirty_bitmap {
	__u32 argsz;
	__u32 flags; /* VFIO_IOMMU_DIRTY_PAGES_FLAG_* */
	__u8 data[];
};
struct vfio_iommu_type1_dirty_bitmap_get {
	__u64 iova;
	__u64 size;
	struct vfio_bitmap bitmap;
};
#define VFIO_IOMMU_DIRTY_PAGES_FLAG_START      (1 << 0)
#define VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP       (1 << 1)
#define VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP (1 << 2)
#define VFIO_IOMMU_DIRTY_PAGES _IO(VFIO_TYPE, VFIO_BASE + 17)

/* ---- container with a sPAPR (POWER) IOMMU: for programs that name it; the emulation has none -------------------- */

struct vfio_iommu_spapr_tce_ddw_info {
	__u64 pgsizes;
	__u32 max_dynamic_windows_supported;
	__u32 levels;
};
struct vfio_iommu_spapr_tce_info {
	__u32 argsz;
	__u32 flags;
	__u32 dma32_window_start;
	__u32 dma32_window_size;
	struct vfio_iommu_spapr_tce_ddw_info ddw;
};
#define VFIO_IOMMU_SPAPR_INFO_DDW (1 << 0)
#define VFIO_IOMMU_SPAPR_TCE_GET_INFO _IO(VFIO_TYPE, VFIO_BASE + 12)

struct vfio_iommu_spapr_register_memory {
	__u32 argsz;
	__u32 flags;
	__u64 vaddr;
	__u64 size;
};
#define VFIO_IOMMU_SPAPR_REGISTER_MEMORY   _IO(VFIO_TYPE, VFIO_BASE + 17)
#define VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY _IO(VFIO_TYPE, VFIO_BASE + 18)

struct vfio_iommu_spapr_tce_create {
	__u32 argsz;
	__u32 flags;
	__u32 page_shift;
	__u32 __resv1;
	__u64 window_size;
	__u32 levels;
	__u32 __resv2;
	__u64 start_addr;
};
#define VFIO_IOMMU_SPAPR_TCE_CREATE _IO(VFIO_TYPE, VFIO_BASE + 19)

struct vfio_iommu_spapr_tce_remove {
	__u32 argsz;
	__u32 flags;
	__u64 start_addr;
};
#define VFIO_IOMMU_SPAPR_TCE_REMOVE _IO(VFIO_TYPE, VFIO_BASE + 20)

struct vfio_eeh_pe_err {
	__u32 type;
	__u32 func;
	__u64 addr;
	__u64 mask;
};
struct vfio_eeh_pe_op {
	__u32 argsz;
	__u32 flags;
	__u32 op; /* VFIO_EEH_PE_* */
	union {
		struct vfio_eeh_pe_err err;
	};
};
#define VFIO_EEH_PE_DISABLE           0
#define VFIO_EEH_PE_ENABLE            1
#define VFIO_EEH_PE_UNFREEZE_IO       2
#define VFIO_EEH_PE_UNFREEZE_DMA      3
#define VFIO_EEH_PE_GET_STATE         4
#define VFIO_EEH_PE_STATE_NORMAL      0
#define VFIO_EEH_PE_STATE_RESET       1
#define VFIO_EEH_PE_STATE_STOPPED     2
#define VFIO_EEH_PE_STATE_STOPPED_DMA 4
#define VFIO_EEH_PE_STATE_UNAVAIL     5
#define VFIO_EEH_PE_RESET_DEACTIVATE  5
#define VFIO_EEH_PE_RESET_HOT         6
#define VFIO_EEH_PE_RESET_FUNDAMENTAL 7
#define VFIO_EEH_PE_CONFIGURE         8
#define VFIO_EEH_PE_INJECT_ERR        9
#define VFIO_EEH_PE_OP _IO(VFIO_TYPE, VFIO_BASE + 21)

#endif /* KVMVFIO_EMU_LINUX_VFIO_H */
