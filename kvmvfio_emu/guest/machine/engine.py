"""A vCPU that executes the machine code in its memory: the guest's program behind KVM_RUN, on the engine `unicorn`.

One `step` runs until something stops the engine: an access to what is no memory, an exception, WFI, the end of a time
slice. What it means is decided here, outside of the engine, so the model's code never runs inside of it.
"""

from __future__ import annotations

import errno
import weakref
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.guest.base import Exit, GuestBus, Mmio, NoSyndrome, Pause, Wfi
from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine import exceptions as x
from kvmvfio_emu.guest.machine.decode import (
    ZERO,
    Access,
    decode,
    decode_system,
    is_cache_maintenance,
    target,
)
from kvmvfio_emu.guest.machine.memory import GuestMemory
from kvmvfio_emu.guest.machine.private import places
from kvmvfio_emu.guest.machine.system import SystemRegisters
from kvmvfio_emu.guest.machine.ticker import SLICE_NS, ticker
from kvmvfio_emu.guest.machine.transfer import Transfer
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm import psci
from kvmvfio_emu.kernel.kvm.memory import PAGE_SIZE

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.run import RunCall
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_WFI = 0xD503207F
#: With an interrupt that waits for the guest to unmask it, this many instructions at first, then twice as many.
_WATCHED, _MOST_WATCHED = 64, 1 << 14
_WORD, _EL2 = 4, 2


class MachineGuest:
    """Executes ``vcpu`` from its PC."""

    def __init__(self, vcpu: Vcpu) -> None:
        assert vcpu.registers is not None
        self._vcpu = vcpu
        self._file = vcpu.registers
        self._system = SystemRegisters(vcpu)
        self._cpu = b.Cpu(self._raised, self._system.read, self._system.write)
        self._places = places()
        self._cpu.stop_between(self._places.no_stop_inside)
        weakref.finalize(vcpu, self._cpu.close).atexit = False
        self._transfer = Transfer(self._cpu, self._file)
        self._memory = GuestMemory(vcpu, self._cpu)
        self._file.live = self
        self._stale = True  #: the file holds what the engine has not
        self._fresh = False  #: the file holds what the engine has
        self._call: RunCall | None = None
        self._pending: Access | None = None
        self._fault_address = 0  #: of the last access that KVM had to see, for an abort that userspace makes of it
        self._watched = 0
        self._exception: int | None = None

    # -- the register file's owner ------------------------------------------------------------------------------------

    @property
    def pc(self) -> int:
        """Where the guest is."""
        return self._cpu.read(b.PC)

    def fetch(self) -> None:
        """The file is about to be read or changed."""
        if not self._stale and not self._fresh:
            self._transfer.save()
            self._fresh = True

    def changed(self) -> None:
        """The file was changed."""
        self._stale = True

    def _load(self) -> None:
        if self._file.is_32bit or self._file.core.regs.pstate & x.AARCH32:
            self._vcpu.run.exit_reason = uapi.KVM_EXIT_FAIL_ENTRY
            raise KernelError(errno.EINVAL, "the engine executes AArch64 only")
        self._transfer.load()
        self._cpu.forget_all_code()  # whoever sets registers may have loaded another program, too
        self._stale = False

    # -- what the engine tells ----------------------------------------------------------------------------------------

    def _raised(self, number: int) -> None:
        self._exception = number

    # -- a vCPU's program ---------------------------------------------------------------------------------------------

    def step(self, bus: GuestBus) -> Exit | None:
        """Run until something stops it. EFAULT, ENOSYS: what KVM_RUN returns when it cannot go on."""
        vcpu, cpu, memory = self._vcpu, self._cpu, self._memory
        if self._stale:
            self._load()
            vcpu.timer_lines.update()
        if vcpu.call is not self._call or memory.changed:
            self._call = vcpu.call
            memory.enter()
        if vcpu.abort_pending:
            vcpu.abort_pending = False
            self._fault(x.EC_DATA_ABORT, x.EXTERNAL_ABORT, self._fault_address)
        pc = self._take_interrupts(cpu.read(b.PC))
        if pc % _WORD:
            self._fault(x.EC_PC_ALIGNMENT, 0, pc)
            return Pause()
        self._fresh = False
        self._exception = None
        ticks = ticker.ticks
        ticker.enter(cpu.handle)
        try:
            failed = cpu.run(pc, self._watched)
        finally:
            ticker.leave()
        if failed:
            raise KernelError(errno.EFAULT, f"the engine stopped at {cpu.read(b.PC):#x}: {b.reason(failed)}")
        self._system.settle()
        if memory.by_pages:
            memory.flush()
        return self._stopped(bus, ticked=ticker.ticks != ticks)

    def complete(self, value: int) -> None:
        """The access of the last exit is done: a load's register gets ``value``, and the guest goes on after it."""
        if self._stale:
            self._load()
        access, self._pending = self._pending, None
        assert access is not None
        if not self._vcpu.abort_pending:
            self._finish(access, value)

    def _finish(self, access: Access, value: int) -> None:
        cpu = self._cpu
        if not access.store and access.register != ZERO:
            cpu.write(b.X[access.register], access.loaded(value))
        cpu.write(b.PC, cpu.read(b.PC) + _WORD)
        self._fresh = False

    def _take_interrupts(self, pc: int) -> int:
        """Exception entry for what is asserted and not masked. Returns where to go on."""
        vcpu, cpu = self._vcpu, self._cpu
        irq, fiq, serror = vcpu.irq_asserted, vcpu.fiq_asserted, vcpu.serror_pending
        if not (irq or fiq or serror):
            self._watched = 0
            return pc
        pstate = cpu.read(b.PSTATE)
        if serror and not pstate & x.SERROR_MASK:
            vcpu.serror_pending = False
            cpu.write_system(x.ESR_EL1, x.syndrome(x.EC_SERROR, 0, pstate))
            vector = x.SERROR
        elif fiq and not pstate & x.FIQ_MASK:
            vector = x.FIQ
        elif irq and not pstate & x.IRQ_MASK:
            vector = x.IRQ
        else:  # look soon whether the guest unmasks it
            self._watched = min(self._watched * 2 or _WATCHED, _MOST_WATCHED)
            return pc
        self._watched = 0
        vcpu.host.event("guest_irq", vcpu=vcpu.index, pc=pc)
        x.enter(cpu, vector, pc, pstate)
        return cpu.read(b.PC)

    # -- why it stopped -----------------------------------------------------------------------------------------------

    def _stopped(self, bus: GuestBus, *, ticked: bool) -> Exit | None:
        if self._exception is not None:
            return self._on_exception(self._exception, bus)
        if not ticked:
            # With a tick it may be the instruction before where it was stopped; then a WFI may as well have ended.
            waits = self._cpu.word(self._cpu.read(b.PC) - _WORD) == _WFI
            return Wfi() if waits else None
        self._vcpu.host.clock.advance(SLICE_NS)
        self._memory.refresh()
        return Pause()

    def _on_stage2(self, bus: GuestBus, pc: int, esr: int, virtual: int) -> Exit | None:
        """The guest touched what the second stage does not map; models kvm_handle_guest_abort."""
        cpu = self._cpu
        address = cpu.fault_page | virtual % PAGE_SIZE
        data, walk = esr >> x.EC == x.EC_DATA_ABORT, bool(esr & x.TABLE_WALK)
        write = data and not walk and bool(esr & x.WRITE_NOT_READ)
        if self._memory.fault(address, write=write):
            return None
        if walk or not data:
            self._fault(x.EC_DATA_ABORT if data else x.EC_PREFETCH_ABORT, x.EXTERNAL_ABORT, virtual)
            return Pause()  # the handler may be no better
        word = cpu.word(pc) or 0
        access = decode(esr, word)
        if access is None:
            if is_cache_maintenance(word):
                cpu.write(b.PC, pc + _WORD)
                return None
            self._fault_address = virtual
            return NoSyndrome(address, esr & (x.WRITE_NOT_READ | x.FAULT_STATUS))
        start = virtual
        if not virtual % PAGE_SIZE:  # of one over the end of a page perhaps only the second half is missing
            start = target(word, pc, self._register)
        if start % access.size:
            self._fault(x.EC_DATA_ABORT, x.ALIGNMENT_FAULT | (x.WRITE_NOT_READ if write else 0), start)
            return None
        self._fault_address = virtual
        return self._access(bus, access, address)

    def _access(self, bus: GuestBus, access: Access, address: int) -> Exit | None:
        if access.store:
            value = 0 if access.register == ZERO else self._cpu.read(b.X[access.register])
            leave: Mmio | int | None = bus.store(address, access.size, value & (1 << 8 * access.size) - 1)
        else:
            leave = bus.load(address, access.size)
        if isinstance(leave, Mmio):
            self._pending = access
            return leave
        self._finish(access, leave or 0)
        self._memory.refresh()  # a device may have written
        return None

    def _register(self, number: int) -> int:
        """The base of an address: 31 is SP."""
        return self._cpu.read(b.SP if number == ZERO else b.X[number])

    def _on_exception(self, number: int, bus: GuestBus) -> Exit | None:
        cpu = self._cpu
        pc = cpu.read(b.PC)
        if number in (b.HVC, b.SMC):  # PC is after them
            made = cpu.word(pc - _WORD) or 0
            return psci.call(self._vcpu, self, smc=number == b.SMC, number=made >> 5 & 0xFFFF)
        if number == b.UNDEFINED:
            word = cpu.word(pc)
            access = None if word is None else decode_system(word)
            if access is not None and self._system.serve(bus, access, cpu):
                cpu.write(b.PC, pc + _WORD)
                return None
        esr, address, level = cpu.exception(self._places.exception)
        aborted = number in (b.PREFETCH_ABORT, b.DATA_ABORT)
        if aborted and level == _EL2:
            return self._on_stage2(bus, pc, esr, address)
        self._enter(esr, address if aborted else None)
        return Pause() if aborted else None  # the handler may be no better

    def _fault(self, kind: int, syndrome: int = 0, address: int | None = None) -> None:
        """The guest takes a synchronous exception that KVM, or the hardware in its name, makes."""
        self._enter(x.syndrome(kind, syndrome, self._cpu.read(b.PSTATE)), address)

    def _enter(self, esr: int, address: int | None) -> None:
        cpu, vcpu = self._cpu, self._vcpu
        pc = cpu.read(b.PC)
        x.enter_synchronous(cpu, pc, cpu.read(b.PSTATE), esr, address)
        vcpu.host.event("guest_exception", vcpu=vcpu.index, pc=pc, esr=esr)

    # -- what firmware calls need -------------------------------------------------------------------------------------

    def argument(self, number: int) -> int:
        """General register ``number``."""
        return self._cpu.read(b.X[number])

    def answer(self, value: int) -> None:
        """The result of a call: X0."""
        self._cpu.write(b.X[0], value)
