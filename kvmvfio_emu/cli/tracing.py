"""The options of all subcommands that trace: --trace, -o, -e, --trace-format, --state."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.host import Host
    from kvmvfio_emu.view.filters import Selection
    from kvmvfio_emu.view.tracing import Tracing

_STDERR = ""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("tracing, after strace")
    group.add_argument(
        "--trace",
        nargs="?",
        const=_STDERR,
        metavar="FILE",
        help="write what happens to FILE (.txt, .jsonl, .pftrace, .vcd), else as text on stderr",
    )
    group.add_argument("-o", dest="output", metavar="FILE", help="the same as --trace FILE")
    group.add_argument(
        "-e",
        dest="expressions",
        action="append",
        default=[],
        metavar="EXPR",
        help="trace=SET, actor=SET: what of it (a set is names and %%classes with commas, ! before it negates); "
        "inject=SET:error=ERRNO:when=N, eventfd:lost, ...: what is to go wrong. See the reference, Traces",
    )
    group.add_argument(
        "--trace-format", choices=["text", "jsonl", "perfetto", "vcd"], help="whatever FILE's suffix says"
    )
    group.add_argument("--state", action="store_true", help="with each step, show what changed in the kernel's state")


class TraceOptions:
    """What the user asked for. KvmVfioEmuError when it makes no sense or the file cannot be written."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._tracing: Tracing | None = None
        self._selection: Selection | None = None
        given = (arguments.trace, arguments.output, arguments.trace_format)
        if arguments.expressions:
            from kvmvfio_emu.view.filters import Selection  # here: who asks for nothing starts faster

            self._selection = Selection(arguments.expressions)
        narrows = self._selection is not None and self._selection.narrows
        if any(option is not None for option in given) or arguments.state or narrows:
            from kvmvfio_emu.view.tracing import Tracing

            self._tracing = Tracing(
                arguments.output or arguments.trace or None,
                format_=arguments.trace_format,
                selection=self._selection,
                state=arguments.state,
            )

    @property
    def traces(self) -> bool:
        """Whether anything is written."""
        return self._tracing is not None

    def attach(self, host: Host, mode: str | None = None) -> Callable[[], None]:
        """Begin to trace a kernel, and set its faults; returns the function that ends the tracing."""
        for fault in self._selection.faults if self._selection is not None else ():
            host.inject(fault)
        return self._tracing.attach(host, mode) if self._tracing is not None else lambda: None

    def close(self) -> None:
        """The trace is complete. KvmVfioEmuError when the file could not take it."""
        if self._tracing is not None:
            self._tracing.close()
