"""What a virtual machine's interrupt controller offers to the rest of KVM (include/kvm/arm_vgic.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

UNDEFINED_ADDRESS = (1 << 64) - 1
SGIS = 16
PRIVATE = 32


class Vgic(Protocol):
    """Satisfied by the VGIC of 2014 (`vgic.dist`) and by that of Linux 4.7 on (`vgic.modern`)."""

    @property
    def ready(self) -> bool:
        """Whether it is initialised (vgic_initialized)."""

    def init(self) -> None:
        """Initialise; nothing when it is done already."""

    def map_resources(self) -> None:
        """Before the first KVM_RUN of a vCPU. ENXIO when a frame has no address."""

    def destroy(self) -> None:
        """The virtual machine goes."""

    def check(self) -> None:
        """Raise AssertionError when the state contradicts itself."""

    def add_vcpu(self, vcpu: Vcpu) -> None:
        """KVM_CREATE_VCPU, before anyone can use the vCPU; may refuse it."""

    def remove_vcpu(self, vcpu: Vcpu) -> None:
        """KVM_CREATE_VCPU found no descriptor for what `add_vcpu` took."""

    def inject(self, cpu: int, number: int, level: bool) -> None:
        """Drive input ``number``, of the vCPU with index ``cpu`` if it is a private one."""

    def pending_for(self, vcpu: Vcpu) -> bool:
        """Whether ``vcpu`` has an interrupt to take."""

    def flush(self, vcpu: Vcpu) -> None:
        """Before entry: fill the list registers."""

    def sync(self, vcpu: Vcpu) -> None:
        """After exit: learn from the list registers."""

    def mmio(self, vcpu: Vcpu, address: int, size: int, value: int | None) -> int | None:
        """A guest access that exited: the value loaded (0 for a store), None when the address is not the VGIC's."""

    def cpu_interface(self, address: int) -> int | None:
        """The offset in the virtual CPU interface's frame, which guests reach without an exit; None outside."""

    def dump(self) -> dict[str, Any]:
        """The state as plain data, interrupts as after reset left out."""
