/* arm64. Entry of both vCPUs, at address 0, where a vCPU's PC is after a reset; and the exception vectors. */

        .section .text.start, "ax"
        .global _start
_start: b       1f

        /* What guest and VMM agree on (struct shared in main.c): the VMM may write it before the first KVM_RUN. */
        .balign 64
        .global shared
shared: .quad   1               /* vCPUs */
        .quad   1               /* 1: wait for interrupts by WFI, 0: compute meanwhile */
        .quad   0               /* interrupts handled */
        .quad   0               /* exceptions that nobody expected: their ESR_EL1 */

1:      mrs     x19, mpidr_el1
        and     x19, x19, #0xff
        ldr     x1, =stacks
        sub     x1, x1, x19, lsl #12
        mov     sp, x1
        ldr     x1, =vectors
        msr     vbar_el1, x1
        isb
        mov     x0, x19
        bl      enter
2:      wfi
        b       2b

        .global psci
psci:   hvc     #0
        ret

        .global unmask_interrupts
unmask_interrupts:
        msr     daifclr, #2
        ret

        .macro  save
        sub     sp, sp, #176
        stp     x0, x1, [sp]
        stp     x2, x3, [sp, #16]
        stp     x4, x5, [sp, #32]
        stp     x6, x7, [sp, #48]
        stp     x8, x9, [sp, #64]
        stp     x10, x11, [sp, #80]
        stp     x12, x13, [sp, #96]
        stp     x14, x15, [sp, #112]
        stp     x16, x17, [sp, #128]
        stp     x18, x30, [sp, #144]
        .endm

        .macro  restore
        ldp     x0, x1, [sp]
        ldp     x2, x3, [sp, #16]
        ldp     x4, x5, [sp, #32]
        ldp     x6, x7, [sp, #48]
        ldp     x8, x9, [sp, #64]
        ldp     x10, x11, [sp, #80]
        ldp     x12, x13, [sp, #96]
        ldp     x14, x15, [sp, #112]
        ldp     x16, x17, [sp, #128]
        ldp     x18, x30, [sp, #144]
        add     sp, sp, #176
        .endm

        .macro  unexpected
        .balign 128
        mrs     x0, esr_el1
        b       panic
        .endm

        .text
        .balign 2048
vectors:
        .rept   5               /* the four with SP_EL0, and a synchronous one from EL1 */
        unexpected
        .endr
        .balign 128             /* IRQ from EL1 */
        save
        bl      interrupt
        restore
        eret
        .rept   10
        unexpected
        .endr
