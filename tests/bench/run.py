"""The benchmark: `tox -e bench`. Every figure is a ratio of two things measured in this one run."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.cli import story
from kvmvfio_emu.hw import boards
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec
from kvmvfio_emu.hw.devices.xgmac import Xgmac

#: All the shared peripheral interrupts that a GICv2 can have.
MANY = 988
ROUNDS = 7


def microseconds(call: Callable[[], object], repeat: int) -> float:
    """The best of several rounds: noise only ever adds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        best = min(best, (time.perf_counter() - start) / repeat)
    return best * 1e6


def line(name: str, measured: float, reference: float, bound: float | None, unit: str = "us") -> None:
    """One row: what was measured, against what, and the bound that the project holds itself to."""
    ratio = measured / reference
    wanted = "" if bound is None else f"  (at most {bound:g}){'' if ratio <= bound else '  MISSED'}"
    print(f"{name:<58}{measured:>9.2f} {unit} / {reference:>7.2f} {unit} = {ratio:>5.2f}{wanted}", flush=True)


def ioctls() -> None:
    """Single calls, against the host's own kernel."""
    with Kernel() as kernel:
        system = kernel.open("/dev/kvm")
        vm = kernel.ioctl(system, uapi.KVM_CREATE_VM)
        kernel.ioctl(vm, uapi.KVM_CREATE_VCPU, 0)
        kernel.ioctl(vm, uapi.KVM_CREATE_IRQCHIP)
        spi = uapi.KVM_ARM_IRQ_TYPE_SPI << uapi.KVM_ARM_IRQ_TYPE_SHIFT | 40
        up, down = (uapi.pack("struct kvm_irq_level", irq=spi, level=level) for level in (1, 0))

        def toggle() -> None:
            kernel.ioctl(vm, uapi.KVM_IRQ_LINE, up)
            kernel.ioctl(vm, uapi.KVM_IRQ_LINE, down)

        try:
            real = os.open("/dev/kvm", os.O_RDWR)
        except OSError as error:
            print(f"KVM_CHECK_EXTENSION, KVM_IRQ_LINE: not measured, /dev/kvm: {error.strerror}")
            return
        request, capability = uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD
        reference = microseconds(lambda: fcntl.ioctl(real, request, capability), 20000)
        emulated = microseconds(lambda: kernel.ioctl(system, request, capability), 20000)
        line("KVM_CHECK_EXTENSION / the real one", emulated, reference, 1.0)
        line(
            "KVM_IRQ_LINE from a bytearray / real KVM_CHECK_EXTENSION", microseconds(toggle, 10000) / 2, reference, 2.0
        )
        os.close(real)


def interrupt_cost(*, forward: bool) -> float:
    """One interrupt, from the write to the trigger eventfd to the guest's EOI and the exit that tells of it."""
    with Kernel() as kernel:
        vmm = story.Vmm(kernel, forward=forward)
        vmm.run(1)

        def one() -> None:
            os.eventfd_write(vmm.trigger, 1)
            kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)

        return microseconds(one, 300)


def board_of(count: int) -> Board:
    """A board with one device of ``count`` interrupts, beside the story's."""
    midway = boards.load("calxeda-midway")
    taken = {interrupt.spi for device in midway.devices for interrupt in device.interrupts}
    free = [spi for spi in range(MANY) if spi not in taken][: count - 1]
    many = DeviceSpec(name="many", model="none", group=9, interrupts=tuple(InterruptSpec(spi) for spi in free))
    return dataclasses.replace(midway, devices=(*midway.devices, many))


def forwarded_cost(count: int) -> float:
    """One forwarded interrupt through the whole model, with ``count`` of them forwarded."""
    with Kernel(machine=board_of(count)) as kernel:
        vmm = story.Vmm(kernel, forward=True, irqs=1024)
        vmm.forward_all("many", 9)
        vmm.run(1)
        hardware = kernel.device(story.DEVICE)
        assert isinstance(hardware, Xgmac)

        def one() -> None:
            kernel.after(100, hardware.raise_interrupt)
            kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)

        return microseconds(one, 300)


def interrupts() -> None:
    """Whole interrupts."""
    forwarded, unforwarded = interrupt_cost(forward=True), interrupt_cost(forward=False)
    line("an interrupt, eventfd to EOI: forwarded / unforwarded", forwarded, unforwarded, None)
    # 988 is as many as there can be: a GICv2 has no more shared interrupts.
    line(f"a forwarded interrupt among {MANY - 6} / alone", forwarded_cost(MANY - 6), forwarded_cost(1), 1.3)


def leaks(count: int = 100_000) -> None:
    """Many interrupts leave memory and descriptors as they were."""
    with Kernel() as kernel:
        vmm = story.Vmm(kernel, forward=True)
        vmm.run(1000)
        descriptors, peak = len(os.listdir("/proc/self/fd")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        hardware = kernel.device(story.DEVICE)
        assert isinstance(hardware, Xgmac)
        for _ in range(count):
            kernel.after(100, hardware.raise_interrupt)
            kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)
        now = len(os.listdir("/proc/self/fd")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{count} interrupts: descriptors {descriptors} -> {now[0]}, peak memory {peak} -> {now[1]} KiB")


def imports() -> None:
    """What `import kvmvfio_emu` adds to a bare interpreter, with the bytecode cached."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def start(code: str) -> float:
        times = []
        for _ in range(2 * ROUNDS):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            times.append(time.perf_counter() - begin)
        return statistics.median(times) * 1e3

    start("from kvmvfio_emu import Kernel")  # writes the bytecode
    bare = start("pass")
    for code in ("import kvmvfio_emu", "from kvmvfio_emu import uapi", "from kvmvfio_emu import Kernel"):
        took = start(code)
        line(f"python -c '{code}' / python -c pass", took, bare, None, "ms")
        print(f"    it adds {took - bare:.0f} ms (at most 100)")


def machine_code() -> None:
    """What KVM_RUN adds to the engine, if it is installed."""
    if importlib.util.find_spec("unicorn") is None:
        print("machine code: not measured, the extra `vcpu` is not installed")
        return
    import machine_code

    machine_code.report(line)


def main() -> None:
    """Print all rows."""
    ioctls()
    interrupts()
    machine_code()
    imports()
    leaks()


if __name__ == "__main__":
    main()
