"""The argument of an ioctl as plain data: its struct, what follows it, what it points at; descriptors by what they are.

For calls that are happening, and for those in other programs' logs: memory is read through a function. What cannot be
read, or makes no sense, is left out, since a call may be wrong in every way; nothing here raises for bad data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.view import names, structs

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.attributes import AttrGroup

#: ``read(pointer, size)``: that much of the caller's memory, or None.
Read = Callable[[Any, int], "bytes | bytearray | None"]
#: What a descriptor of the caller is, "eventfd 12", "group 5"; None when that is not known.
Describe = Callable[[int], "str | None"]

#: The longest argument that is looked at.
_LIMIT = 1 << 16
_NAME = 256
_ATTR = "struct kvm_device_attr"
#: Register ids have their size as a power of two here.
_REG_SIZE_SHIFT, _REG_SIZE_MASK = 52, 0xF
_INDEX_REGISTER = {
    "KVM_DEV_ARM_VGIC_GRP_DIST_REGS",
    "KVM_DEV_ARM_VGIC_GRP_CPU_REGS",
    "KVM_DEV_ARM_VGIC_GRP_REDIST_REGS",
    "KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS",
}


class Decoder:
    """Decodes the arguments of one caller.

    ``attributes``: what the device that is asked declares, where that is known; ``forward_struct``: the payload of the
    forward control, which the drafts of the series have different ones of.
    """

    def __init__(
        self,
        read: Read,
        describe: Describe = lambda fd: None,
        *,
        attributes: Iterable[AttrGroup] = (),
        forward_struct: str = "",
    ) -> None:
        self.read = read
        self._describe = describe
        self._attributes = attributes
        self._forward_struct = forward_struct

    def descriptor(self, fd: int) -> Any:
        """``{"fd": 9, "is": "eventfd 12"}``, or the bare number of what is not open or not known."""
        what = self._describe(fd) if fd >= 0 else None
        return fd if what is None else {"fd": fd, "is": what}

    def argument(self, row: uapi.Ioctl, pointer: Any, *, after: bool = False) -> dict[str, Any] | None:
        """What ``row``'s argument at ``pointer`` says; ``after`` the call, with what the kernel has put there.

        None when there is no struct, or none that can be read.
        """
        special = _SPECIAL.get(row.name)
        if special is not None:
            return special(self, row, pointer, after)
        if row.struct is None:
            return None
        return self._fixed(row.struct, row.size, pointer)

    def _fixed(self, ctype: str, size: int, pointer: Any) -> dict[str, Any] | None:
        data = self.read(pointer, size)
        if not ctype.startswith("struct "):
            return None if data is None else {"value": int.from_bytes(data, "little", signed=ctype == "int")}
        if data is None and size > 16:
            data = self.read(pointer, 16)  # an older caller's struct is shorter than ours
        return None if data is None else structs.fields(ctype, data, self.descriptor)

    # -- what varies in length ------------------------------------------------------------------------------------

    def _counted(self, row: uapi.Ioctl, pointer: Any, after: bool) -> dict[str, Any] | None:
        """A struct with an array behind it, of as many elements as it says."""
        assert row.struct is not None
        ctype = row.struct.removeprefix("struct ")
        fixed = self._fixed(row.struct, row.size, pointer)
        header = self.read(pointer, row.size)
        if header is None or fixed is None:
            return fixed
        element, count = _ELEMENTS[ctype](uapi.view(row.struct, bytes(header)))
        data = self.read(pointer, row.size + element * count) if row.size + element * count <= _LIMIT else None
        parsed = None if data is None else _parse(ctype, bytes(data))
        return fixed if parsed is None else fixed | self._plain(parsed, ctype)

    def _growing(self, row: uapi.Ioctl, pointer: Any, after: bool) -> dict[str, Any] | None:
        """An info struct; after the call with the capabilities that follow it."""
        assert row.struct is not None
        fixed = self._fixed(row.struct, row.size, pointer)
        head = self.read(pointer, 4)
        if not after or fixed is None or head is None:
            return fixed
        argsz = int.from_bytes(head, "little")
        data = self.read(pointer, argsz) if row.size < argsz <= _LIMIT else None
        ctype = row.struct.removeprefix("struct ")
        parsed = None if data is None else _parse(ctype, bytes(data))
        if parsed is not None and parsed["caps"]:
            fixed["caps"] = [self._capability(ctype, cap) for cap in parsed["caps"]]
        return fixed

    def _capability(self, ctype: str, cap: Any) -> dict[str, Any]:
        body = cap["body"]
        inside = self._plain(body, "cap") if isinstance(body, dict) else {"data": body.hex()}
        return {"id": names.scalar(f"{ctype}.cap", cap["id"]), **inside}

    def _plain(self, parsed: Any, ctype: str) -> dict[str, Any]:
        """A container of construct's as plain data."""
        found: dict[str, Any] = {}
        for key, value in parsed.items():
            if value is None or key.strip("_").startswith(names.PADDING) or key == "_io":
                continue
            place = f"{ctype}.{key}"
            if isinstance(value, list):
                found[key] = [self._element(value, place, parsed) for value in value[: structs.SHOWN]]
                if len(value) > structs.SHOWN:
                    found[f"{key}_more"] = len(value) - structs.SHOWN
            elif isinstance(value, dict):
                found |= self._plain(value, ctype)  # a union: its members belong to the struct
            elif isinstance(value, bytes):
                found[key] = value.hex()
            elif place in names.DESCRIPTORS:
                found[key] = self.descriptor(structs.signed(value))
            else:
                found[key] = names.scalar(place, value)
        return found

    def _element(self, value: Any, place: str, parsed: Any) -> Any:
        if isinstance(value, dict):
            return self._plain(value, "kvm_irq_routing_entry" if place == "kvm_irq_routing.entries" else place)
        eventfds = place == "vfio_irq_set.data" and parsed["flags"] & uapi.VFIO_IRQ_SET_DATA_EVENTFD
        if eventfds or place in names.DESCRIPTORS:
            return self.descriptor(structs.signed(value))
        return names.number(value, hexadecimal=place == "kvm_reg_list.reg")

    # -- what is somewhere else -----------------------------------------------------------------------------------

    def _device_attr(self, row: uapi.Ioctl, pointer: Any, after: bool) -> dict[str, Any] | None:
        """The attribute by its names, and its value where the call sets it or has got it."""
        data = self.read(pointer, uapi.sizeof(_ATTR))
        if data is None:
            return None
        attr = uapi.view(_ATTR, bytes(data))
        declared = next((a for a in self._attributes if a.number == attr.group and a.has(attr.attr)), None)
        group = declared or next((a for a in self._attributes if a.number == attr.group), None)
        found: dict[str, Any] = {"group": int(attr.group) if group is None else group.group}
        found["attr"] = self._attribute(declared, int(attr.attr))
        if attr.flags:
            found["flags"] = hex(attr.flags)
        if row.name == "KVM_HAS_DEVICE_ATTR":
            return found
        found["addr"] = hex(attr.addr)
        if declared is not None and declared.payload and after == (row.name == "KVM_GET_DEVICE_ATTR"):
            value = self._payload(declared, attr.addr)
            if value is not None:
                found["value"] = value
        return found

    @staticmethod
    def _attribute(declared: AttrGroup | None, attr: int) -> Any:
        if declared is not None and declared.names:
            return next(name for name in declared.names if getattr(uapi, name) == attr)
        if declared is not None and declared.group in _INDEX_REGISTER:
            return {"register": hex(attr & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK), "cpu": attr >> 32}
        return names.number(attr, hexadecimal=True)

    def _payload(self, declared: AttrGroup, address: int) -> Any:
        ctype = declared.payload
        if declared.group == "KVM_DEV_VFIO_DEVICE":
            ctype = self._forward_struct or ctype
        if ctype == "struct kvm_vfio_dev_irq":
            row = uapi.Ioctl(0, "", ctype, "in", uapi.sizeof(ctype))
            return self._counted(row, address, False)
        data = self.read(address, uapi.sizeof(ctype))
        if data is None:
            return None
        if ctype.startswith("struct "):
            return structs.fields(ctype, data, self.descriptor)
        value = int.from_bytes(data, "little", signed=not ctype.startswith("u"))
        if declared.group == "KVM_DEV_VFIO_GROUP":
            return self.descriptor(value)
        return names.number(value, hexadecimal=declared.group != "KVM_DEV_ARM_VGIC_GRP_NR_IRQS")

    def _one_reg(self, row: uapi.Ioctl, pointer: Any, after: bool) -> dict[str, Any] | None:
        found = self._fixed("struct kvm_one_reg", 16, pointer)
        if found is not None and after == (row.name == "KVM_GET_ONE_REG"):
            data = self.read(pointer, 16) or bytes(16)
            identifier, address = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8))
            value = self.read(address, 1 << (identifier >> _REG_SIZE_SHIFT & _REG_SIZE_MASK))
            if value is not None:
                found["value"] = hex(int.from_bytes(value, "little"))
        return found

    def _ranges(self, row: uapi.Ioctl, pointer: Any, after: bool) -> dict[str, Any] | None:
        """iommufd's lists of IOVA ranges, in an array of their own."""
        assert row.struct is not None
        found = self._fixed(row.struct, row.size, pointer)
        if found is not None and after == (row.name == "IOMMU_IOAS_IOVA_RANGES"):
            count, data = found["num_iovas"], None
            if 0 < count <= structs.SHOWN:
                data = self.read(int(str(found["allowed_iovas"]), 0), 16 * count)
            if data is not None:
                words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
                pairs = zip(words[::2], words[1::2], strict=True)
                found["iovas"] = [{"start": hex(start), "last": hex(last)} for start, last in pairs]
        return found

    def _feature(self, row: uapi.Ioctl, pointer: Any, after: bool) -> dict[str, Any] | None:
        data = self.read(pointer, 8)
        if data is None:
            return None
        argsz, flags = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
        names_of = ("PROBE", "SET", "GET")
        verbs = [name for name in names_of if flags & getattr(uapi, f"VFIO_DEVICE_FEATURE_{name}")]
        feature = names.scalar("vfio_device_feature.feature", flags & uapi.VFIO_DEVICE_FEATURE_MASK)
        return {"argsz": argsz, "flags": "|".join(verbs) or 0, "feature": feature}

    def _device_name(self, row: uapi.Ioctl, pointer: Any, after: bool) -> dict[str, Any] | None:
        text = b""
        while len(text) < _NAME and b"\0" not in text:
            piece = self._string_piece(pointer, len(text))
            if piece is None:
                break
            text += piece
        return {"name": text.partition(b"\0")[0].decode(errors="backslashreplace")} if text else None

    def _string_piece(self, pointer: Any, at: int) -> bytes | None:
        for size in (32, 1):  # it may end right before memory that is not there
            data = self.read(pointer + at if isinstance(pointer, int) else pointer[at:], size)
            if data:
                return bytes(data)
        return None

    def _int_fd(self, row: uapi.Ioctl, pointer: Any, after: bool) -> dict[str, Any] | None:
        data = self.read(pointer, 4)
        return None if data is None else {"fd": self.descriptor(int.from_bytes(data, "little", signed=True))}

    def _irq_line(self, row: uapi.Ioctl, pointer: Any, after: bool) -> dict[str, Any] | None:
        """KVM_IRQ_LINE's number by its parts, as Arm has them."""
        found = self._fixed("struct kvm_irq_level", 8, pointer)
        data = self.read(pointer, 4)
        if found is not None and data is not None:
            irq = int.from_bytes(data, "little")
            kind = irq >> uapi.KVM_ARM_IRQ_TYPE_SHIFT & uapi.KVM_ARM_IRQ_TYPE_MASK
            found["irq"] = names.number(irq, hexadecimal=True)
            found.pop("status", None)
            if kind in (uapi.KVM_ARM_IRQ_TYPE_SPI, uapi.KVM_ARM_IRQ_TYPE_PPI):
                vcpu = irq >> uapi.KVM_ARM_IRQ_VCPU_SHIFT & uapi.KVM_ARM_IRQ_VCPU_MASK
                found["line"] = f"{'SPI' if kind == uapi.KVM_ARM_IRQ_TYPE_SPI else f'vCPU {vcpu}'} {irq & 0xFFFF}"
        return found


_Special = Callable[[Decoder, uapi.Ioctl, Any, bool], "dict[str, Any] | None"]
_SPECIAL: dict[str, _Special] = {
    "KVM_SET_GSI_ROUTING": Decoder._counted,
    "KVM_GET_REG_LIST": Decoder._counted,
    "KVM_SET_SIGNAL_MASK": Decoder._counted,
    "VFIO_DEVICE_SET_IRQS": Decoder._counted,
    "VFIO_DEVICE_PCI_HOT_RESET": Decoder._counted,
    "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO": Decoder._counted,
    "VFIO_DEVICE_GET_INFO": Decoder._growing,
    "VFIO_DEVICE_GET_REGION_INFO": Decoder._growing,
    "VFIO_IOMMU_GET_INFO": Decoder._growing,
    "VFIO_DEVICE_FEATURE": Decoder._feature,
    "VFIO_GROUP_GET_DEVICE_FD": Decoder._device_name,
    "VFIO_GROUP_SET_CONTAINER": Decoder._int_fd,
    "KVM_SET_DEVICE_ATTR": Decoder._device_attr,
    "KVM_GET_DEVICE_ATTR": Decoder._device_attr,
    "KVM_HAS_DEVICE_ATTR": Decoder._device_attr,
    "KVM_GET_ONE_REG": Decoder._one_reg,
    "KVM_SET_ONE_REG": Decoder._one_reg,
    "KVM_IRQ_LINE": Decoder._irq_line,
    "KVM_IRQ_LINE_STATUS": Decoder._irq_line,
    "IOMMU_IOAS_IOVA_RANGES": Decoder._ranges,
    "IOMMU_IOAS_ALLOW_IOVAS": Decoder._ranges,
}

_IRQ_DATA = {uapi.VFIO_IRQ_SET_DATA_BOOL: 1, uapi.VFIO_IRQ_SET_DATA_EVENTFD: 4}
#: Struct -> (size, count) of the elements behind its header.
_ELEMENTS: dict[str, Callable[[Any], tuple[int, int]]] = {
    "kvm_irq_routing": lambda s: (uapi.sizeof("struct kvm_irq_routing_entry"), s.nr),
    "kvm_reg_list": lambda s: (8, s.n),
    "kvm_signal_mask": lambda s: (1, s.len),
    "kvm_vfio_dev_irq": lambda s: (4, s.count),
    "vfio_irq_set": lambda s: (_IRQ_DATA.get(s.flags & uapi.VFIO_IRQ_SET_DATA_TYPE_MASK, 0), s.count),
    "vfio_pci_hot_reset": lambda s: (4, s.count),
    "vfio_pci_hot_reset_info": lambda s: (8, s.count),
}


def _parse(ctype: str, data: bytes) -> Any:
    """What `uapi.payloads` declares of ``ctype``; None when ``data`` is malformed."""
    from kvmvfio_emu.uapi import payloads  # here: construct takes a while to load

    try:
        return getattr(payloads, ctype).parse(data)
    except payloads.ConstructError:
        return None
