/* SPDX-License-Identifier: MIT */
/*
 * The KVM API of the emulated host: ioctls on /dev/kvm, VM, vCPU and KVM device file descriptors.
 *
 * Has what any architecture's VMM uses and what ARM adds (asm/kvm.h). Left out are the interfaces that only x86, s390,
 * PowerPC, MIPS, RISC-V or LoongArch kernels answer; of those only the capability and exit numbers are here, because a
 * program may ask about any of them.
 *
 * Numbers are plain macros, so that small tools can read this file (kvmvfio_emu/uapi/generate.py is one).
 */
#ifndef KVMVFIO_EMU_LINUX_KVM_H
#define KVMVFIO_EMU_LINUX_KVM_H

#include <linux/types.h>
#include <linux/ioctl.h>
#include <asm/kvm.h>

#define KVM_API_VERSION 12

/* The type byte of every KVM ioctl. */
#define KVMIO 0xAE

/* ---- /dev/kvm --------------------------------------------------------------------------------------------------- */

#define KVM_GET_API_VERSION    _IO(KVMIO, 0x00)
#define KVM_CREATE_VM          _IO(KVMIO, 0x01) /* argument: KVM_VM_TYPE_*, 0 for the default; returns a VM fd */
#define KVM_CHECK_EXTENSION    _IO(KVMIO, 0x03) /* argument: KVM_CAP_*; a VM fd takes it too (CHECK_EXTENSION_VM) */
#define KVM_GET_VCPU_MMAP_SIZE _IO(KVMIO, 0x04)

/* KVM_CREATE_VM on arm64: the width of guest physical addresses in bits, 0 for 40. */
#define KVM_VM_TYPE_ARM_IPA_SIZE_MASK 0xffULL
#define KVM_VM_TYPE_ARM_IPA_SIZE(x)   ((x) & KVM_VM_TYPE_ARM_IPA_SIZE_MASK)

/* ---- guest memory (VM fd) --------------------------------------------------------------------------------------- */

struct kvm_memory_region {
	__u32 slot;
	__u32 flags;
	__u64 guest_phys_addr;
	__u64 memory_size;
};

/* Size 0 deletes the slot. Everything but the slot number must be page aligned. */
struct kvm_userspace_memory_region {
	__u32 slot;
	__u32 flags; /* KVM_MEM_* */
	__u64 guest_phys_addr;
	__u64 memory_size;
	__u64 userspace_addr;
};

struct kvm_userspace_memory_region2 {
	__u32 slot;
	__u32 flags;
	__u64 guest_phys_addr;
	__u64 memory_size;
	__u64 userspace_addr;
	__u64 guest_memfd_offset;
	__u32 guest_memfd;
	__u32 pad1;
	__u64 pad2[14];
};

#define KVM_MEM_LOG_DIRTY_PAGES (1UL << 0)
#define KVM_MEM_READONLY        (1UL << 1)
#define KVM_MEM_GUEST_MEMFD     (1UL << 2)

struct kvm_dirty_log {
	__u32 slot;
	__u32 padding1;
	union {
		void *dirty_bitmap; /* a bit per page */
		__u64 padding2;
	};
};

struct kvm_clear_dirty_log {
	__u32 slot;
	__u32 num_pages;
	__u64 first_page;
	union {
		void *dirty_bitmap;
		__u64 padding2;
	};
};

#define KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE (1 << 0)
#define KVM_DIRTY_LOG_INITIALLY_SET         (1 << 1)

/* One entry of the ring that a vCPU maps at KVM_DIRTY_LOG_PAGE_OFFSET. */
struct kvm_dirty_gfn {
	__u32 flags; /* KVM_DIRTY_GFN_F_* */
	__u32 slot;
	__u64 offset;
};
#define KVM_DIRTY_GFN_F_DIRTY (1UL << 0)
#define KVM_DIRTY_GFN_F_RESET (1UL << 1)
#define KVM_DIRTY_GFN_F_MASK  0x3

struct kvm_memory_attributes {
	__u64 address;
	__u64 size;
	__u64 attributes; /* KVM_MEMORY_ATTRIBUTE_* */
	__u64 flags;
};
#define KVM_MEMORY_ATTRIBUTE_PRIVATE (1ULL << 3)

struct kvm_create_guest_memfd {
	__u64 size;
	__u64 flags; /* GUEST_MEMFD_FLAG_* */
	__u64 reserved[6];
};
#define GUEST_MEMFD_FLAG_MMAP        (1ULL << 0)
#define GUEST_MEMFD_FLAG_INIT_SHARED (1ULL << 1)

struct kvm_pre_fault_memory {
	__u64 gpa;
	__u64 size;
	__u64 flags;
	__u64 padding[5];
};

/* Guest addresses whose writes may be collected in the ring instead of leaving KVM_RUN one by one. */
struct kvm_coalesced_mmio_zone {
	__u64 addr;
	__u32 size;
	union {
		__u32 pad;
		__u32 pio;
	};
};

struct kvm_coalesced_mmio {
	__u64 phys_addr;
	__u32 len;
	union {
		__u32 pad;
		__u32 pio;
	};
	__u8 data[8];
};

/* Mapped at KVM_COALESCED_MMIO_PAGE_OFFSET of a vCPU; fills one page. */
__extension__ struct kvm_coalesced_mmio_ring {
	__u32 first;
	__u32 last;
	struct kvm_coalesced_mmio coalesced_mmio[];
};
#define KVM_COALESCED_MMIO_MAX                                                                                         \
	((PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

#define KVM_SET_MEMORY_REGION         _IOW(KVMIO, 0x40, struct kvm_memory_region) /* of the first kernels */
#define KVM_GET_DIRTY_LOG             _IOW(KVMIO, 0x42, struct kvm_dirty_log)
#define KVM_SET_USER_MEMORY_REGION    _IOW(KVMIO, 0x46, struct kvm_userspace_memory_region)
#define KVM_SET_USER_MEMORY_REGION2   _IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#define KVM_REGISTER_COALESCED_MMIO   _IOW(KVMIO, 0x67, struct kvm_coalesced_mmio_zone)
#define KVM_UNREGISTER_COALESCED_MMIO _IOW(KVMIO, 0x68, struct kvm_coalesced_mmio_zone)
#define KVM_CLEAR_DIRTY_LOG           _IOWR(KVMIO, 0xc0, struct kvm_clear_dirty_log)
#define KVM_RESET_DIRTY_RINGS         _IO(KVMIO, 0xc7)
#define KVM_SET_MEMORY_ATTRIBUTES     _IOW(KVMIO, 0xd2, struct kvm_memory_attributes)
#define KVM_CREATE_GUEST_MEMFD        _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)

/* ---- interrupts and events (VM fd) ------------------------------------------------------------------------------ */

struct kvm_irq_level {
	union {
		__u32 irq; /* ARM: type, vCPU and number packed, KVM_ARM_IRQ_* */
		__s32 status;
	};
	__u32 level;
};

struct kvm_irq_routing_irqchip {
	__u32 irqchip;
	__u32 pin;
};

struct kvm_irq_routing_msi {
	__u32 address_lo;
	__u32 address_hi;
	__u32 data;
	union {
		__u32 pad;
		__u32 devid; /* with KVM_MSI_VALID_DEVID */
	};
};

struct kvm_irq_routing_s390_adapter {
	__u64 ind_addr;
	__u64 summary_addr;
	__u64 ind_offset;
	__u32 summary_offset;
	__u32 adapter_id;
};

struct kvm_irq_routing_hv_sint {
	__u32 vcpu;
	__u32 sint;
};

struct kvm_irq_routing_xen_evtchn {
	__u32 port;
	__u32 vcpu;
	__u32 priority;
};

struct kvm_irq_routing_entry {
	__u32 gsi;
	__u32 type; /* KVM_IRQ_ROUTING_* */
	__u32 flags;
	__u32 pad;
	union {
		struct kvm_irq_routing_irqchip irqchip;
		struct kvm_irq_routing_msi msi;
		struct kvm_irq_routing_s390_adapter adapter;
		struct kvm_irq_routing_hv_sint hv_sint;
		struct kvm_irq_routing_xen_evtchn xen_evtchn;
		__u32 pad[8];
	} u;
};
#define KVM_IRQ_ROUTING_IRQCHIP      1
#define KVM_IRQ_ROUTING_MSI          2
#define KVM_IRQ_ROUTING_S390_ADAPTER 3
#define KVM_IRQ_ROUTING_HV_SINT      4
#define KVM_IRQ_ROUTING_XEN_EVTCHN   5

/* Replaces the whole table. */
__extension__ struct kvm_irq_routing {
	__u32 nr;
	__u32 flags;
	struct kvm_irq_routing_entry entries[];
};

/* An eventfd whose signal raises gsi. With RESAMPLE the guest's completion lowers it and signals resamplefd. */
struct kvm_irqfd {
	__u32 fd;
	__u32 gsi;
	__u32 flags; /* KVM_IRQFD_FLAG_* */
	__u32 resamplefd;
	__u8 pad[16];
};
#define KVM_IRQFD_FLAG_DEASSIGN (1 << 0)
#define KVM_IRQFD_FLAG_RESAMPLE (1 << 1)

/* An eventfd that a guest's write to an address signals. */
struct kvm_ioeventfd {
	__u64 datamatch;
	__u64 addr;
	__u32 len; /* 1, 2, 4, 8; 0 for any */
	__s32 fd;
	__u32 flags; /* KVM_IOEVENTFD_FLAG_* */
	__u8 pad[36];
};
#define KVM_IOEVENTFD_FLAG_DATAMATCH         (1 << 0)
#define KVM_IOEVENTFD_FLAG_PIO               (1 << 1)
#define KVM_IOEVENTFD_FLAG_DEASSIGN          (1 << 2)
#define KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY (1 << 3)
#define KVM_IOEVENTFD_VALID_FLAG_MASK        0x1f

struct kvm_msi {
	__u32 address_lo;
	__u32 address_hi;
	__u32 data;
	__u32 flags; /* KVM_MSI_* */
	__u32 devid;
	__u8 pad[12];
};
#define KVM_MSI_VALID_DEVID (1U << 0)

struct kvm_arm_device_addr {
	__u64 id; /* KVM_ARM_DEVICE_* */
	__u64 addr;
};

#define KVM_CREATE_IRQCHIP             _IO(KVMIO, 0x60)
#define KVM_IRQ_LINE                   _IOW(KVMIO, 0x61, struct kvm_irq_level)
#define KVM_IRQ_LINE_STATUS            _IOWR(KVMIO, 0x67, struct kvm_irq_level)
#define KVM_SET_GSI_ROUTING            _IOW(KVMIO, 0x6a, struct kvm_irq_routing)
#define KVM_IRQFD                      _IOW(KVMIO, 0x76, struct kvm_irqfd)
#define KVM_IOEVENTFD                  _IOW(KVMIO, 0x79, struct kvm_ioeventfd)
#define KVM_SIGNAL_MSI                 _IOW(KVMIO, 0xa5, struct kvm_msi)
#define KVM_ARM_SET_DEVICE_ADDR        _IOW(KVMIO, 0xab, struct kvm_arm_device_addr) /* same number as KVM_GET_ONE_REG */
#define KVM_ARM_MTE_COPY_TAGS          _IOR(KVMIO, 0xb4, struct kvm_arm_copy_mte_tags)
#define KVM_ARM_SET_COUNTER_OFFSET     _IOW(KVMIO, 0xb5, struct kvm_arm_counter_offset)
#define KVM_ARM_GET_REG_WRITABLE_MASKS _IOR(KVMIO, 0xb6, struct reg_mask_range)

/* ---- capabilities that must be switched on, statistics ---------------------------------------------------------- */

struct kvm_enable_cap {
	__u32 cap;
	__u32 flags;
	__u64 args[4];
	__u8 pad[64];
};
#define KVM_ENABLE_CAP _IOW(KVMIO, 0xa3, struct kvm_enable_cap) /* VM or vCPU fd */

/* Behind the fd of KVM_GET_STATS_FD: a header, an id string, descriptors, data. */
struct kvm_stats_header {
	__u32 flags;
	__u32 name_size;
	__u32 num_desc;
	__u32 id_offset;
	__u32 desc_offset;
	__u32 data_offset;
};

__extension__ struct kvm_stats_desc {
	__u32 flags; /* KVM_STATS_* */
	__s16 exponent;
	__u16 size;
	__u32 offset;
	__u32 bucket_size;
	char name[];
};
#define KVM_STATS_TYPE_SHIFT       0
#define KVM_STATS_TYPE_MASK        (0xF << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_CUMULATIVE  (0x0 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_INSTANT     (0x1 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_PEAK        (0x2 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_LINEAR_HIST (0x3 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_LOG_HIST    (0x4 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_UNIT_SHIFT       4
#define KVM_STATS_UNIT_MASK        (0xF << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_NONE        (0x0 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_BYTES       (0x1 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_SECONDS     (0x2 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_CYCLES      (0x3 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_BOOLEAN     (0x4 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_BASE_SHIFT       8
#define KVM_STATS_BASE_MASK        (0xF << KVM_STATS_BASE_SHIFT)
#define KVM_STATS_BASE_POW10       (0x0 << KVM_STATS_BASE_SHIFT)
#define KVM_STATS_BASE_POW2        (0x1 << KVM_STATS_BASE_SHIFT)
#define KVM_GET_STATS_FD _IO(KVMIO, 0xce) /* VM or vCPU fd */

/* ---- KVM devices ------------------------------------------------------------------------------------------------ */

struct kvm_create_device {
	__u32 type;  /* KVM_DEV_TYPE_* */
	__u32 fd;    /* the result */
	__u32 flags; /* KVM_CREATE_DEVICE_TEST: only say whether the type is known */
};
#define KVM_CREATE_DEVICE_TEST 1

/* Attributes are numbered within groups; both are the device's own. */
struct kvm_device_attr {
	__u32 flags;
	__u32 group;
	__u64 attr;
	__u64 addr; /* of the value in user memory */
};

#define KVM_DEV_TYPE_FSL_MPIC_20       1
#define KVM_DEV_TYPE_FSL_MPIC_42       2
#define KVM_DEV_TYPE_XICS              3
#define KVM_DEV_TYPE_VFIO              4
#define KVM_DEV_TYPE_ARM_VGIC_V2       5
#define KVM_DEV_TYPE_FLIC              6
#define KVM_DEV_TYPE_ARM_VGIC_V3       7
#define KVM_DEV_TYPE_ARM_VGIC_ITS      8
#define KVM_DEV_TYPE_XIVE              9
#define KVM_DEV_TYPE_ARM_PV_TIME       10
#define KVM_DEV_TYPE_RISCV_AIA         11
#define KVM_DEV_TYPE_LOONGARCH_IPI     12
#define KVM_DEV_TYPE_LOONGARCH_EIOINTC 13
#define KVM_DEV_TYPE_LOONGARCH_PCHPIC  14
#define KVM_DEV_TYPE_ARM_VGIC_V5       15

#define KVM_CREATE_DEVICE   _IOWR(KVMIO, 0xe0, struct kvm_create_device) /* VM fd */
#define KVM_SET_DEVICE_ATTR _IOW(KVMIO, 0xe1, struct kvm_device_attr)    /* device fd; VM and vCPU have some too */
#define KVM_GET_DEVICE_ATTR _IOW(KVMIO, 0xe2, struct kvm_device_attr)
#define KVM_HAS_DEVICE_ATTR _IOW(KVMIO, 0xe3, struct kvm_device_attr)

/* The KVM-VFIO device tells KVM which VFIO groups a VM uses. Its argument is an fd. */
#define KVM_DEV_VFIO_GROUP               1
#define KVM_DEV_VFIO_GROUP_ADD           1
#define KVM_DEV_VFIO_GROUP_DEL           2
#define KVM_DEV_VFIO_GROUP_SET_SPAPR_TCE 3

/* Linux 6.6 took device fds as well and renamed the group. */
#define KVM_DEV_VFIO_FILE     1
#define KVM_DEV_VFIO_FILE_ADD 1
#define KVM_DEV_VFIO_FILE_DEL 2

struct kvm_vfio_spapr_tce {
	__s32 groupfd;
	__s32 tablefd;
};

/*
 * IRQ forwarding (the 2014 series; in no released kernel). Group 2 acts on a VFIO device: its argument is struct
 * kvm_arch_forwarded_irq (asm/kvm.h) up to the third draft, struct kvm_vfio_dev_irq from the fourth on. The drafts
 * renamed the attributes and kept their numbers. KVM_HAS_DEVICE_ATTR is the way to ask for it; there is no capability.
 */
#define KVM_DEV_VFIO_DEVICE               2
#define KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ    1
#define KVM_DEV_VFIO_DEVICE_DEASSIGN_IRQ  2
#define KVM_DEV_VFIO_DEVICE_FORWARD_IRQ   1
#define KVM_DEV_VFIO_DEVICE_UNFORWARD_IRQ 2

/* Interrupts start to start + count - 1 of index, one gsi each; shaped like struct vfio_irq_set. */
__extension__ struct kvm_vfio_dev_irq {
	__u32 argsz;
	__u32 fd;
	__u32 index;
	__u32 start;
	__u32 count;
	__u32 gsi[];
};

/* ---- vCPU ------------------------------------------------------------------------------------------------------- */

struct kvm_translation {
	__u64 linear_address;
	__u64 physical_address;
	__u8 valid;
	__u8 writeable;
	__u8 usermode;
	__u8 pad[5];
};

struct kvm_interrupt {
	__u32 irq;
};

/* len is the kernel's sigset size, 8; no sigset means "do not change the mask". */
__extension__ struct kvm_signal_mask {
	__u32 len;
	__u8 sigset[];
};

struct kvm_mp_state {
	__u32 mp_state; /* KVM_MP_STATE_* */
};
#define KVM_MP_STATE_RUNNABLE      0
#define KVM_MP_STATE_UNINITIALIZED 1
#define KVM_MP_STATE_INIT_RECEIVED 2
#define KVM_MP_STATE_HALTED        3
#define KVM_MP_STATE_SIPI_RECEIVED 4
#define KVM_MP_STATE_STOPPED       5
#define KVM_MP_STATE_CHECK_STOP    6
#define KVM_MP_STATE_OPERATING     7
#define KVM_MP_STATE_LOAD          8
#define KVM_MP_STATE_AP_RESET_HOLD 9
#define KVM_MP_STATE_SUSPENDED     10

__extension__ struct kvm_guest_debug {
	__u32 control; /* KVM_GUESTDBG_* */
	__u32 pad;
	struct kvm_guest_debug_arch arch;
};
#define KVM_GUESTDBG_ENABLE     0x00000001
#define KVM_GUESTDBG_SINGLESTEP 0x00000002

struct kvm_one_reg {
	__u64 id; /* KVM_REG_* */
	__u64 addr;
};

/* n is the room in reg, and comes back as the number of registers, with E2BIG if the room was too small. */
__extension__ struct kvm_reg_list {
	__u64 n;
	__u64 reg[];
};

/* A register id: architecture, size, and an architecture's own number. */
#define KVM_REG_ARCH_MASK  0xff00000000000000ULL
#define KVM_REG_GENERIC    0x0000000000000000ULL
#define KVM_REG_PPC        0x1000000000000000ULL
#define KVM_REG_X86        0x2000000000000000ULL
#define KVM_REG_IA64       0x3000000000000000ULL
#define KVM_REG_ARM        0x4000000000000000ULL
#define KVM_REG_S390       0x5000000000000000ULL
#define KVM_REG_ARM64      0x6000000000000000ULL
#define KVM_REG_MIPS       0x7000000000000000ULL
#define KVM_REG_RISCV      0x8000000000000000ULL
#define KVM_REG_LOONGARCH  0x9000000000000000ULL
#define KVM_REG_SIZE_SHIFT 52
#define KVM_REG_SIZE_MASK  0x00f0000000000000ULL
#define KVM_REG_SIZE_U8    0x0000000000000000ULL
#define KVM_REG_SIZE_U16   0x0010000000000000ULL
#define KVM_REG_SIZE_U32   0x0020000000000000ULL
#define KVM_REG_SIZE_U64   0x0030000000000000ULL
#define KVM_REG_SIZE_U128  0x0040000000000000ULL
#define KVM_REG_SIZE_U256  0x0050000000000000ULL
#define KVM_REG_SIZE_U512  0x0060000000000000ULL
#define KVM_REG_SIZE_U1024 0x0070000000000000ULL
#define KVM_REG_SIZE_U2048 0x0080000000000000ULL

#define KVM_CREATE_VCPU          _IO(KVMIO, 0x41) /* VM fd; argument: the vCPU's id; returns a vCPU fd */
#define KVM_RUN                  _IO(KVMIO, 0x80)
#define KVM_GET_REGS             _IOR(KVMIO, 0x81, struct kvm_regs) /* ARM refuses both: one register at a time */
#define KVM_SET_REGS             _IOW(KVMIO, 0x82, struct kvm_regs)
#define KVM_TRANSLATE            _IOWR(KVMIO, 0x85, struct kvm_translation)
#define KVM_INTERRUPT            _IOW(KVMIO, 0x86, struct kvm_interrupt)
#define KVM_SET_SIGNAL_MASK      _IOW(KVMIO, 0x8b, struct kvm_signal_mask)
#define KVM_GET_MP_STATE         _IOR(KVMIO, 0x98, struct kvm_mp_state)
#define KVM_SET_MP_STATE         _IOW(KVMIO, 0x99, struct kvm_mp_state)
#define KVM_SET_GUEST_DEBUG      _IOW(KVMIO, 0x9b, struct kvm_guest_debug)
#define KVM_GET_VCPU_EVENTS      _IOR(KVMIO, 0x9f, struct kvm_vcpu_events)
#define KVM_SET_VCPU_EVENTS      _IOW(KVMIO, 0xa0, struct kvm_vcpu_events)
#define KVM_GET_ONE_REG          _IOW(KVMIO, 0xab, struct kvm_one_reg)
#define KVM_SET_ONE_REG          _IOW(KVMIO, 0xac, struct kvm_one_reg)
#define KVM_ARM_VCPU_INIT        _IOW(KVMIO, 0xae, struct kvm_vcpu_init)
#define KVM_ARM_PREFERRED_TARGET _IOR(KVMIO, 0xaf, struct kvm_vcpu_init) /* VM fd */
#define KVM_GET_REG_LIST         _IOWR(KVMIO, 0xb0, struct kvm_reg_list)
#define KVM_ARM_VCPU_FINALIZE    _IOW(KVMIO, 0xc2, int)
#define KVM_PRE_FAULT_MEMORY     _IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)

/* ---- why KVM_RUN returned --------------------------------------------------------------------------------------- */

#define KVM_EXIT_UNKNOWN         0
#define KVM_EXIT_EXCEPTION       1
#define KVM_EXIT_IO              2
#define KVM_EXIT_HYPERCALL       3
#define KVM_EXIT_DEBUG           4
#define KVM_EXIT_HLT             5
#define KVM_EXIT_MMIO            6
#define KVM_EXIT_IRQ_WINDOW_OPEN 7
#define KVM_EXIT_SHUTDOWN        8
#define KVM_EXIT_FAIL_ENTRY      9
#define KVM_EXIT_INTR            10
#define KVM_EXIT_SET_TPR         11
#define KVM_EXIT_TPR_ACCESS      12
#define KVM_EXIT_S390_SIEIC      13
#define KVM_EXIT_S390_RESET      14
#define KVM_EXIT_DCR             15
#define KVM_EXIT_NMI             16
#define KVM_EXIT_INTERNAL_ERROR  17
#define KVM_EXIT_OSI             18
#define KVM_EXIT_PAPR_HCALL      19
#define KVM_EXIT_S390_UCONTROL   20
#define KVM_EXIT_WATCHDOG        21
#define KVM_EXIT_S390_TSCH       22
#define KVM_EXIT_EPR             23
#define KVM_EXIT_SYSTEM_EVENT    24
#define KVM_EXIT_S390_STSI       25
#define KVM_EXIT_IOAPIC_EOI      26
#define KVM_EXIT_HYPERV          27
#define KVM_EXIT_ARM_NISV        28
#define KVM_EXIT_X86_RDMSR       29
#define KVM_EXIT_X86_WRMSR       30
#define KVM_EXIT_DIRTY_RING_FULL 31
#define KVM_EXIT_AP_RESET_HOLD   32
#define KVM_EXIT_X86_BUS_LOCK    33
#define KVM_EXIT_XEN             34
#define KVM_EXIT_RISCV_SBI       35
#define KVM_EXIT_RISCV_CSR       36
#define KVM_EXIT_NOTIFY          37
#define KVM_EXIT_LOONGARCH_IOCSR 38
#define KVM_EXIT_MEMORY_FAULT    39
#define KVM_EXIT_TDX             40
#define KVM_EXIT_ARM_SEA         41

#define KVM_EXIT_IO_IN  0
#define KVM_EXIT_IO_OUT 1

#define KVM_INTERNAL_ERROR_EMULATION              1
#define KVM_INTERNAL_ERROR_SIMUL_EX               2
#define KVM_INTERNAL_ERROR_DELIVERY_EV            3
#define KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON 4

#define KVM_SYSTEM_EVENT_SHUTDOWN 1
#define KVM_SYSTEM_EVENT_RESET    2
#define KVM_SYSTEM_EVENT_CRASH    3
#define KVM_SYSTEM_EVENT_WAKEUP   4
#define KVM_SYSTEM_EVENT_SUSPEND  5
#define KVM_SYSTEM_EVENT_SEV_TERM 6

#define KVM_MEMORY_EXIT_FLAG_PRIVATE    (1ULL << 3)
#define KVM_EXIT_ARM_SEA_FLAG_GPA_VALID (1ULL << 0)

/* Room for the registers that some architectures share through the mapping. */
#define SYNC_REGS_SIZE_BYTES 2048

/* What a vCPU and its VMM share: page 0 of the vCPU's mapping. */
__extension__ struct kvm_run {
	__u8 request_interrupt_window; /* to the kernel: 1 asks to leave as soon as an interrupt could be taken */
	__u8 immediate_exit;           /* to the kernel: KVM_RUN returns EINTR at once */
	__u8 padding1[6];

	__u32 exit_reason; /* KVM_EXIT_*; from here on from the kernel */
	__u8 ready_for_interrupt_injection;
	__u8 if_flag;
	__u16 flags;
	__u64 cr8;
	__u64 apic_base;

	union {
		struct {
			__u64 hardware_exit_reason;
		} hw; /* UNKNOWN */
		struct {
			__u64 hardware_entry_failure_reason;
			__u32 cpu;
		} fail_entry;
		struct {
			__u32 exception;
			__u32 error_code;
		} ex; /* EXCEPTION */
		struct {
			__u8 direction; /* KVM_EXIT_IO_* */
			__u8 size;
			__u16 port;
			__u32 count;
			__u64 data_offset; /* of the data, from the start of this struct */
		} io;
		struct {
			struct kvm_debug_exit_arch arch;
		} debug;
		struct {
			__u64 phys_addr;
			__u8 data[8]; /* a read's value is put here before the next KVM_RUN */
			__u32 len;
			__u8 is_write;
		} mmio;
		struct {
			__u64 nr;
			__u64 args[6];
			__u64 ret;
			union {
				__u32 longmode; /* the name of older kernels */
				__u64 flags;    /* ARM: KVM_HYPERCALL_EXIT_* */
			};
		} hypercall;
		struct {
			__u32 suberror; /* KVM_INTERNAL_ERROR_* */
			__u32 ndata;
			__u64 data[16];
		} internal;
		struct {
			__u32 type; /* KVM_SYSTEM_EVENT_* */
			__u32 ndata;
			union {
				__u64 flags; /* before KVM_CAP_SYSTEM_EVENT_DATA */
				__u64 data[16];
			};
		} system_event;
		struct {
			__u64 esr_iss;
			__u64 fault_ipa;
		} arm_nisv; /* an access whose syndrome does not tell the instruction */
		struct {
			__u64 flags; /* KVM_MEMORY_EXIT_FLAG_* */
			__u64 gpa;
			__u64 size;
		} memory_fault;
		struct {
			__u64 flags; /* KVM_EXIT_ARM_SEA_FLAG_* */
			__u64 esr;
			__u64 gva;
			__u64 gpa;
		} arm_sea;
		char padding[256];
	};

	__u64 kvm_valid_regs;
	__u64 kvm_dirty_regs;
	union {
		struct kvm_sync_regs regs;
		char padding[SYNC_REGS_SIZE_BYTES];
	} s;
};

/* ---- capabilities (KVM_CHECK_EXTENSION, KVM_ENABLE_CAP) --------------------------------------------------------- */

#define KVM_CAP_IRQCHIP                        0
#define KVM_CAP_HLT                            1
#define KVM_CAP_MMU_SHADOW_CACHE_CONTROL       2
#define KVM_CAP_USER_MEMORY                    3
#define KVM_CAP_SET_TSS_ADDR                   4
#define KVM_CAP_VAPIC                          6
#define KVM_CAP_EXT_CPUID                      7
#define KVM_CAP_CLOCKSOURCE                    8
#define KVM_CAP_NR_VCPUS                       9
#define KVM_CAP_NR_MEMSLOTS                    10
#define KVM_CAP_PIT                            11
#define KVM_CAP_NOP_IO_DELAY                   12
#define KVM_CAP_PV_MMU                         13
#define KVM_CAP_MP_STATE                       14
#define KVM_CAP_COALESCED_MMIO                 15
#define KVM_CAP_SYNC_MMU                       16
#define KVM_CAP_IOMMU                          18
#define KVM_CAP_DESTROY_MEMORY_REGION_WORKS    21
#define KVM_CAP_USER_NMI                       22
#define KVM_CAP_SET_GUEST_DEBUG                23
#define KVM_CAP_REINJECT_CONTROL               24
#define KVM_CAP_IRQ_ROUTING                    25
#define KVM_CAP_IRQ_INJECT_STATUS              26
#define KVM_CAP_ASSIGN_DEV_IRQ                 29
#define KVM_CAP_JOIN_MEMORY_REGIONS_WORKS      30
#define KVM_CAP_MCE                            31
#define KVM_CAP_IRQFD                          32
#define KVM_CAP_PIT2                           33
#define KVM_CAP_SET_BOOT_CPU_ID                34
#define KVM_CAP_PIT_STATE2                     35
#define KVM_CAP_IOEVENTFD                      36
#define KVM_CAP_SET_IDENTITY_MAP_ADDR          37
#define KVM_CAP_XEN_HVM                        38
#define KVM_CAP_ADJUST_CLOCK                   39
#define KVM_CAP_INTERNAL_ERROR_DATA            40
#define KVM_CAP_VCPU_EVENTS                    41
#define KVM_CAP_S390_PSW                       42
#define KVM_CAP_PPC_SEGSTATE                   43
#define KVM_CAP_HYPERV                         44
#define KVM_CAP_HYPERV_VAPIC                   45
#define KVM_CAP_HYPERV_SPIN                    46
#define KVM_CAP_PCI_SEGMENT                    47
#define KVM_CAP_PPC_PAIRED_SINGLES             48
#define KVM_CAP_INTR_SHADOW                    49
#define KVM_CAP_DEBUGREGS                      50
#define KVM_CAP_X86_ROBUST_SINGLESTEP          51
#define KVM_CAP_PPC_OSI                        52
#define KVM_CAP_PPC_UNSET_IRQ                  53
#define KVM_CAP_ENABLE_CAP                     54
#define KVM_CAP_XSAVE                          55
#define KVM_CAP_XCRS                           56
#define KVM_CAP_PPC_GET_PVINFO                 57
#define KVM_CAP_PPC_IRQ_LEVEL                  58
#define KVM_CAP_ASYNC_PF                       59
#define KVM_CAP_TSC_CONTROL                    60
#define KVM_CAP_GET_TSC_KHZ                    61
#define KVM_CAP_PPC_BOOKE_SREGS                62
#define KVM_CAP_SPAPR_TCE                      63
#define KVM_CAP_PPC_SMT                        64
#define KVM_CAP_PPC_RMA                        65
#define KVM_CAP_MAX_VCPUS                      66
#define KVM_CAP_PPC_HIOR                       67
#define KVM_CAP_PPC_PAPR                       68
#define KVM_CAP_SW_TLB                         69
#define KVM_CAP_ONE_REG                        70
#define KVM_CAP_S390_GMAP                      71
#define KVM_CAP_TSC_DEADLINE_TIMER             72
#define KVM_CAP_S390_UCONTROL                  73
#define KVM_CAP_SYNC_REGS                      74
#define KVM_CAP_PCI_2_3                        75
#define KVM_CAP_KVMCLOCK_CTRL                  76
#define KVM_CAP_SIGNAL_MSI                     77
#define KVM_CAP_PPC_GET_SMMU_INFO              78
#define KVM_CAP_S390_COW                       79
#define KVM_CAP_PPC_ALLOC_HTAB                 80
#define KVM_CAP_READONLY_MEM                   81
#define KVM_CAP_IRQFD_RESAMPLE                 82
#define KVM_CAP_PPC_BOOKE_WATCHDOG             83
#define KVM_CAP_PPC_HTAB_FD                    84
#define KVM_CAP_S390_CSS_SUPPORT               85
#define KVM_CAP_PPC_EPR                        86
#define KVM_CAP_ARM_PSCI                       87
#define KVM_CAP_ARM_SET_DEVICE_ADDR            88
#define KVM_CAP_DEVICE_CTRL                    89
#define KVM_CAP_IRQ_MPIC                       90
#define KVM_CAP_PPC_RTAS                       91
#define KVM_CAP_IRQ_XICS                       92
#define KVM_CAP_ARM_EL1_32BIT                  93
#define KVM_CAP_SPAPR_MULTITCE                 94
#define KVM_CAP_EXT_EMUL_CPUID                 95
#define KVM_CAP_HYPERV_TIME                    96
#define KVM_CAP_IOAPIC_POLARITY_IGNORED        97
#define KVM_CAP_ENABLE_CAP_VM                  98
#define KVM_CAP_S390_IRQCHIP                   99
#define KVM_CAP_IOEVENTFD_NO_LENGTH            100
#define KVM_CAP_VM_ATTRIBUTES                  101
#define KVM_CAP_ARM_PSCI_0_2                   102
#define KVM_CAP_PPC_FIXUP_HCALL                103
#define KVM_CAP_PPC_ENABLE_HCALL               104
#define KVM_CAP_CHECK_EXTENSION_VM             105
#define KVM_CAP_S390_USER_SIGP                 106
#define KVM_CAP_S390_VECTOR_REGISTERS          107
#define KVM_CAP_S390_MEM_OP                    108
#define KVM_CAP_S390_USER_STSI                 109
#define KVM_CAP_S390_SKEYS                     110
#define KVM_CAP_MIPS_FPU                       111
#define KVM_CAP_MIPS_MSA                       112
#define KVM_CAP_S390_INJECT_IRQ                113
#define KVM_CAP_S390_IRQ_STATE                 114
#define KVM_CAP_PPC_HWRNG                      115
#define KVM_CAP_DISABLE_QUIRKS                 116
#define KVM_CAP_X86_SMM                        117
#define KVM_CAP_MULTI_ADDRESS_SPACE            118
#define KVM_CAP_GUEST_DEBUG_HW_BPS             119
#define KVM_CAP_GUEST_DEBUG_HW_WPS             120
#define KVM_CAP_SPLIT_IRQCHIP                  121
#define KVM_CAP_IOEVENTFD_ANY_LENGTH           122
#define KVM_CAP_HYPERV_SYNIC                   123
#define KVM_CAP_S390_RI                        124
#define KVM_CAP_SPAPR_TCE_64                   125
#define KVM_CAP_ARM_PMU_V3                     126
#define KVM_CAP_VCPU_ATTRIBUTES                127
#define KVM_CAP_MAX_VCPU_ID                    128
#define KVM_CAP_X2APIC_API                     129
#define KVM_CAP_S390_USER_INSTR0               130
#define KVM_CAP_MSI_DEVID                      131
#define KVM_CAP_PPC_HTM                        132
#define KVM_CAP_SPAPR_RESIZE_HPT               133
#define KVM_CAP_PPC_MMU_RADIX                  134
#define KVM_CAP_PPC_MMU_HASH_V3                135
#define KVM_CAP_IMMEDIATE_EXIT                 136
#define KVM_CAP_MIPS_VZ                        137
#define KVM_CAP_MIPS_TE                        138
#define KVM_CAP_MIPS_64BIT                     139
#define KVM_CAP_S390_GS                        140
#define KVM_CAP_S390_AIS                       141
#define KVM_CAP_SPAPR_TCE_VFIO                 142
#define KVM_CAP_X86_DISABLE_EXITS              143
#define KVM_CAP_ARM_USER_IRQ                   144
#define KVM_CAP_S390_CMMA_MIGRATION            145
#define KVM_CAP_PPC_FWNMI                      146
#define KVM_CAP_PPC_SMT_POSSIBLE               147
#define KVM_CAP_HYPERV_SYNIC2                  148
#define KVM_CAP_HYPERV_VP_INDEX                149
#define KVM_CAP_S390_AIS_MIGRATION             150
#define KVM_CAP_PPC_GET_CPU_CHAR               151
#define KVM_CAP_S390_BPB                       152
#define KVM_CAP_GET_MSR_FEATURES               153
#define KVM_CAP_HYPERV_EVENTFD                 154
#define KVM_CAP_HYPERV_TLBFLUSH                155
#define KVM_CAP_S390_HPAGE_1M                  156
#define KVM_CAP_NESTED_STATE                   157
#define KVM_CAP_ARM_INJECT_SERROR_ESR          158
#define KVM_CAP_MSR_PLATFORM_INFO              159
#define KVM_CAP_PPC_NESTED_HV                  160
#define KVM_CAP_HYPERV_SEND_IPI                161
#define KVM_CAP_COALESCED_PIO                  162
#define KVM_CAP_HYPERV_ENLIGHTENED_VMCS        163
#define KVM_CAP_EXCEPTION_PAYLOAD              164
#define KVM_CAP_ARM_VM_IPA_SIZE                165
#define KVM_CAP_MANUAL_DIRTY_LOG_PROTECT       166
#define KVM_CAP_HYPERV_CPUID                   167
#define KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2      168
#define KVM_CAP_PPC_IRQ_XIVE                   169
#define KVM_CAP_ARM_SVE                        170
#define KVM_CAP_ARM_PTRAUTH_ADDRESS            171
#define KVM_CAP_ARM_PTRAUTH_GENERIC            172
#define KVM_CAP_PMU_EVENT_FILTER               173
#define KVM_CAP_ARM_IRQ_LINE_LAYOUT_2          174
#define KVM_CAP_HYPERV_DIRECT_TLBFLUSH         175
#define KVM_CAP_PPC_GUEST_DEBUG_SSTEP          176
#define KVM_CAP_ARM_NISV_TO_USER               177
#define KVM_CAP_ARM_INJECT_EXT_DABT            178
#define KVM_CAP_S390_VCPU_RESETS               179
#define KVM_CAP_S390_PROTECTED                 180
#define KVM_CAP_PPC_SECURE_GUEST               181
#define KVM_CAP_HALT_POLL                      182
#define KVM_CAP_ASYNC_PF_INT                   183
#define KVM_CAP_LAST_CPU                       184
#define KVM_CAP_SMALLER_MAXPHYADDR             185
#define KVM_CAP_S390_DIAG318                   186
#define KVM_CAP_STEAL_TIME                     187
#define KVM_CAP_X86_USER_SPACE_MSR             188
#define KVM_CAP_X86_MSR_FILTER                 189
#define KVM_CAP_ENFORCE_PV_FEATURE_CPUID       190
#define KVM_CAP_SYS_HYPERV_CPUID               191
#define KVM_CAP_DIRTY_LOG_RING                 192
#define KVM_CAP_X86_BUS_LOCK_EXIT              193
#define KVM_CAP_PPC_DAWR1                      194
#define KVM_CAP_SET_GUEST_DEBUG2               195
#define KVM_CAP_SGX_ATTRIBUTE                  196
#define KVM_CAP_VM_COPY_ENC_CONTEXT_FROM       197
#define KVM_CAP_PTP_KVM                        198
#define KVM_CAP_HYPERV_ENFORCE_CPUID           199
#define KVM_CAP_SREGS2                         200
#define KVM_CAP_EXIT_HYPERCALL                 201
#define KVM_CAP_PPC_RPT_INVALIDATE             202
#define KVM_CAP_BINARY_STATS_FD                203
#define KVM_CAP_EXIT_ON_EMULATION_FAILURE      204
#define KVM_CAP_ARM_MTE                        205
#define KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM       206
#define KVM_CAP_VM_GPA_BITS                    207
#define KVM_CAP_XSAVE2                         208
#define KVM_CAP_SYS_ATTRIBUTES                 209
#define KVM_CAP_PPC_AIL_MODE_3                 210
#define KVM_CAP_S390_MEM_OP_EXTENSION          211
#define KVM_CAP_PMU_CAPABILITY                 212
#define KVM_CAP_DISABLE_QUIRKS2                213
#define KVM_CAP_VM_TSC_CONTROL                 214
#define KVM_CAP_SYSTEM_EVENT_DATA              215
#define KVM_CAP_ARM_SYSTEM_SUSPEND             216
#define KVM_CAP_S390_PROTECTED_DUMP            217
#define KVM_CAP_X86_TRIPLE_FAULT_EVENT         218
#define KVM_CAP_X86_NOTIFY_VMEXIT              219
#define KVM_CAP_VM_DISABLE_NX_HUGE_PAGES       220
#define KVM_CAP_S390_ZPCI_OP                   221
#define KVM_CAP_S390_CPU_TOPOLOGY              222
#define KVM_CAP_DIRTY_LOG_RING_ACQ_REL         223
#define KVM_CAP_S390_PROTECTED_ASYNC_DISABLE   224
#define KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP     225
#define KVM_CAP_PMU_EVENT_MASKED_EVENTS        226
#define KVM_CAP_COUNTER_OFFSET                 227
#define KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE     228
#define KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES      229
#define KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES  230
#define KVM_CAP_USER_MEMORY2                   231
#define KVM_CAP_MEMORY_FAULT_INFO              232
#define KVM_CAP_MEMORY_ATTRIBUTES              233
#define KVM_CAP_GUEST_MEMFD                    234
#define KVM_CAP_VM_TYPES                       235
#define KVM_CAP_PRE_FAULT_MEMORY               236
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS         237
#define KVM_CAP_X86_GUEST_MODE                 238
#define KVM_CAP_ARM_WRITABLE_IMP_ID_REGS       239
#define KVM_CAP_ARM_EL2                        240
#define KVM_CAP_ARM_EL2_E2H0                   241
#define KVM_CAP_RISCV_MP_STATE_RESET           242
#define KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED 243
#define KVM_CAP_GUEST_MEMFD_FLAGS              244
#define KVM_CAP_ARM_SEA_TO_USER                245
#define KVM_CAP_S390_USER_OPEREXEC             246
#define KVM_CAP_S390_KEYOP                     247

#endif /* KVMVFIO_EMU_LINUX_KVM_H */
