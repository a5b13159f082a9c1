"""Whole sequences of calls for a kernel: a beginning that gets somewhere, and then anything.

A sequence is plain data that every player can play, so it prints as a script and shrinks to few calls.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from kvmvfio_emu import uapi
from kvmvfio_emu.strategies.arguments import attribute_calls, declared, ioctl_calls
from kvmvfio_emu.strategies.fields import PAYLOAD, place
from kvmvfio_emu.strategies.setting import Setting
from kvmvfio_emu.testing.player import ARENA, Call

Calls = st.SearchStrategy[list[Call]]
_VGIC_V2 = "KVM_DEV_TYPE_ARM_VGIC_V2"


def calls(
    setting: Setting | None = None, kinds: frozenset[str] | None = None, *, every_kernel: bool = False
) -> st.SearchStrategy[Call]:
    """One call of any kind. ``kinds``: only ioctls of these kinds of file, and no node of others is opened.

    ``every_kernel``: also ioctls that only other kernels know.
    """
    known = setting or Setting()
    wanted = frozenset(uapi.KINDS) if kinds is None else kinds
    chosen = [(kind, decl) for kind, decl in declared(None if every_kernel else known) if kind in wanted]
    files = st.sampled_from([*sorted(wanted), *["eventfd"] * 6])
    options: list[st.SearchStrategy[Call]] = [
        st.builds(lambda n: {"do": "count", "place": n}, place),  # first, so that a failing sequence shrinks to these
        *[st.sampled_from(chosen).flatmap(lambda one: ioctl_calls(*one, setting=known))] * 8,
        st.builds(lambda count: {"do": "eventfd", "count": count}, st.integers(0, 1)),
        *[st.builds(lambda n: {"do": "signal", "place": n}, place)] * 2,
        st.builds(lambda kind, n: {"do": "dup", "kind": kind, "place": n}, files, place),
        st.builds(lambda kind, n: {"do": "close", "kind": kind, "place": n}, files, place),
    ]
    if "device" in wanted and known.types:
        options += [st.sampled_from(known.types).flatmap(lambda kind: attribute_calls(kind, setting=known))] * 2
    if "group" in wanted:
        options.append(st.builds(lambda n: _open(f"/dev/vfio/{n}", "group"), st.integers(0, 6)))
    if "container" in wanted:
        options.append(st.just(_open("/dev/vfio/vfio", "container")))
    if "iommufd" in wanted:
        options.append(st.just(_open("/dev/iommu", "iommufd")))
    if "vfio-device" in wanted:
        nodes = st.integers(0, 5).map(lambda n: _open(f"/dev/vfio/devices/vfio{n}", "vfio-device"))
        options.append(nodes)
    return st.one_of(options)


def _open(path: str, kind: str) -> Call:
    return {"do": "open", "path": path, "kind": kind}


def _made(kind: str, number: int, gives: str | None = None, **more: Any) -> Call:
    call = {"do": "ioctl", "on": [kind, 0], "number": number, "argument": 0, **more}
    return call | {"gives": gives} if gives else call


def beginning(setting: Setting, kinds: frozenset[str] | None = None, irqchip: str = "all") -> list[Call]:
    """What most calls need to get anywhere: a VM with its devices, and a VFIO device; as far as ``kinds`` go.

    ``irqchip``: which interrupt controllers an x86 VM has in the kernel, "all", "split" or "none".
    """
    wanted = frozenset(uapi.KINDS) if kinds is None else kinds
    found: list[Call] = [
        _open("/dev/kvm", "kvm"),
        _made("kvm", uapi.KVM_CREATE_VM, "vm"),
        *(_irqchip(irqchip) if setting.profile.arch == "x86_64" else []),
        {"do": "eventfd", "count": 0},
        {"do": "eventfd", "count": 0},
    ]
    if {"container", "group", "vfio-device"} <= wanted and setting.devices:
        found += _vfio(setting)
    found.append(_made("vm", uapi.KVM_CREATE_VCPU, "vcpu"))
    if "iommufd" in wanted:
        found.append(_open("/dev/iommu", "iommufd"))
    for kind in setting.types:
        packed = uapi.pack("struct kvm_create_device", type=getattr(uapi, kind.type_name), fd=0xFFFFFFFF)
        found.append(_made("vm", uapi.KVM_CREATE_DEVICE, "device", argument=None, memory=[[0, packed.hex()]], fd_at=4))
    vgic = setting.place(_VGIC_V2)
    return found if vgic is None else found + _vgic(vgic)


def _irqchip(which: str) -> list[Call]:
    if which == "all":
        return [_made("vm", uapi.KVM_CREATE_IRQCHIP)]
    packed = uapi.pack("struct kvm_enable_cap", cap=uapi.KVM_CAP_SPLIT_IRQCHIP)
    pins = [uapi.ffi.offsetof("struct kvm_enable_cap", "args"), (24).to_bytes(8, "little").hex()]
    split = _made("vm", uapi.KVM_ENABLE_CAP, argument=None, memory=[[0, packed.hex()], pins])
    return [split] if which == "split" else []


def _vfio(setting: Setting) -> list[Call]:
    name, group = next(iter(setting.devices.items()))
    memory = [[0, (name.encode() + b"\0").hex()]]
    return [
        _open("/dev/vfio/vfio", "container"),
        _open(f"/dev/vfio/{group}", "group"),
        _made("group", uapi.VFIO_GROUP_SET_CONTAINER, argument=None, fds=[[0, "container", 0]]),
        _made("container", uapi.VFIO_SET_IOMMU, argument=uapi.VFIO_TYPE1v2_IOMMU),
        _made("group", uapi.VFIO_GROUP_GET_DEVICE_FD, "vfio-device", argument=None, memory=memory),
    ]


def _vgic(place_: int) -> list[Call]:
    def setting_(group: int, attr: int, value: int = 0) -> Call:
        argument = uapi.pack("struct kvm_device_attr", group=group, attr=attr, addr=ARENA + PAYLOAD)
        memory = [[0, argument.hex()], [PAYLOAD, value.to_bytes(8, "little").hex()]]
        return {"do": "ioctl", "on": ["device", place_], "number": uapi.KVM_SET_DEVICE_ATTR, "memory": memory}

    return [
        setting_(uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, 0x8000000),
        setting_(uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, 0x8010000),
        setting_(uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT),
    ]


def sequences(
    setting: Setting | None = None,
    kinds: frozenset[str] | None = None,
    *,
    min_size: int = 15,
    max_size: int = 40,
    every_kernel: bool = False,
) -> Calls:
    """Sequences for one kernel; the other arguments are those of `calls`.

    Mostly the whole `beginning` comes first; ``min_size`` and ``max_size`` count what follows it.
    """
    known = setting or Setting()
    chips = ["all", "all", "split", "none"] if known.profile.arch == "x86_64" else ["all"]
    starts = [beginning(known, kinds, irqchip) for irqchip in chips]
    return st.builds(
        lambda start, cut, more: start[: len(start) - cut] + more,
        st.sampled_from(starts),
        st.sampled_from([0] * 4 * len(starts[0]) + [*range(1, len(starts[0]) + 1)]),
        st.lists(calls(setting, kinds, every_kernel=every_kernel), min_size=min_size, max_size=max_size),
    )
