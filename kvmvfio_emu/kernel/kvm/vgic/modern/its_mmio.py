"""The registers of a virtual ITS (arch/arm64/kvm/vgic/vgic-its.c: its_registers)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmvfio_emu.hw import gicv3 as g
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.modern import its_commands
from kvmvfio_emu.kernel.kvm.vgic.modern.baser import ITS_BASER, ITS_CBASER, extract, update
from kvmvfio_emu.kernel.kvm.vgic.modern.its_tables import DEVICE_BITS, ENTRY_SIZE, ID_BITS
from kvmvfio_emu.kernel.kvm.vgic.modern.mmio import W32, W64
from kvmvfio_emu.kernel.kvm.vgic.modern.mmio_v3 import PRODUCT_KVM

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.its import Its

FRAME_SIZE = 0x20000
#: Part number, architecture and size of the frame, then what every GIC has.
_IDS = dict(
    zip(
        (g.GITS_PIDR0, g.GITS_PIDR1, g.GITS_PIDR2, g.GITS_PIDR4, *range(g.GITS_CIDR0, g.GITS_CIDR0 + 16, 4)),
        (0x92, 0xB4, g.PIDR2_GICV3 | 0xB, 0x40, 0x0D, 0xF0, 0x05, 0xB1),
        strict=True,
    )
)
_OFFSET_MASK = (1 << 20) - (1 << 5)
_BASER_FIXED = g.GITS_BASER_ENTRY_SIZE_MASK | g.GITS_BASER_TYPE_MASK


@dataclass(frozen=True, slots=True)
class ItsRegister:
    """One register (or eight of a kind): loads and stores of (ITS, offset, bytes[, value])."""

    name: str
    offset: int
    length: int
    read: Callable[[Its, int, int], int]
    write: Callable[[Its, int, int, int], None]
    user_write: Callable[[Its, int, int, int], None] | None = None
    access: frozenset[int] = W32 | W64


def find(offset: int) -> ItsRegister | None:
    """The register at ``offset`` of the ITS's frames."""
    return next((one for one in REGISTERS if one.offset <= offset < one.offset + one.length), None)


def _guest_register(offset: int, size: int) -> ItsRegister | None:
    register = find(offset)
    return None if register is None or size not in register.access or offset % size else register


def read(its: Its, offset: int, size: int) -> int:
    """A guest's load; zero where nothing is."""
    register = _guest_register(offset, size)
    return 0 if register is None else register.read(its, offset, size)


def write(its: Its, offset: int, size: int, value: int) -> None:
    """A guest's store."""
    register = _guest_register(offset, size)
    if register is not None:
        register.write(its, offset, size, value)


def _ignore(its: Its, offset: int, size: int, value: int) -> None:
    """Read-only."""


def _get_control(its: Its, offset: int, size: int) -> int:
    quiescent = g.GITS_CTLR_QUIESCENT if its.creadr == its.cwriter else 0
    return quiescent | (g.GITS_CTLR_ENABLE if its.enabled else 0)


def _put_control(its: Its, offset: int, size: int, value: int) -> None:
    enable = bool(value & g.GITS_CTLR_ENABLE)
    tables = its.device_table & its.collection_table & its.cbaser & g.GITS_BASER_VALID
    if enable and not its.enabled and not tables:
        return
    its.enabled = enable
    if not enable:
        its.forget_cached()
    its_commands.process(its)


def _get_iidr(its: Its, offset: int, size: int) -> int:
    return PRODUCT_KVM << g.IIDR_PRODUCT_SHIFT | its.revision << g.IIDR_REVISION_SHIFT | g.IMPLEMENTER_ARM


def _user_put_iidr(its: Its, offset: int, size: int, value: int) -> None:
    its.set_revision((value & g.IIDR_REVISION_MASK) >> g.IIDR_REVISION_SHIFT)


def _get_typer(its: Its, offset: int, size: int) -> int:
    value = g.GITS_TYPER_PLPIS | ENTRY_SIZE - 1 << g.GITS_TYPER_ITT_ENTRY_SIZE_SHIFT
    value |= DEVICE_BITS - 1 << g.GITS_TYPER_DEV_BITS_SHIFT | ID_BITS - 1 << g.GITS_TYPER_ID_BITS_SHIFT
    return extract(value, offset & 7, size)


def _get_cbaser(its: Its, offset: int, size: int) -> int:
    return extract(its.cbaser, offset & 7, size)


def _put_cbaser(its: Its, offset: int, size: int, value: int) -> None:
    if not its.enabled:
        its.cbaser = ITS_CBASER.sanitise(update(its.cbaser, offset, size, value))
        its.creadr = its.cwriter = 0


def _get_cwriter(its: Its, offset: int, size: int) -> int:
    return extract(its.cwriter, offset & 7, size)


def _put_cwriter(its: Its, offset: int, size: int, value: int) -> None:
    new = update(its.cwriter, offset, size, value) & _OFFSET_MASK
    if new < its_commands.queue_size(its):
        its.cwriter = new
        its_commands.process(its)


def _get_creadr(its: Its, offset: int, size: int) -> int:
    return extract(its.creadr, offset & 7, size)


def _user_put_creadr(its: Its, offset: int, size: int, value: int) -> None:
    if its.enabled:
        raise KernelError(errno.EBUSY, "the ITS is enabled")
    if value & _OFFSET_MASK >= its_commands.queue_size(its):
        raise KernelError(errno.EINVAL, f"offset {value & _OFFSET_MASK:#x} is beyond the command queue")
    its.creadr = value & _OFFSET_MASK


def _get_baser(its: Its, offset: int, size: int) -> int:
    value = {0: its.device_table, 1: its.collection_table}.get(offset // 8 & 7, 0)
    return extract(value, offset & 7, size)


def _put_baser(its: Its, offset: int, size: int, value: int) -> None:
    index = offset // 8 & 7
    if its.enabled or index > 1:
        return
    old = its.collection_table if index else its.device_table
    new = update(old, offset, size, value) & ~_BASER_FIXED
    new |= old & g.GITS_BASER_TYPE_MASK | ENTRY_SIZE - 1 << g.GITS_BASER_ENTRY_SIZE_SHIFT
    new = ITS_BASER.sanitise(new) & ~g.GITS_BASER_PAGE_SIZE_MASK | g.GITS_BASER_PAGE_SIZE_64K
    if index:
        its.collection_table = new & ~g.GITS_BASER_INDIRECT  # has one level
    else:
        its.device_table = new
    if not new & g.GITS_BASER_VALID:
        if index:
            its.free_collections()
        else:
            its.free_devices()


def _get_id(its: Its, offset: int, size: int) -> int:
    return _IDS.get(offset, 0)


REGISTERS = (
    ItsRegister("GITS_CTLR", g.GITS_CTLR, 4, _get_control, _put_control, access=W32),
    ItsRegister("GITS_IIDR", g.GITS_IIDR, 4, _get_iidr, _ignore, _user_put_iidr, W32),
    ItsRegister("GITS_TYPER", g.GITS_TYPER, 8, _get_typer, _ignore),
    ItsRegister("GITS_CBASER", g.GITS_CBASER, 8, _get_cbaser, _put_cbaser),
    ItsRegister("GITS_CWRITER", g.GITS_CWRITER, 8, _get_cwriter, _put_cwriter),
    ItsRegister("GITS_CREADR", g.GITS_CREADR, 8, _get_creadr, _ignore, _user_put_creadr),
    ItsRegister("GITS_BASERn", g.GITS_BASER, 64, _get_baser, _put_baser),
    ItsRegister("GITS_IDREGS", g.GITS_IDREGS, 48, _get_id, _ignore, access=W32),
)
