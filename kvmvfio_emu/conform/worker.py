"""One process that runs sections of the probe under the supervisor and notes why the kernel refused.

Started by `probe.ask`, as the supervisor wants a process for itself. Arguments: a `probe.Target` as JSON, program,
sections. It prints what the probe prints, with ``reason`` in the cases that were refused.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from errno import errorcode

from kvmvfio_emu.doors.supervisor.run import Supervisor
from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.hw import boards
from kvmvfio_emu.kernel.boot import boot, load_guest
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host


class Reasons:
    """Tells which case a refusal belongs to.

    The probe prints a case right after its call. So whatever its pipe holds when a call is refused was printed before
    that call, and the next line comes from that call, or from a later one if this one was only preparation. Of the
    refusals between two lines the last one with the errno that was printed is the reason.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        os.set_blocking(pipe, False)
        self._rest = b""
        self._refused: list[tuple[str, str]] = []

    def hear(self, event: Event) -> None:
        """A listener for the kernel's events."""
        if event.name == "errno":
            self.drain()
            name = errorcode.get(event.fields["errno"], "")
            self._refused.append((name, event.fields["reason"]))

    def drain(self) -> None:
        """Print the lines that are there."""
        for line in self._lines():
            print(self._with_reason(line))

    def _lines(self) -> Iterator[str]:
        while True:
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")

    def _with_reason(self, line: str) -> str:
        try:
            case = json.loads(line)
        except ValueError:
            return line
        refused, self._refused = self._refused, []
        fitting = [reason for name, reason in refused if name == case["errno"]]
        if fitting:
            case["reason"] = fitting[-1]
        return json.dumps(case)


def serve(host: Host, argv: list[str]) -> None:
    """Run ``argv`` on ``host``; its lines, with reasons, come on our standard output."""
    supervisor = Supervisor(host)
    read, write = os.pipe()
    ours = os.dup(1)
    try:
        os.dup2(write, 1)
        os.close(write)
        try:
            loop = supervisor.start(argv)
        finally:
            os.dup2(ours, 1)
            os.close(ours)
        reasons = Reasons(read)
        stop = host.trace.listen(reasons.hear)
        loop.watch(read, reasons.drain)
        try:
            supervisor.serve(loop)
        finally:
            stop()
            loop.unwatch(read)
            loop.close()
        reasons.drain()
    finally:
        os.close(read)
        supervisor.close()


def main() -> int:
    """2 when the program could not be run; we have said why on stderr."""
    target, *argv = sys.argv[1:]
    profile, machine, gic, cpus = json.loads(target)
    try:
        board = boards.load(machine)
        host = boot(profile, board if cpus is None else replace(board, cpus=cpus), gic=gic)
        if host.machine.board.guest:
            host.default_guest = load_guest(host.machine.board.guest)
        serve(host, argv)
    except KvmVfioEmuError as error:
        print(f"kvmvfio-emu: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
