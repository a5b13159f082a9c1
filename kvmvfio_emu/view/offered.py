"""What a kernel offers, by its profile, as plain data: ioctls, device types, attributes, capabilities, differences.

Everything is read from the declarations that also do the answering; nothing is listed twice.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

from kvmvfio_emu import kernel, profiles, uapi
from kvmvfio_emu.kernel.file import File
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup, offered
from kvmvfio_emu.kernel.kvm.module import DEVICE_TYPES
from kvmvfio_emu.profiles import Profile

#: Section of a listing -> item -> what is known of it.
Offer = dict[str, dict[str, Any]]


def file_classes() -> Iterator[tuple[str, type[File]]]:
    """Every kind of file that takes ioctls, by name, in the order of `uapi.KINDS`."""
    for module in pkgutil.walk_packages(kernel.__path__, f"{kernel.__name__}."):
        import_module(module.name)  # some are loaded only when a kernel or a board needs them
    found = [cls for cls in _leaves(File) if cls.ioctls]
    order = {kind: place for place, kind in enumerate(uapi.KINDS)}
    for cls in sorted(found, key=lambda cls: (order.get(cls.kind, len(order)), cls.variant)):  # type: ignore[call-overload]
        yield f"{cls.kind} ({cls.variant})" if cls.variant else cls.kind, cls


def _leaves(cls: type[File]) -> Iterator[type[File]]:
    children = cls.__subclasses__()
    if cls.__module__.startswith("kvmvfio_emu.") and not children:
        yield cls
    for child in children:
        yield from _leaves(child)


def offer(profile: Profile) -> Offer:
    """The listing of one kernel. Numbers of ioctls are strings, in hexadecimal, as people look for them."""
    listing: Offer = {"ioctls": {}, "devices": {}, "attributes": {}, "capabilities": {}, "differences": {}}
    for name, cls in file_classes():
        if not profile.offers(cls.when):
            continue
        has = [decl for decl in cls.ioctls.values() if profile.offers(decl.when)]
        listing["ioctls"][name] = {
            uapi.ioctl_name(decl.number, cls.kind): f"{decl.number:#010x}"
            for decl in sorted(has, key=lambda decl: decl.number & 0xFFFF)
        }
        _add_attributes(listing, name, file_attributes(cls), profile)
    for device in DEVICE_TYPES:
        if profile.offers(device.when):
            number = int(getattr(uapi, device.type_name))
            listing["devices"][device.type_name] = {"type": number, "host_gic": device.host_gic or None}
            _add_attributes(listing, device.type_name, device.attributes, profile)
    listing["capabilities"] = {name: value for name, value in sorted(profile.capabilities.items()) if value}
    for difference in profiles.differences(Profile):
        value = getattr(profile, difference.name)
        listing["differences"][difference.name] = {
            "value": list(value) if isinstance(value, tuple) else value,
            "what": difference.what,
            "since": difference.since,
        }
    return listing


def file_attributes(cls: type[File]) -> list[AttrGroup]:
    """The attributes that a file has itself, on kernels that let it be asked for them."""
    asked = cls.ioctls.get(uapi.KVM_HAS_DEVICE_ATTR)
    rows: Iterable[AttrGroup] = getattr(cls, "attributes", ())
    return [replace(row, when=f"{asked.when} {row.when}") for row in rows] if asked is not None else []


def _add_attributes(listing: Offer, owner: str, rows: Iterable[AttrGroup], profile: Profile) -> None:
    for row in offered(rows, profile):
        group = listing["attributes"].setdefault(owner, {}).setdefault(row.group, {})
        if row.names:
            group.update({name: int(getattr(uapi, name)) for name in row.names})
        else:
            group["*"] = row.encodes


class Change(NamedTuple):
    """One thing that two kernels offer differently; ``left`` or ``right`` is None where it is missing."""

    section: str
    item: str
    left: Any
    right: Any


def changes(left: Offer, right: Offer) -> list[Change]:
    """In what two listings differ, in their order."""
    found = []
    for section in left:
        one, other = _flat(left[section]), _flat(right[section])
        for item in [*one, *(item for item in other if item not in one)]:
            if one.get(item) != other.get(item):
                found.append(Change(section, item, one.get(item), other.get(item)))
    return found


def _flat(items: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by the names on the way to them. What describes a difference, and is the same for all, stays out."""
    flat: dict[str, Any] = {}
    for name, value in items.items():
        if not isinstance(value, dict):
            flat[prefix + name] = value
        elif "what" in value:
            flat[prefix + name] = value["value"]
        else:
            flat.update(_flat(value, f"{prefix}{name} "))
    return flat
