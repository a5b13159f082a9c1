"""What varies in length, which a C struct cannot say: tables, arrays chosen by a flag, capability chains.

Each name is the C struct's, and is a `construct` declaration: ``vfio_irq_set.parse(data)`` gives a container
whose fields are named as in C, ``vfio_irq_set.build({...})`` gives the bytes. Building computes counts and
``argsz``; parsing ignores bytes after ``argsz``. Malformed bytes raise `ConstructError`.

For decoding, tests and rare calls: it is too slow for each interrupt. Byte order and layout are the host's.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import construct as c  # type: ignore[import-untyped]
from construct import this

from kvmvfio_emu import uapi

__all__ = [
    "ConstructError",
    "VfioInfo",
    "kvm_irq_routing",
    "kvm_irq_routing_entry",
    "kvm_reg_list",
    "kvm_signal_mask",
    "kvm_vfio_dev_irq",
    "vfio_device_info",
    "vfio_iommu_type1_info",
    "vfio_irq_set",
    "vfio_pci_hot_reset",
    "vfio_pci_hot_reset_info",
    "vfio_region_info",
]

ConstructError = c.ConstructError
"""What everything here raises, made public so that callers need not import construct."""

U8, U16, U32, U64, S32 = c.Int8un, c.Int16un, c.Int32un, c.Int64un, c.Int32sn


def _length(field: str) -> Callable[[Any], int]:
    """The count of an array, for `construct.Rebuild`."""
    return lambda context: len(context[field])


def _counted(struct: str, element: int, array: str) -> c.Construct:
    """argsz for a struct that ends in an array: the caller's room, of which parsing demands enough."""
    return c.Rebuild(U32, lambda context: uapi.sizeof(struct) + element * len(context[array]))


def _fits(struct: str, element: int) -> c.Construct:
    return c.Check(lambda context: context.argsz >= uapi.sizeof(struct) + element * context.count)


# ---- KVM ---------------------------------------------------------------------------------------------------

_ROUTES = {
    uapi.KVM_IRQ_ROUTING_IRQCHIP: c.Struct("irqchip" / U32, "pin" / U32),
    uapi.KVM_IRQ_ROUTING_MSI: c.Struct(
        "address_lo" / U32, "address_hi" / U32, "data" / U32, "devid" / c.Default(U32, 0)
    ),
    uapi.KVM_IRQ_ROUTING_S390_ADAPTER: c.Struct(
        "ind_addr" / U64, "summary_addr" / U64, "ind_offset" / U64, "summary_offset" / U32, "adapter_id" / U32
    ),
    uapi.KVM_IRQ_ROUTING_HV_SINT: c.Struct("vcpu" / U32, "sint" / U32),
    uapi.KVM_IRQ_ROUTING_XEN_EVTCHN: c.Struct("port" / U32, "vcpu" / U32, "priority" / U32),
}

kvm_irq_routing_entry = c.Struct(
    "gsi" / U32,
    "type" / U32,
    "flags" / c.Default(U32, 0),
    "pad" / c.Default(U32, 0),
    "u" / c.Padded(32, c.Switch(this.type, _ROUTES, default=c.Bytes(32))),
)
"""``u`` depends on ``type``; of a type that is unknown it is the 32 bytes."""

kvm_irq_routing = c.Struct(
    "nr" / c.Rebuild(U32, _length("entries")),
    "flags" / c.Default(U32, 0),
    "entries" / c.Array(this.nr, kvm_irq_routing_entry),
)

kvm_reg_list = c.Struct("n" / c.Rebuild(U64, _length("reg")), "reg" / c.Array(this.n, U64))

kvm_signal_mask = c.Struct("len" / c.Rebuild(U32, _length("sigset")), "sigset" / c.Bytes(this.len))

kvm_vfio_dev_irq = c.Struct(
    "argsz" / _counted("struct kvm_vfio_dev_irq", 4, "gsi"),
    "fd" / U32,
    "index" / U32,
    "start" / c.Default(U32, 0),
    "count" / c.Rebuild(U32, _length("gsi")),
    _fits("struct kvm_vfio_dev_irq", 4),
    "gsi" / c.Array(this.count, U32),
)

# ---- VFIO --------------------------------------------------------------------------------------------------

_IRQ_DATA = {
    uapi.VFIO_IRQ_SET_DATA_NONE: (0, c.Computed(None)),
    uapi.VFIO_IRQ_SET_DATA_BOOL: (1, c.Array(this.count, U8)),
    uapi.VFIO_IRQ_SET_DATA_EVENTFD: (4, c.Array(this.count, S32)),
}


def _irq_data_size(context: Any) -> int:
    """The bytes of one element of data; 0 also for a kind that is none of the three: ``data`` refuses it."""
    return _IRQ_DATA.get(context.flags & uapi.VFIO_IRQ_SET_DATA_TYPE_MASK, (0, None))[0]


def _irq_count(context: Any) -> Any:
    """With data, as many as there are; without, what the caller says."""
    return len(context.data) if _irq_data_size(context) else context.count


def _irq_room(context: Any, count: int) -> int:
    return uapi.sizeof("struct vfio_irq_set") + _irq_data_size(context) * count


vfio_irq_set = c.Struct(
    "argsz" / c.Rebuild(U32, lambda context: _irq_room(context, _irq_count(context))),
    "flags" / U32,
    "index" / U32,
    "start" / c.Default(U32, 0),
    "count" / c.Rebuild(U32, _irq_count),
    c.Check(lambda context: context.argsz >= _irq_room(context, context.count)),
    "data"
    / c.Default(
        c.Switch(
            this.flags & uapi.VFIO_IRQ_SET_DATA_TYPE_MASK,
            {kind: array for kind, (_, array) in _IRQ_DATA.items()},
            default=c.Error,
        ),
        None,
    ),
)
"""``data`` is None, a list of bytes or a list of fds, as the one DATA bit of ``flags`` says."""

vfio_pci_hot_reset_info = c.Struct(
    "argsz" / _counted("struct vfio_pci_hot_reset_info", 8, "devices"),
    "flags" / c.Default(U32, 0),
    "count" / c.Rebuild(U32, _length("devices")),
    _fits("struct vfio_pci_hot_reset_info", 8),
    "devices" / c.Array(this.count, c.Struct("group_id" / U32, "segment" / U16, "bus" / U8, "devfn" / U8)),
)

vfio_pci_hot_reset = c.Struct(
    "argsz" / _counted("struct vfio_pci_hot_reset", 4, "group_fds"),
    "flags" / c.Default(U32, 0),
    "count" / c.Rebuild(U32, _length("group_fds")),
    _fits("struct vfio_pci_hot_reset", 4),
    "group_fds" / c.Array(this.count, S32),
)

_CAP_ALIGNMENT = 8
_CAP_HEADER = c.Struct("id" / U16, "version" / c.Default(U16, 1), "next" / U32)


class VfioInfo(c.Construct):  # type: ignore[misc]  # construct has no types
    """An info struct with the capabilities that follow it, as ``caps``: a list of ``{id, version, body}``.

    ``body`` is a container for the capability ids in ``bodies`` and bytes for the others, up to where the
    next one starts. Capabilities are laid out in order, each on a multiple of 8, as newer kernels do; a chain
    that turns back, or that leaves ``argsz``, is malformed.
    """

    def __init__(self, struct: str, caps_flag: int, fixed: c.Construct, bodies: Mapping[int, c.Construct]) -> None:
        super().__init__()
        self.struct = struct
        self.caps_flag = caps_flag
        self.fixed = fixed
        self.bodies = bodies

    def _parse(self, stream: io.BytesIO, context: Any, path: str) -> Any:
        data = c.stream_read_entire(stream, path)
        info = self.fixed.parse(data)
        info.caps = c.ListContainer()
        if info.flags & self.caps_flag and info.cap_offset:  # offset 0: argsz tells the room that they would need
            if len(data) < info.argsz:
                raise c.StreamError(f"{len(data)} of {info.argsz} bytes", path)
            info.caps.extend(self._follow(data[: info.argsz], info.cap_offset))
        return info

    def _follow(self, data: bytes, offset: int) -> Iterator[Any]:
        while offset:
            cap = _CAP_HEADER.parse(data[offset:])
            if cap.next and cap.next < offset + _CAP_HEADER.sizeof():
                raise c.ValidationError(f"capability at {offset} turns back to {cap.next}")
            body = data[offset + _CAP_HEADER.sizeof() : cap.next or None]
            offset = cap.pop("next")
            cap.body = self.bodies.get(cap.id, c.GreedyBytes).parse(body)
            yield cap

    def _build(self, obj: Any, stream: io.BytesIO, context: Any, path: str) -> Any:
        fields = dict(obj)
        caps = fields.pop("caps", ())
        chain = self._chain(caps, start=uapi.sizeof(self.struct))
        fields["argsz"] = uapi.sizeof(self.struct) + len(chain)
        fields["flags"] = fields["flags"] & ~self.caps_flag | (self.caps_flag if caps else 0)
        fields["cap_offset"] = uapi.sizeof(self.struct) if caps else 0
        c.stream_write(stream, self.fixed.build(fields) + chain, fields["argsz"], path)
        return obj

    def _chain(self, caps: Any, start: int) -> bytes:
        chain = b""
        for place, cap in enumerate(caps, 1):
            body = self.bodies.get(cap["id"], c.GreedyBytes).build(cap["body"])
            body += bytes(-len(body) % _CAP_ALIGNMENT)
            end = start + len(chain) + _CAP_HEADER.sizeof() + len(body)
            chain += _CAP_HEADER.build({**cap, "next": end if place < len(caps) else 0}) + body
        return chain


def _since(offset: int, field: c.Construct) -> c.Construct:
    """A field that an older kernel's struct, shorter by ``argsz``, does not have: None there."""
    return c.If(lambda context: context.argsz >= offset + field.sizeof(), field)


vfio_device_info = VfioInfo(
    "struct vfio_device_info",
    uapi.VFIO_DEVICE_FLAGS_CAPS,
    c.Struct(
        "argsz" / U32,
        "flags" / U32,
        "num_regions" / U32,
        "num_irqs" / U32,
        "cap_offset" / _since(16, U32),
        _since(20, c.Padding(4)),
    ),
    {uapi.VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP: c.Struct("flags" / U32, c.Padding(4))},
)

vfio_region_info = VfioInfo(
    "struct vfio_region_info",
    uapi.VFIO_REGION_INFO_FLAG_CAPS,
    c.Struct("argsz" / U32, "flags" / U32, "index" / U32, "cap_offset" / U32, "size" / U64, "offset" / U64),
    {
        uapi.VFIO_REGION_INFO_CAP_SPARSE_MMAP: c.Struct(
            "nr_areas" / c.Rebuild(U32, _length("areas")),
            c.Padding(4),
            "areas" / c.Array(this.nr_areas, c.Struct("offset" / U64, "size" / U64)),
        ),
        uapi.VFIO_REGION_INFO_CAP_TYPE: c.Struct("type" / U32, "subtype" / U32),
        uapi.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE: c.Struct(),
        uapi.VFIO_REGION_INFO_CAP_NVLINK2_SSATGT: c.Struct("tgt" / U64),
        uapi.VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD: c.Struct("link_speed" / U32, c.Padding(4)),
    },
)

vfio_iommu_type1_info = VfioInfo(
    "struct vfio_iommu_type1_info",
    uapi.VFIO_IOMMU_INFO_CAPS,
    c.Struct(
        "argsz" / U32,
        "flags" / U32,
        "iova_pgsizes" / U64,
        "cap_offset" / _since(16, U32),
        _since(20, c.Padding(4)),
    ),
    {
        uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE: c.Struct(
            "nr_iovas" / c.Rebuild(U32, _length("iova_ranges")),
            c.Padding(4),
            "iova_ranges" / c.Array(this.nr_iovas, c.Struct("start" / U64, "end" / U64)),
        ),
        uapi.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION: c.Struct(
            "flags" / U32, c.Padding(4), "pgsize_bitmap" / U64, "max_dirty_bitmap_size" / U64
        ),
        uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL: c.Struct("avail" / U32),
    },
)
