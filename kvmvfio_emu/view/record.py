"""Events of the model as records: plain data, with calls decoded both ways; what docs/reference/trace.md declares."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.hw.gich import lr_text
from kvmvfio_emu.hw.ich import IchInterface
from kvmvfio_emu.kernel.commands import ioctl_command, ioctl_row
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.device import DeviceFile
from kvmvfio_emu.kernel.kvm.vcpufile import VcpuFile
from kvmvfio_emu.view import names
from kvmvfio_emu.view.actors import DONE, EVENTS
from kvmvfio_emu.view.decode import Decoder
from kvmvfio_emu.view.sink import MAGIC, VERSION, Record

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.host import Host
    from kvmvfio_emu.kernel.task import Task
    from kvmvfio_emu.view.snapshot import Snapshot

_RETURNS = ("ioctl_return", "call_return")
#: Bytes of a read's or write's data that are shown.
_DATA = 64
#: What of ``struct kvm_run`` says more about an exit.
_EXITS = {
    uapi.KVM_EXIT_MMIO: "mmio",
    uapi.KVM_EXIT_SYSTEM_EVENT: "system_event",
    uapi.KVM_EXIT_INTERNAL_ERROR: "internal",
}


def header(host: Host, mode: str | None = None) -> Record:
    """The header of a run on ``host``; ``mode`` is "forwarded" or "unforwarded" where a run shows one of them."""
    from kvmvfio_emu import __version__

    board = host.machine.board
    return {
        MAGIC: VERSION,
        "package": __version__,
        "profile": host.profile.name,
        "machine": board.name,
        "gic": board.gic_version,
        "clock": "ns",
        "mode": mode,
    }


class Recorder:
    """A listener that makes a record of each event and hands it to ``emit``.

    ``accepts(name, actor, command)`` says which events are wanted; ``command`` is the ioctl's or call's name, if it is
    one. ``snapshot``: each record also has what its event changed in the kernel's state. Then a record is emitted
    when the next event comes, and the last one by `finish`.
    """

    def __init__(
        self,
        host: Host,
        emit: Callable[[Record], None],
        accepts: Callable[[str, str, str], bool] | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self._host = host
        self._emit = emit
        self._accepts = accepts
        self._snapshot = snapshot
        self._held: Record | None = None
        self._first = host.trace.number
        #: What calls in progress said of their argument, by the number of their event: their return tells what differs.
        self._open: dict[int, dict[str, Any]] = {}
        self._fields: Mapping[str, Callable[[Event], dict[str, Any]]] = {
            "ioctl": self._ioctl,
            "ioctl_return": self._ioctl_return,
            "call": self._call,
            "call_return": self._call_return,
            "lr_queued": _lr_queued,
            "guest_read": _guest_access,
            "guest_write": _guest_access,
            "errno": _refused,
        }

    def __call__(self, event: Event) -> None:
        """Take one event, while it happens."""
        name, fields = event.name, event.fields
        actor = EVENTS[name][0] if name in EVENTS else "KVM"
        if self._accepts is not None and not self._accepts(name, actor, command(event)):
            return
        special = self._fields.get(name)
        if special is not None:
            fields = special(event)
        elif "pc" in fields:
            fields = _at_pc(fields)
        first = self._first
        record: Record = {"n": event.number - first, "t": event.time, "name": name, "actor": actor}
        if event.cause > first:
            record["cause"] = event.cause - first
        if fields:
            record["f"] = fields
        if self._snapshot is None:
            self._emit(record)
        else:
            self._hold(record, self._snapshot.changes())

    def _hold(self, record: Record, changes: dict[str, Any]) -> None:
        """With state: keep a record until its effect is seen, which for most events comes after them."""
        held, self._held = self._held, record
        own = DONE.get(record["name"], ())
        if held is None or (record["name"] in _RETURNS and record.get("cause") == held["n"]):
            own = ("",)  # nothing came between: it is all the call's, or what there was before
        if changes:
            mine = {path: value for path, value in changes.items() if path.startswith(own)}
            if mine:
                record["s"] = mine
            if held is not None and len(mine) < len(changes):
                held["s"] = held.get("s", {}) | {path: value for path, value in changes.items() if path not in mine}
        if held is not None:
            self._emit(held)

    def finish(self) -> None:
        """Nothing more comes: emit what is held."""
        held, self._held = self._held, None
        if held is not None and self._snapshot is not None:
            changes = self._snapshot.changes()
            if changes:
                held["s"] = held.get("s", {}) | changes
            self._emit(held)

    # -- ioctls -----------------------------------------------------------------------------------------------------

    def _ioctl(self, event: Event) -> dict[str, Any]:
        fields = event.fields
        file, request, pointer = fields["target"], fields["request"], fields["argument"]
        row = ioctl_row(file.kind, request)
        found = _who(fields)
        found["request"] = uapi.ioctl_name(request, file.kind) if row is None else row.name
        found["number"] = f"{request:#x}"
        found["arg"] = _pointer(row, pointer)
        if row is not None and row.struct is not None:
            inside = self._decoder(fields["task"], file).argument(row, pointer)
            if inside is not None:
                hidden = names.OUTPUTS.get(row.struct.removeprefix("struct "), ())
                self._open[event.number] = inside
                shown = {key: value for key, value in inside.items() if key not in hidden}
                if shown and row.direction != "out":
                    found["in"] = shown
        return found

    def _ioctl_return(self, event: Event) -> dict[str, Any]:
        fields = event.fields
        file, request = fields["target"], fields["request"]
        row = ioctl_row(file.kind, request)
        found = _who(fields, task=False)
        found["request"] = uapi.ioctl_name(request, file.kind) if row is None else row.name
        found |= _outcome(fields)
        before = self._open.pop(event.cause, None)
        if row is None:
            return found
        if row.name in names.GIVES_DESCRIPTOR and not fields["errno"]:
            what = self._describe(fields["task"], fields["result"])
            if what is not None:
                found["is"] = what
        out = self._out(row, fields, before)
        if out:
            found["out"] = out
        return found

    def _out(self, row: uapi.Ioctl, fields: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any] | None:
        file = fields["target"]
        if row.name == "KVM_RUN":
            return None if fields["errno"] or not isinstance(file, VcpuFile) else _exit(file)
        gets = row.name in ("KVM_GET_DEVICE_ATTR", "KVM_GET_ONE_REG")
        if row.struct is None or fields.get("injected") in ("error", "retval"):
            return None
        if not gets and (row.direction == "in" or (row.direction == "none")):
            return None
        if fields["errno"] and row.direction == "out":
            return None
        after = self._decoder(fields["task"], file).argument(row, fields["argument"], after=True)
        if after is None:
            return None
        outputs = () if fields["errno"] else names.OUTPUTS.get(row.struct.removeprefix("struct "), ())
        known = {} if before is None or row.direction == "out" else before
        return {key: value for key, value in after.items() if key in outputs or known.get(key, self) != value}

    # -- other calls --------------------------------------------------------------------------------------------------

    def _call(self, event: Event) -> dict[str, Any]:
        fields = event.fields
        found = _who(fields)
        found["call"] = fields["call"]
        found["in"] = {key: _argument(key, value) for key, value in fields["arguments"].items()}
        return found

    def _call_return(self, event: Event) -> dict[str, Any]:
        fields = event.fields
        found = _who(fields, task=False)
        found["call"] = fields["call"]
        result = fields["result"]
        found |= _outcome({**fields, "result": len(result)} if isinstance(result, bytes) else fields)
        if isinstance(result, bytes):
            found["out"] = {"data": _argument("data", result)}
        elif fields["call"] == "open" and not fields["errno"]:
            what = self._describe(fields["task"], result)
            if what is not None:
                found["is"] = what
        return found

    # -- who and what -------------------------------------------------------------------------------------------------

    def _decoder(self, task: Task, file: File) -> Decoder:
        def read(pointer: Any, size: int) -> bytearray | None:
            try:
                return task.copy_from_user(pointer, size)
            except (KernelError, OSError):
                return None

        attributes = file.device.attributes if isinstance(file, DeviceFile) else ()
        # What this kernel has comes first: other kernels may have the same numbers under other names.
        known = sorted(attributes, key=lambda row: not self._host.profile.offers(row.when))
        forward = self._host.profile.forward_struct
        return Decoder(read, lambda fd: self._describe(task, fd), attributes=known, forward_struct=forward)

    @staticmethod
    def _describe(task: Task, fd: int) -> str | None:
        """What descriptor ``fd`` of ``task`` is."""
        try:
            file = task.fget(fd)
            if file is not None:
                return f"{file.kind} {file.detail}".rstrip()
            eventfd = task.eventfd(fd)
        except (KernelError, OSError):
            return None
        eventfd.put()
        return f"eventfd {eventfd.key}"


def command(event: Event) -> str:
    """The name of the ioctl or call that ``event`` is about; empty when it is about none."""
    fields = event.fields
    if event.name in ("ioctl", "ioctl_return"):
        return ioctl_command(fields["file"], fields["request"])
    return str(fields["call"]) if event.name in ("call", "call_return") else ""


def _who(fields: dict[str, Any], *, task: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {"task": fields["task"].tid} if task else {}
    file = fields["target"]
    if file is not None:
        found |= {"fd": fields["fd"], "file": file.kind}
        if file.detail:
            found["detail"] = file.detail
    return found


def _outcome(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"result": fields["result"]}
    if fields["errno"]:
        found["errno"] = errno.errorcode.get(fields["errno"], str(fields["errno"]))
        found["reason"] = fields["reason"]
    if "injected" in fields:
        found["injected"] = fields["injected"]
    return found


def _pointer(row: uapi.Ioctl | None, pointer: Any) -> int | str:
    if not isinstance(pointer, int):
        return hex(uapi.address(pointer)) if len(pointer) else "0x0"
    if row is None or row.struct is not None:
        return hex(pointer)
    return names.argument(row.name, pointer)


def _argument(key: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return value[:_DATA].hex() + ("..." if len(value) > _DATA else "")
    return names.number(value, hexadecimal=key == "offset") if type(value) is int else value


def _exit(file: VcpuFile) -> dict[str, Any]:
    """Why KVM_RUN has returned, from the run page."""
    run = file.vcpu.run
    found: dict[str, Any] = {"exit_reason": names.scalar("kvm_run.exit_reason", run.exit_reason)}
    member = _EXITS.get(run.exit_reason)
    if member == "mmio":
        size = min(run.mmio.len, 8)
        found |= {"phys_addr": hex(run.mmio.phys_addr), "len": run.mmio.len, "is_write": run.mmio.is_write}
        if run.mmio.is_write:
            found["data"] = hex(int.from_bytes(bytes(uapi.ffi.buffer(run.mmio.data))[:size], "little"))
    elif member == "system_event":
        found["type"] = names.scalar("kvm_run.type", run.system_event.type)
    elif member == "internal":
        found["suberror"] = names.scalar("kvm_run.suberror", run.internal.suberror)
    return found


def _lr_queued(event: Event) -> dict[str, Any]:
    fields, value = event.fields, event.fields["value"]
    # With a state in its upper bits it is one of a GICv3.
    text = IchInterface.text(value) if value >> 32 else lr_text(value)
    return {"lr": fields["lr"], "value": hex(value), "text": text, "vcpu": fields["vcpu"]}


def _guest_access(event: Event) -> dict[str, Any]:
    fields = dict(event.fields)
    fields["address"] = hex(fields["address"])
    if "value" in fields:
        fields["value"] = hex(fields["value"])
    return fields


def _at_pc(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: hex(value) if name in ("pc", "esr") else value for name, value in fields.items()}


def _refused(event: Event) -> dict[str, Any]:
    fields = event.fields
    return {"errno": errno.errorcode.get(fields["errno"], str(fields["errno"])), "reason": fields["reason"]}
