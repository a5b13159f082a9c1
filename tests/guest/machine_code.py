"""Machine code of the tests' guests, as words; each with what it does and its assembly."""

#: Loads and stores of each size at x0, signs extended, then the results at x1 (memory).
SIZES = (
    0x39400002,  # ldrb w2,[x0]
    0x39800403,  # ldrsb x3,[x0,#1]
    0x79C00404,  # ldrsh w4,[x0,#2]
    0xB9800405,  # ldrsw x5,[x0,#4]
    0xF9400406,  # ldr x6,[x0,#8]
    0x39004002,  # strb w2,[x0,#16]
    0x79002404,  # strh w4,[x0,#18]
    0xB9001405,  # str w5,[x0,#20]
    0xF9000C06,  # str x6,[x0,#24]
    0xF900101F,  # str xzr,[x0,#32]
    0xA9000C22,  # stp x2,x3,[x1]
    0xA9011424,  # stp x4,x5,[x1,#16]
    0xB9002802,  # str w2,[x0,#40]
    0x14000000,  # b .
)
#: Add 1 to x0 for ever.
COUNT = (
    0x91000400,  # add x0,x0,#1
    0x17FFFFFF,  # b .-4
)
#: WFI, then a store to x0; for ever.
WAIT = (
    0xD503207F,  # wfi
    0xB9000001,  # str w1,[x0]
    0x17FFFFFE,  # b .-8
)
#: HVC with what userspace put into x0 and on, then a store of the answer to x9.
PSCI = (
    0xD4000002,  # hvc #0
    0xF9000120,  # str x0,[x9]
    0x14000000,  # b .
)
#: PSCI CPU_ON of vCPU 1 at x2 with context x3, wait until it has written to x4, a store of that to x9.
START = (
    0xD4000002,  # hvc #0
    0xF9400085,  # ldr x5,[x4]
    0xB4FFFFE5,  # cbz x5,.-4
    0xF9000125,  # str x5,[x9]
    0x14000000,  # b .
)
#: The other vCPU: its context and MPIDR_EL1 to 0x40002000, then CPU_OFF.
OTHER = (
    0xD53800A1,  # mrs x1,mpidr_el1
    0x8B010000,  # add x0,x0,x1
    0xD2A80002,  # movz x2,#0x4000,lsl #16
    0xF2840002,  # movk x2,#0x2000
    0xF9000040,  # str x0,[x2]
    0xD2B08000,  # movz x0,#0x8400,lsl #16
    0xF2800040,  # movk x0,#0x2
    0xD4000002,  # hvc #0
    0x14000000,  # b .
)
#: A pair, which has no syndrome.
PAIR = (
    0xA9400801,  # ldp x1,x2,[x0]
)
#: udf; the handler at VBAR + 0x200 stores ESR to x9.
UNDEFINED = (
    0x00000000,  # udf #0
)
#: A handler: ESR_EL1, FAR_EL1, ELR_EL1, SPSR_EL1 and SP to x9 and on.
HANDLER = (
    0xD5385201,  # mrs x1,esr_el1
    0xD5386002,  # mrs x2,far_el1
    0xD5384023,  # mrs x3,elr_el1
    0xD5384004,  # mrs x4,spsr_el1
    0x910003E5,  # mov x5,sp
    0xF9000121,  # str x1,[x9]
    0xF9000522,  # str x2,[x9,#8]
    0xF9000923,  # str x3,[x9,#16]
    0xF9000D24,  # str x4,[x9,#24]
    0xF9001125,  # str x5,[x9,#32]
    0x14000000,  # b .
)
#: One load of 4 bytes from x0.
LOAD = (
    0xB9400001,  # ldr w1,[x0]
    0xB9000121,  # str w1,[x9]
    0x14000000,  # b .
)
#: A store of x1 to x0, then one to x9.
STORE = (
    0xB9000001,  # str w1,[x0]
    0xB9000121,  # str w1,[x9]
    0x14000000,  # b .
)
#: Writes instruction w1 over the one at x0, executes it, and stores x2 to x9.
MODIFY = (
    0xB9000001,  # str w1,[x0]
    0xD50B7B20,  # dc cvau,x0
    0xD5033B9F,  # dsb ish
    0xD50B7520,  # ic ivau,x0
    0xD5033B9F,  # dsb ish
    0xD5033FDF,  # isb
    0xD63F0000,  # blr x0
    0xF9000122,  # str x2,[x9]
    0x14000000,  # b .
)
#: mov x2,#1; ret
RETURN = (
    0xD2800022,  # mov x2,#1
    0xD65F03C0,  # ret
)
#: mov x2,#7
SEVEN = (
    0xD28000E2,  # mov x2,#7
)
#: GICv2 at x10 (distributor), x11 (CPU interface): on, all priorities, PPI 27.
GIC = (
    0x52800021,  # mov w1,#1
    0xB9000141,  # str w1,[x10]
    0x52801FE1,  # mov w1,#0xff
    0xB9000561,  # str w1,[x11,#4]
    0x52800021,  # mov w1,#1
    0xB9000161,  # str w1,[x11]
    0x52A10001,  # movz w1,#0x800,lsl #16
    0xB9010141,  # str w1,[x10,#0x100]
    0xD65F03C0,  # ret
)
#: After GIC: the virtual timer in x2 ticks, interrupts on, WFI until the handler has set x20, then that to x9.
TIMER = (
    0xD51BE302,  # msr cntv_tval_el0,x2
    0xD2800021,  # mov x1,#1
    0xD51BE321,  # msr cntv_ctl_el0,x1
    0xD50342FF,  # msr daifclr,#2
    0xD503207F,  # wfi
    0xB4FFFFF4,  # cbz x20,.-4
    0xF9000134,  # str x20,[x9]
    0x14000000,  # b .
)
#: IRQ handler at VBAR + 0x280: IAR to x20, timer off, EOI.
TICKED = (
    0xB9400D74,  # ldr w20,[x11,#0xc]
    0xD51BE33F,  # msr cntv_ctl_el0,xzr
    0xB9001174,  # str w20,[x11,#0x10]
    0xD69F03E0,  # eret
)
#: Interrupts on, then count in x0 until the handler has set x20; that to x9.
SPIN = (
    0xD51BE302,  # msr cntv_tval_el0,x2
    0xD2800021,  # mov x1,#1
    0xD51BE321,  # msr cntv_ctl_el0,x1
    0xD50342FF,  # msr daifclr,#2
    0x91000400,  # add x0,x0,#1
    0xB4FFFFF4,  # cbz x20,.-4
    0xF9000134,  # str x20,[x9]
    0x14000000,  # b .
)
#: To EL0 at x1 with SP_EL0 0x123000.
BELOW = (
    0xD2860002,  # movz x2,#0x3000
    0xF2A00242,  # movk x2,#0x12,lsl #16
    0xD5184102,  # msr sp_el0,x2
    0xD5184021,  # msr elr_el1,x1
    0xD518401F,  # msr spsr_el1,xzr
    0xD69F03E0,  # eret
)
#: EL0: svc #5.
CALLS = (
    0xD40000A1,  # svc #5
    0x14000000,  # b .
)
#: CNTVCT_EL0 twice, to x9 and on.
COUNTERS = (
    0xD53BE041,  # mrs x1,cntvct_el0
    0xD53BE042,  # mrs x2,cntvct_el0
    0xD53BE003,  # mrs x3,cntfrq_el0
    0xF9000121,  # str x1,[x9]
    0xF9000122,  # str x2,[x9]
    0xF9000123,  # str x3,[x9]
    0x14000000,  # b .
)
#: With the tables at x0 and the control bits in x1: the MMU on; then a load from x2, its value to x9.
PAGED = (
    0xD5182000,  # msr ttbr0_el1,x0
    0xD2800323,  # mov x3,#25
    0xD5182043,  # msr tcr_el1,x3
    0xD2801FE3,  # mov x3,#0xff
    0xD518A203,  # msr mair_el1,x3
    0xD5033FDF,  # isb
    0xD5381003,  # mrs x3,sctlr_el1
    0xB2400063,  # orr x3,x3,#1
    0xD5181003,  # msr sctlr_el1,x3
    0xD5033FDF,  # isb
    0xF9400044,  # ldr x4,[x2]
    0xF9000124,  # str x4,[x9]
    0x14000000,  # b .
)
#: A handler that maps the gigabyte at FAR_EL1: block descriptor x5 into the table at x0, and back.
DEMAND = (
    0xD5386006,  # mrs x6,far_el1
    0xD35EFCC6,  # lsr x6,x6,#30
    0xF8267805,  # str x5,[x0,x6,lsl #3]
    0xD5033B9F,  # dsb ish
    0xD69F03E0,  # eret
)
#: GICv3 with its distributor at x10 and redistributor at x11: all interrupts on, edges; then WFI.
GICV3 = (
    0xD538CCA1,  # mrs x1,icc_sre_el1
    0xD2801E01,  # mov x1,#0xf0
    0xD5184601,  # msr icc_pmr_el1,x1
    0xD2800021,  # mov x1,#1
    0xD518CCE1,  # msr icc_igrpen1_el1,x1
    0x52800041,  # mov w1,#2
    0xB9000141,  # str w1,[x10]
    0x12800001,  # movn w1,#0
    0xB9008541,  # str w1,[x10,#0x84]
    0xB9010541,  # str w1,[x10,#0x104]
    0x3201F3E1,  # mov w1,#0xaaaaaaaa
    0xB90C0941,  # str w1,[x10,#0xc08]
    0xB9401561,  # ldr w1,[x11,#0x14]
    0x121E7821,  # and w1,w1,#~2
    0xB9001561,  # str w1,[x11,#0x14]
    0x9140416C,  # add x12,x11,#0x10000
    0x12800001,  # movn w1,#0
    0xB9008181,  # str w1,[x12,#0x80]
    0xB9010181,  # str w1,[x12,#0x100]
    0xD50342FF,  # msr daifclr,#2
    0xD503207F,  # wfi
    0x17FFFFFF,  # b .-4
)
#: Its handler: acknowledges, completes, the number to x9.
ACKNOWLEDGE = (
    0xD538CC14,  # mrs x20,icc_iar1_el1
    0xD518CC34,  # msr icc_eoir1_el1,x20
    0xF9000134,  # str x20,[x9]
    0xD69F03E0,  # eret
)
#: Loads from x0 until what it finds is not 0; that to x9.
POLL = (
    0xB9400001,  # ldr w1,[x0]
    0x34FFFFE1,  # cbz w1,.-4
    0xB9000121,  # str w1,[x9]
    0x14000000,  # b .
)
#: A store with writeback, which has no syndrome, then one that has.
WRITEBACK = (
    0x38001401,  # strb w1,[x0],#1
    0xB9000121,  # str w1,[x9]
    0x14000000,  # b .
)
#: Two SMCs with what is in x0, each answer to x9.
SMC = (
    0xD4000003,  # smc #0
    0xF9000120,  # str x0,[x9]
    0xD4000023,  # smc #1
    0xF9000120,  # str x0,[x9]
    0x14000000,  # b .
)
#: Stores of w1, w2 to x0, of w3 behind it, of w4 to x9.
STORES = (
    0xB9000001,  # str w1,[x0]
    0xB9000002,  # str w2,[x0]
    0xB9000403,  # str w3,[x0,#4]
    0xB9000124,  # str w4,[x9]
    0x14000000,  # b .
)
#: Adds 1 to what is at x0, x3 times, by exclusive accesses; the sum to x9.
ATOMIC = (
    0xC85F7C01,  # ldxr x1,[x0]
    0x91000421,  # add x1,x1,#1
    0xC8027C01,  # stxr w2,x1,[x0]
    0x35FFFFA2,  # cbnz w2,.-12
    0xD1000463,  # sub x3,x3,#1
    0xB5FFFF63,  # cbnz x3,.-20
    0xF9000121,  # str x1,[x9]
    0x14000000,  # b .
)
#: Walks a list from x0, x3 steps, each by a load into its own base; where it got to x9.
WALK = (
    0xF9400000,  # ldr x0,[x0]
    0xD1000463,  # sub x3,x3,#1
    0xB5FFFFC3,  # cbnz x3,.-8
    0xF9000120,  # str x0,[x9]
    0x14000000,  # b .
)
