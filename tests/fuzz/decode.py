"""Fuzzes what takes arguments apart: the ioctls of an emulated kernel, the decoder of a trace, the decoder of logs.

No bytes may lead to anything but a refusal by errno: no other exception, no open file left, no contradiction in the
kernel's state.
"""

from __future__ import annotations

import errno
import io
import json
from functools import cache
from itertools import chain

from fuzz.calls import read_call
from fuzz.memory import Fence, arena
from fuzz.taken import Taken
from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.kernel.kvm.module import DEVICE_TYPES
from kvmvfio_emu.strategies import Setting, beginning
from kvmvfio_emu.testing.player import Call, Player
from kvmvfio_emu.view.decode import Decoder
from kvmvfio_emu.view.decode_log import ForeignLogError, LogDecoder

SETTINGS = (
    ("rfc-2014", "calxeda-midway"),
    ("linux-6.12", "oracle-virt"),
    ("draft-v4", "calxeda-midway"),
    ("linux-6.18-x86", "x86-vm"),
    ("linux-6.12", "edu"),
    ("linux-6.1", "oracle-virt"),
    ("rfc-v2", "calxeda-midway"),
    ("mainline", "calxeda-midway"),
)
#: A sequence ends after so many calls: what comes later is found by one that comes earlier.
MOST = 24
_TRACED, _EMPTY = 8, 16


def one_input(data: bytes) -> None:
    """Judge one input; raises what must not happen."""
    taken = Taken(data)
    what = taken.number()
    (ioctls, struct, log)[what % 3](taken)


# -- ioctls ------------------------------------------------------------------------------------------------------------


class Door:
    """`Kernel` as the player wants it, for arguments that may be anything."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.open, self.close = kernel.open, kernel.close

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        if fd < 0 or not self._kernel.emulates(fd):
            raise OSError(errno.EBADF, "the real kernel's files are not what is tested")
        if request == uapi.KVM_RUN:  # would go on as long as the guest does
            call = self._kernel.start(fd, request, argument)
            self._kernel.run(slices=1)
            call.interrupt()
            self._kernel.run(slices=1)
            assert call.done
            if call.error is not None:
                raise call.error.oserror()
            return call.result or 0
        result: int = self._kernel.ioctl(fd, request, argument)
        return result

    def settle(self) -> None:
        self._kernel.open_files()


@cache
def prepared(which: int) -> tuple[Setting, list[Call]]:
    """A kernel, and how a sequence on it begins."""
    setting = Setting(*SETTINGS[which])
    return setting, beginning(setting)


def ioctls(data: Taken) -> None:
    """A sequence of calls on a kernel of its own, traced or not, after a beginning or not."""
    flags = data.number()
    setting, start = prepared(flags % len(SETTINGS))
    calls = [] if flags & _EMPTY else list(start)
    for _ in range(MOST):
        if not data:
            break
        calls.append(read_call(data))
    with Fence().around(), Kernel(setting.profile, setting.board) as kernel:
        if flags & _TRACED:
            kernel.trace(lambda record: None, state=True)
        Player(Door(kernel), arena()).play(calls)
        kernel.check()
        assert kernel.open_files() == [], f"still open: {kernel.open_files()}"


# -- decoders ----------------------------------------------------------------------------------------------------------

_ROWS = list(uapi.IOCTLS.values())
_PAYLOADS = ("", "struct kvm_arch_forwarded_irq", "struct kvm_vfio_dev_irq")


def struct(data: Taken) -> None:
    """One ioctl's argument, in a memory that holds the rest of the input."""
    row = _ROWS[data.number() % len(_ROWS)]
    flags = data.number()
    attributes = DEVICE_TYPES[flags % len(DEVICE_TYPES)].attributes
    memory = data.rest()

    def read(pointer: int, size: int) -> bytes | None:
        return memory[pointer : pointer + size] if pointer >= 0 and pointer + size <= len(memory) else None

    decoder = Decoder(
        read,
        lambda fd: f"eventfd {fd}" if fd & 1 else None,
        attributes=attributes,
        forward_struct=_PAYLOADS[(flags >> 4) % len(_PAYLOADS)],
    )
    json.dumps(decoder.argument(row, 0, after=bool(flags & 0x80)))


def log(data: Taken) -> None:
    """A log of strace: lines that are not ours come out as they were, and every line comes out."""
    text = data.rest()
    decoded = io.StringIO()
    try:
        for shown, named in LogDecoder("log", lambda complaint: None).decode(io.BytesIO(text)):
            decoded.write(shown)
            if named is not None:
                json.dumps(named.as_json())
    except ForeignLogError:
        pass
    before = text.decode("utf-8", "surrogateescape").split("\n")
    after = decoded.getvalue().split("\n")
    assert len(after) == len(before)
    for one, other in zip(before, after, strict=True):
        assert other.endswith(one) or "  # " in other, (one, other)


def seeds() -> list[bytes]:
    """What a run starts from beside the kept inputs: drawn by the strategies."""
    from fuzz.seeds import drawn

    return list(chain.from_iterable(drawn(which, *setting) for which, setting in enumerate(SETTINGS)))
