"""The benchmark's part about machine code: what KVM_RUN adds to the engine that executes it."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvmvfio_emu import Kernel, uapi

ROUNDS, PAIRS = 5, 11
#: add x0, x0, #1; then 20 times an addition, an exclusive or and a shift; back to the first. A loop of two instructions
#: would have one of two speeds, by where the engine happens to put it.
LOOP = (0x91000400, *(0x8B000021, 0xCA010042, 0xD37FF863) * 20, 0x17FFFFC3)
MMIO = (0xB9000020, 0x17FFFFFF)  # str w0, [x1]; b .-4
RAM, MAILBOX = 0x40000000, 0x0A000000
SECONDS = 0.2


def _code(words: tuple[int, ...]) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


class Guest:
    """A vCPU in process that executes ``words``, with x1 the mailbox."""

    def __init__(self, kernel: Kernel, words: tuple[int, ...]) -> None:
        self.kernel = kernel
        system = kernel.open("/dev/kvm")
        vm = kernel.ioctl(system, uapi.KVM_CREATE_VM)
        self.vcpu = kernel.ioctl(vm, uapi.KVM_CREATE_VCPU, 0)
        init = bytearray(uapi.sizeof("struct kvm_vcpu_init"))
        kernel.ioctl(vm, uapi.KVM_ARM_PREFERRED_TARGET, init)
        kernel.ioctl(self.vcpu, uapi.KVM_ARM_VCPU_INIT, init)
        self.ram = mmap.mmap(-1, 0x10000)
        self.ram[: 4 * len(words)] = _code(words)
        region = uapi.pack(
            "struct kvm_userspace_memory_region",
            guest_phys_addr=RAM,
            memory_size=0x10000,
            userspace_addr=uapi.address(memoryview(self.ram)),
        )
        kernel.ioctl(vm, uapi.KVM_SET_USER_MEMORY_REGION, region)
        self.page = kernel.mmap(self.vcpu, kernel.ioctl(system, uapi.KVM_GET_VCPU_MMAP_SIZE))
        self.run: Any = uapi.ffi.from_buffer("struct kvm_run *", self.page)
        self.register("pc", RAM)
        self.register(1, MAILBOX)

    def register(self, which: str | int, value: int | None = None) -> int:
        """Set (or get) PC or a general register."""
        place = ("regs", which) if isinstance(which, str) else ("regs", "regs", which)
        word = uapi.ffi.offsetof("struct kvm_regs", *place) // 4
        number = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE | word
        data = bytearray((value or 0).to_bytes(8, "little"))
        one = uapi.pack("struct kvm_one_reg", id=number, addr=uapi.address(data))
        self.kernel.ioctl(self.vcpu, uapi.KVM_GET_ONE_REG if value is None else uapi.KVM_SET_ONE_REG, one)
        return int.from_bytes(data, "little")


def _bare(words: tuple[int, ...]) -> Any:
    import unicorn
    from unicorn import arm64_const as a64

    engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    engine.mem_map(RAM, 0x10000)
    engine.mem_write(RAM, _code(words))
    engine.reg_write(a64.UC_ARM64_REG_X1, MAILBOX)
    return engine


def _best(measure: Callable[[], float]) -> float:
    return max(measure() for _ in range(ROUNDS))


def _side_by_side(ours: Callable[[], float], bare: Callable[[], float]) -> tuple[float, float]:
    """Both rates in turn, and of those pairs the one with the median ratio: the machine's own speed comes and goes."""
    pairs = sorted(((ours(), bare()) for _ in range(PAIRS)), key=lambda pair: pair[0] / pair[1])
    return pairs[PAIRS // 2]


def instructions() -> tuple[float, float]:
    """Millions of instructions a second: in KVM_RUN, and of the bare engine."""
    from unicorn import arm64_const as a64

    engine = _bare(LOOP)

    def bare() -> float:
        engine.reg_write(a64.UC_ARM64_REG_X0, 0)
        threading.Timer(SECONDS, engine.emu_stop).start()
        start = time.perf_counter()
        engine.emu_start(RAM, 0)
        return len(LOOP) * engine.reg_read(a64.UC_ARM64_REG_X0) / (time.perf_counter() - start) / 1e6

    with Kernel("linux-6.12", "oracle-virt") as kernel:
        guest = Guest(kernel, LOOP)

        def in_kvm_run() -> float:
            guest.register(0, 0)
            guest.run.immediate_exit = 0
            threading.Timer(SECONDS, lambda: setattr(guest.run, "immediate_exit", 1)).start()
            start = time.perf_counter()
            with contextlib.suppress(InterruptedError):
                kernel.ioctl(guest.vcpu, uapi.KVM_RUN)
            return len(LOOP) * guest.register(0) / (time.perf_counter() - start) / 1e6

        return _side_by_side(in_kvm_run, bare)


def exits(count: int = 3000) -> tuple[float, float]:
    """Microseconds of an MMIO exit: by KVM_RUN, and of the bare engine (by its Python interface, with its hook)."""
    import unicorn
    from unicorn import arm64_const as a64

    engine = _bare(MMIO)
    engine.hook_add(unicorn.UC_HOOK_MEM_WRITE_UNMAPPED, lambda *_: False)

    def bare() -> float:
        start = time.perf_counter()
        for _ in range(count):
            try:
                engine.emu_start(RAM, 0)
            except unicorn.UcError:
                engine.reg_write(a64.UC_ARM64_REG_PC, RAM)
        return count / (time.perf_counter() - start)

    with Kernel("linux-6.12", "oracle-virt") as kernel:
        guest = Guest(kernel, MMIO)

        def by_kvm_run() -> float:
            start = time.perf_counter()
            for _ in range(count):
                kernel.ioctl(guest.vcpu, uapi.KVM_RUN)
            return count / (time.perf_counter() - start)

        ours, reference = _side_by_side(by_kvm_run, bare)
        return 1e6 / ours, 1e6 / reference


def supervised_exit(count: int = 2000) -> float:
    """Microseconds of an MMIO exit by KVM_RUN of a C program under the supervisor, its memory a file."""
    tests = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "machine")
        source = os.fspath(tests / "supervisor" / "clients" / "machine.c")
        subprocess.run(["cc", "-O1", "-I", str(uapi.include_dir()), "-o", program, source, "-lpthread"], check=True)
        command = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run", "--", program, "exits", "file", str(count)]

        def rate() -> float:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return 1e9 / int(done.stdout.split()[1])

        return 1e6 / _best(rate)


def interrupt(*, forward: bool, count: int = 2000) -> float:
    """Microseconds from a device's line to the driver's EOI in the bare-metal guest, and the exit that tells of it."""
    sys.path.insert(0, os.fspath(Path(__file__).parents[2] / "docs" / "examples"))
    import vmm

    with Kernel("rfc-2014", "calxeda-midway") as kernel:
        machine = vmm.MachineVmm(kernel, forward=forward, waits=True)
        machine.handle(10)
        hardware: Any = kernel.device(vmm.DEVICE)

        def rate() -> float:
            start = time.perf_counter()
            for _ in range(count):
                kernel.after(100, hardware.raise_interrupt)
                kernel.ioctl(machine.vcpu, uapi.KVM_RUN)
            return count / (time.perf_counter() - start)

        return 1e6 / _best(rate)


def report(line: Callable[..., None]) -> None:
    """The rows, by the benchmark's ``line``."""
    ours, bare = instructions()
    line("the bare engine's instruction rate / in KVM_RUN", bare, ours, 1 / 0.9, "MIPS")
    exit_, bare_exit = exits()
    line("an MMIO exit by KVM_RUN / of the bare engine", exit_, bare_exit, 2.0)
    line("an MMIO exit by KVM_RUN: supervised / in process", supervised_exit(), exit_, None)
    line("an interrupt in machine code: forwarded / not", interrupt(forward=True), interrupt(forward=False), None)
