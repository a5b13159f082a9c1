/* A driver without an operating system: the GICv2, the second vCPU, and a device whose interrupt it counts.
 *
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
static const uint64_t PSCI_CPU_ON = 0xC4000003;

extern struct shared {
    volatile uint64_t vcpus, waits, handled, fault;
} shared;

void _start(void);

static uint32_t get(uintptr_t address)
{
    return *(volatile uint32_t *)address;
}

static void put(uintptr_t address, uint32_t value)
{
    *(volatile uint32_t *)address = value;
}

static int64_t psci(uint64_t function, uint64_t a, uint64_t b, uint64_t c)
{
    register uint64_t x0 asm("x0") = function, x1 asm("x1") = a, x2 asm("x2") = b, x3 asm("x3") = c;

    asm volatile("hvc #0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3) : "memory");
    return (int64_t)x0;
}

/* The VMM looks at shared.fault when this doorbell rings. */
void panic(uint64_t syndrome)
{
    shared.fault = syndrome | 1ul << 63;
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
void enter(uint64_t cpu)
{
    if (cpu == 0) {
        put(GICD + GICD_CTLR, 1);
        for (uint64_t other = 1; other < shared.vcpus; other++)
            if (psci(PSCI_CPU_ON, other, (uint64_t)&_start, 0))
                panic(other);
    }
    put(GICC + GICC_PMR, 0xFF);
    put(GICC + GICC_CTLR, 1);
    asm volatile("msr daifclr, #2");
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
