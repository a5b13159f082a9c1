"""A vCPU that executes the machine code in its memory: the guest's program behind KVM_RUN, on the engine `unicorn`.

One `step` runs until something stops the engine: an access to what is no memory, an exception, WFI, the end of a time
slice. What it means is decided here, outside of the engine, so the model's code never runs inside of it.
"""

from __future__ import annotations

import errno
import weakref
from typing import TYPE_CHECKING, Protocol

from kvmvfio_emu.guest.base import Exit, GuestBus, Mmio, NoSyndrome, Pause, Wfi
from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine import syndrome as s
from kvmvfio_emu.guest.machine.memory import GuestMemory
from kvmvfio_emu.guest.machine.private import places
from kvmvfio_emu.guest.machine.ticker import SLICE_NS, ticker
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm import psci
from kvmvfio_emu.kernel.kvm.memory import PAGE_SIZE

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.run import RunCall
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_EL2 = 2


class Transfer(Protocol):
    """The registers of a vCPU between KVM's register file and the engine, both ways."""

    def load(self) -> None:
        """The engine takes what the file holds."""

    def save(self) -> None:
        """The file shows what the engine has."""


class MachineGuest:
    """Executes ``vcpu`` from its PC. What depends on the execution state is in its two subclasses."""

    def __init__(self, vcpu: Vcpu, cpu: b.Cpu, transfer: Transfer) -> None:
        assert vcpu.registers is not None
        self._vcpu = vcpu
        self._file = vcpu.registers
        self._cpu = cpu
        self._places = places()
        cpu.stop_between(self._places.no_stop_inside)
        weakref.finalize(vcpu, cpu.close).atexit = False
        self._transfer = transfer
        self._memory = GuestMemory(vcpu, cpu)
        self._file.live = self
        self._stale = True  #: the file holds what the engine has not
        self._fresh = False  #: the file holds what the engine has
        self._call: RunCall | None = None
        self._pending: s.Access | None = None
        self._fault_address = 0  #: of the last access that KVM had to see, for an abort that userspace makes of it
        self._offered = False  #: an interrupt was left to the engine, which does not tell when it takes it
        self._exception: int | None = None

    # -- what an execution state decides ------------------------------------------------------------------------------

    def _check_file(self) -> None:
        """KVM_EXIT_FAIL_ENTRY and EINVAL when the file holds what cannot be executed."""

    def _misaligned(self, pc: int) -> bool:
        """Whether nothing can be executed at ``pc``; then the exception has been taken."""
        return False

    def _settle(self) -> None:
        """After a run: what the guest did inside of the engine happens in the model."""

    def _interrupt(self, kind: int, pc: int, status: int) -> None:
        """Exception entry that returns to ``pc``. ``kind``: one of `syndrome`'s masks, FIQ, IRQ or SERROR."""
        raise NotImplementedError

    def _return_address(self) -> int | None:
        """Where the exception that the guest handles will return to; None: nobody knows, as handlers change it."""
        return None

    def _abort(self, kind: int, fault: int, address: int, *, write: bool = False) -> None:
        """An abort that KVM makes. ``kind``: `syndrome.EC_DATA_ABORT` or its fellow; ``fault``: EXTERNAL, ALIGNMENT."""
        raise NotImplementedError

    def _deliver(self, number: int, raised: b.Raised) -> bool:
        """An exception of the engine's that is the guest's own. Returns whether it was an abort."""
        raise NotImplementedError

    def _serve_undefined(self, pc: int, bus: GuestBus) -> bool:
        """Whether what the engine calls undefined is a system register of ours; then the guest goes on after it."""
        raise NotImplementedError

    def _decode(self, esr: int, pc: int) -> s.Access | None:
        """The access of the instruction at ``pc``; None: its syndrome is not valid."""
        raise NotImplementedError

    def _target(self, pc: int) -> int:
        """The first virtual address of that access."""
        raise NotImplementedError

    def _skips_maintenance(self, pc: int) -> bool:
        """Whether the instruction is cache maintenance, which needs no memory; then the guest goes on after it."""
        return False

    def _skip(self, pc: int, access: s.Access) -> None:
        """Go on after the access."""
        raise NotImplementedError

    def _waited(self, pc: int) -> bool:
        """Whether the instruction before ``pc`` is WFI."""
        raise NotImplementedError

    def _call_number(self, pc: int) -> int:
        """The number in the HVC or SMC before ``pc``."""
        raise NotImplementedError

    def _register(self, number: int) -> int:
        """The engine's number of a general register."""
        raise NotImplementedError

    # -- the register file's owner ------------------------------------------------------------------------------------

    @property
    def pc(self) -> int:
        """Where the guest is."""
        return self._cpu.pc

    def fetch(self) -> None:
        """The file is about to be read or changed."""
        if not self._stale and not self._fresh:
            self._transfer.save()
            self._fresh = True

    def changed(self) -> None:
        """The file was changed."""
        self._stale = True

    def _load(self) -> None:
        self._check_file()
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
            self._abort(s.EC_DATA_ABORT, s.EXTERNAL, self._fault_address)
        pc = self._take_interrupts(cpu.pc)
        if self._misaligned(pc):
            return Pause()
        self._fresh = False
        self._exception = None
        ticks = ticker.ticks
        ticker.enter(cpu.handle)
        try:
            failed = cpu.run()
        finally:
            ticker.leave()
        if failed:
            raise KernelError(errno.EFAULT, f"the engine stopped at {self.pc:#x}: {b.reason(failed)}")
        self._settle()
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

    def _finish(self, access: s.Access, value: int) -> None:
        cpu = self._cpu
        if not access.store and access.register != s.ZERO:
            cpu.write(self._register(access.register), access.loaded(value))
        self._skip(cpu.pc, access)
        self._fresh = False

    def _take_interrupts(self, pc: int) -> int:
        """Exception entry for what is asserted and not masked; what is masked waits in the engine. Returns the new PC.

        A masked SError is looked at again when the guest stops.
        """
        vcpu, cpu = self._vcpu, self._cpu
        irq, fiq, serror = vcpu.irq_asserted, vcpu.fiq_asserted, vcpu.serror_pending
        cpu.offer(irq=irq, fiq=fiq)
        if not (irq or fiq or serror):
            self._offered = False
            return pc
        status = cpu.read(cpu.STATUS)
        if serror and not status & s.SERROR:
            vcpu.serror_pending = False
            kind = s.SERROR
        elif fiq and not status & s.FIQ:
            kind = s.FIQ
        elif irq and not status & s.IRQ:
            kind = s.IRQ
        else:
            self._offered = irq or fiq
            return pc
        self._offered = False
        self._tell_interrupt(pc)
        self._interrupt(kind, pc, status)
        return self.pc

    def acknowledging(self) -> None:
        """The guest is about to acknowledge an interrupt: if the engine has taken it, nobody was told yet."""
        if self._offered:
            self._offered = False
            self._tell_interrupt(self._return_address())

    def _tell_interrupt(self, pc: int | None) -> None:
        where = {} if pc is None else {"pc": pc}
        self._vcpu.host.event("guest_irq", vcpu=self._vcpu.index, **where)

    # -- why it stopped -----------------------------------------------------------------------------------------------

    def _stopped(self, bus: GuestBus, *, ticked: bool) -> Exit | None:
        if self._exception is not None:
            return self._on_exception(self._exception, bus)
        if not ticked:
            # With a tick it may be the instruction before where it was stopped; then a WFI may as well have ended.
            if self._cpu.hinted:
                return Pause()  # others first
            return Wfi() if self._waited(self.pc) else None
        self._vcpu.host.clock.advance(SLICE_NS)
        self._memory.refresh()
        return Pause()

    def _on_exception(self, number: int, bus: GuestBus) -> Exit | None:
        pc = self._cpu.pc
        if number in (b.HVC, b.SMC):
            return self._on_call(pc, smc=number == b.SMC)
        if number == b.UNDEFINED and self._serve_undefined(pc, bus):
            return None
        raised = self._cpu.exception(self._places.exception)
        if number in (b.PREFETCH_ABORT, b.DATA_ABORT) and raised.level == _EL2:
            return self._on_stage2(bus, pc, raised.esr, raised.address)
        return Pause() if self._deliver(number, raised) else None  # an abort's handler may be no better

    def _on_call(self, pc: int, *, smc: bool) -> Exit:
        return psci.call(self._vcpu, self, smc=smc, number=self._call_number(pc))

    def _on_stage2(self, bus: GuestBus, pc: int, esr: int, virtual: int) -> Exit | None:
        """The guest touched what the second stage does not map; models kvm_handle_guest_abort."""
        address = self._cpu.fault_page | virtual % PAGE_SIZE
        data, walk = esr >> s.EC == s.EC_DATA_ABORT, bool(esr & s.TABLE_WALK)
        write = data and not walk and bool(esr & s.WRITE_NOT_READ)
        if self._memory.fault(address, write=write):
            return None
        if walk or not data:
            self._abort(s.EC_DATA_ABORT if data else s.EC_PREFETCH_ABORT, s.EXTERNAL, virtual)
            return Pause()  # the handler may be no better
        access = self._decode(esr, pc)
        if access is None:
            if self._skips_maintenance(pc):
                return None
            self._fault_address = virtual
            return NoSyndrome(address, esr & (s.WRITE_NOT_READ | s.FAULT_STATUS))
        start = virtual
        if not virtual % PAGE_SIZE:  # of one over the end of a page perhaps only the second half is missing
            start = self._target(pc)
        if start % access.size:
            self._abort(s.EC_DATA_ABORT, s.ALIGNMENT, start, write=write)
            return None
        self._fault_address = virtual
        return self._access(bus, access, address)

    def _access(self, bus: GuestBus, access: s.Access, address: int) -> Exit | None:
        if access.store:
            value = 0 if access.register == s.ZERO else self._cpu.read(self._register(access.register))
            leave: Mmio | int | None = bus.store(address, access.size, access.stored(value))
        else:
            leave = bus.load(address, access.size)
        if isinstance(leave, Mmio):
            self._pending = access
            return leave
        self._finish(access, leave or 0)
        self._memory.refresh()  # a device may have written
        return None

    # -- what firmware calls need -------------------------------------------------------------------------------------

    def argument(self, number: int) -> int:
        """General register ``number``."""
        return self._cpu.read(self._register(number))

    def answer(self, value: int) -> None:
        """The result of a call: register 0."""
        self._cpu.write(self._register(0), value)
        self._fresh = False
