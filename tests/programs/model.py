"""A program for one or two vCPUs and what userspace does between its exits, as text that both players read.

The text has a line for each step; a player answers each with a line that begins with the same word (`play`, and
clients/program.c of the supervisor's tests). What the lines say is in `Steps`.
"""

from __future__ import annotations

from kvmvfio_emu import uapi

#: Guest physical addresses: memory, a device of userspace's, its last register, and nothing.
RAM, MAILBOX, NOTHING = 0x4000_0000, 0x0A00_0000, 0x0A10_0000
#: A program that writes there has come to its end.
END = MAILBOX + 0xFF8
DIST, CPU, REDIST = 0x0800_0000, 0x0801_0000, 0x080A_0000
#: What userspace has behind the slots; the page after it is not accessible.
BACKING = 0x10000
VECTORS, DATA = 0x2000, 0x4000  #: offsets

READONLY, LOGGED = int(uapi.KVM_MEM_READONLY), int(uapi.KVM_MEM_LOG_DIRTY_PAGES)
#: Slots at the start: number, guest physical address, size, offset in the backing, flags. Two touch; the others do not.
SLOTS = (
    (0, RAM, 0x6000, 0, 0),
    (1, RAM + 0x6000, 0x6000, 0x6000, 0),
    (2, RAM + 0xC000, 0x2000, 0xC000, READONLY),
    (3, RAM + 0x20000, 0x1000, 0xE000, LOGGED),
)
PROFILE = "linux-6.12"


def core(*place: str | int) -> int:
    """The number of a 64-bit core register, by its place in ``struct kvm_regs``."""
    word = uapi.ffi.offsetof("struct kvm_regs", *place) // 4
    return int(uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE | word)


def system(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """The number of a system register."""
    index = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
    return int(uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG | index)


X = tuple(core("regs", "regs", number) for number in range(31))
PC, PSTATE, SP_EL0, SP_EL1 = core("regs", "pc"), core("regs", "pstate"), core("regs", "sp"), core("sp_el1")
SCTLR, CPACR = system(3, 0, 1, 0, 0), system(3, 0, 1, 0, 2)
TTBR0, TTBR1, TCR = system(3, 0, 2, 0, 0), system(3, 0, 2, 0, 1), system(3, 0, 2, 0, 2)
VBAR, MAIR, FAR, ESR = system(3, 0, 12, 0, 0), system(3, 0, 10, 2, 0), system(3, 0, 6, 0, 0), system(3, 0, 5, 2, 0)
#: What a player tells at each exit, beside PC.
SHOWN = (PSTATE, SCTLR, *X, SP_EL0, SP_EL1)


class Steps:
    """The text of a program, a line a step. ``nisv``: with KVM_CAP_ARM_NISV_TO_USER."""

    def __init__(self, width: int, vcpus: int = 1, *, gic: int = 3, nisv: bool = False) -> None:
        self.width, self.vcpus, self.gic, self.nisv = width, vcpus, gic, nisv
        self.lines = [f"new {width} {vcpus} {gic} {int(nisv)}"]
        for slot in SLOTS:
            self.slot(*slot)

    def poke(self, offset: int, data: bytes, times: int = 1) -> None:
        """Userspace writes into its memory."""
        self.lines.append(f"poke {offset} {data.hex()} {times}")

    def slot(self, number: int, address: int, size: int, offset: int, flags: int) -> None:
        """KVM_SET_USER_MEMORY_REGION."""
        self.lines.append(f"slot {number} {address:x} {size:x} {offset:x} {flags}")

    def put(self, vcpu: int, register: int, value: int) -> None:
        """KVM_SET_ONE_REG."""
        self.lines.append(f"set {vcpu} {register:x} {value & (1 << 64) - 1:x}")

    def events(self, vcpu: int, serror: int, abort: int) -> None:
        """KVM_SET_VCPU_EVENTS."""
        self.lines.append(f"events {vcpu} {serror} {abort}")

    def line(self, interrupt: int, level: int) -> None:
        """KVM_IRQ_LINE of a shared interrupt."""
        self.lines.append(f"line {interrupt} {level}")

    def every(self, vcpu: int) -> None:
        """KVM_GET_ONE_REG of every register."""
        self.lines.append(f"every {vcpu}")

    def complete(self, vcpu: int) -> None:
        """KVM_RUN with immediate_exit: the access of the last exit is completed, and nothing else."""
        self.lines.append(f"complete {vcpu}")

    def run(self, vcpu: int, answer: int) -> None:
        """KVM_RUN, until it returns or has taken too long; ``answer`` is what a load gets by the next one."""
        self.lines.append(f"run {vcpu} {answer:x}")

    def __repr__(self) -> str:
        return f"a program:\n{self.text}"

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join([*self.lines, "end", ""])
