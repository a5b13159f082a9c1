"""Faults that a test has put in: calls that fail, or take time, and eventfds that misbehave; after strace's inject=.

Models nothing of the kernel: a `Faults` stands beside it, and is asked only while any fault is set. The grammar, which
`Faults.add` reads, is in docs/reference/trace.md.
"""

from __future__ import annotations

import errno as _errno
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.kernel.commands import name_set
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

#: A read of an eventfd that is cut short gives so many of its 8 bytes.
SHORT = 4
_WHEN = re.compile(r"(\d+)(?:\.\.(\d+))?(\+(\d*))?")
_LONGEST_DELAY = 1 << 62
#: Calls whose result is more than a number, so that none can be made up.
_NO_RETVAL = frozenset(("read", "pread", "mmap"))


@dataclass(frozen=True, slots=True)
class When:
    """Which calls, counted from 1: ``first``, then every ``step``-th up to ``last``; step 0 means ``first`` alone."""

    first: int = 1
    last: int | None = None
    step: int = 1

    def meets(self, number: int) -> bool:
        """Whether call ``number`` is one of them."""
        if number < self.first or (self.last is not None and number > self.last):
            return False
        return (number - self.first) % self.step == 0 if self.step else number == self.first


@dataclass(slots=True)
class Fault:
    """One fault: what it does, to what, when. ``text`` is how it was asked for."""

    text: str
    commands: frozenset[str] | None  #: None: eventfds
    when: When
    error: int = 0
    retval: int | None = None
    delay_enter: int = 0  #: virtual nanoseconds
    delay_exit: int = 0
    lost: bool = False
    short: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def hits(self, name: str) -> bool:
        """Count one more ``name``, and say whether it is a case for this fault."""
        self.counts[name] += 1
        return self.when.meets(self.counts[name])


@dataclass(frozen=True, slots=True)
class Injection:
    """What one call is to suffer."""

    error: int
    retval: int | None
    delay_enter: int
    delay_exit: int
    reason: str

    @property
    def kind(self) -> str:
        """For the trace: "error", "retval" or "delay"."""
        return "error" if self.error else "delay" if self.retval is None else "retval"


class Faults:
    """All faults of one kernel. Each of several that meet a call counts it; the first to hit decides."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, text: str) -> Fault:
        """Set what ``text`` says, e.g. ``KVM_IRQFD:error=EBUSY:when=2``. KvmVfioEmuError says what is wrong with it."""
        fault = parse(text)
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take it back; harmless when it is gone."""
        if fault in self._faults:
            self._faults.remove(fault)

    def call(self, name: str) -> Injection | None:
        """A call of command ``name`` comes."""
        hit = None
        for fault in self._faults:
            if fault.commands is not None and name in fault.commands and fault.hits(name) and hit is None:
                reason = f"inject={fault.text}, call {fault.counts[name]} of {name} (INJECTED)"
                hit = Injection(fault.error, fault.retval, fault.delay_enter, fault.delay_exit, reason)
        return hit

    def wakeup_lost(self) -> bool:
        """An eventfd that somebody waits for was signalled: whether its waiters are not to hear of it."""
        return self._eventfd([fault for fault in self._faults if fault.lost])

    def read_eventfd(self, trace: Trace, key: int, size: int) -> int:
        """A program has read ``size`` bytes of eventfd ``key``: how many of them it gets."""
        if not self._eventfd([fault for fault in self._faults if fault.short]):
            return size
        trace.event("eventfd_short", eventfd=key, bytes=SHORT)
        return SHORT

    @property
    def reads_matter(self) -> bool:
        """Whether programs' reads of eventfds have to be seen at all."""
        return any(fault.short for fault in self._faults)

    @staticmethod
    def _eventfd(faults: Iterable[Fault]) -> bool:
        return any([fault.hits("eventfd") for fault in faults])  # noqa: C419 - every one counts


def parse(text: str) -> Fault:
    """The fault that ``text`` asks for; see `Faults.add`."""
    commands, *options = text.split(":")
    eventfd = commands == "eventfd"
    try:
        fault = Fault(text, None if eventfd else name_set(commands), When())
    except KvmVfioEmuError as error:
        raise KvmVfioEmuError(f"inject={text}: {error}") from None
    for option in options:
        name, equals, value = option.partition("=")
        if name == "when" and equals:
            fault.when = _when(text, value)
        elif eventfd and name in ("lost", "short") and not equals:
            setattr(fault, name, True)
        elif not eventfd and name in ("error", "retval", "delay_enter", "delay_exit") and equals:
            setattr(fault, name, _error(text, value) if name == "error" else _number(text, name, value))
        else:
            known = "lost, short, when=" if eventfd else "error=, retval=, delay_enter=, delay_exit=, when="
            raise KvmVfioEmuError(f"inject={text}: {option!r} is none of {known}")
    if eventfd and fault.lost == fault.short:
        raise KvmVfioEmuError(f"inject={text}: say eventfd:lost or eventfd:short")
    if fault.error and fault.retval is not None:
        raise KvmVfioEmuError(f"inject={text}: a call has an error or a retval, not both")
    if fault.retval is not None and fault.commands is not None and fault.commands & _NO_RETVAL:
        raise KvmVfioEmuError(f"inject={text}: {', '.join(sorted(_NO_RETVAL))} have no retval to inject")
    if not eventfd and not fault.error and fault.retval is None and not fault.delay_enter and not fault.delay_exit:
        raise KvmVfioEmuError(f"inject={text}: say what is to happen: error=, retval=, delay_enter= or delay_exit=")
    return fault


def _when(text: str, value: str) -> When:
    found = _WHEN.fullmatch(value)
    if found is None or found[1].strip("0") == "":
        raise KvmVfioEmuError(f"inject={text}: when={value} is not FIRST, FIRST+, FIRST+STEP or FIRST..LAST, from 1 on")
    first, last = int(found[1]), None if found[2] is None else int(found[2])
    if last is not None and last < first:
        raise KvmVfioEmuError(f"inject={text}: when={value} ends before it begins")
    if found[3] is None:
        return When(first, last, 0 if last is None else 1)
    step = int(found[4] or 1)
    if not step:
        raise KvmVfioEmuError(f"inject={text}: when={value} has a step of 0")
    return When(first, last, step)


def _error(text: str, value: str) -> int:
    if value.isdecimal() and int(value) in _errno.errorcode:
        return int(value)
    number = getattr(_errno, value, None) if value.isupper() and value.startswith("E") else None
    if not isinstance(number, int):
        raise KvmVfioEmuError(f"inject={text}: no error {value!r}; e.g. EBUSY")
    return number


def _number(text: str, name: str, value: str) -> int:
    if not value.isdecimal() or int(value) > (_LONGEST_DELAY if name != "retval" else 0x7FFFFFFF):
        unit = "a number from 0 to 2147483647" if name == "retval" else "nanoseconds of virtual time"
        raise KvmVfioEmuError(f"inject={text}: {name}={value} is not {unit}")
    return int(value)
