"""`kvmvfio-emu run -- PROG ARGS...`: any program, unmodified, against the emulated kernel."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from kvmvfio_emu import profiles
from kvmvfio_emu.cli.tracing import TraceOptions, add_options
from kvmvfio_emu.kernel.boot import DEFAULT_MACHINE, boot, load_guest
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from kvmvfio_emu.kernel.host import Host

#: Where a supervised program finds the control channel.
CONTROL_VARIABLE = "KVMVFIO_EMU_CONTROL"


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "run",
        help="run a program against the emulated kernel",
        description="Run a program, unmodified and without privileges, against an emulated /dev/kvm and /dev/vfio. Its "
        "output and exit status are its own; our messages go to stderr.",
    )
    parser.add_argument(
        "--profile", default=profiles.DEFAULT, help=f"kernel that answers: {', '.join(profiles.names())}"
    )
    parser.add_argument("--machine", help=f"board, by name or path (default: the profile's, or {DEFAULT_MACHINE})")
    parser.add_argument("--gic", choices=["v2", "v3"], help="the host's interrupt controller (default: the board's)")
    executed = "what vCPUs execute (default: the code in their memory, or the board's guest)"
    parser.add_argument("--guest", metavar="MODULE:FUNCTION", help=executed)
    parser.add_argument("--real", choices=["kvm"], help="let the host's own /dev/kvm serve KVM, us only VFIO")
    parser.add_argument("--control", metavar="PATH", help="listen for `kvmvfio-emu ctl` on this UNIX socket")
    parser.add_argument("--report", action="store_true", help="at the end, print open files and counters on stderr")
    add_options(parser)
    parser.add_argument("program", nargs=argparse.REMAINDER, help="after --: the program and its arguments")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Run it; our exit status is the program's, and so is the signal that killed it."""
    from kvmvfio_emu.doors.supervisor.run import Supervisor  # here: the other subcommands do not need it

    argv = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    if not argv:
        arguments.parser.error("no program; write it after --")
    host = boot(arguments.profile, arguments.machine, gic=int(arguments.gic[1:]) if arguments.gic else None)
    if arguments.guest:
        host.guest_program = load_guest(arguments.guest)
    elif host.machine.board.guest:
        host.default_guest = load_guest(host.machine.board.guest)
    if arguments.control:
        os.environ[CONTROL_VARIABLE] = os.path.abspath(arguments.control)
    options = TraceOptions(arguments)
    options.attach(host)  # before the supervisor, which may trap more for a fault
    supervisor = Supervisor(host, real_kvm=arguments.real == "kvm")
    try:
        loop = supervisor.start(argv)
        server = None
        if arguments.control:
            from kvmvfio_emu.doors.control import Control, ControlServer  # here: most runs start faster without it

            server = ControlServer(arguments.control, Control(host, supervisor.kill), loop.watch, loop.unwatch)
        try:
            status = supervisor.serve(loop)
        finally:
            if server is not None:
                server.close()
            loop.close()
        if arguments.report:
            _report(host)
    finally:
        supervisor.close()
        try:
            options.close()
        except KvmVfioEmuError as error:  # the program has run, and its status is what counts
            print(f"kvmvfio-emu: {error}", file=sys.stderr)
    if status < 0:
        _die_of(-status)
    return status


def _report(host: Host) -> None:
    import json

    from kvmvfio_emu.view.state import VIEWS

    left = host.open_files()
    print(f"kvmvfio-emu: {len(left)} open files{': ' + ', '.join(left) if left else ''}", file=sys.stderr)
    print(f"kvmvfio-emu: counters {json.dumps(VIEWS['counters'](host))}", file=sys.stderr)


def _die_of(number: int) -> None:
    """End by the signal that the program ended by, so that our parent sees the same."""
    sys.stdout.flush()
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
