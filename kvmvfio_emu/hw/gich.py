"""The virtualisation part of a GICv2 (Arm IHI 0048B, chapter 5): list registers, maintenance, virtual CPU interface.

The hypervisor writes list registers (GICH); the guest acknowledges and completes through the virtual CPU interface
(GICV) without an exit. A list register with the HW bit names a physical interrupt, which the hardware deactivates when
the guest completes the virtual one: the heart of a forwarded interrupt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

SPURIOUS = 1023
#: What GICV_IAR reads when only an interrupt of group 1 is to be acknowledged, which takes GICV_AIAR.
OTHER_GROUP = 1022
#: GICV_IIDR: a GICv2 (architecture version 2) by Arm.
IIDR = 2 << 16 | 0x43B

LR_VIRTUAL_ID = 0x3FF
LR_PHYSICAL_SHIFT = 10
LR_SOURCE_SHIFT = 10
LR_EOI = 1 << 19
LR_PRIORITY_SHIFT = 23
LR_PENDING = 1 << 28
LR_ACTIVE = 1 << 29
LR_STATE = LR_PENDING | LR_ACTIVE
LR_GROUP1 = 1 << 30
LR_HW = 1 << 31

HCR_EN = 1 << 0
HCR_UIE = 1 << 1

MISR_EOI = 1 << 0
MISR_U = 1 << 1

#: Bits of GICV_CTLR in ``ctlr_kept``.
_ENABLE_GROUP1, _ACK_CTL, _FIQ_ENABLE = 1 << 1, 1 << 2, 1 << 3
_IDLE = 0x100
#: Instead of an interrupt id: an active priority that the hypervisor wrote.
_RESTORED = -1


def lr_virtual_id(lr: int) -> int:
    """The interrupt that the guest sees."""
    return lr & LR_VIRTUAL_ID


def lr_physical_id(lr: int) -> int:
    """The physical interrupt of a list register with the HW bit."""
    return lr >> LR_PHYSICAL_SHIFT & 0x3FF


def lr_source(lr: int) -> int:
    """The requesting CPU of an SGI."""
    return 0 if lr & LR_HW else lr >> LR_SOURCE_SHIFT & 7


def lr_priority(lr: int) -> int:
    """The priority as the guest sees it, 8 bits of which the register stores the upper 5."""
    return (lr >> LR_PRIORITY_SHIFT & 0x1F) << 3


def lr_text(lr: int) -> str:
    """A list register in words, e.g. ``112 pending HW->112``."""
    state = {0: "invalid", LR_PENDING: "pending", LR_ACTIVE: "active", LR_STATE: "pending+active"}[lr & LR_STATE]
    tail = f" HW->{lr_physical_id(lr)}" if lr & LR_HW else " EOI" if lr & LR_EOI else ""
    return f"{lr_virtual_id(lr)} {state}{tail}"


class VirtualInterface:
    """GICH and GICV of one vCPU.

    ``lr`` are the raw list registers; ``deactivate`` is called with a physical id when a guest completes a list
    register with the HW bit.
    """

    def __init__(self, list_registers: int, deactivate: Callable[[int], None]) -> None:
        if not 1 <= list_registers <= 64:
            raise ValueError("a GIC has 1 to 64 list registers")
        self.lr = [0] * list_registers
        self.hcr = 0
        self.eisr = 0
        #: GICV_CTLR.EOImode of the guest.
        self.eoi_mode = 0
        self.enabled = True
        self.ctlr_kept = 0  #: GICV_CTLR but for the enable of group 0 and EOImode
        self.pmr = 0xF8
        self.bpr = 2
        self.abpr = 3
        self._deactivate = deactivate
        self._running: list[tuple[int, int]] = []

    # -- the hypervisor's side ------------------------------------------------------------------------------

    @property
    def elrsr(self) -> int:
        """Bit n set: list register n is empty (no state and no EOI maintenance outstanding)."""
        return sum(1 << n for n, lr in enumerate(self.lr) if not lr & LR_STATE and not self.eisr >> n & 1)

    @property
    def misr(self) -> int:
        """Why a maintenance interrupt is asserted; 0: it is not."""
        status = MISR_EOI if self.eisr else 0
        if self.hcr & HCR_UIE and sum(1 for lr in self.lr if lr & LR_STATE) <= 1:
            status |= MISR_U
        return status

    @property
    def maintenance(self) -> bool:
        """Whether the maintenance interrupt line is high."""
        return bool(self.hcr & HCR_EN) and bool(self.misr)

    def valid(self) -> Iterator[tuple[int, int]]:
        """(index, list register) of those that hold a pending or active interrupt."""
        return ((n, lr) for n, lr in enumerate(self.lr) if lr & LR_STATE)

    @staticmethod
    def text(lr: int) -> str:
        """A list register in words; see `lr_text`."""
        return lr_text(lr)

    @staticmethod
    def virtual_id(lr: int) -> int:
        """The guest interrupt that a list register holds."""
        return lr_virtual_id(lr)

    # -- the guest's side -----------------------------------------------------------------------------------

    @property
    def running_priority(self) -> int:
        """GICV_RPR; 0x100 when idle."""
        return self._running[-1][0] if self._running else _IDLE

    @property
    def apr(self) -> int:
        """GICH_APR: bit n set, something of priority n << 3 runs."""
        return sum({1 << (priority >> 3) for priority, _ in self._running})

    @apr.setter
    def apr(self, value: int) -> None:
        known = {priority >> 3: (priority, irq) for priority, irq in self._running}
        levels = [level for level in reversed(range(32)) if value >> level & 1]
        self._running = [known.get(level, (level << 3, _RESTORED)) for level in levels]

    @property
    def signalled(self) -> bool:
        """Whether the virtual IRQ input of the vCPU is asserted."""
        found = self._highest()
        return found is not None and bool(self.lr[found] & LR_GROUP1 or not self.ctlr_kept & _FIQ_ENABLE)

    @property
    def fiq_signalled(self) -> bool:
        """Whether the virtual FIQ input is: by an interrupt of group 0, where the guest has asked for that."""
        found = self._highest()
        return found is not None and not self.lr[found] & LR_GROUP1 and bool(self.ctlr_kept & _FIQ_ENABLE)

    def iar(self) -> int:
        """GICV_IAR: pending to active. Returns id | source << 10; 1023 for nothing, 1022 for one of group 1."""
        return self._acknowledge(alias=False)

    def aiar(self) -> int:
        """GICV_AIAR: the same for group 1 alone."""
        return self._acknowledge(alias=True)

    def _acknowledge(self, *, alias: bool) -> int:
        seen, found = self._look(alias=alias), self._highest()
        if found is not None and seen & LR_VIRTUAL_ID < OTHER_GROUP:
            lr = self.lr[found]
            self.lr[found] = lr & ~LR_PENDING | LR_ACTIVE
            self._running.append((lr_priority(lr), lr_virtual_id(lr)))
        return seen

    def eoir(self, irq: int) -> None:
        """GICV_EOIR: priority drop, and completion when the guest's EOImode is 0."""
        irq &= LR_VIRTUAL_ID
        if irq >= 1020:
            return
        for index in reversed(range(len(self._running))):
            if self._running[index][1] in (irq, _RESTORED):
                del self._running[index]
                break
        if not self.eoi_mode:
            self._complete(irq)

    def dir(self, irq: int) -> None:
        """GICV_DIR: completion when the guest's EOImode is 1, nothing otherwise."""
        if self.eoi_mode:
            self._complete(irq & LR_VIRTUAL_ID)

    def hppir(self) -> int:
        """GICV_HPPIR: what `iar` would return, without acknowledging."""
        return self._look(alias=False)

    def ahppir(self) -> int:
        """GICV_AHPPIR: what `aiar` would return."""
        return self._look(alias=True)

    def _look(self, *, alias: bool) -> int:
        found = self._highest()
        if found is None or not self._visible(found, alias):
            return SPURIOUS if found is None or alias else OTHER_GROUP
        return lr_virtual_id(self.lr[found]) | lr_source(self.lr[found]) << 10

    def _visible(self, index: int, alias: bool) -> bool:
        """Whether that register names a list register's interrupt, by its group."""
        if self.lr[index] & LR_GROUP1:
            return alias or bool(self.ctlr_kept & _ACK_CTL)
        return not alias

    def _highest(self) -> int | None:
        if not self.hcr & HCR_EN:
            return None
        best: tuple[int, int, int] | None = None
        for index, lr in enumerate(self.lr):
            on = self.ctlr_kept & _ENABLE_GROUP1 if lr & LR_GROUP1 else self.enabled
            if on and lr & LR_STATE == LR_PENDING:
                key = (lr_priority(lr), lr_virtual_id(lr), index)
                if best is None or key < best:
                    best = key
        if best is None or best[0] >= min(self.pmr, self.running_priority):
            return None
        return best[2]

    def _complete(self, irq: int) -> None:
        for index, lr in enumerate(self.lr):
            if lr & LR_ACTIVE and lr_virtual_id(lr) == irq:
                self.lr[index] = lr = lr & ~LR_ACTIVE
                if lr & LR_HW:
                    self._deactivate(lr_physical_id(lr))
                elif lr & LR_EOI and not lr & LR_PENDING:
                    self.eisr |= 1 << index
                return

    def check(self) -> None:
        """Raise AssertionError on a state that the architecture forbids."""
        seen: set[int] = set()
        for index, lr in self.valid():
            assert not (lr & LR_HW and lr & LR_STATE == LR_STATE), f"LR{index} is pending and active with HW set"
            key = lr_virtual_id(lr) | lr_source(lr) << 10
            assert key not in seen, f"interrupt {lr_virtual_id(lr)} is in two list registers"
            seen.add(key)
