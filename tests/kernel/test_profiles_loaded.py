"""A profile that was loaded is the caller's own: what one test changes in it, no other one sees."""

from __future__ import annotations

from kvmvfio_emu import profiles


def test_capabilities_are_not_shared() -> None:
    mine = profiles.load("rfc-2014")
    mine.capabilities["KVM_CAP_IRQFD"] = 77
    assert profiles.load("rfc-2014").capability("KVM_CAP_IRQFD") != 77
