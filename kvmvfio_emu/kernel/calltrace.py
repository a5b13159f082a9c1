"""System calls on our files in the event stream: one event when a call comes, one when it returns.

What the call does is the effect of the first. Only while somebody listens, or wants to decide about calls (`faults`).
The events hold what the kernel has at hand; who wants the argument's meaning reads it from the task's memory there and
then, as strace does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kvmvfio_emu.kernel.commands import ioctl_command
from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.faults import Injection
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.host import Host
    from kvmvfio_emu.kernel.task import Task, UserPtr

_T = TypeVar("_T")


def watched_ioctl(file: File, request: int, arg: UserPtr) -> Any:
    """`File.dispatch`, shown, and what the faults make of it. KVM_RUN, which goes on, shows its return by itself."""
    host = file.host
    trace, fd = host.trace, host.call_fd
    call = trace.show("ioctl", file=file.kind, fd=fd, request=request, argument=arg, task=host.current, target=file)
    injected = None
    if host.faults is not None:
        injected = host.faults.call(ioctl_command(file.kind, request))
    before = trace.resume(call)
    try:
        result = _under(host, injected, lambda: file.dispatch(request, arg))
        if isinstance(result, int):
            show_return(file, request, arg, fd=fd, result=result, injected=injected)
        else:
            result.called(fd, injected)
    except KernelError as error:
        show_return(file, request, arg, fd=fd, error=error, injected=injected)
        raise
    finally:
        trace.end(before)
    return result


def show_return(
    file: File,
    request: int,
    arg: UserPtr,
    *,
    fd: int,
    result: int = -1,
    error: KernelError | None = None,
    task: Task | None = None,
    injected: Injection | None = None,
) -> None:
    """The event of an ioctl's return; its cause is the call's."""
    fields: dict[str, Any] = {
        "file": file.kind,
        "fd": fd,
        "request": request,
        "argument": arg,
        "task": task or file.host.current,
        "target": file,
    }
    file.host.trace.show("ioctl_return", **fields, **_outcome(result, error, injected))


def watched_call(
    host: Host, name: str, do: Callable[[], _T], *, file: File | None = None, fd: int = -1, **arguments: Any
) -> _T:
    """Call ``name`` (open, read, write, pread, pwrite, mmap) as ``do`` does it, shown as `watched_ioctl` shows.

    The doors ask for it while `Trace.calls`. ``file``: whose call it is, reached through ``fd``, if there is one yet.
    """
    trace = host.trace
    fields: dict[str, Any] = {"call": name, "fd": fd, "task": host.current, "target": file}
    number = trace.show("call", **fields, arguments=arguments)
    injected = None if host.faults is None else host.faults.call(name)
    before = trace.resume(number)
    try:
        result: _T = _under(host, injected, do)
        trace.show("call_return", **fields, **_outcome(result, None, injected))
    except KernelError as error:
        trace.show("call_return", **fields, **_outcome(-1, error, injected))
        raise
    finally:
        trace.end(before)
    return result


def _under(host: Host, injected: Injection | None, do: Callable[[], Any]) -> Any:
    """What becomes of a call under a fault: it comes late, is answered in the kernel's place, or returns late."""
    if injected is None:
        return do()
    host.clock.advance(injected.delay_enter)
    if injected.error:
        raise KernelError(injected.error, injected.reason)
    if injected.retval is not None:
        return injected.retval
    try:
        result = do()
    except KernelError:
        host.clock.advance(injected.delay_exit)
        raise
    if isinstance(result, (int, bytes)):
        host.clock.advance(injected.delay_exit)
    return result


def _outcome(result: Any, error: KernelError | None, injected: Injection | None) -> dict[str, Any]:
    fields = {"result": 0 if result is None else result, "errno": 0, "reason": ""}
    if error is not None:
        fields = {"result": -1, "errno": error.errno, "reason": error.reason}
    if injected is not None:
        fields["injected"] = injected.kind
    return fields
