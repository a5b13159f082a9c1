/* 32-bit Arm. Entry of both vCPUs, at address 0, where a vCPU's PC is after a reset; and the exception vectors. */

        .syntax unified
        .arch   armv7-a
        .arch_extension virt

        .set    IRQ_MODE, 0x12
        .set    SUPERVISOR, 0x13

        .section .text.start, "ax"
        .global _start
_start: b       1f

        /* What guest and VMM agree on (struct shared in main.c): the VMM may write it before the first KVM_RUN. */
        .balign 64
        .global shared
shared: .quad   1               /* vCPUs */
        .quad   1               /* 1: wait for interrupts by WFI, 0: compute meanwhile */
        .quad   0               /* interrupts handled */
        .quad   0               /* exceptions that nobody expected: the offset of their vector */

1:      mrc     p15, 0, r0, c0, c0, 5   /* MPIDR */
        and     r0, r0, #0xff
        ldr     r1, =stacks
        sub     r1, r1, r0, lsl #12
        cps     #IRQ_MODE
        sub     sp, r1, #2048   /* of the vCPU's page the lower half */
        cps     #SUPERVISOR
        mov     sp, r1
        ldr     r1, =vectors
        mcr     p15, 0, r1, c12, c0, 0  /* VBAR */
        isb
        bl      enter
2:      wfi
        b       2b

        .type   psci, %function
        .global psci
psci:   hvc     #0
        bx      lr

        .type   unmask_interrupts, %function
        .global unmask_interrupts
unmask_interrupts:
        cpsie   i
        bx      lr

        .text
        .balign 32
vectors:
        .rept   6               /* reset, undefined, SVC, the two aborts, HVC */
        bl      unexpected
        .endr
        b       irq
        bl      unexpected      /* FIQ */

irq:    sub     lr, lr, #4
        push    {r0-r3, r12, lr}
        bl      interrupt
        ldm     sp!, {r0-r3, r12, pc}^

unexpected:
        ldr     r1, =vectors + 4
        sub     r0, lr, r1
        cps     #SUPERVISOR     /* where there is a stack */
        b       panic
