"""The Ethernet controller of Calxeda's Highbank and Midway, whose main interrupt was the first one forwarded.

Real hardware, as far as Linux's drivers/net/ethernet/calxeda/xgmac.c and QEMU's model of it tell: offsets and
bits of the registers; the version number; list base, poll demand and start bits; descriptors of 4 words (8
with BUS_MODE.ATDS): flags, buffer sizes, two buffer addresses; ownership, first, last, end-of-ring and
chained bits; frame length and type in the last receive descriptor, the checksum (FCS) counted in unless it is
stripped; three interrupt outputs. By analogy with Synopsys's smaller GMAC: the chained bit of a receive
descriptor, the truncation error, TPS and RPS on clearing a start bit, the missed frame counter cleared by
reading, loopback in MAC_CONTROL.

Decisions of ours, where nothing says more:

* A frame goes through at once. There are no FIFOs: a frame that finds no receive descriptor is lost, counted.
* NIS and AIS are always the or of their enabled status bits: clearing the causes clears them and the line.
* TI is set after each frame, whether or not its last descriptor asks for an interrupt. RU is set when a frame
  finds no descriptor, TU when the transmitter has come to the end of what it owns.
* A DMA fault sets FBI and stops that direction until a software reset. Process states read as zero.
* A frame to send that is longer than a length field can tell sets TJT and is lost; an empty one is ignored.
* Address filters, checksum offload (HW_FEATURE says none), padding, statistics, flow control and descriptor
  skip length are not modelled: their registers store what is written, statistics read as zero.
* Reset programs address 0 as firmware would: parameter ``mac``, by default 02:00 and the registers' address.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.hw.board import DeviceSpec
from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices import xgmac_registers as reg
from kvmvfio_emu.hw.devices.base import Device, DmaFault, Line
from kvmvfio_emu.hw.devices.xgmac_registers import ABNORMAL, NORMAL, Status, XgmacRegisters


@dataclass(slots=True)
class _Descriptor:
    at: int
    flags: int
    sizes: int
    buffer1: int
    buffer2: int
    chained: bool  #: buffer2 is the address of the next descriptor
    end_of_ring: bool

    def buffers(self) -> Iterator[tuple[int, int]]:
        """(address, size) of those that are there."""
        if size := self.sizes & 0x1FFF:
            yield self.buffer1, size
        if not self.chained and (size := self.sizes >> 16 & 0x1FFF):
            yield self.buffer2, size


class Xgmac(Device):
    """One controller. Lines: 0 main, 1 power management, 2 low power idle; a board may wire fewer.

    A frame is bytes without FCS. `receive` is the cable's end; `on_transmit` is called with what the device
    sends. Parameters in the board file: ``loopback = true``, what is sent is received;
    ``mac = "02:00:00:00:00:01"``.
    """

    controls = ("reset", "raise_interrupt", "power_management", "low_power_idle")

    def __init__(self, spec: DeviceSpec, lines: tuple[Line, ...], clock: Clock) -> None:
        super().__init__(spec, lines, clock)
        self._mac = _mac(spec)
        loopback = spec.parameters.get("loopback", False)
        if not isinstance(loopback, bool):
            raise BoardError(f"device {spec.name}: parameter loopback is {loopback!r}, not true or false")
        if unknown := spec.parameters.keys() - {"loopback", "mac"}:
            raise BoardError(f"device {spec.name}: an xgmac has no parameter {min(unknown)!r}")
        self.on_transmit: Callable[[bytes], object] = self.receive if loopback else lambda frame: None
        self._frame = b""
        self._started = 0
        self._halted: set[str] = set()
        self.registers = XgmacRegisters(self)
        self.reset()

    # -- the host's side ------------------------------------------------------------------------------------

    def read(self, region: int, offset: int, size: int) -> int:
        """A register access; region 0 is the only one."""
        return self.registers.read(offset, size) if region == 0 else 0

    def generation(self) -> int:
        """As `Device`."""
        return self.registers.changes

    def peek(self, region: int, offset: int, size: int) -> int:
        """As `read`, without the side effects (the counter of missed frames is cleared by reading)."""
        return self.registers.peek(offset, size) if region == 0 else 0

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        """A register access; region 0 is the only one."""
        if region == 0:
            self.registers.write(offset, size, value)

    def reset(self) -> None:
        """As after power-on; also what BUS_MODE.SWR does."""
        self._frame = b""
        self._started = 0
        self._halted.clear()
        self.registers.reset()
        self.registers["ADDRESS_LOW0"] = int.from_bytes(self._mac[:4], "little")
        self.registers["ADDRESS_HIGH0"] = int.from_bytes(self._mac[4:], "little")
        super().reset()

    # -- the outside's side ---------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> bool:
        """A frame comes in from the cable; False if it was lost (receiver off, no descriptor, DMA fault)."""
        if not 0 < len(frame) <= reg.MAX_FRAME:
            raise ValueError(f"a frame has 1 to {reg.MAX_FRAME} bytes, not {len(frame)}")
        on = self.registers.CONTROL & reg.DMA_SR and self.registers.MAC_CONTROL & reg.MAC_RE
        if not on or "rx" in self._halted:
            return False
        try:
            return self._store(frame)
        except DmaFault:
            self._halted.add("rx")
            self.raise_interrupt(Status.FBI)
            return False

    def raise_interrupt(self, bits: int = Status.RI) -> None:
        """Set status bits as the hardware would, without a frame: for tests of the interrupt path alone."""
        self.registers.STATUS |= bits & (NORMAL | ABNORMAL)
        self._update()

    def power_management(self, level: bool) -> None:
        """A wake-up event begins or ends; line 1 follows unless INT_STATUS masks it."""
        self._event(reg.INT_PMT, level)

    def low_power_idle(self, level: bool) -> None:
        """The link enters or leaves low power idle; line 2 follows."""
        self._event(reg.INT_LPI, level)

    # -- interrupts -----------------------------------------------------------------------------------------

    def _event(self, bit: int, level: bool) -> None:
        status = self.registers.INT_STATUS & ~bit
        self.registers.INT_STATUS = status | bit if level else status
        self._update()

    def _update(self, _written: int = 0) -> None:
        registers = self.registers
        causes = registers.STATUS & registers.INTR_ENA
        summary = (Status.NIS if causes & NORMAL else 0) | (Status.AIS if causes & ABNORMAL else 0)
        registers.STATUS = registers.STATUS & (NORMAL | ABNORMAL) | summary
        # Whoever takes an interrupt may come back here at once: look again before the next line.
        self._drive(0, summary & registers.INTR_ENA)
        masked = registers.INT_STATUS & reg.INT_PMT_MASKED
        self._drive(1, 0 if masked else registers.INT_STATUS & reg.INT_PMT)
        self._drive(2, registers.INT_STATUS & reg.INT_LPI)

    def _drive(self, index: int, cause: int) -> None:
        if index < len(self.lines):
            self.lines[index].set(bool(cause))

    # -- what register writes set off -----------------------------------------------------------------------

    def _bus_mode_written(self, value: int) -> None:
        if value & reg.BUS_SWR:
            self.reset()

    def _rx_list_written(self, _value: int) -> None:
        self.registers.CURRENT_RX = self.registers.RX_LIST

    def _tx_list_written(self, _value: int) -> None:
        self.registers.CURRENT_TX = self.registers.TX_LIST

    def _tx_poll_written(self, _value: int) -> None:
        self._transmit()

    def _missed_frames_read(self, value: int) -> int:
        self.registers.MISSED_FRAMES = 0
        return value

    def _control_written(self, _value: int) -> None:
        before, now = self._started, self.registers.CONTROL & (reg.DMA_ST | reg.DMA_SR)
        self._started = now
        stopped = before & ~now
        if stopped:
            tps = Status.TPS if stopped & reg.DMA_ST else 0
            self.raise_interrupt(tps | (Status.RPS if stopped & reg.DMA_SR else 0))
        if now & ~before & reg.DMA_ST:
            self._transmit()

    # -- DMA ------------------------------------------------------------------------------------------------

    def _fetch(self, at: int, layout: reg.ListBits) -> _Descriptor:
        words = struct.unpack("<4I", self.dma.read(at, 16))
        flags, sizes, buffer1, buffer2 = words
        link = words[layout.word]
        return _Descriptor(
            at, flags, sizes, buffer1, buffer2, bool(link & layout.chained), bool(link & layout.end_of_ring)
        )

    def _close(self, descriptor: _Descriptor, flags: int) -> None:
        self.dma.write(descriptor.at, struct.pack("<I", flags))

    def _after(self, descriptor: _Descriptor, base: int) -> int:
        if descriptor.end_of_ring:
            return base
        stride = 32 if self.registers.BUS_MODE & reg.BUS_ATDS else 16
        return descriptor.buffer2 if descriptor.chained else descriptor.at + stride & 0xFFFFFFFF

    @property
    def _transmitting(self) -> bool:
        on = self.registers.CONTROL & reg.DMA_ST and self.registers.MAC_CONTROL & reg.MAC_TE
        return bool(on) and "tx" not in self._halted

    def _transmit(self) -> None:
        """Send what the transmit list holds. A callback may come back here: all state is in the registers."""
        registers = self.registers
        while self._transmitting:
            try:
                descriptor = self._fetch(registers.CURRENT_TX, reg.TX)
                if not descriptor.flags & reg.OWN:
                    self.raise_interrupt(Status.TU)
                    return
                part = b"".join(self.dma.read(at, size) for at, size in descriptor.buffers())
                self._close(descriptor, descriptor.flags & ~reg.OWN)
            except DmaFault:
                self._halted.add("tx")
                self.raise_interrupt(Status.FBI)
                return
            registers.CURRENT_TX = self._after(descriptor, registers.TX_LIST)
            before = b"" if descriptor.flags & reg.TX_FIRST else self._frame
            self._frame = (before + part)[: reg.MAX_FRAME + 1]
            if descriptor.flags & reg.TX_LAST:
                frame, self._frame = self._frame, b""
                self._send(frame)

    def _send(self, frame: bytes) -> None:
        if len(frame) > reg.MAX_FRAME:
            self.raise_interrupt(Status.TJT)
            return
        if frame:
            (self.receive if self.registers.MAC_CONTROL & reg.MAC_LOOPBACK else self.on_transmit)(frame)
        self.raise_interrupt(Status.TI)

    def _store(self, frame: bytes) -> bool:
        registers = self.registers
        typed = len(frame) >= 14 and int.from_bytes(frame[12:14], "big") >= 0x600
        if typed or not registers.MAC_CONTROL & reg.MAC_ACS:
            frame += struct.pack("<I", zlib.crc32(frame))
        rest, at = frame, registers.CURRENT_RX
        taken: dict[int, _Descriptor] = {}
        while rest and at not in taken:
            descriptor = self._fetch(at, reg.RX)
            if not descriptor.flags & reg.OWN:
                break
            taken[at] = descriptor
            for address, size in descriptor.buffers():
                if rest:
                    self.dma.write(address, rest[:size])
                    rest = rest[size:]
            at = self._after(descriptor, registers.RX_LIST)
        if not taken:
            registers.MISSED_FRAMES = min(registers.MISSED_FRAMES + 1, 0xFFFF)
            self.raise_interrupt(Status.RU)
            return False
        length = len(frame) - len(rest)
        last = reg.RX_LAST | length << reg.RX_LENGTH_SHIFT | (reg.RX_TYPE if typed else 0)
        flags = [0] * len(taken)
        flags[0] |= reg.RX_FIRST
        flags[-1] |= last | (reg.RX_TRUNCATED if rest else 0)
        for descriptor, status in zip(taken.values(), flags, strict=True):
            self._close(descriptor, status)
        registers.CURRENT_RX = at
        self.raise_interrupt(Status.RI | (Status.RU if rest else 0))
        return not rest


def _mac(spec: DeviceSpec) -> bytes:
    text = spec.parameters.get("mac")
    if text is None:
        return b"\x02\x00" + (spec.regions[0].address & 0xFFFFFFFF if spec.regions else 0).to_bytes(4, "big")
    parts = text.split(":") if isinstance(text, str) else []
    if len(parts) != 6 or not all(len(part) == 2 and set(part.lower()) <= set("0123456789abcdef") for part in parts):
        raise BoardError(f"device {spec.name}: parameter mac is {text!r}, not like '02:00:00:00:00:01'")
    return bytes.fromhex("".join(parts))
