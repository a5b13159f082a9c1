"""The virtual CPU interface's registers (GICV_*) as the guest reaches them, and their saved form (GRP_CPU_REGS)."""

from __future__ import annotations

from collections.abc import Callable

from kvmvfio_emu.hw.gich import IIDR, VirtualInterface

CPU_SIZE = 0x2000
#: Implementer 0x43B, architecture version 2, product 0x4B.
GICC_IIDR = 0x4B << 20 | 2 << 16 | 0x43B

_CTLR, _PMR, _BPR, IAR, EOIR, _RPR, _HPPIR, _ABPR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C
_AIAR, _AEOIR, _AHPPIR, _APR0, _IIDR, _DIR = 0x20, 0x24, 0x28, 0xD0, 0xFC, 0x1000
_CTLR_ENABLE, _CTLR_EOIMODE, _CTLR_BITS = 1 << 0, 1 << 9, 0x21F
_PRIORITY_SHIFT, _PRIORITY_BITS = 3, 0x1F
#: The smallest binary points of this CPU interface, as the guest reads them.
_MIN_BPR, _MIN_ABPR = 2, 3


def _ctlr(interface: VirtualInterface) -> int:
    return interface.ctlr_kept | int(interface.enabled) * _CTLR_ENABLE | interface.eoi_mode * _CTLR_EOIMODE


def _set_ctlr(interface: VirtualInterface, value: int) -> None:
    interface.enabled = bool(value & _CTLR_ENABLE)
    interface.eoi_mode = int(bool(value & _CTLR_EOIMODE))
    interface.ctlr_kept = value & _CTLR_BITS & ~(_CTLR_ENABLE | _CTLR_EOIMODE)


def _set_pmr(interface: VirtualInterface, value: int) -> None:
    interface.pmr = value & _PRIORITY_BITS << _PRIORITY_SHIFT


def _set_saved_pmr(interface: VirtualInterface, value: int) -> None:
    interface.pmr = (value & _PRIORITY_BITS) << _PRIORITY_SHIFT


def _set_bpr(interface: VirtualInterface, value: int) -> None:
    interface.bpr = value & 7


def _set_abpr(interface: VirtualInterface, value: int) -> None:
    interface.abpr = value & 7


#: What is saved and restored with a virtual machine: offset -> (get, set). They are the fields of GICH_VMCR, so the
#: priority mask is five bits here and the upper ones of a byte for the guest.
_SAVED: dict[int, tuple[Callable[[VirtualInterface], int], Callable[[VirtualInterface, int], None]]] = {
    _CTLR: (_ctlr, _set_ctlr),
    _PMR: (lambda interface: interface.pmr >> _PRIORITY_SHIFT, _set_saved_pmr),
    _BPR: (lambda interface: interface.bpr, _set_bpr),
    _ABPR: (lambda interface: interface.abpr, _set_abpr),
    _IIDR: (lambda interface: GICC_IIDR, lambda interface, value: None),
}
#: (offset, length) of what GRP_CPU_REGS has; the active priorities (0xD0) are RAZ/WI in this age.
_SAVED_RANGES = [(_CTLR, 12), (_ABPR, 4), (_APR0, 16), (_IIDR, 4)]

_READS: dict[int, Callable[[VirtualInterface], int]] = {
    IAR: VirtualInterface.iar,
    _AIAR: VirtualInterface.aiar,
    _HPPIR: VirtualInterface.hppir,
    _AHPPIR: VirtualInterface.ahppir,
    _IIDR: lambda interface: IIDR,  # the hardware's; what is saved is KVM's
    _RPR: lambda interface: min(interface.running_priority, 0xFF),
    _PMR: lambda interface: interface.pmr,
    _BPR: lambda interface: max(interface.bpr, _MIN_BPR),
    _ABPR: lambda interface: max(interface.abpr, _MIN_ABPR),
}
_WRITES: dict[int, Callable[[VirtualInterface, int], None]] = {
    EOIR: VirtualInterface.eoir,
    _AEOIR: VirtualInterface.eoir,
    _DIR: VirtualInterface.dir,
    _PMR: _set_pmr,
}


def known(offset: int) -> bool:
    """Whether GRP_CPU_REGS has 32 bits at ``offset``, aligned or not."""
    return any(base <= offset and offset + 4 <= base + length for base, length in _SAVED_RANGES)


def read_saved(interface: VirtualInterface, offset: int) -> int:
    """A register as GRP_CPU_REGS gets it."""
    return _SAVED[offset][0](interface) if offset in _SAVED else 0


def write_saved(interface: VirtualInterface, offset: int, value: int) -> None:
    """A register as GRP_CPU_REGS sets it."""
    if offset in _SAVED:
        _SAVED[offset][1](interface, value)


def guest_read(interface: VirtualInterface, offset: int) -> int:
    """A guest's load; no exit. 0 where nothing is."""
    reader = _READS.get(offset)
    return reader(interface) if reader else read_saved(interface, offset)


def guest_write(interface: VirtualInterface, offset: int, value: int) -> None:
    """A guest's store; no exit, but a completion may raise the maintenance interrupt."""
    writer = _WRITES.get(offset)
    if writer:
        writer(interface, value)
    else:
        write_saved(interface, offset, value)
