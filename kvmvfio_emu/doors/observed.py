"""The part of `Kernel` that looks on, and that lets things go wrong: counters, events, traces, state, faults."""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view.state import VIEWS, State

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.host import Host
    from kvmvfio_emu.view.sink import Record
    from kvmvfio_emu.view.tracing import Tracing


class Observed:
    """What `Kernel` inherits."""

    host: Host
    _traces: list[Tracing]

    def _enter(self) -> None:
        raise NotImplementedError

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each event of the model happened."""
        return self.host.trace.counters

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Show every event from now on to ``listener``; returns the function that ends it."""
        return self.host.trace.listen(listener)

    def trace(
        self,
        target: str | os.PathLike[str] | Callable[[Record], None] | None = None,
        only: Iterable[str] = (),
        *,
        state: bool = False,
        format: str | None = None,
    ) -> Callable[[], None]:
        """Write what happens from now on, calls with their decoded arguments, to ``target``; returns what ends it.

        ``target``: a path, whose suffix chooses the format (.txt, .jsonl, .pftrace, .vcd) unless ``format`` does; a
        function, which gets a header and then each record; None: text on stderr. ``only``: expressions as
        ``kvmvfio-emu run -e`` takes them, faults among them. ``state``: records tell what changed in the kernel's
        state. The file is complete when it is ended, at the latest with the kernel. KvmVfioEmuError when an expression
        is wrong, or the file cannot be written.
        """
        from kvmvfio_emu.view.filters import Selection  # here: most kernels are not traced, and start faster
        from kvmvfio_emu.view.tracing import Tracing

        selection = Selection(only)
        tracing = Tracing(target, format_=format, selection=selection, state=state)
        ends = [self.host.inject(fault) for fault in selection.faults]
        tracing.attach(self.host)
        self._traces.append(tracing)

        def end() -> None:
            for stop in ends:
                stop()
            if tracing in self._traces:
                self._traces.remove(tracing)
                tracing.close()

        return end

    def inject(
        self,
        what: str,
        *,
        error: int | str | None = None,
        retval: int | None = None,
        delay_enter: int | None = None,
        delay_exit: int | None = None,
        lost: bool = False,
        short: bool = False,
        when: int | str | None = None,
    ) -> Callable[[], None]:
        """Let calls fail, or take time, or eventfds misbehave; returns the function that ends it.

        ``what``: commands, as ``"KVM_IRQFD,KVM_RUN"``, ``"%vfio"`` or ``"open"``, or ``"eventfd"``; it may be a whole
        expression of ``-e inject=``. ``error``: an errno or its name; ``retval``: a result without an execution;
        ``delay_enter``, ``delay_exit``: nanoseconds of virtual time; ``lost``, ``short``: what becomes of an eventfd's
        wake-ups and of the program's reads; ``when``: 2, ``"2+"``, ``"2+3"``, ``"2..4"`` (default: always).
        KvmVfioEmuError when that makes no sense.
        """
        if isinstance(error, int):
            error = _errno.errorcode.get(error, str(error))
        given = {"error": error, "retval": retval, "delay_enter": delay_enter, "delay_exit": delay_exit, "when": when}
        flags = [name for name, wanted in (("lost", lost), ("short", short)) if wanted]
        options = [f"{name}={value}" for name, value in given.items() if value is not None]
        return self.host.inject(":".join([what, *flags, *options]))

    def show(self, view: str) -> State:
        """State as plain data: one of `kvmvfio_emu.view.state.VIEWS`, as `kvmvfio-emu ctl show` prints it."""
        if view not in VIEWS:
            raise KvmVfioEmuError(f"no view {view!r}; there are {', '.join(VIEWS)}")
        self._enter()
        return VIEWS[view](self.host)

    def open_files(self) -> list[str]:
        """The kinds of all files that are open: empty when everything was given back."""
        self._enter()
        return self.host.open_files()

    def check(self) -> None:
        """Raise AssertionError when the kernel's state contradicts itself."""
        self._enter()
        self.host.check()


def end_traces(traces: list[Tracing]) -> None:
    """The kernel is powered off."""
    while traces:
        traces.pop().close()
