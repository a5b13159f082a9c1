"""What has to hold of a player's answers, whatever the program was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from kvmvfio_emu import uapi
from programs import expected as e
from programs import model as m

#: What KVM_RUN may answer with -1. EFAULT needs a slot without memory, EINVAL a state that cannot be entered.
_ERRORS = {"ENOSYS", "EFAULT", "EINVAL"}
_MMU, _USER_BIG_ENDIAN, _BIG_ENDIAN = 1 << 0, 1 << 24, 1 << 25
_OLD_BIG_ENDIAN = 1 << 7  #: of a 32-bit SCTLR
_AARCH32 = 1 << 4
_MODES_64 = {0x0, 0x4, 0x5}
_MODES_32 = {0x10, 0x11, 0x12, 0x13, 0x17, 0x1B, 0x1F}
_LOW = (1 << 32) - 1
_VIRTUAL = (1 << 56) - 1  #: without a tag


@dataclass(frozen=True)
class State:
    """What a vCPU showed."""

    pc: int
    instruction: int
    pstate: int
    control: int
    x: tuple[int, ...]
    sp_el0: int
    sp_el1: int

    @classmethod
    def of(cls, words: list[str]) -> Self:
        """From the end of an answer."""
        pc, instruction, pstate, control, *rest = (int(word, 16) for word in words)
        return cls(pc, instruction, pstate, control, tuple(rest[:31]), *rest[31:])

    def expected(self, width: int) -> e.Expected | None:
        """The access that it is at."""
        if width == 32:
            return e.arm(self.instruction, self.pc, self.x, self.pstate)
        stack = self.sp_el1 if self.pstate & 1 else self.sp_el0
        swapped = self.control & (_BIG_ENDIAN if self.pstate & 0xC else _USER_BIG_ENDIAN)
        return e.a64(self.instruction, self.pc, self.x, stack, swapped=bool(swapped))


class Judge:
    """Follows one program. `follow` raises AssertionError."""

    def __init__(self, program: m.Steps) -> None:
        self.program = program
        self.width = program.width
        self.slots: dict[int, tuple[int, int, int, int]] = {}
        self.backing = bytearray(m.BACKING)  #: as userspace wrote it
        #: By vCPU: the access of its last exit, what the device said, and the state then.
        self.open: dict[int, tuple[e.Expected, int, State]] = {}
        self.accesses = self.completed = 0  #: how many were looked at

    def follow(self, answers: list[str]) -> None:
        """All of a program's."""
        for step, answer in zip(self.program.lines[1:], answers, strict=False):
            kind, *arguments = step.split()
            told, *words = answer.split()
            if told == "memory":  # it has ended early
                return
            assert told == kind, (step, answer)
            getattr(self, f"on_{kind}", lambda *_: None)(arguments, words)

    def on_poke(self, arguments: list[str], words: list[str]) -> None:
        """What userspace put into memory."""
        raw = bytes.fromhex(arguments[1]) * int(arguments[2])
        self.backing[int(arguments[0]) : int(arguments[0]) + len(raw)] = raw

    def on_slot(self, arguments: list[str], words: list[str]) -> None:
        """The slots as they are then."""
        number, address, size, offset = (int(word, 16) for word in arguments[:4])
        if words[0] == "0":
            self.slots[number] = (address, size, offset, int(arguments[4]))

    def on_set(self, arguments: list[str], words: list[str]) -> None:
        """An open access is not what it was."""
        assert words in (["0", "0"], ["-1", "EINVAL"]), words
        self.open.pop(int(arguments[0]), None)

    def on_events(self, arguments: list[str], words: list[str]) -> None:
        """The same: the abort takes its place."""
        self.open.pop(int(arguments[0]), None)

    def on_complete(self, arguments: list[str], words: list[str]) -> None:
        """The access was completed, and nothing more was done."""
        vcpu, now = int(arguments[0]), State.of(words[3:])
        if words[2] == "EINVAL":
            self._cannot_enter(now)
            return
        assert words[1:3] == ["-1", "EINTR"], words
        if vcpu not in self.open:
            return
        access, answer, before = self.open.pop(vcpu)
        x = list(before.x)
        if not access.write and access.register is not None:
            x[access.register] = access.loaded(answer)
        assert now.pc == before.pc + access.length & (_LOW if self.width == 32 else (1 << 64) - 1), (
            "completed elsewhere"
        )
        assert list(now.x) == x, f"{access} completed with {answer:#x}"
        assert (now.sp_el0, now.sp_el1) == (before.sp_el0, before.sp_el1)
        self.completed += 1

    def on_run(self, arguments: list[str], words: list[str]) -> None:
        """An exit."""
        vcpu = int(arguments[0])
        self.open.pop(vcpu, None)
        if words[1] == "late":
            self._sane(State.of(words[2:]))
            return
        result, error, reason = words[1], words[2], int(words[3])
        fields, state = [int(word, 16) for word in words[4:8]], State.of(words[8:])
        self._sane(state)
        if result == "-1":
            self._failed(error, reason, state)
        elif reason == uapi.KVM_EXIT_MMIO:
            self._accessed(vcpu, fields, state, int(arguments[1], 16))
        elif reason == uapi.KVM_EXIT_ARM_NISV:
            assert self.program.nisv
            self._has_no_syndrome(state)
        else:
            assert reason == uapi.KVM_EXIT_SYSTEM_EVENT, words
            assert fields[0] in (uapi.KVM_SYSTEM_EVENT_SHUTDOWN, uapi.KVM_SYSTEM_EVENT_RESET)
            assert state.x[0] & _LOW == uapi.PSCI_RET_INTERNAL_FAILURE & _LOW, hex(state.x[0])

    def _sane(self, state: State) -> None:
        if self.width == 32:
            assert max(state.pc, state.pstate, state.control & _LOW, *state.x) <= _LOW
            assert state.pstate & 0x1F in _MODES_32, hex(state.pstate)
        else:
            assert state.pstate & _AARCH32 or state.pstate & 0x1F in _MODES_64, hex(state.pstate)

    def _failed(self, error: str, reason: int, state: State) -> None:
        assert error in _ERRORS, error
        if error == "ENOSYS":
            assert not self.program.nisv
            self._has_no_syndrome(state)
        elif error == "EINVAL":
            assert reason == uapi.KVM_EXIT_FAIL_ENTRY
            self._cannot_enter(state)
        else:
            assert any(size and offset >= m.BACKING for _, size, offset, _ in self.slots.values()), "EFAULT for nothing"

    def _cannot_enter(self, state: State) -> None:
        assert self.width == 64
        assert state.pstate & _AARCH32

    def _knows_instruction(self, state: State) -> bool:
        """Whether what is at PC was executed: with the MMU on, or overwritten by the guest, it may not have been.

        Nor where a 32-bit guest has set SCTLR.B, which a Cortex-A15 ignores, and the engine does not.
        """
        if state.control & _MMU or (self.width == 32 and state.control & _OLD_BIG_ENDIAN):
            return False
        try:
            state.expected(self.width)
        except e.Unpredictable:
            return False
        for start, size, offset, _ in self.slots.values():
            at = offset + state.pc - start
            if start <= state.pc and state.pc + 4 <= start + size:
                return self.backing[at : at + 4] == state.instruction.to_bytes(4, "little")
        raise AssertionError(f"executed where no memory is: {state.pc:#x}")

    def _has_no_syndrome(self, state: State) -> None:
        if self._knows_instruction(state):
            access = state.expected(self.width)
            assert access is None, f"{access} has a valid syndrome"

    def _accessed(self, vcpu: int, fields: list[int], state: State, answer: int) -> None:
        address, size, write, data = fields
        assert size in (1, 2, 4, 8)
        assert address % size == 0, "an unaligned access to a device is an alignment fault"
        assert write in (0, 1)
        assert data < 1 << 8 * size
        for start, length, _, flags in self.slots.values():
            inside = start <= address < start + length
            assert not inside or (write and flags & m.READONLY), f"there is memory at {address:#x}"
        if not self._knows_instruction(state):
            return
        access = state.expected(self.width)
        assert access is not None, f"{state.instruction:#x} does no such access"
        assert (access.address & _VIRTUAL, access.size, access.write) == (address, size, bool(write)), access
        if write:
            value = 0 if access.register is None else state.x[access.register]
            assert data == access.on_bus(value), (access, hex(value), hex(data))
        self.open[vcpu] = access, answer, state
        self.accesses += 1
