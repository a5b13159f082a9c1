"""An ioctl in the event stream: one event when it comes, one when it returns; what it does is the effect of the first.

Only while somebody listens. The events hold what the kernel has at hand; who wants the argument's meaning reads it
from the task's memory there and then, as strace does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.task import Task, UserPtr


def traced_ioctl(file: File, request: int, arg: UserPtr) -> Any:
    """`File.dispatch`, shown. A call that goes on (KVM_RUN) shows its return by itself."""
    trace = file.host.trace
    call = trace.show(
        "ioctl", file=file.kind, fd=file.host.call_fd, request=request, argument=arg, task=file.host.current
    )
    before = trace.resume(call)
    try:
        result = file.dispatch(request, arg)
        if isinstance(result, int):
            show_return(file, request, arg, result=result)
    except KernelError as error:
        show_return(file, request, arg, error=error)
        raise
    finally:
        trace.end(before)
    return result


def show_return(
    file: File,
    request: int,
    arg: UserPtr,
    *,
    result: int = -1,
    error: KernelError | None = None,
    task: Task | None = None,
) -> None:
    """The event of a return; its cause is the call's."""
    fields: dict[str, Any] = {
        "file": file.kind,
        "request": request,
        "argument": arg,
        "task": task or file.host.current,
    }
    if error is None:
        fields |= {"result": result, "errno": 0, "reason": ""}
    else:
        fields |= {"result": -1, "errno": error.errno, "reason": error.reason}
    file.host.trace.show("ioctl_return", **fields)
