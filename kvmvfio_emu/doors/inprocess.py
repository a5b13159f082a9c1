"""The in-process door: `Kernel`, an object with the calls of `os`, `fcntl` and `mmap`, answered by an emulated kernel.

There is no background thread. What others did to an eventfd, or closed behind our back, is noticed at the next call of
a method here, or by `Kernel.run`.
"""

from __future__ import annotations

import errno
import fcntl
import mmap as _mmap
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.doors.arguments import FileLike, fileno, ioctl_argument, mapping_kind
from kvmvfio_emu.doors.descriptors import Descriptors
from kvmvfio_emu.doors.driven import Driven
from kvmvfio_emu.doors.eventfds import eventfd_key
from kvmvfio_emu.doors.localtask import LocalTask
from kvmvfio_emu.doors.observed import Observed, end_traces
from kvmvfio_emu.guest.base import GuestProgram
from kvmvfio_emu.hw.board import Board
from kvmvfio_emu.hw.devices import Device
from kvmvfio_emu.kernel.boot import boot
from kvmvfio_emu.kernel.calltrace import watched_call
from kvmvfio_emu.kernel.errors import KernelError, KvmVfioEmuError
from kvmvfio_emu.kernel.file import VALUE_REQUESTS, File
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.kvm.run import RunCall
from kvmvfio_emu.profiles import Profile

if TYPE_CHECKING:
    from kvmvfio_emu.view.tracing import Tracing

#: `os.lseek`, whose result for (fd, 0, SEEK_CUR) is a descriptor's cookie; a name of its own saves a look-up.
_position = os.lseek
#: Long enough to cost nothing, short enough to see immediate_exit when another thread set it.
_MILLISECONDS = 10


_T = TypeVar("_T")


class Kernel(Observed, Driven, AbstractContextManager["Kernel"]):
    """An emulated kernel with the calls of `os`, `fcntl` and `mmap`.

    ``profile``: which kernel answers (a name from `profiles.names()` or a `Profile`); ``machine``: the board it runs
    on (a name, a path to a TOML file, or a `Board`; by default the profile's); ``models``: device classes of your own,
    by name; ``gic``: another interrupt controller than the board's, 2 or 3.

    Paths and descriptors that are not emulated go to the real kernel. Errors are `OSError` with the kernel's errno; the
    clause that was broken is a note on it. Not thread-safe: one kernel, one thread, one process.
    """

    def __init__(
        self,
        profile: str | Profile = profiles.DEFAULT,
        machine: str | Board | None = None,
        models: Mapping[str, type[Device]] | None = None,
        gic: int | None = None,
    ) -> None:
        self.host = boot(profile, machine, models, gic)
        self._descriptors = Descriptors(self.host.poller, self.host.inodes)
        self._task = LocalTask(self.host, self._descriptors)
        self.host.current = self._task
        self._look: Callable[[int], list[tuple[int, int]]] = self.host.poller.look
        self._by_cookie = self._descriptors.by_cookie
        self._waiting = self.host.work.waiting
        self._mirrors = self.host.mirrors
        self._programs: dict[int, GuestProgram] = {}
        self._traces = []
        self.host.guest_program = self._programs.get
        self._power_off = weakref.finalize(self, _power_off, self.host, self._descriptors, self._task, self._traces)
        self._power_off.atexit = False

    def close_kernel(self) -> None:
        """Power off. Descriptors of this kernel that are still open stay open, but answer nothing any more.

        A kernel that nobody refers to any more is powered off, too.
        """
        if self._power_off.alive:
            self._look = _no_power
            try:
                self._enter()
            finally:
                self._power_off()

    def __exit__(self, *exc: object) -> None:
        self.close_kernel()

    def __enter__(self) -> Self:
        return self

    # -- the calls of os, fcntl and mmap ------------------------------------------------------------------------

    def open(
        self,
        path: str | bytes | os.PathLike[Any],
        flags: int = os.O_RDWR,
        mode: int = 0o777,
        *,
        dir_fd: int | None = None,
    ) -> int:
        """As `os.open`. Device nodes of the emulated kernel give emulated files (always O_CLOEXEC, as Python's)."""
        name = os.fsdecode(path)
        if not self.owns(name):
            return os.open(path, flags, mode, dir_fd=dir_fd)
        self._enter()
        try:
            node = os.path.normpath(name)
            if not self.host.trace.calls:
                return self._task.install(self.host.open(node))
            return watched_call(self.host, "open", lambda: self._task.install(self.host.open(node)), path=name)
        except KernelError as error:
            raise _with_path(error, name) from None

    def ioctl(self, fd: FileLike, request: int, arg: Any = 0, mutate_flag: bool = True) -> Any:
        """As `fcntl.ioctl`: an integer argument (a value or an address) or a buffer, changed in place if it can be.

        Returns the result, or the changed bytes for an immutable buffer. KVM_RUN runs the guest until it exits, and
        blocks like the real one.
        """
        number = fd if type(fd) is int else fileno(fd)
        if (news := self._look(0)) or self._waiting:
            self._notice(news)
        if self._mirrors:
            self.host.sync_mirrors()
        try:
            file = self._by_cookie(_position(number, 0, 1)) or self._descriptors.find(number)
        except OSError as error:
            if error.errno != errno.ESPIPE:
                if number < 0:
                    raise ValueError(f"file descriptor cannot be a negative integer ({number})") from None
                raise
            file = None
        if file is None:
            return fcntl.ioctl(number, request, arg, mutate_flag)
        self.host.current = self._task
        self.host.call_fd = number
        returned: bytearray | None = None
        if type(arg) is not int:
            if type(arg) is not bytearray or not mutate_flag:
                arg, returned = ioctl_argument(arg, mutate_flag)
            if request in VALUE_REQUESTS and type(arg) is not int:
                arg = int(uapi.ffi.cast("uintptr_t", uapi.ffi.from_buffer(arg)))
        try:
            result = file.ioctl(request & 0xFFFFFFFF, arg)
            if type(result) is not int:
                result = self._finish(result)
        except KernelError as error:
            raise error.oserror() from None
        finally:
            if self._waiting:
                self.host.settle()
            if self._mirrors:
                self.host.sync_mirrors()
        return result if returned is None else bytes(returned)

    def close(self, fd: FileLike) -> None:
        """As `os.close`. The last copy of a descriptor releases the file before this returns."""
        number = fileno(fd)
        self._enter()
        eventfd = self._task.awaited(number)
        os.close(number)
        if eventfd is not None:
            self._task.hang_up(eventfd)
        self._enter()

    def dup(self, fd: FileLike) -> int:
        """As `os.dup`."""
        return os.dup(fileno(fd))

    def read(self, fd: FileLike, length: int) -> bytes:
        """As `os.read`; on an eventfd of yours, too, after all that was due has happened."""
        return self._transfer(
            "read",
            fd,
            lambda file: file.read(length, None),
            lambda number: self._read_real(number, length),
            size=length,
        )

    def write(self, fd: FileLike, data: bytes) -> int:
        """As `os.write`; what a write to an eventfd causes has happened when this returns."""
        return self._transfer(
            "write",
            fd,
            lambda file: file.write(bytes(memoryview(data)), None),
            lambda number: os.write(number, data),
            data=data,
        )

    def pread(self, fd: FileLike, length: int, offset: int) -> bytes:
        """As `os.pread`."""
        return self._transfer(
            "pread",
            fd,
            lambda file: file.read(length, offset),
            lambda number: os.pread(number, length, offset),
            size=length,
            offset=offset,
        )

    def pwrite(self, fd: FileLike, data: bytes, offset: int) -> int:
        """As `os.pwrite`."""
        return self._transfer(
            "pwrite",
            fd,
            lambda file: file.write(bytes(memoryview(data)), offset),
            lambda number: os.pwrite(number, data, offset),
            data=data,
            offset=offset,
        )

    def mmap(
        self,
        fileno: int,
        length: int,
        flags: int = _mmap.MAP_SHARED,
        prot: int = _mmap.PROT_READ | _mmap.PROT_WRITE,
        access: int = _mmap.ACCESS_DEFAULT,
        offset: int = 0,
        **more: Any,
    ) -> _mmap.mmap:
        """As `mmap.mmap`. Device registers that are mapped agree with the device at each entry into the kernel."""
        return self._map(_mmap.mmap, fileno, length, flags, prot, access, offset, **more)

    @contextmanager
    def installed(self) -> Iterator[Self]:
        """While it lasts, `os.open`, `os.close`, `fcntl.ioctl`, `mmap.mmap` and their kin ask this kernel first.

        For Python code that cannot be given a `Kernel`. Paths and descriptors that are not emulated stay real. Names
        that a module has imported from `os` before (``from os import open``) are not reached.
        """
        from kvmvfio_emu.doors.patch import patched

        with patched(self):
            yield self

    # -- what is ours -----------------------------------------------------------------------------------------------

    def owns(self, path: str) -> bool:
        """Whether ``path`` is the emulated kernel's: then even its absence is."""
        name = os.path.normpath(path)
        return name in ("/dev/kvm", "/dev/iommu", "/dev/vfio") or name.startswith("/dev/vfio/")

    def emulates(self, fd: int) -> bool:
        """Whether descriptor ``fd`` is one of this kernel's."""
        return self.kind(fd) is not None

    def kind(self, fd: int) -> str | None:
        """What `open_files` calls the file behind ``fd``; None when it is none of this kernel's."""
        try:
            file = self._descriptors.find(fd)
        except OSError:
            return None
        return None if file is None else file.kind

    # -- entering and leaving --------------------------------------------------------------------------------------

    def _enter(self) -> None:
        if not self._power_off.alive:
            _no_power()
        self.host.current = self._task
        self.host.settle()
        if self._mirrors:
            self.host.sync_mirrors()

    def _leave(self) -> None:
        if self._waiting:
            self.host.settle()
        if self._mirrors:
            self.host.sync_mirrors()

    def _notice(self, news: list[tuple[int, int]]) -> None:
        self.host.current = self._task
        self.host.poller.poll(news)
        self.host.settle()

    def _map(
        self,
        make: Callable[..., _mmap.mmap],
        fileno: int,
        length: int,
        flags: int = _mmap.MAP_SHARED,
        prot: int = _mmap.PROT_READ | _mmap.PROT_WRITE,
        access: int = _mmap.ACCESS_DEFAULT,
        offset: int = 0,
        **more: Any,
    ) -> _mmap.mmap:
        self._enter()
        file = None if fileno == -1 else self._descriptors.find(fileno)
        if file is not None and length >= 0 and offset >= 0:  # the real one refuses others, as it does for any file
            try:
                if not length or offset % _mmap.PAGESIZE:
                    raise KernelError(errno.EINVAL, "a mapping has a length, and starts on a page of the file")
                shared, writes = mapping_kind(flags, prot, access)
                how = {"shared": shared, "write": writes}
                judge = partial(file.mmap, offset, length, write=writes, shared=shared)
                if self.host.trace.calls:
                    watched_call(self.host, "mmap", judge, file=file, fd=fileno, offset=offset, length=length, **how)
                else:
                    judge()
            except KernelError as error:
                raise error.oserror() from None
        mapping = make(fileno, length, flags=flags, prot=prot, access=access, offset=offset, **more)
        self._leave()
        return mapping

    def _transfer(
        self, call: str, fd: FileLike, emulated: Callable[[File], _T], real: Callable[[int], _T], **arguments: Any
    ) -> _T:
        number = fileno(fd)
        self._enter()
        file = self._descriptors.find(number)
        try:
            if file is not None and self.host.trace.calls:
                if "data" in arguments:
                    arguments["data"] = bytes(memoryview(arguments["data"]))
                result = watched_call(self.host, call, lambda: emulated(file), file=file, fd=number, **arguments)
            else:
                result = real(number) if file is None else emulated(file)
        except KernelError as error:
            raise error.oserror() from None
        self._enter()
        return result

    def _read_real(self, fd: int, length: int) -> bytes:
        data = os.read(fd, length)
        faults = self.host.faults
        if faults is not None and faults.reads_matter and (key := eventfd_key(fd)) is not None:
            return data[: faults.read_eventfd(self.host.trace, key, len(data))]
        return data

    def _finish(self, call: RunCall) -> int:
        """Drive a call until it returns; blocks when only the outside world can help."""
        host = self.host
        try:
            with self._task.signals:
                while not call.done:
                    if not host.scheduler.round() and not call.done and not host.clock.jump():
                        host.poller.wait(_MILLISECONDS)
                    host.settle()
        except BaseException:
            call.interrupt()  # an exception of the guest's program, or a Python signal handler's
            raise
        if call.error is not None:
            raise call.error
        assert call.result is not None
        return call.result


def _power_off(host: Host, descriptors: Descriptors, task: LocalTask, traces: list[Tracing]) -> None:
    descriptors.close()
    host.power_off()
    task.signals.close()
    end_traces(traces)


def _no_power(*_: object) -> NoReturn:
    raise KvmVfioEmuError("this kernel is powered off: close_kernel was called, or its `with` has ended")


def _with_path(error: KernelError, path: str) -> OSError:
    raised = OSError(error.errno, os.strerror(error.errno), path)
    raised.add_note(f"emulated kernel: {error.reason}")
    return raised
