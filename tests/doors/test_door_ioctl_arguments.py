"""`Kernel.ioctl` takes its argument in every form that `fcntl.ioctl` does, and gives back the same."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import Client

from kvmvfio_emu import uapi

WORD = uapi.sizeof("struct vfio_group_status")
REQUEST = uapi.VFIO_GROUP_GET_STATUS
VIABLE = uapi.VFIO_GROUP_FLAGS_VIABLE
#: What GET_STATUS makes of its argument.
STATUS = WORD.to_bytes(4, "little") + VIABLE.to_bytes(4, "little")
ASKED = WORD.to_bytes(8, "little")
Ioctl = Callable[..., Any]


class Status(ctypes.Structure):
    _fields_ = [("argsz", ctypes.c_uint32), ("flags", ctypes.c_uint32)]


def in_cffi() -> Any:
    memory = uapi.ffi.new("struct vfio_group_status *", {"argsz": WORD})
    return uapi.ffi.buffer(memory)


MUTABLE = {
    "bytearray": lambda: bytearray(ASKED),
    "memoryview": lambda: memoryview(bytearray(ASKED)),
    "array": lambda: array.array("I", [WORD, 0]),
    "ctypes": lambda: Status(WORD, 0),
    "ctypes array": lambda: (ctypes.c_uint32 * 2)(WORD, 0),
    "cffi": in_cffi,
    "longer": lambda: bytearray(ASKED + bytes(8)),
    "longer than a page": lambda: bytearray(ASKED + bytes(8192)),
}
IMMUTABLE = {
    "bytes": lambda: ASKED,
    "read-only memoryview": lambda: memoryview(ASKED),
    "str": lambda: ASKED.decode(),
}


@pytest.fixture
def group(client: Client) -> int:
    return client.kernel.open("/dev/vfio/1")


@pytest.mark.parametrize("form", MUTABLE)
def test_a_mutable_buffer_is_changed_in_place_and_the_result_returned(client: Client, group: int, form: str) -> None:
    buffer = MUTABLE[form]()
    size = memoryview(buffer).nbytes
    assert client.ioctl(group, REQUEST, buffer) == 0
    assert bytes(buffer) == STATUS + bytes(size - 8)


@pytest.mark.parametrize("form", MUTABLE)
def test_with_mutate_flag_false_the_changed_bytes_come_back(client: Client, group: int, form: str) -> None:
    buffer = MUTABLE[form]()
    before = bytes(buffer)
    if len(before) > 1024:
        with pytest.raises(ValueError, match="too long"):
            client.ioctl(group, REQUEST, buffer, False)
    else:
        assert client.ioctl(group, REQUEST, buffer, False) == STATUS + bytes(len(before) - 8)
    assert bytes(buffer) == before


@pytest.mark.parametrize("form", IMMUTABLE)
def test_an_immutable_buffer_gives_the_changed_bytes(client: Client, group: int, form: str) -> None:
    assert client.ioctl(group, REQUEST, IMMUTABLE[form]()) == STATUS


def test_a_text_is_its_utf_8(client: Client) -> None:
    """As a device name: the kernel looks for what the caller wrote."""
    with pytest.raises(OSError, match="No such device") as caught:
        client.ioctl(client.group(), uapi.VFIO_GROUP_GET_DEVICE_FD, "\N{GREEK SMALL LETTER MU}\0")
    assert "\N{GREEK SMALL LETTER MU}" in caught.value.__notes__[0]


def test_an_address_is_a_pointer(client: Client, group: int) -> None:
    memory = uapi.ffi.new("struct vfio_group_status *", {"argsz": WORD})
    assert client.ioctl(group, REQUEST, int(uapi.ffi.cast("uintptr_t", memory))) == 0
    assert memory.flags == VIABLE


def test_a_short_buffer_is_padded_and_what_does_not_fit_is_lost(client: Client, group: int) -> None:
    buffer = bytearray(ASKED[:5])
    assert client.ioctl(group, REQUEST, buffer) == 0
    assert buffer == STATUS[:5]
    client.refused("EINVAL", client.ioctl, group, REQUEST, b"")  # argsz 0


def test_the_padding_of_a_buffer_ends_at_1024_bytes(boot: Callable[..., Client]) -> None:
    """As that of the wrapper: what lies behind it is not the caller's."""
    client = boot(irq_routing=True)
    header = uapi.pack("struct kvm_irq_routing", nr=100)  # says that 4800 bytes follow
    client.refused("EFAULT", client.ioctl, client.vm(), uapi.KVM_SET_GSI_ROUTING, header)


# -- next to the real one ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["real", "emulated"])
def ioctl(request: pytest.FixtureRequest, client: Client) -> Ioctl:
    """`fcntl.ioctl`, or that of a kernel: for a descriptor of somebody else's it must make no difference."""
    return fcntl.ioctl if request.param == "real" else client.kernel.ioctl


@pytest.fixture
def pipe() -> Iterator[int]:
    """A pipe with three bytes in it, which is what FIONREAD answers."""
    ends = os.pipe()
    os.write(ends[1], b"abc")
    yield ends[0]
    for end in ends:
        os.close(end)


THREE = (3).to_bytes(4, "little")


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(4),
        lambda: memoryview(bytearray(4)),
        lambda: array.array("i", [0]),
        lambda: (ctypes.c_int * 1)(),
        lambda: uapi.ffi.buffer(uapi.ffi.new("int *")),
    ],
)
def test_foreign_descriptor_mutable(ioctl: Ioctl, pipe: int, make: Callable[[], Any]) -> None:
    buffer = make()
    assert ioctl(pipe, termios.FIONREAD, buffer) == 0
    assert bytes(buffer) == THREE
    buffer = make()
    assert ioctl(pipe, termios.FIONREAD, buffer, False) == THREE
    assert bytes(buffer) == bytes(4)


@pytest.mark.parametrize("argument", [bytes(4), memoryview(bytes(4)), "\0\0\0\0"])
def test_foreign_descriptor_immutable(ioctl: Ioctl, pipe: int, argument: Any) -> None:
    assert ioctl(pipe, termios.FIONREAD, argument) == THREE


def test_foreign_descriptor_by_its_file_object(ioctl: Ioctl, pipe: int) -> None:
    with os.fdopen(os.dup(pipe), "rb", buffering=0) as file:
        assert ioctl(file, termios.FIONREAD, bytes(4)) == THREE


def test_foreign_request_numbers_are_taken_modulo_32_bits(ioctl: Ioctl, pipe: int) -> None:
    assert ioctl(pipe, termios.FIONREAD | 5 << 32, bytes(4)) == THREE
    assert ioctl(pipe, termios.FIONREAD - (1 << 32), bytes(4)) == THREE


def test_window_size_of_a_terminal(ioctl: Ioctl) -> None:
    leader, terminal = os.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, array.array("H", [24, 80, 0, 0]))
    assert array.array("H", ioctl(leader, termios.TIOCGWINSZ, bytes(8))).tolist() == [24, 80, 0, 0]
    os.close(leader)
    os.close(terminal)


BAD = [
    ((bytes(1025),), ValueError),
    ((bytearray(1025), False), ValueError),
    (("x" * 1025,), ValueError),
    ((None,), TypeError),
    ((1.5,), TypeError),
    (([1],), TypeError),
    ((memoryview(bytearray(8))[::2],), TypeError),
    ((memoryview(bytes(8))[::2],), TypeError),
]


@pytest.mark.parametrize("target", ["pipe", "kvm"])
@pytest.mark.parametrize(("arguments", "error"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_what_is_no_argument(
    ioctl: Ioctl, client: Client, pipe: int, target: str, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    number = pipe if target == "pipe" or ioctl is fcntl.ioctl else client.kvm
    with pytest.raises(error):
        ioctl(number, termios.FIONREAD, *arguments)


@pytest.mark.parametrize(
    ("descriptor", "error"),
    [
        (-1, ValueError),
        (None, TypeError),
        ("0", TypeError),
        (1.0, TypeError),
        (1 << 40, OverflowError),
        (0x7FFF, OSError),
    ],
)
def test_what_is_no_descriptor(ioctl: Ioctl, descriptor: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        ioctl(descriptor, termios.FIONREAD, bytes(4))


@pytest.mark.parametrize("request_", ["x", 1.0, None])
def test_what_is_no_request(ioctl: Ioctl, pipe: int, client: Client, request_: Any) -> None:
    for number in (pipe, client.kvm):
        with pytest.raises(TypeError):
            ioctl(number, request_, 0)


def test_request_numbers_are_taken_modulo_32_bits(client: Client, group: int) -> None:
    assert client.ioctl(group, REQUEST + (1 << 32), ASKED) == STATUS
    assert client.ioctl(group, REQUEST - (1 << 32), ASKED) == STATUS


def test_emulated_descriptor_by_its_file_object(client: Client) -> None:
    class Holder:
        def fileno(self) -> int:
            return client.kvm

    assert client.ioctl(Holder(), uapi.KVM_GET_API_VERSION) == 12  # type: ignore[arg-type]
    assert client.ioctl(client.kvm, uapi.KVM_GET_API_VERSION, False) == 12  # a bool is a number


@pytest.mark.parametrize(
    ("request_", "argument"),
    [
        ("KVM_GET_API_VERSION", 0),
        ("KVM_GET_API_VERSION", 1),
        ("KVM_CHECK_EXTENSION", uapi.KVM_CAP_IRQFD),
        ("KVM_CHECK_EXTENSION", 0x7FFFFFFF),
        ("KVM_CHECK_EXTENSION", -1),
        ("KVM_CHECK_EXTENSION", b"a pointer"),
        ("KVM_GET_VCPU_MMAP_SIZE", 1),
        ("KVM_CREATE_VM", b"a pointer"),
    ],
)
def test_the_real_dev_kvm_answers_the_same(client: Client, request_: str, argument: Any) -> None:
    try:
        real = os.open("/dev/kvm", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"/dev/kvm: {error.strerror}")
    number = getattr(uapi, request_)

    def outcome(call: Ioctl, fd: int) -> Any:
        try:
            return call(fd, number, argument)
        except OSError as error:
            return error.errno

    assert outcome(client.ioctl, client.kvm) == outcome(fcntl.ioctl, real)
    os.close(real)
