/* SPDX-License-Identifier: MIT */
/*
 * The iommufd API of the emulated host: ioctls on /dev/iommu (Linux 6.2 and later).
 *
 * An open file holds objects with numbers: I/O address spaces (IOAS), hardware page tables (HWPT), and the devices that
 * VFIO bound to it. Every argument is a struct whose first field is its size as the caller knows it. A caller that knows
 * less than the kernel gets zeroes for the rest; one that knows more must leave zero what the kernel does not know.
 *
 * Numbers are plain macros, so that small tools can read this file (kvmvfio_emu/uapi/generate.py is one).
 */
#ifndef KVMVFIO_EMU_LINUX_IOMMUFD_H
#define KVMVFIO_EMU_LINUX_IOMMUFD_H

#include <linux/types.h>
#include <linux/ioctl.h>

#define IOMMUFD_TYPE (';')

/* ---- objects ---------------------------------------------------------------------------------------------------- */

struct iommu_destroy {
	__u32 size;
	__u32 id; /* of any object that nothing uses */
};
#define IOMMU_DESTROY _IO(IOMMUFD_TYPE, 0x80)

/* ---- I/O address spaces ----------------------------------------------------------------------------------------- */

struct iommu_ioas_alloc {
	__u32 size;
	__u32 flags;       /* none yet */
	__u32 out_ioas_id; /* the new one */
};
#define IOMMU_IOAS_ALLOC _IO(IOMMUFD_TYPE, 0x81)

struct iommu_iova_range {
	__u64 start;
	__u64 last; /* inclusive */
};

struct iommu_ioas_allow_iovas {
	__u32 size;
	__u32 ioas_id;
	__u32 num_iovas;
	__u32 __reserved;
	__u64 allowed_iovas; /* pointer to struct iommu_iova_range[num_iovas]: what must stay usable from now on */
};
#define IOMMU_IOAS_ALLOW_IOVAS _IO(IOMMUFD_TYPE, 0x82)

#define IOMMU_IOAS_MAP_FIXED_IOVA (1 << 0) /* at the given IOVA, else the kernel chooses one */
#define IOMMU_IOAS_MAP_WRITEABLE  (1 << 1) /* for devices */
#define IOMMU_IOAS_MAP_READABLE   (1 << 2)

struct iommu_ioas_copy {
	__u32 size;
	__u32 flags; /* IOMMU_IOAS_MAP_* */
	__u32 dst_ioas_id;
	__u32 src_ioas_id;
	__u64 length;
	__u64 dst_iova; /* in with FIXED_IOVA, out without */
	__u64 src_iova;
};
#define IOMMU_IOAS_COPY _IO(IOMMUFD_TYPE, 0x83)

struct iommu_ioas_iova_ranges {
	__u32 size;
	__u32 ioas_id;
	__u32 num_iovas; /* in: room in the array; out: how many there are */
	__u32 __reserved;
	__u64 allowed_iovas; /* pointer to struct iommu_iova_range[] */
	__u64 out_iova_alignment;
};
#define IOMMU_IOAS_IOVA_RANGES _IO(IOMMUFD_TYPE, 0x84)

struct iommu_ioas_map {
	__u32 size;
	__u32 flags; /* IOMMU_IOAS_MAP_* */
	__u32 ioas_id;
	__u32 __reserved;
	__u64 user_va;
	__u64 length;
	__u64 iova; /* in with FIXED_IOVA, out without */
};
#define IOMMU_IOAS_MAP _IO(IOMMUFD_TYPE, 0x85)

struct iommu_ioas_unmap {
	__u32 size;
	__u32 ioas_id;
	__u64 iova;
	__u64 length; /* out: how much was unmapped. IOVA 0 and all ones here mean everything */
};
#define IOMMU_IOAS_UNMAP _IO(IOMMUFD_TYPE, 0x86)

/* ---- options ---------------------------------------------------------------------------------------------------- */

#define IOMMU_OPTION_RLIMIT_MODE 0 /* of the file: locked memory is counted per user (0) or per process (1) */
#define IOMMU_OPTION_HUGE_PAGES  1 /* of an IOAS: the IOMMU may use large pages (1) */

#define IOMMU_OPTION_OP_SET 0
#define IOMMU_OPTION_OP_GET 1

struct iommu_option {
	__u32 size;
	__u32 option_id;
	__u16 op;
	__u16 __reserved;
	__u32 object_id; /* 0 for an option of the file */
	__u64 val64;
};
#define IOMMU_OPTION _IO(IOMMUFD_TYPE, 0x87)

/* ---- the IOAS that VFIO's older API uses on this file ----------------------------------------------------------- */

#define IOMMU_VFIO_IOAS_GET   0
#define IOMMU_VFIO_IOAS_SET   1
#define IOMMU_VFIO_IOAS_CLEAR 2

struct iommu_vfio_ioas {
	__u32 size;
	__u32 ioas_id;
	__u16 op; /* IOMMU_VFIO_IOAS_* */
	__u16 __reserved;
};
#define IOMMU_VFIO_IOAS _IO(IOMMUFD_TYPE, 0x88)

/* ---- hardware page tables --------------------------------------------------------------------------------------- */

#define IOMMU_HWPT_ALLOC_NEST_PARENT    (1 << 0)
#define IOMMU_HWPT_ALLOC_DIRTY_TRACKING (1 << 1)
#define IOMMU_HWPT_FAULT_ID_VALID       (1 << 2)

#define IOMMU_HWPT_DATA_NONE   0
#define IOMMU_HWPT_DATA_VTD_S1 1

struct iommu_hwpt_alloc {
	__u32 size;
	__u32 flags; /* IOMMU_HWPT_* above */
	__u32 dev_id;
	__u32 pt_id; /* an IOAS, or the parent of a nested one */
	__u32 out_hwpt_id;
	__u32 __reserved;
	__u32 data_type; /* IOMMU_HWPT_DATA_* */
	__u32 data_len;
	__u64 data_uptr;
	__u32 fault_id;
	__u32 __reserved2;
};
#define IOMMU_HWPT_ALLOC _IO(IOMMUFD_TYPE, 0x89)

#define IOMMU_HW_INFO_TYPE_NONE      0
#define IOMMU_HW_INFO_TYPE_INTEL_VTD 1

#define IOMMU_HW_CAP_DIRTY_TRACKING (1 << 0)

struct iommu_hw_info {
	__u32 size;
	__u32 flags; /* none yet */
	__u32 dev_id;
	__u32 data_len; /* in: room; out: how much there is */
	__u64 data_uptr;
	__u32 out_data_type; /* IOMMU_HW_INFO_TYPE_* */
	__u32 __reserved;
	__u64 out_capabilities; /* IOMMU_HW_CAP_* */
};
#define IOMMU_GET_HW_INFO _IO(IOMMUFD_TYPE, 0x8a)

#define IOMMU_HWPT_DIRTY_TRACKING_ENABLE 1

struct iommu_hwpt_set_dirty_tracking {
	__u32 size;
	__u32 flags; /* ENABLE, or 0 to end it */
	__u32 hwpt_id;
	__u32 __reserved;
};
#define IOMMU_HWPT_SET_DIRTY_TRACKING _IO(IOMMUFD_TYPE, 0x8b)

#define IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR 1

struct iommu_hwpt_get_dirty_bitmap {
	__u32 size;
	__u32 hwpt_id;
	__u32 flags;
	__u32 __reserved;
	__u64 iova;
	__u64 length;
	__u64 page_size; /* that one bit stands for */
	__u64 data;      /* pointer to the bitmap */
};
#define IOMMU_HWPT_GET_DIRTY_BITMAP _IO(IOMMUFD_TYPE, 0x8c)

/* Forget what a nested HWPT's owner changed: an array of entries, each of a kind that the hardware defines. */
struct iommu_hwpt_invalidate {
	__u32 size;
	__u32 hwpt_id;
	__u64 data_uptr;
	__u32 data_type;
	__u32 entry_len;
	__u32 entry_num; /* out: how many were done */
	__u32 __reserved;
};
#define IOMMU_HWPT_INVALIDATE _IO(IOMMUFD_TYPE, 0x8d)

/* A file to read I/O page faults from, and to answer them. */
struct iommu_fault_alloc {
	__u32 size;
	__u32 flags;
	__u32 out_fault_id;
	__u32 out_fault_fd;
};
#define IOMMU_FAULT_QUEUE_ALLOC _IO(IOMMUFD_TYPE, 0x8e)

#endif
