"""Performs an instruction that touched a register of a device, in place of the program that was about to.

Registers lie behind the end of the memory file that a program has mapped, so the touch raises SIGBUS, and the program
stands before the instruction. What can be decoded is done without executing anything; the rest is executed by the
processor itself, one step, on a `Trial`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.supervisor import ptrace
from kvmvfio_emu.doors.supervisor.isa import InstructionSet, Move
from kvmvfio_emu.doors.supervisor.place import PAGE, Place
from kvmvfio_emu.doors.supervisor.trial import Trial
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.file import File

_SET_WORDS = 2048


class Performer:
    """Does it for any thread.

    ``find(tid, address)``: the register there. ``where(tid, file, offset)``: its address. ``held(tid)``: a context in
    which no other thread executes anything. ``missed(tid, signal)``: that one came in between, and has to come again;
    0: a stop did.
    """

    def __init__(
        self,
        isa: InstructionSet,
        find: Callable[[int, int], Place | None],
        where: Callable[[int, File, int], int | None],
        held: Callable[[int], AbstractContextManager[None]],
        missed: Callable[[int, int], None],
    ) -> None:
        self.find = find
        self.where = where
        self.missed = missed
        self.general = ptrace.RegisterSet(ptrace.GENERAL, isa.registers)
        self.vectors = [ptrace.RegisterSet(number, _SET_WORDS) for number in isa.vectors]
        self._isa = isa
        self._held = held

    def perform(self, tid: int, memory: UserMemory, address: int, place: Place) -> None:
        """Do the instruction that thread ``tid`` stands before, and that faulted at ``address``, where ``place`` is.

        The thread stays stopped, behind it. Interrupted: the program has to see what happens; ProcessLookupError: the
        thread was killed; KernelError: its code cannot be read.
        """
        self.general.fetch(tid)
        words = self.general.words
        wanted = self._isa.decode(self._code(memory, words[self._isa.counter]), words, address)
        if isinstance(wanted, Move) and wanted.size <= PAGE - place.offset % PAGE:
            if wanted.load:
                self._isa.finish(wanted, words, int.from_bytes(place.load(wanted.size), "little"))
            else:
                place.store(wanted.value.to_bytes(wanted.size, "little"))
                self._isa.finish(wanted, words)
            self.general.store(tid)
            return
        with self._held(tid), Trial(self, tid, address, place) as trial:
            if isinstance(wanted, list) and (operands := trial.reached(wanted)):
                trial.known(operands)
            else:
                trial.unknown()

    def _code(self, memory: UserMemory, counter: int) -> bytes:
        try:
            return bytes(memory.read(counter, self._isa.longest))
        except KernelError:  # the next page may be missing
            return bytes(memory.read(counter, min(self._isa.longest, PAGE - counter % PAGE)))
