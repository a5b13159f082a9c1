"""Local APICs of an x86 virtual machine, as far as messages and MP states show them (arch/x86/kvm/lapic.c).

No guest programs them: they stay in xAPIC mode and switched off by software, with the ids of their vCPUs. So they
swallow fixed interrupts; INIT, SIPI, NMI and the wake-up of a halted vCPU they take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu import uapi

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.routing import Message
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

#: Delivery modes, bits 8 to 10 of a message's data.
_FIXED, _LOWEST, _SMI, _WAKE, _NMI, _INIT, _STARTUP = range(7)
_LOGICAL, _REDIRECTION_HINT = 1 << 2, 1 << 3  #: of a message's address
_BROADCAST, _X2APIC_BROADCAST = 0xFF, 0xFFFFFFFF


class Lapic:
    """One vCPU's; and its MP state, which depends on it."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.id = vcpu.number & 0xFF
        self._bootstrap = vcpu.number == 0
        self._init = self._sipi = self._unhalted = False
        vcpu.mp_state = uapi.KVM_MP_STATE_RUNNABLE if self._bootstrap else uapi.KVM_MP_STATE_UNINITIALIZED

    def has(self, physical: int) -> bool:
        """Whether that is its id. Models kvm_apic_match_physical_addr."""
        return physical == (self.vcpu.number if physical > 0xFF else self.id)

    def accept(self, mode: int) -> int:
        """Take a message of a delivery mode: 1, or 0 when it is swallowed. Models __apic_accept_irq."""
        if mode == _INIT:
            self._init, self._sipi = True, False
        elif mode == _STARTUP:
            self._sipi = True
        elif mode == _WAKE:
            self._unhalted = True
        return int(mode in (_WAKE, _NMI, _INIT, _STARTUP))

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE; SIPI_RECEIVED is another name for a SIPI that waits."""
        if state == uapi.KVM_MP_STATE_SIPI_RECEIVED:
            state, self._sipi = uapi.KVM_MP_STATE_INIT_RECEIVED, True
        self._enter(state)

    def _enter(self, state: int) -> None:
        self.vcpu.mp_state = state
        if state == uapi.KVM_MP_STATE_RUNNABLE:
            self._unhalted = False

    def take_init(self) -> bool:
        """Reset by an INIT that waits, if one does; the first half of kvm_apic_accept_events."""
        waited, self._init = self._init, False
        if waited:
            self._enter(uapi.KVM_MP_STATE_RUNNABLE if self._bootstrap else uapi.KVM_MP_STATE_INIT_RECEIVED)
        return waited

    def mp_state(self) -> int:
        """The state, after a SIPI that waits was taken; the second half of it."""
        if self._sipi:
            self._sipi = False
            if self.vcpu.mp_state == uapi.KVM_MP_STATE_INIT_RECEIVED:
                self._enter(uapi.KVM_MP_STATE_RUNNABLE)
        halted = self.vcpu.mp_state in (uapi.KVM_MP_STATE_HALTED, uapi.KVM_MP_STATE_AP_RESET_HOLD)
        return uapi.KVM_MP_STATE_RUNNABLE if halted and self._unhalted else self.vcpu.mp_state


class Lapics:
    """All of a virtual machine. ``smm``: KVM knows system management mode."""

    def __init__(self, *, smm: bool) -> None:
        self.of: dict[Vcpu, Lapic] = {}
        self._smm = smm
        #: KVM_X2APIC_API_USE_32BIT_IDS, _DISABLE_BROADCAST_QUIRK.
        self.ids_32 = self.no_quirk = False
        #: Physical id -> whose it is. None: there was no vCPU yet, or two share an id, so that all are asked each time.
        self._map: dict[int, Lapic] | None = None

    def recalculate(self) -> None:
        """Note who has which id; when a local APIC is reset: one of a new vCPU that does not count yet, or by an INIT.

        Models kvm_recalculate_apic_map.
        """
        found: dict[int, Lapic] = {}
        for lapic in self.of.values():
            if self.ids_32:
                if lapic.vcpu.number > 0xFF:
                    found[lapic.vcpu.number] = lapic
                found.setdefault(lapic.id, lapic)
            elif lapic.id in found:
                self._map = None
                return
            else:
                found[lapic.id] = lapic
        self._map = found

    def mp_state(self, vcpu: Vcpu) -> int:
        """KVM_GET_MP_STATE."""
        lapic = self.of[vcpu]
        if lapic.take_init():
            self.recalculate()
        return lapic.mp_state()

    def deliver(self, message: Message) -> int:
        """Below zero: there was nobody to be asked; else how many took it. Models kvm_irq_delivery_to_apic."""
        to, mode = self._destination(message), message.data >> 8 & 7
        logical, arbitrated = bool(message.address & _LOGICAL), bool(message.address & _REDIRECTION_HINT)
        broadcast = to == _BROADCAST or (self.no_quirk and to == _X2APIC_BROADCAST)
        if self._map is not None and not broadcast:
            # No logical id leads anywhere: whoever is switched off has none.
            chosen = [self._map[to]] if not logical and to in self._map else []
            return sum(self._accept(lapic, mode) for lapic in chosen)
        if mode == _LOWEST and not logical and broadcast:
            mode = _FIXED
        if mode == _LOWEST or arbitrated:
            return -1  # among those that are switched on
        matching = [lapic for lapic in self.of.values() if to == _BROADCAST or (not logical and lapic.has(to))]
        return sum(self._accept(lapic, mode) for lapic in matching) if matching else -1

    def _accept(self, lapic: Lapic, mode: int) -> int:
        return lapic.accept(mode) if mode != _SMI else int(self._smm)

    def _destination(self, message: Message) -> int:
        low = message.address >> 12 & 0xFF
        return low | (message.address >> 32 & 0xFFFFFF00) if self.ids_32 else low
