"""`kvmvfio-emu`: one subcommand a module, each with ``add(subparsers)`` that declares it.

Only the module of the subcommand that is asked for is loaded: `run` is to start as fast as it can.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

from kvmvfio_emu import __version__
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

COMMANDS = ("demo", "run", "ctl", "ls", "conform", "decode", "explain", "report", "tcp-rr", "fuzz")


def parser(commands: Iterable[str] = COMMANDS) -> argparse.ArgumentParser:
    """The command line with these subcommands; the documentation reads it, too."""
    top = argparse.ArgumentParser(
        prog="kvmvfio-emu", description="An emulated Linux KVM and VFIO kernel API, with IRQ forward control."
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = top.add_subparsers(metavar="COMMAND", required=True)
    for command in commands:
        import_module(f"kvmvfio_emu.cli.{command.replace('-', '_')}").add(subparsers)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 for a wrong use, which is told on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    wanted = argv[:1] if argv and argv[0] in COMMANDS else COMMANDS
    arguments = parser(wanted).parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()  # a reader that is gone shows here, not at interpreter exit
    except KvmVfioEmuError as error:
        print(f"kvmvfio-emu: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
