"""KVM_RUN: the loop between host and guest, resumable so that one thread runs every vCPU (kvm_arch_vcpu_ioctl_run).

The order is the kernel's: flush, enter, exit, host interrupts (a physical interrupt that ended the guest's stay is
handled here), sync, then the exit's own business.
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.engine.scheduler import Turn
from kvmvfio_emu.guest.base import Call, CpuOff, Exit, Hypercall, Mmio, NoSyndrome, Pause, Reset, Wfi
from kvmvfio_emu.kernel.calltrace import show_return
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.arch.arm import ArmArch
from kvmvfio_emu.kernel.kvm.guestbus import STEP_NS

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.faults import Injection
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.task import Task


_EVENTS: dict[type[Exit], str] = {Wfi: "vmexit_wfi", Mmio: "vmexit_mmio", NoSyndrome: "vmexit_mmio"}


class RunCall:
    """One KVM_RUN in progress. `advance` gives it a slice; `result` (or `error`) is there when it is `DONE`.

    It holds ``file``, which others may close meanwhile, as fdget does for every system call.
    """

    def __init__(self, vcpu: Vcpu, task: Task, file: File) -> None:
        self.vcpu = vcpu
        self.task = task
        self._file = file
        file.get()
        self.result: int | None = None
        self.error: KernelError | None = None
        self.failed = False
        self._cause = vcpu.host.trace.cause  # the event of its ioctl
        self._fd = -1
        self._injected: Injection | None = None
        self._loop = self._run()
        vcpu.calls.append(self)
        vcpu.host.scheduler.add(self)

    @property
    def done(self) -> bool:
        """Whether KVM_RUN has returned."""
        return self.result is not None or self.error is not None

    def advance(self) -> Turn:
        """One slice."""
        if self.done:
            return Turn.DONE  # interrupted by another call of the same round
        try:
            return next(self._loop)
        except StopIteration as returned:
            self.result = returned.value
        except KernelError as error:
            self._leave_guest()
            self.error = error
        except BaseException:
            self.failed = True  # the guest's program raised; who drives the call decides what becomes of that
            self.interrupt()
            raise
        self._end()
        return Turn.DONE

    def called(self, fd: int, injected: Injection | None) -> None:
        """By which descriptor it was called, and the fault that it is under: for its return."""
        self._fd, self._injected = fd, injected

    def interrupt(self) -> None:
        """A signal arrived: KVM_RUN returns EINTR now, wherever it is."""
        if not self.done:
            if self.vcpu.call is self:
                self._leave_guest()
            self.error = self._interrupted()
            self._end()

    def preempt(self) -> None:
        """Another vCPU wants the physical CPU: out of the guest, to come back at the next slice."""
        self.vcpu.host.event("vmexit_preempt", vcpu=self.vcpu.index)
        self._leave_guest()

    def _end(self) -> None:
        self._loop.close()
        if self.vcpu.call is self:
            self.vcpu.blocked = False
        self.vcpu.calls.remove(self)
        self.vcpu.host.scheduler.remove(self)
        if self._injected is not None:
            self.vcpu.host.clock.advance(self._injected.delay_exit)
        if self._cause:
            self._show_return()
        self._file.put()

    def _show_return(self) -> None:
        trace = self.vcpu.host.trace
        before = trace.resume(self._cause)
        result = -1 if self.result is None else self.result
        show_return(
            self._file,
            uapi.KVM_RUN,
            0,
            fd=self._fd,
            result=result,
            error=self.error,
            task=self.task,
            injected=self._injected,
        )
        trace.end(before)

    def _signalled(self) -> bool:
        """Whether KVM_RUN must return EINTR; immediate_exit counts at any time, for who sets it from a handler."""
        vcpu = self.vcpu
        return bool(vcpu.run.immediate_exit) or self.task.signal_pending(vcpu.signal_mask)

    def _interrupted(self) -> KernelError:
        self.vcpu.run.exit_reason = uapi.KVM_EXIT_INTR
        return KernelError(errno.EINTR, "a signal is pending, or immediate_exit is set")

    # -- the loop ---------------------------------------------------------------------------------------------

    def _run(self) -> Generator[Turn, None, int]:
        vcpu = self.vcpu
        while vcpu.call is not self:  # another thread runs it and has its mutex, which is waited for, killably
            yield Turn.BLOCKED
        self._complete_mmio()
        if self._signalled():
            raise self._interrupted()
        exits = 0
        while True:
            while vcpu.blocked or vcpu.powered_off or (vcpu.suspended and not vcpu.runnable):
                yield Turn.BLOCKED
                if self._signalled():
                    raise self._interrupted()
            if vcpu.suspended:
                return self._system_event(uapi.KVM_SYSTEM_EVENT_WAKEUP)
            if vcpu.program is None and not self._find_program():
                return 0
            cause = yield from self._stay_in_guest()
            if isinstance(cause, Exit) and self._handle(cause):
                return 0
            vcpu.host.clock.advance(STEP_NS)  # exits take time too, else a guest that polls by them would stop it
            vcpu.host.settle()
            exits += 1
            if exits % vcpu.host.scheduler.slice == 0:
                yield Turn.RUNNABLE
            if self._signalled():
                raise self._interrupted()

    def _find_program(self) -> bool:
        """What the vCPU executes from now on: the code at its PC, or else what is the default."""
        vcpu, host = self.vcpu, self.vcpu.host
        if vcpu.has_code or host.default_guest is None:
            vcpu.program = host.guest_engine(vcpu) if vcpu.vm.memory else None
        else:
            vcpu.program = host.default_guest(vcpu.number)
        if vcpu.program is None:
            host.event("no_guest_program", vcpu=vcpu.index)
            vcpu.run.exit_reason = uapi.KVM_EXIT_INTERNAL_ERROR
            vcpu.run.internal.suberror = uapi.KVM_INTERNAL_ERROR_EMULATION
        return vcpu.program is not None

    def _stay_in_guest(self) -> Generator[Turn, None, Exit | str]:
        """Enter, execute, leave. Returns why."""
        vcpu, host = self.vcpu, self.vcpu.host
        self._enter_guest()
        cause = yield from self._execute()
        if not vcpu.in_guest:
            return cause  # taken out from outside while it waited for its turn
        if isinstance(cause, str):  # forced, by something that left its number
            host.trace.step(("exit", id(vcpu)), _exit_event(cause), vcpu=vcpu.index)
        else:
            host.event(_exit_event(cause), vcpu=vcpu.index, **self._where())
        vcpu.exits["exits"] += 1
        self._leave_guest()
        return cause

    def _where(self) -> dict[str, int]:
        """For the trace: the guest's PC, if it has one."""
        registers = self.vcpu.registers
        if registers is None or registers.live is None or not self.vcpu.host.trace.listening:
            return {}
        return {"pc": registers.live.pc}

    def _enter_guest(self) -> None:
        vcpu = self.vcpu
        other = vcpu.cpu.guest
        if other is not None:
            other.give_way()
        with vcpu.cpu.irqs_disabled():
            if vcpu.vm.vgic is not None:
                vcpu.vm.vgic.flush(vcpu)
            vcpu.has_run = vcpu.in_guest = True
            vcpu.forced = None
            vcpu.cpu.guest = vcpu
            vcpu.host.event("vmentry", vcpu=vcpu.index)

    def _leave_guest(self) -> None:
        """Back to the host: pending physical interrupts first, then the list registers."""
        vcpu = self.vcpu
        if not vcpu.in_guest:
            return
        vcpu.in_guest = False
        vcpu.forced = None
        vcpu.cpu.guest = None
        vcpu.cpu.take_irqs()
        if vcpu.vm.vgic is not None:
            vcpu.vm.vgic.sync(vcpu)

    def _execute(self) -> Generator[Turn, None, Exit | str]:
        vcpu, program, clock = self.vcpu, self.vcpu.program, self.vcpu.host.clock
        interface = vcpu.interface
        assert program is not None
        while True:
            for _ in range(vcpu.host.scheduler.slice):
                if interface.maintenance:
                    return "maint"
                if vcpu.forced is not None:
                    return vcpu.forced
                exit_ = program.step(vcpu.bus)
                if type(exit_) is Pause:
                    break
                if exit_ is not None:
                    return exit_
                clock.advance(STEP_NS)
            yield Turn.RUNNABLE
            if not vcpu.in_guest:
                return "preempt"
            if self._signalled():
                return "signal"

    # -- exits --------------------------------------------------------------------------------------------------

    def _handle(self, cause: Exit) -> bool:
        """The exit's own business; True when KVM_RUN returns to userspace."""
        vcpu = self.vcpu
        if isinstance(cause, Wfi):
            vcpu.exits["wfi_exit_stat"] += 1
            vcpu.blocked = not vcpu.runnable
            return False
        if isinstance(cause, Mmio):
            to_user = self._handle_mmio(cause)
            vcpu.exits["mmio_exit_user" if to_user else "mmio_exit_kernel"] += 1
            return to_user
        if isinstance(cause, NoSyndrome):
            return self._handle_no_syndrome(cause)
        vcpu.exits["hvc_exit_stat"] += 1
        if isinstance(cause, Hypercall):
            vcpu.run.exit_reason = uapi.KVM_EXIT_HYPERCALL
            vcpu.run.hypercall.nr, vcpu.run.hypercall.flags = cause.function, cause.flags
            return True
        if isinstance(cause, Call):
            return False
        if isinstance(cause, CpuOff):
            vcpu.mp_state = uapi.KVM_MP_STATE_STOPPED
            return False
        for other in vcpu.vm.vcpus:  # kvm_prepare_system_event
            other.mp_state = uapi.KVM_MP_STATE_STOPPED
            other.kick()
        event = uapi.KVM_SYSTEM_EVENT_RESET if isinstance(cause, Reset) else uapi.KVM_SYSTEM_EVENT_SHUTDOWN
        self._system_event(event)
        return True

    def _system_event(self, kind: int) -> int:
        """Tell userspace of something that concerns the whole virtual machine."""
        run = self.vcpu.run
        run.exit_reason = uapi.KVM_EXIT_SYSTEM_EVENT
        run.system_event.type = kind
        run.system_event.flags = 0
        return 0

    def _handle_no_syndrome(self, access: NoSyndrome) -> bool:
        """ENOSYS, unless userspace said that it can decode instructions; models io_mem_abort."""
        arch, run = self.vcpu.vm.arch, self.vcpu.run
        if not isinstance(arch, ArmArch) or uapi.KVM_CAP_ARM_NISV_TO_USER not in arch.enabled:
            raise KernelError(errno.ENOSYS, f"the access to {access.address:#x} has no valid syndrome")
        run.exit_reason = uapi.KVM_EXIT_ARM_NISV
        run.arm_nisv.esr_iss, run.arm_nisv.fault_ipa = access.iss, access.address
        return True

    def _handle_mmio(self, access: Mmio) -> bool:
        vcpu = self.vcpu
        program, vgic = vcpu.program, vcpu.vm.vgic
        assert program is not None
        if vgic is not None:
            loaded = vgic.mmio(vcpu, access.address, access.size, access.value)
            if loaded is not None:
                program.complete(loaded)
                return False
        if access.value is not None and vcpu.vm.bus.write(access.address, access.size, access.value):
            program.complete(0)
            return False
        if access.value is not None and vcpu.vm.coalesced.take(vcpu, access.address, access.size, access.value):
            program.complete(0)
            return False
        vcpu.run.exit_reason = uapi.KVM_EXIT_MMIO
        told = vcpu.run.mmio
        told.phys_addr, told.len, told.is_write = access.address, access.size, access.value is not None
        uapi.ffi.memmove(told.data, (access.value or 0).to_bytes(8, "little"), 8)
        vcpu.mmio = access
        return True

    def _complete_mmio(self) -> None:
        """Userspace has done the access of the last exit; models kvm_handle_mmio_return."""
        vcpu = self.vcpu
        access, vcpu.mmio = vcpu.mmio, None
        if access is None or vcpu.program is None:
            return
        value = 0
        if access.value is None:
            value = int.from_bytes(uapi.ffi.buffer(vcpu.run.mmio.data, access.size)[:], "little")
        vcpu.program.complete(value)


def _exit_event(cause: Exit | str) -> str:
    """The counter that a reason for leaving the guest belongs to."""
    if isinstance(cause, str):
        return f"vmexit_{cause}"
    return _EVENTS.get(type(cause), "vmexit_hvc")
