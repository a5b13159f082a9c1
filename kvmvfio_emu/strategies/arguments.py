"""Calls of the declared ioctls with arguments of the declared layout, as the player takes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.commands import ioctl_row
from kvmvfio_emu.kernel.file import IoctlDecl
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.device import KvmDevice
from kvmvfio_emu.strategies import fields
from kvmvfio_emu.strategies.fields import (
    HOWS,
    PAYLOAD,
    How,
    bad_pointer,
    capability,
    fd_kind,
    odd,
    page,
    place,
    small,
)
from kvmvfio_emu.strategies.setting import Setting
from kvmvfio_emu.testing.player import ARENA, ARENA_SIZE, Call
from kvmvfio_emu.view.offered import file_classes

#: Ends only when the guest does.
EXCLUDED = frozenset({uapi.KVM_RUN})
#: What a result is a descriptor of.
GIVES = {
    uapi.KVM_CREATE_VM: "vm",
    uapi.KVM_CREATE_VCPU: "vcpu",
    uapi.KVM_GET_STATS_FD: "stats",
    uapi.VFIO_GROUP_GET_DEVICE_FD: "vfio-device",
}
Memory = dict[str, list[list[Any]]]


def declared(setting: Setting | None = None) -> list[tuple[str, IoctlDecl]]:
    """(kind of file, ioctl): every one once; of one kernel only those that it has, if ``setting`` says which."""
    found = {
        (cls.kind, number): decl
        for _, cls in file_classes()
        for number, decl in cls.ioctls.items()
        if number not in EXCLUDED
        and (setting is None or (setting.profile.offers(cls.when) and setting.profile.offers(decl.when)))
    }
    return [(kind, decl) for (kind, _), decl in found.items()]


@st.composite
def structs(draw: st.DrawFn, struct: str, how: How = "any", minsz: int | None = None, arch: str = "arm64") -> Memory:
    """The ``memory`` and ``fds`` of a call whose argument is such a struct. ``minsz``: what must at least be there."""
    how = draw(st.sampled_from(HOWS)) if how == "any" else how
    size = uapi.sizeof(struct)
    if how == "wild":
        return {"memory": [[0, draw(st.binary(min_size=size, max_size=size)).hex()]], "fds": []}
    raw, fds = bytearray(size), []
    named = [field for field in fields.layout(struct) if field.name]
    wrong = draw(st.sampled_from(named)) if how == "nearly" and named else None
    for field in fields.layout(struct):
        name, offset, length = field
        right = field != wrong
        if fields.is_descriptor(name):
            fds.append([offset, draw(fields.descriptor(struct, name, right=right)), draw(place)])
        elif name:
            values = (
                fields.own_size(size, size if minsz is None else minsz, right=right)
                if fields.is_own_size(struct, name)
                else fields.value(struct, name, right=right, arch=arch)
            )
            raw[offset : offset + length] = (draw(values) & (1 << 8 * length) - 1).to_bytes(length, "little")
        elif length and draw(st.booleans()):
            raw[offset : offset + length] = draw(st.binary(min_size=length, max_size=length))
    return {"memory": [[0, raw.hex()]], "fds": fds}


@st.composite
def ioctl_calls(draw: st.DrawFn, kind: str, decl: IoctlDecl, how: How = "any", setting: Setting | None = None) -> Call:
    """A call of one declared ioctl: on a file that takes it, or unless it is "valid" now and then on another."""
    how = draw(st.sampled_from(("valid", "valid", "nearly", "nearly", "nearly", "wild"))) if how == "any" else how
    setting = setting or Setting()
    on = kind if how == "valid" or draw(st.integers(0, 19)) else draw(st.sampled_from(uapi.KINDS))
    call: Call = {"do": "ioctl", "on": [on, draw(place)], "number": decl.number}
    if decl.number in GIVES and (on, decl.number) in uapi.IOCTLS:  # one number can be of several kinds
        call["gives"] = GIVES[decl.number]
    row = ioctl_row(kind, decl.number)
    struct = decl.struct or (row and row.struct)
    if decl.number == uapi.KVM_CHECK_EXTENSION:
        return call | {"argument": draw(capability if how == "valid" else capability | odd)}
    if decl.number == uapi.KVM_CREATE_VCPU and how == "nearly":
        return call | {"argument": draw(st.sampled_from([setting.most_vcpus, setting.most_vcpus - 1, 4095, 4096]))}
    if decl.value or struct is None:
        return call | {"argument": draw(st.sampled_from([0, 0, 0, 1, 3]) if how == "valid" else small | odd)}
    if how == "wild" and draw(st.booleans()):
        return call | {"argument": draw(st.sampled_from([0, 0x10, ARENA + ARENA_SIZE - 4]))}
    if decl.number == uapi.VFIO_GROUP_GET_DEVICE_FD:
        names = list(setting.devices) if how == "valid" else [*setting.devices, "no-such-device", ""]
        return call | {"memory": [[0, (draw(st.sampled_from(names or [""])).encode() + b"\0").hex()]]}
    if decl.number == uapi.VFIO_GROUP_SET_CONTAINER:
        kinds = ["container"] if how == "valid" else ["container"] * 4 + ["group", "eventfd", "closed"]
        return call | {"fds": [[0, draw(st.sampled_from(kinds)), draw(place)]]}
    call |= draw(structs(struct, how, decl.minsz or uapi.sizeof(struct), setting.profile.arch))
    return call | draw(_beside(struct, how, decl, call, setting))


@st.composite
def _beside(draw: st.DrawFn, struct: str, how: How, decl: IoctlDecl, call: Call, setting: Setting) -> Call:
    """What follows a struct, or what it points at."""
    more: Call = {}
    if decl.number == uapi.VFIO_DEVICE_SET_IRQS:
        kinds = fd_kind if how != "valid" else st.just("eventfd")
        more["fds"] = call["fds"] + [[uapi.sizeof(struct) + 4 * n, draw(kinds), draw(place)] for n in range(2)]
        if how == "valid":  # room for the data
            first = bytearray.fromhex(call["memory"][0][1])
            first[0:4] = (uapi.sizeof(struct) + 8).to_bytes(4, "little")
            more["memory"] = [[0, first.hex()]]
    if decl.number == uapi.KVM_ENABLE_CAP and draw(st.integers(0, 3)):
        value = draw(st.sampled_from([0, 0, 1, 2, 3, 15, 24, 4096]) | odd)
        more["memory"] = [*call["memory"], [uapi.ffi.offsetof(struct, "args"), value.to_bytes(8, "little").hex()]]
    if decl.number == uapi.KVM_SET_GSI_ROUTING and how != "wild":
        count = int.from_bytes(bytes.fromhex(call["memory"][0][1])[:4], "little")
        entries = b"".join(draw(_route(how)) for _ in range(min(count, 3)))
        more["memory"] = [*call["memory"], [uapi.sizeof(struct), entries.hex()]]
    if struct == "struct kvm_device_attr":
        # Nothing that could be the number of a descriptor, which differs between the players.
        more["memory"] = [*call["memory"], [PAYLOAD, draw(page | odd).to_bytes(8, "little").hex()]]
        if _takes_fd(call, setting) and draw(st.booleans()):
            more["fds"] = [*call["fds"], [PAYLOAD, draw(fd_kind), draw(place)]]
    if decl.number == uapi.KVM_CREATE_DEVICE:
        more |= {"gives": "device", "fd_at": uapi.ffi.offsetof(struct, "fd")}
    return more


def _takes_fd(call: Call, setting: Setting) -> bool:
    """Whether an attribute's payload is a descriptor: elsewhere one would be taken for the number that it is."""
    on, place_ = call["on"]
    group = int.from_bytes(bytes.fromhex(call["memory"][0][1])[4:8], "little")
    mine = setting.types and setting.types[place_ % len(setting.types)].type_name == "KVM_DEV_TYPE_VFIO"
    return bool(on == "device" and mine and group == uapi.KVM_DEV_VFIO_GROUP)


@st.composite
def _route(draw: st.DrawFn, how: How) -> bytes:
    """One entry of a routing table."""
    kinds = [uapi.KVM_IRQ_ROUTING_IRQCHIP, uapi.KVM_IRQ_ROUTING_MSI]
    kind = draw(st.sampled_from(kinds if how == "valid" else [*kinds, *kinds, 0, 3, 4, 5]))
    flags = draw(st.sampled_from([0] if how == "valid" else [0] * 8 + [1, 2]))
    pins = st.integers(0, 23) if how == "valid" else st.integers(0, 24) | odd
    if kind == uapi.KVM_IRQ_ROUTING_IRQCHIP:
        where = [draw(st.integers(0, 2 if how == "valid" else 3)), draw(pins)]
    else:
        where = [draw(fields.value("struct kvm_msi", name, right=False)) for name in ("address_lo", "data")]
        where.insert(1, 0)
    gsi = draw(st.integers(0, 23) if how == "valid" else small | st.sampled_from([4095, 4096]))
    words = [gsi, kind, flags, 0, *where]
    raw = b"".join((word & 0xFFFFFFFF).to_bytes(4, "little") for word in words)
    return raw.ljust(uapi.sizeof("struct kvm_irq_routing_entry"), b"\0")


# ---- attributes ------------------------------------------------------------------------------------------------------


def payloads(c_type: str, how: How = "any") -> st.SearchStrategy[Memory]:
    """The ``memory`` and ``fds`` of a payload of that C type, at `PAYLOAD`; nothing for an empty one."""
    if not c_type:
        return st.just({"memory": [], "fds": []})
    if not c_type.startswith("struct "):
        return _scalar(uapi.sizeof(c_type), how)
    return structs(c_type, how).map(
        lambda made: {
            "memory": [[at + PAYLOAD, data] for at, data in made["memory"]],
            "fds": [[at + PAYLOAD, *fd] for at, *fd in made["fds"]],
        }
    )


def _scalar(size: int, how: How) -> st.SearchStrategy[Memory]:
    values = page | small if how == "valid" else page | small | odd
    return values.map(lambda number: _number(number, size))


def _number(number: int, size: int) -> Memory:
    data = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
    return {"memory": [[PAYLOAD, data.hex()]], "fds": []}


def _numbers(rows: Iterable[AttrGroup]) -> list[tuple[AttrGroup, int | None]]:
    return [
        (row, number)
        for row in rows
        for number in ([int(getattr(uapi, name)) for name in row.names] if row.names else [None])
    ]


@st.composite
def attribute_calls(draw: st.DrawFn, kind: type[KvmDevice], how: How = "any", setting: Setting | None = None) -> Call:
    """KVM_{SET,GET,HAS}_DEVICE_ATTR of one declared attribute of a device type, on the sequence's device of it.

    "nearly": the payload's pointer, its content, the group or the number is wrong.
    """
    setting = setting or Setting()
    how = draw(st.sampled_from(HOWS)) if how == "any" else how
    row, number = draw(st.sampled_from(_numbers(setting.rows(kind))))
    verbs = [uapi.KVM_SET_DEVICE_ATTR, uapi.KVM_HAS_DEVICE_ATTR]
    if row.gettable or how != "valid":
        verbs.append(uapi.KVM_GET_DEVICE_ATTR)
    attr = draw(st.integers(0, 0x3F).map(lambda n: 4 * n)) if number is None else number
    fields_ = {"group": row.number, "attr": attr, "addr": ARENA + PAYLOAD, "flags": 0}
    payload: Memory = draw(payloads(row.payload, "valid" if how == "valid" else "any"))
    if _is_fd(row):
        payload = {"memory": [], "fds": [[PAYLOAD, draw(st.just("group") if how == "valid" else fd_kind), draw(place)]]}
    if how == "nearly":
        wrong = draw(st.sampled_from(["addr", "group", "attr", "payload", "flags"]))
        values = {"addr": bad_pointer, "group": small, "attr": small | odd, "flags": st.integers(1, 3)}
        if wrong in values:
            fields_[wrong] = draw(values[wrong])
    elif how == "wild":
        fields_ = {name: draw(st.integers(0, (1 << 64) - 1) | small) for name in fields_}
    for name in ("group", "flags"):
        fields_[name] &= 0xFFFFFFFF
    packed = uapi.pack("struct kvm_device_attr", **fields_)
    place_ = setting.place(kind.type_name)
    return {
        "do": "ioctl",
        "on": ["device", 0 if place_ is None else place_],
        "number": draw(st.sampled_from(verbs)),
        "memory": [[0, packed.hex()], *payload["memory"]],
        "fds": payload["fds"],
    }


def _is_fd(row: AttrGroup) -> bool:
    return row.group == "KVM_DEV_VFIO_GROUP"
