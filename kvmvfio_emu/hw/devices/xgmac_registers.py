"""The register map of the xgmac, and the bits of its descriptors.

`kvmvfio_emu.hw.devices.xgmac` says what of it is real.
"""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

from kvmvfio_emu.hw.registers import Action, Field, Register, RegisterBank


class Status(IntFlag):
    """Bits of STATUS and INTR_ENA."""

    TI = 1 << 0  #: a frame was transmitted
    TPS = 1 << 1  #: transmitter stopped
    TU = 1 << 2  #: no transmit descriptor left
    TJT = 1 << 3  #: transmit jabber
    OVF = 1 << 4  #: receive overflow
    UNF = 1 << 5  #: transmit underflow
    RI = 1 << 6  #: a frame was received
    RU = 1 << 7  #: no receive descriptor
    RPS = 1 << 8  #: receiver stopped
    RWT = 1 << 9  #: receive watchdog
    ETI = 1 << 10  #: early transmit
    FBI = 1 << 13  #: fatal bus error: DMA faulted
    ERI = 1 << 14  #: early receive
    AIS = 1 << 15  #: an enabled bit of `ABNORMAL` is set
    NIS = 1 << 16  #: an enabled bit of `NORMAL` is set


NORMAL = int(Status.TI | Status.TU | Status.RI | Status.ERI)
#: All the others but the two summaries.
ABNORMAL = 0x67FF & ~NORMAL

MAC_RE, MAC_TE, MAC_ACS, MAC_LOOPBACK = 1 << 2, 1 << 3, 1 << 7, 1 << 12
BUS_SWR, BUS_ATDS = 1 << 0, 1 << 7
DMA_SR, DMA_ST = 1 << 1, 1 << 13
INT_LPI, INT_PMT, INT_PMT_MASKED = 1 << 6, 1 << 7, 1 << 23

OWN = 1 << 31
TX_LAST, TX_FIRST = 1 << 29, 1 << 28
RX_LAST, RX_FIRST = 1 << 8, 1 << 9
RX_TYPE = 1 << 5  #: the frame has an EtherType, and its FCS is in the buffer
RX_TRUNCATED = 1 << 15 | 1 << 14  #: error summary, descriptor error
RX_LENGTH_SHIFT = 16
#: The longest frame that the length of a receive descriptor can tell of, without its FCS.
MAX_FRAME = 0x3FFF - 4


class ListBits(NamedTuple):
    """How a descriptor says what comes after it: bits of its word number ``word``."""

    word: int
    end_of_ring: int
    chained: int


TX = ListBits(0, 1 << 21, 1 << 20)
RX = ListBits(1, 1 << 15, 1 << 14)


class XgmacRegisters(RegisterBank):
    """The register map."""

    MAC_CONTROL = Register(0x000)
    FRAME_FILTER = Register(0x004)
    FLOW_CONTROL = Register(0x018)
    VLAN_TAG = Register(0x01C)
    VERSION = Register(0x020, Action.RO, reset=0x1012)
    VLAN_INCLUDE = Register(0x024)
    LPI_CONTROL = Register(0x028)
    LPI_TIMER = Register(0x02C)
    TX_PACE = Register(0x030)
    VLAN_HASH = Register(0x034)
    INT_STATUS = Register(0x03C, fields=(Field(6, 2, Action.RO), Field(23)), on_write="_update")
    HIGHS = tuple(Register(0x040 + 8 * n, mask=0xFF00FFFF, name=f"ADDRESS_HIGH{n}") for n in range(32))
    LOWS = tuple(Register(0x044 + 8 * n, name=f"ADDRESS_LOW{n}") for n in range(32))
    HASHES = tuple(Register(0x300 + 4 * n, name=f"HASH{n}") for n in range(16))
    OPERATION_MODE = Register(0x400, fields=(Field(0, 20), Field(20, 1, Action.WO), Field(21, 11)))
    REMOTE_WAKE = Register(0x700)
    PMT = Register(0x704)
    MMC_CONTROL = Register(0x800)
    BUS_MODE = Register(0xF00, fields=(Field(0, 1, Action.WO), Field(1, 31)), on_write="_bus_mode_written")
    TX_POLL = Register(0xF04, Action.WO, on_write="_tx_poll_written")
    RX_POLL = Register(0xF08, Action.WO)
    RX_LIST = Register(0xF0C, on_write="_rx_list_written")
    TX_LIST = Register(0xF10, on_write="_tx_list_written")
    STATUS = Register(0xF14, Action.W1C, mask=0x1E7FF, on_write="_update")
    CONTROL = Register(0xF18, on_write="_control_written")
    INTR_ENA = Register(0xF1C, mask=0x1E7FF, on_write="_update")
    MISSED_FRAMES = Register(0xF20, Action.RO, on_read="_missed_frames_read")
    RI_WATCHDOG = Register(0xF24)
    AXI_BUS = Register(0xF28)
    AXI_STATUS = Register(0xF2C, Action.RO)
    CURRENT_TX = Register(0xF48, Action.RO)
    CURRENT_RX = Register(0xF4C, Action.RO)
    HW_FEATURE = Register(0xF58, Action.RO)
