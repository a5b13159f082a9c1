/* A driver without an operating system: the GICv2, the second vCPU, and a device whose interrupt it counts.
 *
 * Nothing here depends on the width of the CPU; what does is in start.S (arm64) and start32.S.
 * The addresses are a contract with the VMM, as a device tree would be: kvmvfio_emu/guest/xgmac.py has the same.
 */
#include <stdint.h>

static const uintptr_t GICD = 0x08000000, GICC = 0x08010000;
static const uintptr_t DEVICE = 0x0C000000;   /* an xgmac's registers, which VFIO lets the VMM map into the guest */
static const uintptr_t DOORBELL = 0x0D000000; /* nothing is there: a store is an exit that tells the VMM something */

enum { SPI = 112 };
enum { GICD_CTLR = 0, GICD_ISENABLER = 0x100, GICD_ITARGETSR = 0x800, GICD_ICFGR = 0xC00 };
enum { GICC_CTLR = 0, GICC_PMR = 4, GICC_IAR = 0xC, GICC_EOIR = 0x10 };
enum { DMA_STATUS = 0xF14, DMA_INTERRUPT_ENABLE = 0xF1C };
enum { RECEIVED = 1 << 16 | 1 << 6 }; /* normal interrupt summary, receive */
enum { PSCI_CPU_ON = 0x84000003 | (sizeof(long) == 8) << 30 }; /* bit 30: its arguments have 64 bits */

extern struct shared {
    volatile uint64_t vcpus, waits, handled, fault;
} shared;

/* The assembly's. */
void _start(void);
void unmask_interrupts(void);
long psci(unsigned long function, unsigned long cpu, uintptr_t entry, unsigned long context);

static uint32_t get(uintptr_t address)
{
    return *(volatile uint32_t *)address;
}

static void put(uintptr_t address, uint32_t value)
{
    *(volatile uint32_t *)address = value;
}

/* The VMM looks at shared.fault when this doorbell rings. */
void panic(unsigned long reason)
{
    shared.fault = reason | 1ull << 63;
    put(DOORBELL, 0xDEAD);
    for (;;)
        asm volatile("wfi");
}

/* At the IRQ vector: acknowledge, quiet the device, complete, count. */
void interrupt(void)
{
    uint32_t irq = get(GICC + GICC_IAR);

    if ((irq & 0x3FF) != SPI) {
        if ((irq & 0x3FF) < 1020)
            panic(irq);
        return; /* spurious: somebody was faster */
    }
    put(DEVICE + DMA_STATUS, get(DEVICE + DMA_STATUS));
    put(GICC + GICC_EOIR, irq);
    shared.handled++;
    put(DOORBELL, 1);
}

static void enable_spi(uint32_t cpu)
{
    uintptr_t config = GICD + GICD_ICFGR + SPI / 16 * 4;

    put(config, get(config) & ~(2u << SPI % 16 * 2)); /* level-sensitive */
    *(volatile uint8_t *)(GICD + GICD_ITARGETSR + SPI) = (uint8_t)(1 << cpu);
    put(GICD + GICD_ISENABLER + SPI / 32 * 4, 1u << SPI % 32);
}

/* Each vCPU comes here; the last one takes the interrupt. */
void enter(unsigned long cpu)
{
    if (cpu == 0) {
        put(GICD + GICD_CTLR, 1);
        for (unsigned long other = 1; other < shared.vcpus; other++)
            if (psci(PSCI_CPU_ON, other, (uintptr_t)&_start, 0))
                panic(other);
    }
    put(GICC + GICC_PMR, 0xFF);
    put(GICC + GICC_CTLR, 1);
    unmask_interrupts();
    if (cpu == shared.vcpus - 1) {
        enable_spi((uint32_t)cpu);
        put(DEVICE + DMA_INTERRUPT_ENABLE, RECEIVED);
        put(DOORBELL, 0); /* ready */
    }
    while (shared.waits || cpu != shared.vcpus - 1)
        asm volatile("wfi");
    for (;;)
        asm volatile("" ::: "memory");
}
