"""The virtualisation part of a GICv3 (Arm IHI 0069): list registers of 64 bits, a CPU interface in system registers.

What the guest reads as ICC_*_EL1 the hardware keeps in ICH_VMCR_EL2 (masks, binary points, enables), ICH_AP0R/AP1R_EL2
(active priorities) and the list registers (ICH_LR<n>_EL2). Only ICC_SGI*R are the hypervisor's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kvmvfio_emu.hw import gicv3
from kvmvfio_emu.hw.gich import HCR_EN, HCR_UIE, MISR_EOI, MISR_U, SPURIOUS, VirtualInterface

# ICH_VTR_EL2 of this interrupt controller.
PRIORITY_BITS = 5
#: Encoded as in ICC_CTLR_EL1: 24 bits of interrupt id.
ID_BITS = 1
AFFINITY3_VALID = True
SERROR_SUPPORT = False

LR_VIRTUAL_ID = 0xFFFFFFFF
LR_PHYSICAL_SHIFT = 32
LR_EOI = 1 << 41
LR_PRIORITY_SHIFT = 48
LR_GROUP1 = 1 << 60
LR_HW = 1 << 61
LR_PENDING = 1 << 62
LR_ACTIVE = 1 << 63
LR_STATE = LR_PENDING | LR_ACTIVE

#: ICH_AP0R0_EL2 and ICH_AP1R0_EL2 have one bit for each priority level that can preempt.
_LEVEL_SHIFT = 8 - PRIORITY_BITS
_IDLE = 0x100
_RPR_IDLE = 0xFF
#: The smallest binary points that make a difference: bits that priorities do not have never split one.
_MIN_BPR0, _MIN_BPR1 = _LEVEL_SHIFT - 1, _LEVEL_SHIFT
_BOTH = {
    gicv3.ICC_PMR_EL1,
    gicv3.ICC_BPR0_EL1,
    gicv3.ICC_BPR1_EL1,
    gicv3.ICC_CTLR_EL1,
    gicv3.ICC_SRE_EL1,
    gicv3.ICC_IGRPEN0_EL1,
    gicv3.ICC_IGRPEN1_EL1,
    gicv3.ICC_AP0R_EL1[0],
    gicv3.ICC_AP1R_EL1[0],
}
_READABLE = _BOTH | {
    gicv3.ICC_IAR0_EL1,
    gicv3.ICC_IAR1_EL1,
    gicv3.ICC_HPPIR0_EL1,
    gicv3.ICC_HPPIR1_EL1,
    gicv3.ICC_RPR_EL1,
}
_WRITABLE = _BOTH | {gicv3.ICC_EOIR0_EL1, gicv3.ICC_EOIR1_EL1, gicv3.ICC_DIR_EL1}
_BPR_MASK, _PMR_MASK = 7, 0xFF


def _priority(lr: int) -> int:
    return lr >> LR_PRIORITY_SHIFT & 0xFF


def _group(lr: int) -> int:
    return 1 if lr & LR_GROUP1 else 0


def _physical(lr: int) -> int:
    return lr >> LR_PHYSICAL_SHIFT & 0x3FF


class IchInterface(VirtualInterface):
    """ICH and virtual ICC of one vCPU.

    `enabled` is ICC_IGRPEN1, `enabled0` ICC_IGRPEN0, `bpr` and `abpr` the binary points of group 0 and 1 as written.
    """

    def __init__(self, list_registers: int, deactivate: Callable[[int], None]) -> None:
        super().__init__(list_registers, deactivate)
        self.enabled0 = False
        self.common_bpr = False
        #: Active priorities of group 0 and 1 (ICH_AP0R<n>, ICH_AP1R<n>).
        self.active_priorities = ([0], [0])

    def reset(self) -> None:
        """ICH_VMCR_EL2 and the active priorities zero."""
        self.enabled = self.enabled0 = self.common_bpr = False
        self.eoi_mode = self.pmr = self.bpr = self.abpr = 0
        self.active_priorities = ([0], [0])

    # -- the hypervisor's side ----------------------------------------------------------------------------------------

    @property
    def elrsr(self) -> int:
        """As in a GICv2."""
        return sum(1 << n for n, lr in enumerate(self.lr) if not lr & LR_STATE and not self.eisr >> n & 1)

    @property
    def misr(self) -> int:
        """As in a GICv2."""
        status = MISR_EOI if self.eisr else 0
        if self.hcr & HCR_UIE and sum(1 for lr in self.lr if lr & LR_STATE) <= 1:
            status |= MISR_U
        return status

    def valid(self) -> Iterator[tuple[int, int]]:
        """(index, list register) of those that hold a pending or active interrupt."""
        return ((n, lr) for n, lr in enumerate(self.lr) if lr & LR_STATE)

    @staticmethod
    def text(lr: int) -> str:
        """A list register in words."""
        state = {0: "invalid", LR_PENDING: "pending", LR_ACTIVE: "active", LR_STATE: "pending+active"}[lr & LR_STATE]
        tail = f" HW->{_physical(lr)}" if lr & LR_HW else " EOI" if lr & LR_EOI else ""
        return f"{lr & LR_VIRTUAL_ID} {state}{tail}"

    @staticmethod
    def virtual_id(lr: int) -> int:
        """As `VirtualInterface`."""
        return lr & LR_VIRTUAL_ID

    # -- priorities ---------------------------------------------------------------------------------------------------

    def _split(self, group: int) -> int:
        """The bits of a priority that decide whether it preempts."""
        if group and not self.common_bpr:
            return -1 << max(self.abpr, _MIN_BPR1) & 0xFF
        return -2 << max(self.bpr, _MIN_BPR0) & 0xFF

    @property
    def running_priority(self) -> int:
        """The highest active priority; 0x100 when there is none."""
        active = self.active_priorities[0][0] | self.active_priorities[1][0]
        return _IDLE if not active else ((active & -active).bit_length() - 1) << _LEVEL_SHIFT

    def _highest(self) -> int | None:
        if not self.hcr & HCR_EN:
            return None
        on = (self.enabled0, self.enabled)
        best: tuple[int, int, int] | None = None
        for index, lr in enumerate(self.lr):
            if lr & LR_STATE == LR_PENDING and on[_group(lr)]:
                key = (_priority(lr), lr & LR_VIRTUAL_ID, index)
                if best is None or key < best:
                    best = key
        if best is None or best[0] >= self.pmr:
            return None
        group = _group(self.lr[best[2]])
        return best[2] if best[0] & self._split(group) < self.running_priority else None

    @property
    def signalled(self) -> bool:
        """Whether the virtual IRQ input is asserted: by an interrupt of group 1."""
        found = self._highest()
        return found is not None and bool(self.lr[found] & LR_GROUP1)

    @property
    def fiq_signalled(self) -> bool:
        """Whether the virtual FIQ input is: by one of group 0 (ICH_VMCR_EL2.VFIQEn is fixed)."""
        found = self._highest()
        return found is not None and not self.lr[found] & LR_GROUP1

    # -- the guest's side ---------------------------------------------------------------------------------------------

    def hppir_of(self, group: int) -> int:
        """ICC_HPPIR<group>_EL1: what acknowledging would give."""
        found = self._highest()
        return SPURIOUS if found is None or _group(self.lr[found]) != group else self.lr[found] & LR_VIRTUAL_ID

    def iar_of(self, group: int) -> int:
        """ICC_IAR<group>_EL1: pending to active; an LPI has no active state and just goes."""
        found = self._highest()
        if found is None or _group(self.lr[found]) != group:
            return SPURIOUS
        lr = self.lr[found]
        irq = lr & LR_VIRTUAL_ID
        self.lr[found] = lr & ~LR_PENDING | (LR_ACTIVE if irq < gicv3.FIRST_LPI else 0)
        self.active_priorities[group][0] |= 1 << ((_priority(lr) & self._split(group)) >> _LEVEL_SHIFT)
        return irq

    def eoir_of(self, group: int, irq: int) -> None:
        """ICC_EOIR<group>_EL1: priority drop, and completion when EOImode is 0."""
        irq &= 0xFFFFFF
        if 1020 <= irq < gicv3.FIRST_LPI:
            return
        own, other = self.active_priorities[group], self.active_priorities[1 - group]
        lowest = own[0] & -own[0]
        if lowest and not other[0] & lowest - 1:
            own[0] &= ~lowest
        if not self.eoi_mode:
            self._complete(irq)

    def dir(self, irq: int) -> None:
        """ICC_DIR_EL1: completion when EOImode is 1, nothing otherwise."""
        if self.eoi_mode:
            self._complete(irq & 0xFFFFFF)

    def _complete(self, irq: int) -> None:
        for index, lr in enumerate(self.lr):
            if lr & LR_ACTIVE and lr & LR_VIRTUAL_ID == irq:
                self.lr[index] = lr = lr & ~LR_ACTIVE
                if lr & LR_HW:
                    self._deactivate(_physical(lr))
                elif lr & LR_EOI and not lr & LR_PENDING:
                    self.eisr |= 1 << index
                return

    @staticmethod
    def has(register: int, *, read: bool) -> bool:
        """Whether `read` (or `write`) serves that one."""
        return register in (_READABLE if read else _WRITABLE)

    def read(self, register: int) -> int | None:
        """A guest's MRS of an ICC register (its encoding); None: the hardware does not serve that one."""
        match register:
            case gicv3.ICC_IAR1_EL1 | gicv3.ICC_IAR0_EL1:
                return self.iar_of(int(register == gicv3.ICC_IAR1_EL1))
            case gicv3.ICC_HPPIR1_EL1 | gicv3.ICC_HPPIR0_EL1:
                return self.hppir_of(int(register == gicv3.ICC_HPPIR1_EL1))
            case gicv3.ICC_RPR_EL1:
                return min(self.running_priority, _RPR_IDLE)
            case gicv3.ICC_PMR_EL1:
                return self.pmr
            case gicv3.ICC_BPR0_EL1:
                return max(self.bpr, _MIN_BPR0)
            case gicv3.ICC_BPR1_EL1:
                return min(max(self.bpr, _MIN_BPR0) + 1, 7) if self.common_bpr else max(self.abpr, _MIN_BPR1)
            case gicv3.ICC_CTLR_EL1:
                return self.control
            case gicv3.ICC_SRE_EL1:
                return gicv3.ICC_SRE_SRE | gicv3.ICC_SRE_DFB | gicv3.ICC_SRE_DIB
            case gicv3.ICC_IGRPEN0_EL1:
                return int(self.enabled0)
            case gicv3.ICC_IGRPEN1_EL1:
                return int(self.enabled)
        for group, registers in enumerate((gicv3.ICC_AP0R_EL1, gicv3.ICC_AP1R_EL1)):
            if register == registers[0]:
                return self.active_priorities[group][0]
        return None

    def write(self, register: int, value: int) -> bool:
        """A guest's MSR; False: the hardware does not serve that one."""
        match register:
            case gicv3.ICC_EOIR1_EL1 | gicv3.ICC_EOIR0_EL1:
                self.eoir_of(int(register == gicv3.ICC_EOIR1_EL1), value)
            case gicv3.ICC_DIR_EL1:
                self.dir(value)
            case gicv3.ICC_PMR_EL1:
                self.pmr = value & _PMR_MASK
            case gicv3.ICC_BPR0_EL1:
                self.bpr = value & _BPR_MASK
            case gicv3.ICC_BPR1_EL1:
                if not self.common_bpr:
                    self.abpr = value & _BPR_MASK
            case gicv3.ICC_CTLR_EL1:
                self.common_bpr = bool(value & gicv3.ICC_CTLR_CBPR)
                self.eoi_mode = value >> 1 & 1
            case gicv3.ICC_SRE_EL1:
                pass
            case gicv3.ICC_IGRPEN0_EL1:
                self.enabled0 = bool(value & 1)
            case gicv3.ICC_IGRPEN1_EL1:
                self.enabled = bool(value & 1)
            case _:
                return self._write_active(register, value)
        return True

    def _write_active(self, register: int, value: int) -> bool:
        for group, registers in enumerate((gicv3.ICC_AP0R_EL1, gicv3.ICC_AP1R_EL1)):
            if register == registers[0]:
                self.active_priorities[group][0] = value & 0xFFFFFFFF
                return True
        return False

    @property
    def control(self) -> int:
        """ICC_CTLR_EL1 as the guest reads it."""
        value = PRIORITY_BITS - 1 << gicv3.ICC_CTLR_PRI_BITS_SHIFT | ID_BITS << gicv3.ICC_CTLR_ID_BITS_SHIFT
        value |= gicv3.ICC_CTLR_A3V if AFFINITY3_VALID else 0
        value |= gicv3.ICC_CTLR_SEIS if SERROR_SUPPORT else 0
        return value | int(self.common_bpr) | self.eoi_mode << 1

    def check(self) -> None:
        """Raise AssertionError on a state that the architecture forbids."""
        seen: set[int] = set()
        for index, lr in self.valid():
            assert not (lr & LR_HW and lr & LR_STATE == LR_STATE), f"LR{index} is pending and active with HW set"
            assert lr & LR_VIRTUAL_ID not in seen, f"interrupt {lr & LR_VIRTUAL_ID} is in two list registers"
            seen.add(lr & LR_VIRTUAL_ID)
