"""Statistics of a virtual machine or a vCPU, as a file to read: header, name, descriptors, data (binary_stats.c).

The descriptors are the kernel's; of the data only what the model counts is ever above zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.file import File

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vm import Vm

_NAME = 48
_HEADER = uapi.sizeof("struct kvm_stats_header")
_BUCKETS = 32
_NANOSECONDS = uapi.KVM_STATS_UNIT_SECONDS
_HISTOGRAM = uapi.KVM_STATS_TYPE_LOG_HIST | _NANOSECONDS
_FLAG = uapi.KVM_STATS_TYPE_INSTANT | uapi.KVM_STATS_UNIT_BOOLEAN


@dataclass(frozen=True, slots=True)
class Statistic:
    """One of them: its name, KVM_STATS_* flags, how many 64-bit values."""

    name: str
    flags: int = 0
    size: int = 1

    @property
    def exponent(self) -> int:
        """Of its unit: times are in nanoseconds."""
        return -9 if self.flags & uapi.KVM_STATS_UNIT_MASK == _NANOSECONDS else 0


_OF_VM = tuple(map(Statistic, ("remote_tlb_flush", "remote_tlb_flush_requests")))
_OF_VCPU = (
    *map(Statistic, ("halt_successful_poll", "halt_attempted_poll", "halt_poll_invalid", "halt_wakeup")),
    *(Statistic(name, _NANOSECONDS) for name in ("halt_poll_success_ns", "halt_poll_fail_ns", "halt_wait_ns")),
    *(
        Statistic(name, _HISTOGRAM, _BUCKETS)
        for name in ("halt_poll_success_hist", "halt_poll_fail_hist", "halt_wait_hist")
    ),
    Statistic("blocking", _FLAG),
)
_OF_ARM_VCPU = tuple(
    map(
        Statistic,
        (
            "hvc_exit_stat",
            "wfe_exit_stat",
            "wfi_exit_stat",
            "mmio_exit_user",
            "mmio_exit_kernel",
            "signal_exits",
            "exits",
        ),
    )
)


class StatsFile(File):
    """What KVM_GET_STATS_FD gives. It holds the virtual machine."""

    kind = "stats"
    statistics: tuple[Statistic, ...] = ()

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm.host)
        self.vm = vm
        self._position = 0
        vm.get(self)

    @property
    def name(self) -> str:
        """Whose statistics these are."""
        return f"kvm-{self.vm.mm.pid}"

    def value(self, statistic: Statistic) -> int:
        """What was counted, of a statistic of one value."""
        return 0

    def image(self) -> bytes:
        """All that can be read."""
        descriptors, data = b"", b""
        for statistic in self.statistics:
            fields = {
                "flags": statistic.flags,
                "exponent": statistic.exponent,
                "size": statistic.size,
                "offset": len(data),
            }
            descriptors += uapi.pack("struct kvm_stats_desc", **fields) + statistic.name.encode().ljust(_NAME, b"\0")
            data += self.value(statistic).to_bytes(8, "little").ljust(8 * statistic.size, b"\0")
        header = uapi.pack(
            "struct kvm_stats_header",
            name_size=_NAME,
            num_desc=len(self.statistics),
            id_offset=_HEADER,
            desc_offset=_HEADER + _NAME,
            data_offset=_HEADER + _NAME + len(descriptors),
        )
        return bytes(header) + self.name.encode().ljust(_NAME, b"\0") + descriptors + data

    def read(self, size: int, offset: int | None) -> bytes:
        """From ``offset``, or from where the last read ended."""
        start = self._position if offset is None else offset
        part = self.image()[start : start + size]
        if offset is None:
            self._position += len(part)
        return part

    def release(self) -> None:
        """The reference to the virtual machine goes."""
        self.vm.put(self)


class VmStatsFile(StatsFile):
    """Of a virtual machine."""

    link = "anon_inode:kvm-vm-stats"
    statistics = _OF_VM


class VcpuStatsFile(StatsFile):
    """Of a vCPU."""

    statistics = (*_OF_VCPU, *_OF_ARM_VCPU)

    def __init__(self, vcpu: Vcpu) -> None:
        super().__init__(vcpu.vm)
        self.vcpu = vcpu
        self.link = f"anon_inode:kvm-vcpu-stats:{vcpu.number}"
        if self.host.profile.arch == "x86_64":
            self.statistics = _OF_VCPU

    @property
    def name(self) -> str:
        """As in the kernel."""
        return f"{super().name}/vcpu-{self.vcpu.number}"

    def value(self, statistic: Statistic) -> int:
        """Exits by their reason, and whether the vCPU waits."""
        if statistic.name == "blocking":
            return int(self.vcpu.blocked)
        return self.vcpu.exits.get(statistic.name, 0)
