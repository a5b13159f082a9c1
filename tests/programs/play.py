"""Plays programs from standard input in process: a child, as what is tried may end it.

Each answer is a line; an empty one ends those of a program. What clients/program.c of the supervisor's tests does by
system calls is the same; beside that, a last line here has the steps in which the end of a time slice came.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import signal
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support import Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest.machine.ticker import ticker
from kvmvfio_emu.hw import boards
from programs import model as m

#: Longer than this no KVM_RUN is let; the first of a vCPU makes its engine.
SECONDS, FIRST_SECONDS = 0.02, 0.2
#: Registers that tell the time.
_CLOCKS = frozenset((m.system(3, 3, 14, 3, 2), m.system(3, 3, 14, 0, 1)))
_MOST_REGISTERS = 1024
_WRITE = 1 << 6  #: of a syndrome: WnR
_FRAMES = {
    2: (
        uapi.KVM_DEV_TYPE_ARM_VGIC_V2,
        ((uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, m.DIST), (uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, m.CPU)),
    ),
    3: (
        uapi.KVM_DEV_TYPE_ARM_VGIC_V3,
        ((uapi.KVM_VGIC_V3_ADDR_TYPE_DIST, m.DIST), (uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST, m.REDIST)),
    ),
}


class Player:
    """One program's virtual machine."""

    def __init__(self, width: int, vcpus: int, gic: int, nisv: int) -> None:
        self.client = client = Client(m.PROFILE, replace(boards.load("oracle-virt"), gic_version=gic))
        self.vm = client.vm()
        if nisv:
            client.call(self.vm, uapi.KVM_ENABLE_CAP, "kvm_enable_cap", cap=uapi.KVM_CAP_ARM_NISV_TO_USER)
        self.vcpus = [client.vcpu(self.vm, number) for number in range(vcpus)]
        init = bytearray(uapi.sizeof("struct kvm_vcpu_init"))
        client.ioctl(self.vm, uapi.KVM_ARM_PREFERRED_TARGET, init)
        view = uapi.view("struct kvm_vcpu_init", init)
        view.features[0] = 1 << uapi.KVM_ARM_VCPU_PSCI_0_2 | (width == 32) << uapi.KVM_ARM_VCPU_EL1_32BIT
        for vcpu in self.vcpus:
            client.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, init)
        kind, frames = _FRAMES[gic]
        vgic = client.create_device(self.vm, kind)
        for frame, base in frames:
            client.set_u64(vgic, uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, frame, base)
        client.set_at(vgic, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT, 0)
        self.backing = mmap.mmap(-1, m.BACKING + mmap.PAGESIZE)
        self.base = uapi.address(memoryview(self.backing))
        assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(self.base + m.BACKING), mmap.PAGESIZE, 0)
        size = client.ioctl(client.kvm, uapi.KVM_GET_VCPU_MMAP_SIZE)
        self.pages = [client.kernel.mmap(vcpu, size) for vcpu in self.vcpus]
        self.runs = [uapi.ffi.from_buffer("struct kvm_run *", page) for page in self.pages]
        self.slots: dict[int, tuple[int, int, int]] = {}
        self.running = 0
        self.started: set[int] = set()
        self.late = self.over = False

    def close(self) -> None:
        """Nothing may be left."""
        for run, page in zip(self.runs, self.pages, strict=True):
            uapi.ffi.release(run)
            page.close()  # a mapping holds its file
        self.client.finish()

    def step(self, kind: str, arguments: list[str]) -> str:
        """The answer to one."""
        return f"{kind} {getattr(self, f'do_{kind}')(*arguments)}".rstrip()

    def call(self, fd: int, request: int, argument: Any = 0) -> str:
        """What an ioctl came to."""
        try:
            self.client.ioctl(fd, request, argument)
        except OSError as error:
            return f"-1 {errno.errorcode[error.errno or 0]}"
        return "0 0"

    def do_poke(self, offset: str, data: str, times: str) -> str:
        """Write to the backing."""
        raw = bytes.fromhex(data) * int(times)
        self.backing[int(offset) : int(offset) + len(raw)] = raw
        return ""

    def do_slot(self, number: str, address: str, size: str, offset: str, flags: str) -> str:
        """KVM_SET_USER_MEMORY_REGION."""
        gpa, length, at = int(address, 16), int(size, 16), int(offset, 16)
        fields = {"slot": int(number), "guest_phys_addr": gpa, "memory_size": length, "flags": int(flags)}
        region = uapi.pack("struct kvm_userspace_memory_region", userspace_addr=self.base + at, **fields)
        answer = self.call(self.vm, uapi.KVM_SET_USER_MEMORY_REGION, region)
        if answer == "0 0":
            self.slots[int(number)] = (gpa, length, at)
        return answer

    def do_set(self, vcpu: str, register: str, value: str) -> str:
        """KVM_SET_ONE_REG."""
        raw = bytearray(int(value, 16).to_bytes(8, "little"))
        one = uapi.pack("struct kvm_one_reg", id=int(register, 16), addr=uapi.address(raw))
        return self.call(self.vcpus[int(vcpu)], uapi.KVM_SET_ONE_REG, one)

    def do_events(self, vcpu: str, serror: str, abort: str) -> str:
        """KVM_SET_VCPU_EVENTS."""
        events = uapi.pack("struct kvm_vcpu_events")
        exception = uapi.view("struct kvm_vcpu_events", events).exception
        exception.serror_pending, exception.ext_dabt_pending = int(serror), int(abort)
        return self.call(self.vcpus[int(vcpu)], uapi.KVM_SET_VCPU_EVENTS, events)

    def do_line(self, interrupt: str, level: str) -> str:
        """KVM_IRQ_LINE."""
        number = uapi.KVM_ARM_IRQ_TYPE_SPI << 24 | int(interrupt)
        return self.call(self.vm, uapi.KVM_IRQ_LINE, uapi.pack("struct kvm_irq_level", irq=number, level=int(level)))

    def do_complete(self, vcpu: str) -> str:
        """KVM_RUN with immediate_exit."""
        run = self.runs[int(vcpu)]
        run.immediate_exit = 1
        answer = self.call(self.vcpus[int(vcpu)], uapi.KVM_RUN)
        run.immediate_exit = 0
        return f"{vcpu} {answer} {self.shown(int(vcpu))}"

    def do_run(self, vcpu: str, answer: str) -> str:
        """KVM_RUN."""
        self.running = int(vcpu)
        run = self.runs[self.running]
        run.immediate_exit = 0
        seconds = SECONDS if self.running in self.started else FIRST_SECONDS
        self.started.add(self.running)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
        came = self.call(self.vcpus[self.running], uapi.KVM_RUN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if came == "-1 EINTR":
            self.over, self.late = self.late, True
            return f"{vcpu} late {self.shown(self.running)}"
        said = f"{vcpu} {came} {run.exit_reason} {_fields(run)} {self.shown(self.running)}"
        if came == "0 0" and run.exit_reason == uapi.KVM_EXIT_MMIO:
            self.over = bool(run.mmio.is_write) and run.mmio.phys_addr == m.END
            if not run.mmio.is_write:
                uapi.ffi.memmove(run.mmio.data, int(answer, 16).to_bytes(8, "little"), 8)
        elif came == "-1 ENOSYS" or (came == "0 0" and run.exit_reason == uapi.KVM_EXIT_ARM_NISV):
            self.skip(self.running)
        elif came == "0 0":
            self.over = True
        return said

    def skip(self, vcpu: int) -> None:
        """On after the instruction that KVM could not decode."""
        pc, thumb = self.get(vcpu, m.PC), self.get(vcpu, m.PSTATE) & 0x30 == 0x30
        length = 2 if thumb and (self.instruction(pc) & 0xFFFF) >> 11 < 0b11101 else 4
        self.do_set(str(vcpu), f"{m.PC:x}", f"{pc + length & (1 << 64) - 1:x}")

    def get(self, vcpu: int, register: int) -> int:
        """KVM_GET_ONE_REG of 64 bits."""
        raw = bytearray(8)
        one = uapi.pack("struct kvm_one_reg", id=register, addr=uapi.address(raw))
        self.client.ioctl(self.vcpus[vcpu], uapi.KVM_GET_ONE_REG, one)
        return int.from_bytes(raw, "little")

    def instruction(self, pc: int) -> int:
        """The four bytes at a guest physical address; all ones where there are none."""
        for gpa, size, offset in self.slots.values():
            at = offset + pc - gpa
            if gpa <= pc and pc + 4 <= gpa + size and at + 4 <= m.BACKING:
                return int.from_bytes(self.backing[at : at + 4], "little")
        return 0xFFFFFFFF

    def shown(self, vcpu: int) -> str:
        """PC, what is there, and the other registers."""
        pc = self.get(vcpu, m.PC)
        values = (pc, self.instruction(pc), *(self.get(vcpu, register) for register in m.SHOWN))
        return " ".join(f"{value:x}" for value in values)

    def do_every(self, vcpu: str) -> str:
        """KVM_GET_ONE_REG of all registers that there are, but those that tell the time: a digest."""
        listed = bytearray(8 + 8 * _MOST_REGISTERS)
        listed[:8] = _MOST_REGISTERS.to_bytes(8, "little")
        self.client.ioctl(self.vcpus[int(vcpu)], uapi.KVM_GET_REG_LIST, listed)
        digest = 0
        for at in range(int.from_bytes(listed[:8], "little")):
            register = int.from_bytes(listed[8 + 8 * at : 16 + 8 * at], "little")
            raw = bytearray(16)
            one = uapi.pack("struct kvm_one_reg", id=register, addr=uapi.address(raw))
            self.client.ioctl(self.vcpus[int(vcpu)], uapi.KVM_GET_ONE_REG, one)
            digest = digest if register in _CLOCKS else zlib.crc32(raw, digest)
        return f"{digest:08x}"

    def memory(self) -> str:
        """The answer to the end: a digest of the backing."""
        return f"memory {zlib.crc32(self.backing[: m.BACKING]):08x}"


def _fields(run: Any) -> str:
    """Four numbers of an exit."""
    reason = run.exit_reason
    if reason == uapi.KVM_EXIT_MMIO:
        data = int.from_bytes(bytes(uapi.ffi.buffer(run.mmio.data)), "little")
        values = run.mmio.phys_addr, run.mmio.len, run.mmio.is_write, data
    elif reason == uapi.KVM_EXIT_ARM_NISV:
        # Whether a page that nobody had touched was a translation or a permission fault depends on how it is mapped.
        values = run.arm_nisv.fault_ipa, run.arm_nisv.esr_iss & _WRITE, 0, 0
    elif reason == uapi.KVM_EXIT_SYSTEM_EVENT:
        values = run.system_event.type, run.system_event.flags, 0, 0
    else:
        values = 0, 0, 0, 0
    return " ".join(f"{value:x}" for value in values)


def play(lines: list[str]) -> list[str]:
    """The answers to a program."""
    kind, *arguments = lines[0].split()
    assert kind == "new"
    player = Player(*map(int, arguments))

    def alarm(*_: object) -> None:
        player.runs[player.running].immediate_exit = 1

    signal.signal(signal.SIGALRM, alarm)
    answers, ticked = [], []
    for number, line in enumerate(lines[1:]):
        if not player.over:
            before = ticker.ticks
            answers.append(player.step(line.split()[0], line.split()[1:]))
            if ticker.ticks != before:
                ticked.append(number)
    answers.append(player.memory())
    player.close()
    return [*answers, " ".join(map(str, ("ticked", *ticked)))]


def main() -> None:
    """Until the end of standard input."""
    lines: list[str] = []
    for line in sys.stdin:
        if line != "end\n":
            lines.append(line)
            continue
        print("\n".join(play(lines)), "\n", sep="", flush=True)
        lines.clear()


if __name__ == "__main__":
    main()
