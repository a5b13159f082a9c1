"""Every door leads into the same kernel: random sequences of calls come to the same, in process and supervised.

The calls are made from the declarations of the ioctls: each kind of file, each request that it takes, arguments of the
declared layout, with values that the fields' names suggest.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sequences
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sequences import ARENA, Arena, Call, Outcome, Player

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.hw import boards
from kvmvfio_emu.kernel.file import IoctlDecl
from kvmvfio_emu.kernel.kvm.module import DEVICE_TYPES
from kvmvfio_emu.view.offered import file_classes

BOARD = "oracle-virt"
DEVICES = {device.name: device.group for device in boards.load(BOARD).devices}
#: Where in the arena the payload of an attribute lies, and what else a pointer points at.
PAYLOAD = 0x1000
SECONDS = 60
#: Ends only when the guest does; `test_door_run` and the supervisor's tests compare it.
EXCLUDED = {uapi.KVM_RUN}
#: What a result is a descriptor of.
GIVES = {
    uapi.KVM_CREATE_VM: "vm",
    uapi.KVM_CREATE_VCPU: "vcpu",
    uapi.KVM_GET_STATS_FD: "stats",
    uapi.VFIO_GROUP_GET_DEVICE_FD: "vfio-device",
}

small = st.integers(0, 40)
odd = st.sampled_from([0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x10000, 1 << 40, (1 << 64) - 1, (1 << 64) - 0x1000])
page = st.integers(0, 7).map(lambda number: number << 12)
pointer = st.sampled_from(
    [ARENA + PAYLOAD] * 4 + [ARENA + 0x2000, ARENA + 0x2004, ARENA + 0xFFFC, 0, 0x10, (1 << 64) - 8]
)
place = st.integers(0, 3)
fd_kind = st.sampled_from(
    ["eventfd"] * 4 + ["group", "vfio-device", "container", "vm", "kvm", "device", *sequences.NOWHERE]
)

#: Groups of all devices together; the one too many has none.
_GROUPS = sorted({row.number for device in DEVICE_TYPES for row in device.attributes} | {9})
_TYPES = sorted({int(getattr(uapi, device.type_name)) for device in DEVICE_TYPES})
#: Those that the board's GICv2 allows, in the order in which a sequence creates them.
_HERE = sorted({int(getattr(uapi, device.type_name)) for device in DEVICE_TYPES if device.host_gic in (0, 2)})
_VGIC = _HERE.index(uapi.KVM_DEV_TYPE_ARM_VGIC_V2)
#: What a field's name says of its value, by struct and field or by field alone.
NAMED: dict[str, st.SearchStrategy[int]] = {
    "addr": pointer | page,
    "vaddr": pointer,
    "userspace_addr": pointer,
    "dirty_bitmap": pointer,
    "guest_phys_addr": page,
    "memory_size": st.sampled_from([0x1000, 0x2000, 0x4000, 0]),
    "iova": page,
    "size": st.sampled_from([0x1000, 0x1000, 0x2000, 0x4000, 0x800, 0]),
    "group": st.sampled_from(_GROUPS),
    "attr": st.integers(0, 4) | st.sampled_from([0x100, 0x200, 0x400, 0xC00, 0x1_0000_0100, 1 << 32]),
    "type": st.sampled_from(_TYPES) | small,
    "flags": st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4, 8]) | odd,
    "slot": st.integers(0, 3),
    "gsi": st.integers(0, 3) | small | odd,
    "kvm_create_device.flags": st.integers(0, 1),
    "kvm_irq_level.irq": st.builds(lambda kind, n: kind << 24 | n, st.sampled_from([1, 1, 0, 2]), small) | odd,
    "kvm_irq_level.level": st.integers(0, 1),
    "kvm_vcpu_init.target": st.sampled_from([0, 5]),
    "vfio_irq_set.flags": st.builds(
        lambda data, action: data | action << 3, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4])
    ),
    "vfio_irq_set.count": st.sampled_from([1, 1, 1, 0, 2]),
    "vfio_irq_set.start": st.sampled_from([0, 0, 0, 1]),
    "vfio_iommu_type1_dma_map.flags": st.integers(0, 3),
    "user_va": pointer,
    **dict.fromkeys(("__reserved", "reserved", "pad"), st.sampled_from([0] * 7 + [1])),
    "length": st.sampled_from([0x1000, 0x2000, 0x4000, 0x800, 0]),
    **dict.fromkeys(("id", "ioas_id", "dst_ioas_id", "src_ioas_id", "pt_id", "out_ioas_id"), st.integers(0, 5)),
    "index": st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 6, 9]),
    "len": st.sampled_from([0, 1, 2, 4, 8, 3]),
}


def _layout(struct: str) -> Iterator[tuple[str, int, int]]:
    """(name, offset, bytes) of every scalar in a struct, arrays and unions as bytes of no name."""
    ctype = uapi.ffi.typeof(struct)
    if ctype.kind != "struct":
        yield "", 0, uapi.sizeof(struct)
        return
    for name, field in ctype.fields or ():
        size = uapi.ffi.sizeof(field.type) if field.type.kind != "array" or field.type.length else 0
        yield name if field.type.kind in ("primitive", "pointer", "enum") else "", field.offset, size


@st.composite
def filled(draw: st.DrawFn, struct: str, minsz: int) -> dict[str, Any]:
    """The ``memory`` and ``fds`` of a call whose argument is such a struct."""
    size = uapi.sizeof(struct)
    raw, fds = bytearray(size), []
    for name, offset, length in _layout(struct):
        if name in ("fd", "resamplefd", "iommufd"):
            kind = draw(st.sampled_from(["iommufd"] * 4 + ["closed", "group"]) if name == "iommufd" else fd_kind)
            fds.append([offset, kind, draw(place)])
        elif name == "argsz" or (name == "size" and struct.startswith("struct iommu_")):
            value = draw(
                st.sampled_from([size] * 4 + [size + 4, size + 8] * 2 + [size + 64, minsz, minsz, minsz - 1, 0])
            )
            raw[offset : offset + length] = value.to_bytes(length, "little")
        elif name:
            values = NAMED.get(f"{struct.removeprefix('struct ')}.{name}", NAMED.get(name, small | odd))
            value = draw(values) & (1 << 8 * length) - 1
            raw[offset : offset + length] = value.to_bytes(length, "little")
        elif length and draw(st.booleans()):
            raw[offset : offset + length] = draw(st.binary(min_size=length, max_size=length))
    return {"memory": [[0, raw.hex()]], "fds": fds}


@st.composite
def ioctl_calls(draw: st.DrawFn, kind: str, decl: IoctlDecl) -> Call:
    """A call of one declared ioctl, on a file that takes it, or on one that does not."""
    on = kind if draw(st.integers(0, 19)) else draw(st.sampled_from(uapi.KINDS))
    call: Call = {"do": "ioctl", "on": [on, draw(place)], "number": decl.number}
    if decl.number in GIVES and (on, decl.number) in uapi.IOCTLS:  # one number can be of several kinds
        call["gives"] = GIVES[decl.number]
    row = uapi.IOCTLS.get((kind, decl.number))  # type: ignore[call-overload]
    struct = decl.struct or (row and row.struct)
    if decl.value or struct is None:
        return call | {"argument": draw(st.sampled_from([0, 0, 0, 1, 3]) | small | odd)}
    if not draw(st.integers(0, 11)):
        return call | {"argument": draw(st.sampled_from([0, 0x10, ARENA + sequences.ARENA_SIZE - 4]))}
    if decl.number == uapi.VFIO_GROUP_GET_DEVICE_FD:
        name = draw(st.sampled_from([*DEVICES, "no-such-device", ""]))
        return call | {"memory": [[0, (name.encode() + b"\0").hex()]]}
    if decl.number == uapi.VFIO_GROUP_SET_CONTAINER:
        return call | {
            "fds": [[0, draw(st.sampled_from(["container"] * 4 + ["group", "eventfd", "closed"])), draw(place)]]
        }
    call |= draw(filled(struct, decl.minsz or uapi.sizeof(struct)))
    if decl.number == uapi.VFIO_DEVICE_SET_IRQS:
        call["fds"] += [[uapi.sizeof(struct) + 4 * n, draw(fd_kind), draw(place)] for n in range(2)]
    if struct == "struct kvm_device_attr":
        # Nothing that could be the number of a descriptor, which differs between the players.
        call["memory"].append([PAYLOAD, draw(page | odd).to_bytes(8, "little").hex()])
        if draw(st.booleans()):
            call["fds"].append([PAYLOAD, draw(fd_kind), draw(place)])
    if decl.number == uapi.KVM_CREATE_DEVICE:
        call |= {"gives": "device", "fd_at": uapi.ffi.offsetof(struct, "fd")}
    return call


def declared() -> list[tuple[str, IoctlDecl]]:
    """Every ioctl of every kind of file, once."""
    found = {(cls.kind, number): decl for _, cls in file_classes() for number, decl in cls.ioctls.items()}
    return [(kind, decl) for (kind, number), decl in found.items() if number not in EXCLUDED]


any_ioctl = st.sampled_from(declared()).flatmap(lambda one: ioctl_calls(*one))
files = st.sampled_from([*uapi.KINDS, "eventfd", "eventfd"])
calls = st.one_of(
    st.builds(lambda n: {"do": "count", "place": n}, place),  # first, so that a failing sequence shrinks to these
    *[any_ioctl] * 8,
    st.builds(lambda count: {"do": "eventfd", "count": count}, st.integers(0, 1)),
    st.builds(lambda n: {"do": "signal", "place": n}, place),
    st.builds(lambda kind, n: {"do": "dup", "kind": kind, "place": n}, files, place),
    st.builds(lambda kind, n: {"do": "close", "kind": kind, "place": n}, files, place),
    st.builds(lambda n: {"do": "open", "path": f"/dev/vfio/{n}", "kind": "group"}, st.integers(0, 6)),
    st.just({"do": "open", "path": "/dev/vfio/vfio", "kind": "container"}),
    st.just({"do": "open", "path": "/dev/iommu", "kind": "iommufd"}),
    st.builds(lambda n: {"do": "open", "path": f"/dev/vfio/devices/vfio{n}", "kind": "vfio-device"}, st.integers(0, 5)),
)


def _made(kind: str, number: int, gives: str | None = None, **more: Any) -> Call:
    return {
        "do": "ioctl",
        "on": [kind, 0],
        "number": number,
        "argument": 0,
        **({"gives": gives} if gives else {}),
        **more,
    }


def _attr(kind: str, number: int, group: int, attr: int, value: int = 0) -> Call:
    argument = uapi.pack("struct kvm_device_attr", group=group, attr=attr, addr=ARENA + PAYLOAD)
    memory = [[0, argument.hex()], [PAYLOAD, value.to_bytes(8, "little").hex()]]
    return {"do": "ioctl", "on": [kind, _VGIC], "number": number, "memory": memory}


#: What most calls need to get anywhere; mostly a sequence begins with all of it.
DEVICE = next(iter(DEVICES))
BEGINNING: list[Call] = [
    {"do": "open", "path": "/dev/kvm", "kind": "kvm"},
    _made("kvm", uapi.KVM_CREATE_VM, "vm"),
    {"do": "eventfd", "count": 0},
    {"do": "eventfd", "count": 0},
    {"do": "open", "path": "/dev/vfio/vfio", "kind": "container"},
    {"do": "open", "path": f"/dev/vfio/{DEVICES[DEVICE]}", "kind": "group"},
    _made("group", uapi.VFIO_GROUP_SET_CONTAINER, argument=None, fds=[[0, "container", 0]]),
    _made("container", uapi.VFIO_SET_IOMMU, argument=uapi.VFIO_TYPE1v2_IOMMU),
    _made(
        "group",
        uapi.VFIO_GROUP_GET_DEVICE_FD,
        "vfio-device",
        argument=None,
        memory=[[0, (DEVICE.encode() + b"\0").hex()]],
    ),
    _made("vm", uapi.KVM_CREATE_VCPU, "vcpu"),
    {"do": "open", "path": "/dev/iommu", "kind": "iommufd"},
    *(
        _made(
            "vm",
            uapi.KVM_CREATE_DEVICE,
            "device",
            argument=None,
            memory=[[0, uapi.pack("struct kvm_create_device", type=number, fd=0xFFFFFFFF).hex()]],
            fd_at=4,
        )
        for number in _HERE
    ),
    *(
        _attr("device", uapi.KVM_SET_DEVICE_ATTR, uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, frame, address)
        for frame, address in (
            (uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, 0x8000000),
            (uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, 0x8010000),
        )
    ),
    _attr("device", uapi.KVM_SET_DEVICE_ATTR, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT),
]
sequence = st.builds(
    lambda length, more: BEGINNING[:length] + more,
    st.sampled_from([len(BEGINNING)] * 8 + [*range(len(BEGINNING))]),
    st.lists(calls, min_size=15, max_size=40),
)


# ---- the two doors -------------------------------------------------------------------------------------------------


class InProcess:
    """`Kernel` as the player wants it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.open, self.ioctl, self.close = kernel.open, kernel.ioctl, kernel.close

    def settle(self) -> None:
        self.kernel.open_files()


class Supervised:
    """The player as a program of its own under `kvmvfio-emu run`."""

    def __init__(self, profile: str) -> None:
        run = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run", "--profile", profile, "--machine", BOARD, "--"]
        first = subprocess.run([*run, "true"], capture_output=True, text=True, timeout=SECONDS)
        if first.returncode and "seccomp" in first.stderr:
            pytest.skip(f"cannot supervise here: {first.stderr.strip()}")
        program = [sys.executable, "-S", str(Path(sequences.__file__))]
        self._process = subprocess.Popen([*run, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def play(self, calls: list[Call]) -> list[Outcome]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(calls) + "\n")
            self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], SECONDS)[0], "no answer"
        line = self._process.stdout.readline()
        assert line, f"the player ended: {self._process.wait(SECONDS)}"
        outcomes: list[Outcome] = json.loads(line)
        return outcomes

    def close(self) -> int:
        self._process.communicate(timeout=SECONDS)
        return self._process.returncode


@pytest.fixture(scope="module")
def arena() -> Arena:
    return Arena()


@pytest.fixture(scope="module", params=["rfc-2014", "linux-6.12"])
def doors(request: pytest.FixtureRequest) -> Iterator[tuple[str, Supervised]]:
    supervised = Supervised(request.param)
    yield request.param, supervised
    assert supervised.close() == 0


@given(calls=sequence)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=settings().max_examples // 2,
)
def test_a_sequence_of_calls_comes_to_the_same(calls: list[Call], doors: tuple[str, Supervised], arena: Arena) -> None:
    profile, supervised = doors
    with Kernel(profile, BOARD) as kernel:
        ours = Player(InProcess(kernel), arena).play(calls)
        assert kernel.open_files() == []
    theirs = supervised.play(calls)
    for call, one, other in zip(calls, ours, theirs, strict=False):
        assert one == other, call
    assert ours == theirs  # and the counts at the end


def test_the_beginning_gets_through(arena: Arena) -> None:
    """So that what follows it meets files that exist and a VGIC that is initialised."""
    with Kernel("linux-6.12", BOARD) as kernel:
        outcomes = Player(InProcess(kernel), arena).play(BEGINNING)
    assert [call for call, outcome in zip(BEGINNING, outcomes, strict=False) if outcome[1] != "0"] == []
