"""A guest that drives an xgmac's main interrupt: the demo's, and what a supervised VMM gets by default.

The addresses are a contract between this guest and its VMM, as a device tree would be.
"""

from __future__ import annotations

from kvmvfio_emu.guest.script import Cpu, Routine, Script, read, work, write

#: The virtual interrupt: gsi 80, GIC id 112.
GSI = 80
SPI = 32 + GSI

#: Guest physical addresses.
GIC_DISTRIBUTOR, GIC_CPU = 0x08000000, 0x08010000
REGISTERS = 0x0C000000
#: Written by the guest when its driver is ready (0), then after each interrupt (1). No memory there, so it exits.
DOORBELL = 0x0D000000

DMA_STATUS, DMA_INTERRUPT_ENABLE = 0xF14, 0xF1C
RECEIVED = 1 << 16 | 1 << 6  # normal interrupt summary, receive


def driver(cpu: Cpu) -> Routine:
    """Set up the interrupt controller and the device, then compute."""
    yield from cpu.enable_gic()
    yield from cpu.enable_irq(SPI)
    yield write(REGISTERS + DMA_INTERRUPT_ENABLE, RECEIVED)
    yield write(DOORBELL, 0)
    while True:
        yield work(1000)


def handler(cpu: Cpu) -> Routine:
    """Ack, quiet the device, EOI; the doorbell tells the VMM that it is done."""
    irq = yield cpu.acknowledge()
    status = yield read(REGISTERS + DMA_STATUS)
    yield write(REGISTERS + DMA_STATUS, status)
    yield cpu.end_of_interrupt(irq)
    yield write(DOORBELL, 1)


def program(vcpu: int) -> Script | None:
    """The program of vCPU number ``vcpu``: the first one drives, others have none."""
    if vcpu:
        return None
    return Script(driver, handler, distributor=GIC_DISTRIBUTOR, interface=GIC_CPU)
