"""The strategies: what is called valid mostly is, what is wild never upsets the kernel, boards boot, guests run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.hw.board import Board
from kvmvfio_emu.strategies import HOWS, Setting, beginning, boards, declared, guest_programs, ioctl_calls
from kvmvfio_emu.strategies.guests import DrawnGuest
from kvmvfio_emu.testing.player import Arena, Player
from kvmvfio_emu.testing.vmm import Vm

SETTING = Setting("linux-6.12", "oracle-virt")


class Door:
    """`Kernel` as the player wants it."""

    def __init__(self, kernel: Kernel) -> None:
        self.open, self.ioctl, self.close, self.settle = kernel.open, kernel.ioctl, kernel.close, kernel.open_files


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    arena = Arena()
    yield arena
    arena.close()


def test_valid_arguments_get_further_than_wild_ones(arena: Arena) -> None:
    accepted: Counter[str] = Counter()
    start = beginning(SETTING)
    for how in HOWS:

        @settings(max_examples=300, deadline=None, derandomize=True, database=None)
        @given(st.sampled_from(declared(SETTING)).flatmap(lambda one: ioctl_calls(*one, how=how, setting=SETTING)))
        def play(call: dict[str, object]) -> None:
            with Kernel(SETTING.profile, SETTING.board) as kernel:
                outcomes = Player(Door(kernel), arena).play([*start, call])
                kernel.check()
                assert kernel.open_files() == []
            accepted[how] += outcomes[len(start)][1] == "0"  # noqa: B023

        play()
    assert accepted["valid"] > accepted["wild"]


@given(boards())
@settings(deadline=None, max_examples=30)
def test_boards_boot(board: Board) -> None:
    with Kernel("rfc-2014", board) as kernel:
        kernel.check()
        assert set(kernel.host.machine.devices) == {device.name for device in board.devices}


@given(guest_programs())
@settings(deadline=None, max_examples=30)
def test_guests_run_to_their_end(guest: DrawnGuest) -> None:
    with Kernel() as kernel:
        vm = Vm(kernel, vcpus=1)
        kernel.attach_guest(0, guest, fd=vm.guests[0].fd)
        call = kernel.start(vm.guests[0].fd, uapi.KVM_RUN)
        for _ in range(50):
            kernel.run(slices=5)
            if call.done or call.vcpu.blocked:
                break
        assert call.done or call.vcpu.blocked
        if not call.done:
            call.interrupt()
        vm.close()
        assert kernel.open_files() == []
