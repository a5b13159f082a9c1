"""irqfd and resampler: one eventfd raises a guest interrupt, another hears of its end (virt/kvm/eventfd.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.engine.work import Work
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFd

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vm import Vm


class Resampler:
    """Shared by all resampling irqfds of one gsi: lowers the line at the guest's EOI and tells every resamplefd."""

    def __init__(self, vm: Vm, gsi: int) -> None:
        self.vm = vm
        self.gsi = gsi
        self.irqfds: list[Irqfd] = []
        vm.ack_notifiers.setdefault(gsi, []).append(self.acked)

    def acked(self) -> None:
        """The guest completed the interrupt; models irqfd_resampler_ack."""
        trace = self.vm.host.trace
        outside = trace.begin("resample_ack", gsi=self.gsi)
        try:
            self.vm.set_irq(self.gsi, False)
            for irqfd in self.irqfds:
                assert irqfd.resamplefd is not None
                before = trace.begin("eventfd_resample", gsi=self.gsi)
                irqfd.resamplefd.signal()
                trace.end(before)
        finally:
            trace.end(outside)

    def leave(self, irqfd: Irqfd) -> None:
        """One irqfd less; with the last the line goes low and the resampler ends."""
        self.irqfds.remove(irqfd)
        if not self.irqfds:
            listeners = self.vm.ack_notifiers[self.gsi]
            listeners.remove(self.acked)
            if not listeners:
                del self.vm.ack_notifiers[self.gsi]
            del self.vm.irqfds.resamplers[self.gsi]
            self.vm.set_irq(self.gsi, False)


class Irqfd:
    """One eventfd tied to one gsi. Signals that come before the deferred injection ran are one injection."""

    def __init__(self, vm: Vm, gsi: int, eventfd: EventFd, resamplefd: EventFd | None) -> None:
        self.vm = vm
        self.gsi = gsi
        self.eventfd = eventfd
        self.resamplefd = resamplefd
        self.resampler: Resampler | None = None
        self.inject_work = Work(f"irqfd inject gsi {gsi}", self.inject)
        self.shutdown_work = Work(f"irqfd shutdown gsi {gsi}", self.shutdown)

    def wakeup(self, eventfd: EventFd) -> None:
        """The trigger was signalled, perhaps from a hard interrupt: only queue. Models irqfd_wakeup."""
        host = self.vm.host
        if host.profile.eventfd_drained:
            eventfd.drain()
        if not host.profile.irqfd_atomic or not self.vm.raise_irq(self.gsi):
            host.work.queue(self.inject_work)

    def hangup(self, eventfd: EventFd) -> None:
        """The trigger's last descriptor was closed: the irqfd goes by itself."""
        self.vm.irqfds.deactivate(self)

    def inject(self) -> None:
        """Raise the guest's interrupt: a level when someone resamples, else a pulse. Models irqfd_inject."""
        before = self.vm.host.trace.begin("work", gsi=self.gsi)
        self.vm.set_irq(self.gsi, True)
        if self.resampler is None:
            self.vm.set_irq(self.gsi, False)
        self.vm.host.trace.end(before)

    def shutdown(self) -> None:
        """Untie; an injection that waits is still done. Models irqfd_shutdown."""
        self.eventfd.remove_waiter(self)
        self.vm.host.work.flush(self.inject_work)
        if self.resampler is not None:
            self.resampler.leave(self)
        self.put()

    def put(self) -> None:
        """Give the eventfds back."""
        self.eventfd.put()
        if self.resamplefd is not None:
            self.resamplefd.put()


class Irqfds:
    """All irqfds of a virtual machine."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.active: list[Irqfd] = []
        self.resamplers: dict[int, Resampler] = {}
        self._released = False

    def control(self, args: Any) -> None:
        """KVM_IRQFD with a ``struct kvm_irqfd``. EINVAL flags; then as `assign` or `deassign`."""
        if args.flags & ~(uapi.KVM_IRQFD_FLAG_DEASSIGN | uapi.KVM_IRQFD_FLAG_RESAMPLE):
            raise KernelError(errno.EINVAL, f"unknown KVM_IRQFD flags {args.flags:#x}")
        if args.flags & uapi.KVM_IRQFD_FLAG_DEASSIGN:
            self.deassign(args.fd, args.gsi)
        else:
            resample = args.resamplefd if args.flags & uapi.KVM_IRQFD_FLAG_RESAMPLE else None
            self.assign(args.fd, args.gsi, resample)

    def assign(self, fd: int, gsi: int, resample: int | None) -> None:
        """Tie eventfd ``fd`` to ``gsi``, which is not checked. As `Arch.check_irqfd`; EBADF, EINVAL not an eventfd,
        EBUSY the eventfd is tied already, in this virtual machine or (where the profile says so) in any."""
        self.vm.arch.check_irqfd(resample is not None)
        task = self.vm.host.current
        eventfd = task.eventfd(fd)
        try:
            resamplefd = None if resample is None else task.eventfd(resample)
        except KernelError:
            eventfd.put()
            raise
        irqfd = Irqfd(self.vm, gsi, eventfd, resamplefd)
        vms = self.vm.kvm.vms if self.vm.host.profile.irqfd_exclusive else [self.vm]
        if any(other.eventfd is eventfd for vm in vms for other in vm.irqfds.active):
            irqfd.put()
            raise KernelError(errno.EBUSY, "the eventfd has an irqfd already")
        if resamplefd is not None:
            irqfd.resampler = self.resamplers.get(gsi) or self.resamplers.setdefault(gsi, Resampler(self.vm, gsi))
            irqfd.resampler.irqfds.append(irqfd)
        self.active.append(irqfd)
        if eventfd.add_waiter(irqfd):
            # Signalled before we listened: one injection, the counter stays as it is.
            self.vm.host.work.queue(irqfd.inject_work)

    def deassign(self, fd: int, gsi: int) -> None:
        """Untie what matches both; 0 when nothing does. EBADF, EINVAL. Returns when the shutdown is complete."""
        eventfd = self.vm.host.current.eventfd(fd)
        for irqfd in [one for one in self.active if one.eventfd is eventfd and one.gsi == gsi]:
            self.active.remove(irqfd)
            irqfd.shutdown()
        eventfd.put()

    def deactivate(self, irqfd: Irqfd) -> None:
        """Untie later, from a context that must not wait; models irqfd_deactivate."""
        self.active.remove(irqfd)
        self.vm.host.work.queue(irqfd.shutdown_work)

    def release(self) -> None:
        """The virtual machine's descriptor goes: untie all."""
        for irqfd in self.active:
            irqfd.shutdown()
        self.active.clear()

    def check(self) -> None:
        """Raise AssertionError when the state contradicts itself."""
        for gsi, resampler in self.resamplers.items():
            assert resampler.irqfds, f"the resampler of gsi {gsi} serves nobody"
            assert all(irqfd.gsi == gsi for irqfd in resampler.irqfds), f"a foreign irqfd in the resampler of gsi {gsi}"
