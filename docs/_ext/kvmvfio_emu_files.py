"""Directives that write the pages of the reference for each kind of file and each type of device.

``{kvmvfio-file} page`` lists what a file answers (`PAGES`); with ``:own-node:`` only, or else not, what belongs to a
VFIO device's own node. ``{kvmvfio-device} KVM_DEV_TYPE_*`` lists a device type's attributes, ``{kvmvfio-ioctls}`` all
ioctls.
"""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from typing import Any, ClassVar

from docutils.parsers.rst import directives
from kvmvfio_emu_written import Written, docstring
from sphinx.application import Sphinx

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.kernel.file import File, IoctlDecl
from kvmvfio_emu.kernel.iommufd.file import IommufdFile
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.device import DeviceFile, KvmDevice
from kvmvfio_emu.kernel.kvm.module import DEVICE_TYPES
from kvmvfio_emu.kernel.kvm.stats import VmStatsFile
from kvmvfio_emu.kernel.kvm.system import KvmFile
from kvmvfio_emu.kernel.kvm.vcpufile import VcpuFile
from kvmvfio_emu.kernel.kvm.vmfile import VmFile
from kvmvfio_emu.kernel.vfio.container import ContainerFile
from kvmvfio_emu.kernel.vfio.group import GroupFile
from kvmvfio_emu.kernel.vfio.pci import PciDeviceFile
from kvmvfio_emu.kernel.vfio.platform import PlatformDeviceFile
from kvmvfio_emu.view.catalogue import documented
from kvmvfio_emu.view.offered import file_attributes

_ERRNO = re.compile(r"\bE[A-Z0-9]{2,}\b")
#: What only a VFIO device's own node answers, by the condition of its declaration.
_OWN_NODE = "vfio_device_cdev"
#: Page of the reference -> the class that answers there.
PAGES: dict[str, type[File]] = {
    "kvm": KvmFile,
    "vm": VmFile,
    "vcpu": VcpuFile,
    "device": DeviceFile,
    "stats": VmStatsFile,
    "container": ContainerFile,
    "group": GroupFile,
    "vfio-platform": PlatformDeviceFile,
    "vfio-pci": PciDeviceFile,
    "vfio-cdev": PciDeviceFile,
    "iommufd": IommufdFile,
}


def known_to(condition: str) -> str:
    """Which of our profiles have what is declared with ``condition``, as a sentence; nothing when all do."""
    having = [name for name in profiles.names() if profiles.load(name).offers(condition)]
    if not condition or len(having) == len(profiles.names()):
        return ""
    if not having:
        return f" No profile that comes with the package has it (it needs `{condition}`)."
    return f" *Profiles:* {', '.join(f'`{name}`' for name in having)}."


class FilePage(Written):
    """The ioctls of one kind of file, from their declarations."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"own-node": directives.flag}

    def markdown(self) -> str:
        """The page's second half."""
        cls = PAGES[self.arguments[0]]
        own_node = "own-node" in self.options
        unknown = errno.errorcode[cls.unknown_errno]
        lines: list[str] = []
        decls = [decl for number, decl in sorted(cls.ioctls.items()) if (decl.when == _OWN_NODE) is own_node]
        for decl in decls:
            lines += entry(cls, decl)
        rows = file_attributes(cls)
        for group in dict.fromkeys(row.group for row in rows):
            lines += groups([row for row in rows if row.group == group], "")
        if not own_node:
            listed = [row for (where, _), row in uapi.IOCTLS.items() if where == cls.kind]
            missing = ", ".join(f"`{row.name}`" for row in listed if row.number not in cls.ioctls)
            lines += ["", "## Any other number", "", f"`{unknown}`."]
            lines += [f"So are these, which are in the headers: {missing}."] if missing else []
        return "\n".join(lines)


def entry(cls: type[File], decl: IoctlDecl) -> list[str]:
    """What the reference says of one ioctl."""
    handler = getattr(cls, decl.handler)
    errors = {said.errno for said in documented(handler)}
    listed = uapi.IOCTLS.get((cls.kind, decl.number))  # type: ignore[call-overload]
    argument = "a number, or none."
    if listed is not None and listed.struct:
        argument = f"a pointer to `{listed.struct}`."
    if decl.struct:
        errors.add("EFAULT")
        way = "in and out" if decl.out else "in"
        argument = f"`{decl.struct}`, {decl.minsz} bytes, {way}" + (", and what follows it." if decl.tail else ".")
    if decl.argsz:
        errors.add("EINVAL")
        argument += f" `argsz` says how many bytes the caller has; fewer than {decl.minsz} are `EINVAL`."
    absent = f" To the others `{errno.errorcode[decl.absent]}`." if decl.absent is not None else ""
    lines = ["", f"## {uapi.ioctl_name(decl.number, cls.kind)}", "", docstring(handler), ""]
    lines += [f"* `{decl.number:#010x}`", f"* Argument: {argument}"]
    if errors:
        lines.append(f"* Errors: {', '.join(f'`{code}`' for code in sorted(errors))}")
    if known_to(decl.when):
        lines.append(f"*{known_to(decl.when)}{absent}")
    return lines


class DevicePage(Written):
    """The attributes of a type of in-kernel device, from their declarations."""

    required_arguments = 1

    def markdown(self) -> str:
        """The page's second half; a type that was rewritten once has a part for each."""
        classes = [cls for cls in DEVICE_TYPES if cls.type_name == self.arguments[0]]
        lines: list[str] = []
        for cls in classes:
            era = f", {_era(cls)}" if len(classes) > 1 else ""
            gic = f" The host has a GICv{cls.host_gic}." if cls.host_gic else ""
            lines += ["", f"## Creating it{era}", ""]
            lines += [f"`KVM_CREATE_DEVICE` with type `{cls.type_name}` = {getattr(uapi, cls.type_name)}.{gic}"]
            lines += [known_to(cls.when).lstrip(), f"The descriptor's link says `anon_inode:{cls.name}`."]
            if _ERRNO.search(docstring(cls.create)):
                lines += ["", f"Errors: {docstring(cls.create)}"]
            for group in dict.fromkeys(row.group for row in cls.attributes):
                lines += groups([row for row in cls.attributes if row.group == group], era)
        return "\n".join(lines)


def _era(cls: type[KvmDevice]) -> str:
    return "since Linux 4.7" if "!vgic_modern" not in cls.when else "until Linux 4.6"


def groups(rows: list[AttrGroup], era: str) -> list[str]:
    """What the reference says of one group of attributes."""
    lines = ["", f"## {rows[0].group} ({rows[0].number}){era}"]
    for text in dict.fromkeys(replace(row, names=(), when="") for row in rows):
        lines += attributes(text, [row for row in rows if replace(row, names=(), when="") == text])
    return lines


def attributes(row: AttrGroup, alike: list[AttrGroup]) -> list[str]:
    """What the reference says of the rows of a device's attributes that differ in names and kernels only."""
    lines = ["", row.what, ""]
    for one in alike:
        lines += [f"* `{name}` = {getattr(uapi, name)}.{known_to(one.when)}" for name in one.names]
    if row.encodes:
        lines.append(f"* attribute: a {row.encodes}")
    lines.append(f"* payload at `addr`: `{row.payload}`" if row.payload else "* `addr` is not looked at")
    lines.append("* set and get" if row.gettable else "* set only")
    meanings = [error.split(" ", 1) for error in row.errors]
    if row.payload:
        meanings.append(["EFAULT", "the payload cannot be read or written"])
    if row.encodes and "ignored" not in row.encodes:
        meanings.append(["ENXIO", "no such register"])
    if meanings:
        lines += ["", "| errno | when |", "|---|---|", *(f"| `{code}` | {meaning} |" for code, meaning in meanings)]
    return lines


class Ioctls(Written):
    """Every ioctl that any kind of file answers, with the page that describes it."""

    def markdown(self) -> str:
        """A table."""
        lines = ["| ioctl | number | on |", "|---|---|---|"]
        for page, cls in PAGES.items():
            for number, decl in sorted(cls.ioctls.items()):
                if (decl.when == _OWN_NODE) is (page == "vfio-cdev"):
                    name = uapi.ioctl_name(number, cls.kind)
                    lines.append(f"| `{name}` | `{number:#010x}` | [{page}](fd/{page}.md#{name.lower()}) |")
        return "\n".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("kvmvfio-file", FilePage)
    app.add_directive("kvmvfio-device", DevicePage)
    app.add_directive("kvmvfio-ioctls", Ioctls)
    return {"parallel_read_safe": True}
