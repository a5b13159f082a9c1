"""The part of `Kernel` that drives what is below and beside the calls: devices, guests, time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import count

from kvmvfio_emu import uapi
from kvmvfio_emu.doors.arguments import FileLike, fileno
from kvmvfio_emu.doors.descriptors import Descriptors
from kvmvfio_emu.guest.base import GuestProgram
from kvmvfio_emu.hw.devices import Device
from kvmvfio_emu.kernel.errors import KernelError, KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.kvm.run import RunCall
from kvmvfio_emu.kernel.kvm.vcpufile import VcpuFile


class Driven:
    """What `Kernel` inherits."""

    host: Host
    _descriptors: Descriptors
    _programs: dict[int, GuestProgram]

    def _enter(self) -> None:
        raise NotImplementedError

    def _leave(self) -> None:
        raise NotImplementedError

    def run(self, slices: int | None = None) -> None:
        """Let everything happen that can happen now: news from eventfds, deferred work, guests, time.

        Returns when nothing is left but waiting for you, or after that many slices of every guest: one that never
        waits would go on for ever. Calls begun with `start` go on here.
        """
        self._enter()
        scheduler, clock = self.host.scheduler, self.host.clock
        for _ in count() if slices is None else range(slices):
            if not scheduler.round() and not clock.jump():
                break
            self.host.settle()
        self._leave()

    def start(self, fd: FileLike, request: int, arg: int = 0) -> RunCall:
        """Begin an ioctl that may take long (KVM_RUN) and return the call; `run` lets it go on."""
        self._enter()
        if request & 0xFFFFFFFF != uapi.KVM_RUN:
            raise KvmVfioEmuError("only KVM_RUN can be started; call ioctl for the others")
        file = self._descriptors.find(fileno(fd))
        if file is None:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        try:
            call = file.ioctl(request, arg)
        except KernelError as error:
            raise error.oserror() from None
        assert isinstance(call, RunCall)
        return call

    def after(self, nanoseconds: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` when that much virtual time has passed; time only passes while a guest or `run` runs."""
        self.host.clock.after(nanoseconds, callback)

    def attach_guest(self, vcpu: int, program: GuestProgram, *, fd: FileLike | None = None) -> None:
        """What vCPU number ``vcpu`` executes: for the next one created, and for those that exist already.

        With ``fd``, a vCPU's descriptor, only that one: where several virtual machines have one of that number.
        """
        if fd is not None:
            file = self._descriptors.find(fileno(fd))
            if not isinstance(file, VcpuFile) or file.vcpu.number != vcpu:
                raise KvmVfioEmuError(f"descriptor {fileno(fd)} is not that of vCPU {vcpu}")
            file.vcpu.program = program
            return
        self._programs[vcpu] = program
        for file in self.host.files.values():
            if isinstance(file, VcpuFile) and file.vcpu.number == vcpu:
                file.vcpu.program = program

    def device(self, name: str) -> Device:
        """The hardware behind the host: the device model of that name, to raise its lines or poke its registers."""
        if name not in self.host.machine.devices:
            known = ", ".join(sorted(self.host.machine.devices))
            raise KvmVfioEmuError(f"no device {name!r}; the board has {known}")
        return self.host.machine.devices[name]
