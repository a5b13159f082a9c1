/* SPDX-License-Identifier: MIT */
/*
 * The ARM half of the KVM API: what depends on the guest's architecture.
 *
 * One file, two flavours. The 64-bit one is the default on every host, so that an x86 machine can build and run a VMM
 * for the emulated ARM host; the 32-bit one (the board of the 2014 series was a Cortex-A9/A15 machine) is chosen by a
 * 32-bit ARM compiler or by -DKVMVFIO_EMU_ARM32.
 *
 * The last section holds what the IRQ forwarding series adds.
 */
#ifndef KVMVFIO_EMU_ASM_KVM_H
#define KVMVFIO_EMU_ASM_KVM_H

#include <linux/types.h>

#if defined(__arm__) && !defined(KVMVFIO_EMU_ARM32)
#define KVMVFIO_EMU_ARM32
#endif

/* PSCI's own numbers come from the system where it has them; the fallback is at the end of this file. */
#ifdef __has_include
#if __has_include(<linux/psci.h>)
#include <linux/psci.h>
#endif
#endif

/* What linux/kvm.h and programs ask about the architecture. */
#define __KVM_HAVE_GUEST_DEBUG
#define __KVM_HAVE_IRQ_LINE
#define __KVM_HAVE_READONLY_MEM
#define __KVM_HAVE_VCPU_EVENTS

/* Pages into the vCPU mapping: where the coalesced MMIO ring and the dirty ring start. */
#define KVM_COALESCED_MMIO_PAGE_OFFSET 1
#define KVM_DIRTY_LOG_PAGE_OFFSET      64

/* The one irqchip is the VGIC. */
#define KVM_NR_IRQCHIPS 1

/* ---- vCPU state ------------------------------------------------------------------------------------------------- */

#ifdef KVMVFIO_EMU_ARM32

#ifdef __arm__
#include <asm/ptrace.h>
#else
/* r0 to r15 and the status words, under a name that no other architecture's pt_regs uses. */
struct kvm_arm_pt_regs {
	__u32 uregs[18];
};
#define ARM_r0     uregs[0]
#define ARM_sp     uregs[13]
#define ARM_lr     uregs[14]
#define ARM_pc     uregs[15]
#define ARM_cpsr   uregs[16]
#define ARM_ORIG_r0 uregs[17]
#endif

/* Core registers; an index into this struct, counted in words, names one of them (KVM_REG_ARM_CORE_REG). */
struct kvm_regs {
#ifdef __arm__
	struct pt_regs usr_regs;
#else
	struct kvm_arm_pt_regs usr_regs;
#endif
	__u32 svc_regs[3]; /* the banked sp, lr and spsr of each mode */
	__u32 abt_regs[3];
	__u32 und_regs[3];
	__u32 irq_regs[3];
	__u32 fiq_regs[8]; /* r8 to r14, spsr */
};

#define KVM_ARM_SVC_sp   svc_regs[0]
#define KVM_ARM_SVC_lr   svc_regs[1]
#define KVM_ARM_SVC_spsr svc_regs[2]
#define KVM_ARM_ABT_sp   abt_regs[0]
#define KVM_ARM_ABT_lr   abt_regs[1]
#define KVM_ARM_ABT_spsr abt_regs[2]
#define KVM_ARM_UND_sp   und_regs[0]
#define KVM_ARM_UND_lr   und_regs[1]
#define KVM_ARM_UND_spsr und_regs[2]
#define KVM_ARM_IRQ_sp   irq_regs[0]
#define KVM_ARM_IRQ_lr   irq_regs[1]
#define KVM_ARM_IRQ_spsr irq_regs[2]
#define KVM_ARM_FIQ_r8   fiq_regs[0]
#define KVM_ARM_FIQ_r9   fiq_regs[1]
#define KVM_ARM_FIQ_r10  fiq_regs[2]
#define KVM_ARM_FIQ_fp   fiq_regs[3]
#define KVM_ARM_FIQ_ip   fiq_regs[4]
#define KVM_ARM_FIQ_sp   fiq_regs[5]
#define KVM_ARM_FIQ_lr   fiq_regs[6]
#define KVM_ARM_FIQ_spsr fiq_regs[7]

/* 32-bit ARM has nothing to say here. A zero-length array keeps the size 0 in C and in C++. */
__extension__ struct kvm_guest_debug_arch {
	__u32 none[0];
};
__extension__ struct kvm_debug_exit_arch {
	__u32 none[0];
};
__extension__ struct kvm_sync_regs {
	__u32 none[0];
};

/* KVM_ARM_VCPU_INIT: targets, and feature bits. */
#define KVM_ARM_TARGET_CORTEX_A15 0
#define KVM_ARM_TARGET_CORTEX_A7  1
#define KVM_ARM_NUM_TARGETS       2
#define KVM_ARM_VCPU_POWER_OFF    0
#define KVM_ARM_VCPU_PSCI_0_2     1

#else /* 64-bit */

#ifdef __aarch64__
#include <asm/ptrace.h>
#else
/* The arm64 ptrace structs, for hosts of another architecture. */
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};
struct user_fpsimd_state {
	__u64 vregs[32][2]; /* 128-bit registers; two halves because ISO C has no such integer */
	__u32 fpsr;
	__u32 fpcr;
	__u32 __reserved[2];
};
#endif

#define KVM_SPSR_EL1 0
#define KVM_SPSR_SVC KVM_SPSR_EL1
#define KVM_SPSR_ABT 1
#define KVM_SPSR_UND 2
#define KVM_SPSR_IRQ 3
#define KVM_SPSR_FIQ 4
#define KVM_NR_SPSR  5

/* Core registers; an index into this struct, counted in words, names one of them (KVM_REG_ARM_CORE_REG). */
struct kvm_regs {
	struct user_pt_regs regs; /* its sp is sp_el0 */
	__u64 sp_el1;
	__u64 elr_el1;
	__u64 spsr[KVM_NR_SPSR];
#ifndef __aarch64__
	__u64 align16; /* a true 128-bit register type would make the compiler leave this gap */
#endif
	struct user_fpsimd_state fp_regs;
};

#define KVM_ARM_MAX_DBG_REGS 16
struct kvm_guest_debug_arch {
	__u64 dbg_bcr[KVM_ARM_MAX_DBG_REGS];
	__u64 dbg_bvr[KVM_ARM_MAX_DBG_REGS];
	__u64 dbg_wcr[KVM_ARM_MAX_DBG_REGS];
	__u64 dbg_wvr[KVM_ARM_MAX_DBG_REGS];
};
#define KVM_GUESTDBG_USE_SW_BP (1 << 16)
#define KVM_GUESTDBG_USE_HW    (1 << 17)

struct kvm_debug_exit_arch {
	__u32 hsr;      /* the syndrome, its lower word */
	__u32 hsr_high; /* newer kernels: bits 32 to 61 */
	__u64 far;      /* the address a watchpoint hit */
};

struct kvm_sync_regs {
	__u64 device_irq_level; /* KVM_CAP_ARM_USER_IRQ: which in-kernel device lines are high, KVM_ARM_DEV_* */
};
#define KVM_ARM_DEV_EL1_VTIMER (1 << 0)
#define KVM_ARM_DEV_EL1_PTIMER (1 << 1)
#define KVM_ARM_DEV_PMU        (1 << 2)

/* KVM_ARM_VCPU_INIT: targets, and feature bits. */
#define KVM_ARM_TARGET_AEM_V8        0
#define KVM_ARM_TARGET_FOUNDATION_V8 1
#define KVM_ARM_TARGET_CORTEX_A57    2
#define KVM_ARM_TARGET_XGENE_POTENZA 3
#define KVM_ARM_TARGET_CORTEX_A53    4
#define KVM_ARM_TARGET_GENERIC_V8    5
#define KVM_ARM_NUM_TARGETS          6
#define KVM_ARM_VCPU_POWER_OFF       0
#define KVM_ARM_VCPU_EL1_32BIT       1
#define KVM_ARM_VCPU_PSCI_0_2        2
#define KVM_ARM_VCPU_PMU_V3          3
#define KVM_ARM_VCPU_SVE             4
#define KVM_ARM_VCPU_PTRAUTH_ADDRESS 5
#define KVM_ARM_VCPU_PTRAUTH_GENERIC 6
#define KVM_ARM_VCPU_HAS_EL2         7
#define KVM_ARM_VCPU_HAS_EL2_E2H0    8

#endif /* flavours */

struct kvm_vcpu_init {
	__u32 target;      /* KVM_ARM_TARGET_* */
	__u32 features[7]; /* bit numbers KVM_ARM_VCPU_*, 32 to a word */
};

struct kvm_vcpu_events {
	struct {
		__u8 serror_pending;
		__u8 serror_has_esr;
		__u8 ext_dabt_pending;
		__u8 pad[5];
		__u64 serror_esr;
	} exception;
	__u32 reserved[12];
};

struct kvm_pmu_event_filter {
	__u16 base_event;
	__u16 nevents;
	__u8 action; /* KVM_PMU_EVENT_* */
	__u8 pad[3];
};
#define KVM_PMU_EVENT_ALLOW 0
#define KVM_PMU_EVENT_DENY  1

struct kvm_arm_copy_mte_tags {
	__u64 guest_ipa;
	__u64 length;
	void *addr;
	__u64 flags; /* KVM_ARM_TAGS_* */
	__u64 reserved[2];
};
#define KVM_ARM_TAGS_TO_GUEST   0
#define KVM_ARM_TAGS_FROM_GUEST 1

struct kvm_arm_counter_offset {
	__u64 counter_offset;
	__u64 reserved;
};

/* KVM_ARM_GET_REG_WRITABLE_MASKS: where the masks shall be written. */
struct reg_mask_range {
	__u64 addr;
	__u32 range; /* KVM_ARM_FEATURE_ID_RANGE is the only one */
	__u32 reserved[13];
};
#define KVM_ARM_FEATURE_ID_RANGE      0
#define KVM_ARM_FEATURE_ID_RANGE_SIZE (3 * 8 * 8)

/* Device attributes of the VM fd: which SMCCC calls go to user space. */
#define KVM_ARM_VM_SMCCC_CTRL   0
#define KVM_ARM_VM_SMCCC_FILTER 0
struct kvm_smccc_filter {
	__u32 base;
	__u32 nr_functions;
	__u8 action; /* KVM_SMCCC_FILTER_* */
	__u8 pad[15];
};
#define KVM_SMCCC_FILTER_HANDLE      0
#define KVM_SMCCC_FILTER_DENY        1
#define KVM_SMCCC_FILTER_FWD_TO_USER 2

/* Device attributes of the vCPU fd: group, then the attributes in it. */
#define KVM_ARM_VCPU_PMU_V3_CTRL            0
#define KVM_ARM_VCPU_PMU_V3_IRQ             0
#define KVM_ARM_VCPU_PMU_V3_INIT            1
#define KVM_ARM_VCPU_PMU_V3_FILTER          2
#define KVM_ARM_VCPU_PMU_V3_SET_PMU         3
#define KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS 4
#define KVM_ARM_VCPU_TIMER_CTRL             1
#define KVM_ARM_VCPU_TIMER_IRQ_VTIMER       0
#define KVM_ARM_VCPU_TIMER_IRQ_PTIMER       1
#define KVM_ARM_VCPU_TIMER_IRQ_HVTIMER      2
#define KVM_ARM_VCPU_TIMER_IRQ_HPTIMER      3
#define KVM_ARM_VCPU_PVTIME_CTRL            2
#define KVM_ARM_VCPU_PVTIME_IPA             0

/* ---- one register at a time ------------------------------------------------------------------------------------- */

#define KVM_REG_SIZE(id) (1U << (((id) & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT))

/* Bits 16 to 27 of an id say which kind of register; the core registers of struct kvm_regs are kind 0x10. */
#define KVM_REG_ARM_COPROC_MASK     0x000000000FFF0000
#define KVM_REG_ARM_COPROC_SHIFT    16
#define KVM_REG_ARM_CORE            (0x0010 << KVM_REG_ARM_COPROC_SHIFT)
#define KVM_REG_ARM_CORE_REG(name)  (offsetof(struct kvm_regs, name) / sizeof(__u32))
#define KVM_REG_ARM_DEMUX           (0x0011 << KVM_REG_ARM_COPROC_SHIFT)
#define KVM_REG_ARM_DEMUX_ID_MASK   0x000000000000FF00
#define KVM_REG_ARM_DEMUX_ID_SHIFT  8
#define KVM_REG_ARM_DEMUX_ID_CCSIDR (0x00 << KVM_REG_ARM_DEMUX_ID_SHIFT)
#define KVM_REG_ARM_DEMUX_VAL_MASK  0x00000000000000FF
#define KVM_REG_ARM_DEMUX_VAL_SHIFT 0
#define KVM_REG_ARM_FW              (0x0014 << KVM_REG_ARM_COPROC_SHIFT)

#ifdef KVMVFIO_EMU_ARM32

#define KVM_REG_ARM_32_OPC2_MASK   0x0000000000000007
#define KVM_REG_ARM_32_OPC2_SHIFT  0
#define KVM_REG_ARM_OPC1_MASK      0x0000000000000078
#define KVM_REG_ARM_OPC1_SHIFT     3
#define KVM_REG_ARM_CRM_MASK       0x0000000000000780
#define KVM_REG_ARM_CRM_SHIFT      7
#define KVM_REG_ARM_32_CRN_MASK    0x0000000000007800
#define KVM_REG_ARM_32_CRN_SHIFT   11

#define ARM_CP15_REG_SHIFT_MASK(x, n) (((x) << KVM_REG_ARM_##n##_SHIFT) & KVM_REG_ARM_##n##_MASK)
#define __ARM_CP15_REG(op1, crn, crm, op2)                                                                             \
	(KVM_REG_ARM | (15 << KVM_REG_ARM_COPROC_SHIFT) | ARM_CP15_REG_SHIFT_MASK(op1, OPC1) |                         \
	 ARM_CP15_REG_SHIFT_MASK(crn, 32_CRN) | ARM_CP15_REG_SHIFT_MASK(crm, CRM) |                                    \
	 ARM_CP15_REG_SHIFT_MASK(op2, 32_OPC2))
#define ARM_CP15_REG32(...)        (__ARM_CP15_REG(__VA_ARGS__) | KVM_REG_SIZE_U32)
#define __ARM_CP15_REG64(op1, crm) (__ARM_CP15_REG(op1, 0, crm, 0) | KVM_REG_SIZE_U64)
#define ARM_CP15_REG64(...)        __ARM_CP15_REG64(__VA_ARGS__)

#define KVM_REG_ARM_TIMER_CTL  ARM_CP15_REG32(0, 14, 3, 1)
#define KVM_REG_ARM_TIMER_CNT  ARM_CP15_REG64(1, 14)
#define KVM_REG_ARM_TIMER_CVAL ARM_CP15_REG64(3, 14)

#define KVM_REG_ARM_VFP          (0x0012 << KVM_REG_ARM_COPROC_SHIFT)
#define KVM_REG_ARM_VFP_MASK     0x000000000000FFFF
#define KVM_REG_ARM_VFP_BASE_REG 0x0
#define KVM_REG_ARM_VFP_FPSID    0x1000
#define KVM_REG_ARM_VFP_FPSCR    0x1001
#define KVM_REG_ARM_VFP_MVFR1    0x1006
#define KVM_REG_ARM_VFP_MVFR0    0x1007
#define KVM_REG_ARM_VFP_FPEXC    0x1008
#define KVM_REG_ARM_VFP_FPINST   0x1009
#define KVM_REG_ARM_VFP_FPINST2  0x100A

#define KVM_REG_ARM_FW_REG(r) (KVM_REG_ARM | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW | ((r) & 0xffff))

#else /* 64-bit */

#define KVM_REG_ARM64_SYSREG           (0x0013 << KVM_REG_ARM_COPROC_SHIFT)
#define KVM_REG_ARM64_SYSREG_OP0_MASK  0x000000000000c000
#define KVM_REG_ARM64_SYSREG_OP0_SHIFT 14
#define KVM_REG_ARM64_SYSREG_OP1_MASK  0x0000000000003800
#define KVM_REG_ARM64_SYSREG_OP1_SHIFT 11
#define KVM_REG_ARM64_SYSREG_CRN_MASK  0x0000000000000780
#define KVM_REG_ARM64_SYSREG_CRN_SHIFT 7
#define KVM_REG_ARM64_SYSREG_CRM_MASK  0x0000000000000078
#define KVM_REG_ARM64_SYSREG_CRM_SHIFT 3
#define KVM_REG_ARM64_SYSREG_OP2_MASK  0x0000000000000007
#define KVM_REG_ARM64_SYSREG_OP2_SHIFT 0

#define ARM64_SYS_REG_SHIFT_MASK(x, n) (((x) << KVM_REG_ARM64_SYSREG_##n##_SHIFT) & KVM_REG_ARM64_SYSREG_##n##_MASK)
#define __ARM64_SYS_REG(op0, op1, crn, crm, op2)                                                                       \
	(KVM_REG_ARM64 | KVM_REG_ARM64_SYSREG | ARM64_SYS_REG_SHIFT_MASK(op0, OP0) |                                   \
	 ARM64_SYS_REG_SHIFT_MASK(op1, OP1) | ARM64_SYS_REG_SHIFT_MASK(crn, CRN) |                                     \
	 ARM64_SYS_REG_SHIFT_MASK(crm, CRM) | ARM64_SYS_REG_SHIFT_MASK(op2, OP2))
#define ARM64_SYS_REG(...) (__ARM64_SYS_REG(__VA_ARGS__) | KVM_REG_SIZE_U64)

#define KVM_REG_ARM_PTIMER_CTL  ARM64_SYS_REG(3, 3, 14, 2, 1)
#define KVM_REG_ARM_PTIMER_CVAL ARM64_SYS_REG(3, 3, 14, 2, 2)
#define KVM_REG_ARM_PTIMER_CNT  ARM64_SYS_REG(3, 3, 14, 0, 1)
/* The encodings of CNT and CVAL were swapped by mistake once, and are ABI since. */
#define KVM_REG_ARM_TIMER_CTL   ARM64_SYS_REG(3, 3, 14, 3, 1)
#define KVM_REG_ARM_TIMER_CVAL  ARM64_SYS_REG(3, 3, 14, 0, 2)
#define KVM_REG_ARM_TIMER_CNT   ARM64_SYS_REG(3, 3, 14, 3, 2)

#define KVM_REG_ARM_FW_REG(r)   (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW | ((r) & 0xffff))

#define KVM_REG_ARM64_SVE           (0x0015 << KVM_REG_ARM_COPROC_SHIFT)
#define KVM_REG_ARM64_SVE_ZREG_BASE 0
#define KVM_REG_ARM64_SVE_PREG_BASE 0x400
#define KVM_REG_ARM64_SVE_FFR_BASE  0x600
#define KVM_ARM64_SVE_MAX_SLICES    32
#define KVM_REG_ARM64_SVE_VLS       (KVM_REG_ARM64 | KVM_REG_ARM64_SVE | KVM_REG_SIZE_U512 | 0xffff)

/* Bitmaps of the firmware services that a guest may see. */
#define KVM_REG_ARM_FW_FEAT_BMAP        (0x0016 << KVM_REG_ARM_COPROC_SHIFT)
#define KVM_REG_ARM_FW_FEAT_BMAP_REG(r) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW_FEAT_BMAP | ((r) & 0xffff))
#define KVM_REG_ARM_STD_BMAP            KVM_REG_ARM_FW_FEAT_BMAP_REG(0)
#define KVM_REG_ARM_STD_HYP_BMAP        KVM_REG_ARM_FW_FEAT_BMAP_REG(1)
#define KVM_REG_ARM_VENDOR_HYP_BMAP     KVM_REG_ARM_FW_FEAT_BMAP_REG(2)

#endif /* flavours */

#define KVM_REG_ARM_PSCI_VERSION                         KVM_REG_ARM_FW_REG(0)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1              KVM_REG_ARM_FW_REG(1)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_NOT_AVAIL    0
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_AVAIL        1
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_NOT_REQUIRED 2
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2              KVM_REG_ARM_FW_REG(2)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_AVAIL    0
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_UNKNOWN      1
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_AVAIL        2
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED 3
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_ENABLED      (1U << 4)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3              KVM_REG_ARM_FW_REG(3)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_NOT_AVAIL    0
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_AVAIL        1
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_NOT_REQUIRED 2

/* ---- the VGIC --------------------------------------------------------------------------------------------------- */

/* kvm_arm_device_addr.id: the device in the upper half word, the address type in the lower. */
#define KVM_ARM_DEVICE_TYPE_SHIFT 0
#define KVM_ARM_DEVICE_TYPE_MASK  (0xffff << KVM_ARM_DEVICE_TYPE_SHIFT)
#define KVM_ARM_DEVICE_ID_SHIFT   16
#define KVM_ARM_DEVICE_ID_MASK    (0xffffU << KVM_ARM_DEVICE_ID_SHIFT)
#define KVM_ARM_DEVICE_VGIC_V2    0

/* Address types, which are also the attributes of group ADDR; and the sizes of the frames. */
#define KVM_VGIC_V2_ADDR_TYPE_DIST          0
#define KVM_VGIC_V2_ADDR_TYPE_CPU           1
#define KVM_VGIC_V3_ADDR_TYPE_DIST          2
#define KVM_VGIC_V3_ADDR_TYPE_REDIST        3
#define KVM_VGIC_ITS_ADDR_TYPE              4
#define KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION 5
#define KVM_VGIC_V2_DIST_SIZE               0x1000
#define KVM_VGIC_V2_CPU_SIZE                0x2000
#define KVM_VGIC_V3_DIST_SIZE               0x10000
#define KVM_VGIC_V3_REDIST_SIZE             0x20000
#define KVM_VGIC_V3_ITS_SIZE                0x20000

/* Attribute groups. */
#define KVM_DEV_ARM_VGIC_GRP_ADDR        0
#define KVM_DEV_ARM_VGIC_GRP_DIST_REGS   1
#define KVM_DEV_ARM_VGIC_GRP_CPU_REGS    2
#define KVM_DEV_ARM_VGIC_GRP_NR_IRQS     3
#define KVM_DEV_ARM_VGIC_GRP_CTRL        4
#define KVM_DEV_ARM_VGIC_GRP_REDIST_REGS 5
#define KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS 6
#define KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO  7
#define KVM_DEV_ARM_VGIC_GRP_ITS_REGS    8
#define KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ   9

/* Register groups: attr holds the offset, and the vCPU (GICv2: an index; GICv3: packed affinity). */
#define KVM_DEV_ARM_VGIC_CPUID_SHIFT       32
#define KVM_DEV_ARM_VGIC_CPUID_MASK        (0xffULL << KVM_DEV_ARM_VGIC_CPUID_SHIFT)
#define KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT    32
#define KVM_DEV_ARM_VGIC_V3_MPIDR_MASK     (0xffffffffULL << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT)
#define KVM_DEV_ARM_VGIC_OFFSET_SHIFT      0
#define KVM_DEV_ARM_VGIC_OFFSET_MASK       (0xffffffffULL << KVM_DEV_ARM_VGIC_OFFSET_SHIFT)
#define KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK (0xffff)

/* Group LEVEL_INFO: 32 input lines at once. */
#define KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT 10
#define KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_MASK  (0x3fffffULL << KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT)
#define KVM_DEV_ARM_VGIC_LINE_LEVEL_INTID_MASK 0x3ff
#define VGIC_LEVEL_INFO_LINE_LEVEL             0

/* Attributes of group CTRL. */
#define KVM_DEV_ARM_VGIC_CTRL_INIT           0
#define KVM_DEV_ARM_ITS_SAVE_TABLES          1
#define KVM_DEV_ARM_ITS_RESTORE_TABLES       2
#define KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES 3
#define KVM_DEV_ARM_ITS_CTRL_RESET           4
#define KVM_DEV_ARM_VGIC_USERSPACE_PPIS      5

/* kvm_irq_level.irq of KVM_IRQ_LINE. An SPI or PPI is given by its GIC id, not by its gsi (which is id - 32). */
#define KVM_ARM_IRQ_VCPU2_SHIFT 28
#define KVM_ARM_IRQ_VCPU2_MASK  0xf
#define KVM_ARM_IRQ_TYPE_SHIFT  24
#ifdef KVMVFIO_EMU_ARM32
#define KVM_ARM_IRQ_TYPE_MASK   0xff /* before KVM_CAP_ARM_IRQ_LINE_LAYOUT_2 took the upper half for VCPU2 */
#else
#define KVM_ARM_IRQ_TYPE_MASK   0xf
#endif
#define KVM_ARM_IRQ_VCPU_SHIFT  16
#define KVM_ARM_IRQ_VCPU_MASK   0xff
#define KVM_ARM_IRQ_NUM_SHIFT   0
#define KVM_ARM_IRQ_NUM_MASK    0xffff
#define KVM_ARM_IRQ_TYPE_CPU    0
#define KVM_ARM_IRQ_TYPE_SPI    1
#define KVM_ARM_IRQ_TYPE_PPI    2
#define KVM_ARM_IRQ_CPU_IRQ     0 /* type CPU, for a VMM that emulates the GIC itself */
#define KVM_ARM_IRQ_CPU_FIQ     1
#define KVM_ARM_IRQ_GIC_MAX     127 /* a limit of the first kernels, kept because programs name it */

/* ---- firmware calls --------------------------------------------------------------------------------------------- */

/* The PSCI 0.1 that KVM invented before PSCI fixed its function numbers. */
#define KVM_PSCI_FN_BASE        0x95c1ba5e
#define KVM_PSCI_FN(n)          (KVM_PSCI_FN_BASE + (n))
#define KVM_PSCI_FN_CPU_SUSPEND KVM_PSCI_FN(0)
#define KVM_PSCI_FN_CPU_OFF     KVM_PSCI_FN(1)
#define KVM_PSCI_FN_CPU_ON      KVM_PSCI_FN(2)
#define KVM_PSCI_FN_MIGRATE     KVM_PSCI_FN(3)
#define KVM_PSCI_RET_SUCCESS    PSCI_RET_SUCCESS
#define KVM_PSCI_RET_NI         PSCI_RET_NOT_SUPPORTED
#define KVM_PSCI_RET_INVAL      PSCI_RET_INVALID_PARAMS
#define KVM_PSCI_RET_DENIED     PSCI_RET_DENIED

/* kvm_run: flags of system_event, hypercall, and the reason in fail_entry. */
#define KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2  (1ULL << 0)
#define KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2 (1ULL << 0)
#define KVM_HYPERCALL_EXIT_SMC                   (1U << 0)
#define KVM_HYPERCALL_EXIT_16BIT                 (1U << 1)
#define KVM_EXIT_FAIL_ENTRY_CPU_UNSUPPORTED      (1ULL << 0)

/* For a system without linux/psci.h: the calls that a vCPU can make. */
#ifndef PSCI_0_2_FN_BASE
#define PSCI_0_2_FN_BASE              0x84000000
#define PSCI_0_2_FN(n)                (PSCI_0_2_FN_BASE + (n))
#define PSCI_0_2_64BIT                0x40000000
#define PSCI_0_2_FN64_BASE            (PSCI_0_2_FN_BASE + PSCI_0_2_64BIT)
#define PSCI_0_2_FN64(n)              (PSCI_0_2_FN64_BASE + (n))
#define PSCI_0_2_FN_PSCI_VERSION      PSCI_0_2_FN(0)
#define PSCI_0_2_FN_CPU_SUSPEND       PSCI_0_2_FN(1)
#define PSCI_0_2_FN_CPU_OFF           PSCI_0_2_FN(2)
#define PSCI_0_2_FN_CPU_ON            PSCI_0_2_FN(3)
#define PSCI_0_2_FN_AFFINITY_INFO     PSCI_0_2_FN(4)
#define PSCI_0_2_FN_MIGRATE           PSCI_0_2_FN(5)
#define PSCI_0_2_FN_MIGRATE_INFO_TYPE PSCI_0_2_FN(6)
#define PSCI_0_2_FN_SYSTEM_OFF        PSCI_0_2_FN(8)
#define PSCI_0_2_FN_SYSTEM_RESET      PSCI_0_2_FN(9)
#define PSCI_0_2_FN64_CPU_SUSPEND     PSCI_0_2_FN64(1)
#define PSCI_0_2_FN64_CPU_ON          PSCI_0_2_FN64(3)
#define PSCI_0_2_FN64_AFFINITY_INFO   PSCI_0_2_FN64(4)
#define PSCI_1_0_FN_PSCI_FEATURES     PSCI_0_2_FN(10)
#define PSCI_1_0_FN_SYSTEM_SUSPEND    PSCI_0_2_FN(14)
#define PSCI_1_1_FN_SYSTEM_RESET2     PSCI_0_2_FN(18)
#define PSCI_RET_SUCCESS              0
#define PSCI_RET_NOT_SUPPORTED        -1
#define PSCI_RET_INVALID_PARAMS       -2
#define PSCI_RET_DENIED               -3
#define PSCI_RET_ALREADY_ON           -4
#define PSCI_RET_ON_PENDING           -5
#define PSCI_RET_INTERNAL_FAILURE     -6
#define PSCI_RET_NOT_PRESENT          -7
#define PSCI_RET_DISABLED             -8
#endif

/* ---- IRQ forwarding (the 2014 series; in no released kernel) ---------------------------------------------------- */

/*
 * The argument of KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ and _DEASSIGN_IRQ: physical interrupt `index` of the VFIO device `fd`
 * is, or is no longer, tied in hardware to the guest's interrupt `gsi` (SPI gsi + 32).
 */
struct kvm_arch_forwarded_irq {
	__u32 fd;
	__u32 index;
	__u32 gsi;
};

#endif /* KVMVFIO_EMU_ASM_KVM_H */
