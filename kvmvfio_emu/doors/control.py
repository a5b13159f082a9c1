"""The control channel: a UNIX socket with JSON lines, to poke the hardware of a supervised kernel and to look inside.

One request a line, one answer a line, in order. A request is an object with ``op``:

``{"op": "line", "device": NAME, "index": N, "level": 0 or 1}``
    drive an interrupt line of a device;
``{"op": "call", "device": NAME, "method": M, "arguments": [...]}``
    what the device model offers beyond that, e.g. ``raise_interrupt`` of an xgmac;
``{"op": "show", "view": V}``
    state: files, gic, irqs, vfio, vgic, list-registers, rbtree, iova, counters;
``{"op": "check"}``
    the kernel's own invariants; an error names the one that is broken;
``{"op": "quit"}``
    end the supervised program.

An answer is ``{"ok": true, "result": ...}`` or ``{"ok": false, "error": "..."}``.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.view.state import VIEWS

#: The longest request line.
_LIMIT = 1 << 16


class Refused(Exception):
    """The request cannot be done; its text is the answer."""


class Control:
    """The operations on one kernel. ``quit_`` ends the program."""

    def __init__(self, host: Host, quit_: Callable[[], None]) -> None:
        self._host = host
        self._operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "line": self._line,
            "call": self._call,
            "show": self._show,
            "check": self._check,
            "quit": lambda request: quit_(),
        }

    def handle(self, line: bytes) -> bytes:
        """The answer to one request line, with its newline."""
        try:
            answer = {"ok": True, "result": self._dispatch(line)}
        except Refused as error:
            answer = {"ok": False, "error": str(error)}
        return json.dumps(answer).encode() + b"\n"

    def _dispatch(self, line: bytes) -> Any:
        try:
            request = json.loads(line)
        except ValueError as error:
            raise Refused(f"not JSON: {error}") from error
        if not isinstance(request, dict) or request.get("op") not in self._operations:
            raise Refused(f"a request is an object with op: {', '.join(self._operations)}")
        result = self._operations[request["op"]](request)
        self._host.settle()
        return result

    def _device(self, request: dict[str, Any]) -> Any:
        devices = self._host.machine.devices
        if request.get("device") not in devices:
            raise Refused(f"no device {request.get('device')!r}; there are {', '.join(sorted(devices))}")
        return devices[request["device"]]

    def _line(self, request: dict[str, Any]) -> None:
        device, index = self._device(request), request.get("index", 0)
        if type(index) is not int or not 0 <= index < len(device.lines):
            raise Refused(f"{request['device']} has lines 0 to {len(device.lines) - 1}, not {index!r}")
        if request.get("level") not in (0, 1):
            raise Refused("level is 0 or 1")
        device.lines[index].set(bool(request["level"]))

    def _call(self, request: dict[str, Any]) -> Any:
        device, method = self._device(request), str(request.get("method"))
        if method not in device.controls:
            raise Refused(f"{request['device']} offers {', '.join(device.controls)}, not {method!r}")
        arguments = request.get("arguments", [])
        try:
            return getattr(device, method)(*arguments)
        except (TypeError, ValueError) as error:
            raise Refused(f"{method}: {error}") from error

    def _show(self, request: dict[str, Any]) -> Any:
        view = request.get("view")
        if view not in VIEWS:
            raise Refused(f"no view {view!r}; there are {', '.join(VIEWS)}")
        return VIEWS[view](self._host)

    def _check(self, request: dict[str, Any]) -> None:
        try:
            self._host.check()
        except AssertionError as error:
            raise Refused(str(error)) from error


class ControlServer:
    """Serves a `Control` on a UNIX socket, inside somebody else's event loop.

    ``watch(fd, callback)`` and ``unwatch(fd)`` are the loop's. The socket is the owner's alone (mode 0600).
    """

    def __init__(
        self,
        path: str,
        control: Control,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
    ) -> None:
        self.path = path
        self._control = control
        self._watch = watch
        self._unwatch = unwatch
        self._clients: dict[int, tuple[socket.socket, bytearray]] = {}
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            self._listening.bind(path)
        except OSError as error:
            self._listening.close()
            raise KvmVfioEmuError(f"control socket {path}: {error.strerror}") from error
        finally:
            os.umask(mask)
        self._listening.listen()
        watch(self._listening.fileno(), self._accept)

    def close(self) -> None:
        """End it and remove the socket."""
        for fd in list(self._clients):
            self._drop(fd)
        self._unwatch(self._listening.fileno())
        self._listening.close()
        os.unlink(self.path)

    def _accept(self) -> None:
        try:
            client, _ = self._listening.accept()
        except BlockingIOError:
            return
        client.settimeout(1)  # a client that does not read its answers is let go, so that nobody waits for it
        self._clients[client.fileno()] = (client, bytearray())
        self._watch(client.fileno(), partial(self._read, client.fileno()))

    def _read(self, fd: int) -> None:
        client, buffer = self._clients[fd]
        try:
            data = client.recv(65536)
            buffer += data
            while (end := buffer.find(b"\n")) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                client.sendall(self._control.handle(line))
        except OSError:
            data = b""
        if not data or len(buffer) > _LIMIT:
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        client, _ = self._clients.pop(fd)
        self._unwatch(fd)
        client.close()


def request(path: str, message: dict[str, Any]) -> Any:
    """Ask the kernel that listens on ``path``. KvmVfioEmuError when nobody does, or when it refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(path)
        except OSError as error:
            raise KvmVfioEmuError(f"control socket {path}: {error.strerror}") from error
        client.sendall(json.dumps(message).encode() + b"\n")
        with client.makefile("rb") as answers:
            line = answers.readline()
    if not line:
        raise KvmVfioEmuError(f"control socket {path}: closed without an answer")
    answer = json.loads(line)
    if not answer["ok"]:
        raise KvmVfioEmuError(answer["error"])
    return answer["result"]
