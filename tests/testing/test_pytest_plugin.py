"""The pytest plugin, as a user meets it: fixtures, markers, options, and the judgement at the end of a test."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kvmvfio_emu.testing import real

pytest_plugins = ["pytester"]
PLUGIN = "kvmvfio_emu.testing.plugin"
ROOT = Path(__file__).parents[2]


def outcome(pytester: pytest.Pytester, source: str, *options: str, **counts: int) -> pytest.RunResult:
    """Run a test file; its results are these."""
    pytester.makepyfile(source)
    result = pytester.runpytest_inprocess("-p", PLUGIN, "-p", "no:cacheprovider", *options)
    if counts:
        result.assert_outcomes(**counts)
    return result


def test_a_test_gets_a_machine(pytester: pytest.Pytester) -> None:
    outcome(
        pytester,
        """
        def test_an_interrupt_gets_through(vm, vfio_device, irq_trace):
            guest = vm.vcpu()
            vm.create_vgic()
            guest.start().boot(42)
            vm.irqfd(vfio_device.trigger[0], 10, vfio_device.resample[0])
            vm.assign(vfio_device.fd, 0, 10)
            vfio_device.lines[0].set(True)
            assert guest.ack() == 42
            vfio_device.lines[0].set(False)
            guest.eoi()
            assert irq_trace.names("line_up", "guest_iar", "hw_deactivate") == [
                "line_up", "guest_iar", "hw_deactivate"
            ]
        """,
        passed=1,
    )


def test_a_leaked_file_fails_the_test_and_is_named(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
        def test_leaks(kernel, vm):
            kernel.open("/dev/vfio/vfio")
            kernel.dup(kernel.open("/dev/kvm"))

        def test_does_not(kernel, vm, vfio_device):
            kernel.close(kernel.open("/dev/vfio/vfio"))
        """,
        failed=1,
        passed=1,
    )
    result.stdout.fnmatch_lines(["2 files of the kernel are still open: container, kvm"])


def test_a_contradiction_fails_the_test_and_is_told(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
        def test_breaks_it(kernel, vfio_device):
            kernel.host.irqs.descs[16].depth += 1
        """,
        failed=1,
    )
    result.stdout.fnmatch_lines(["the kernel's state contradicts itself: *masked is False*"])


def test_a_failure_of_its_own_is_what_is_told(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
        def test_fails_and_leaks(kernel, vfio_device, irq_trace):
            kernel.open("/dev/kvm")
            vfio_device.lines[0].set(True)
            assert vfio_device.signals() == 2
        """,
        failed=1,
    )
    result.stdout.fnmatch_lines(["*assert 1 == 2*", "*interrupts*", "*line_up irq=109*", "*eventfd_trigger*"])
    result.stdout.no_fnmatch_line("*still open*")


def test_profiles_by_marker_option_and_default(pytester: pytest.Pytester) -> None:
    source = """
        import pytest

        @pytest.mark.kvmvfio_profile("rfc-2014", "linux-6.12", machine="oracle-virt")
        def test_marked(kernel):
            assert kernel.host.profile.name in ("rfc-2014", "linux-6.12")
            assert kernel.host.machine.board.name == "oracle-virt"

        def test_unmarked(kernel):
            print("unmarked on", kernel.host.profile.name)
        """
    result = outcome(pytester, source, "-rP", passed=3)
    result.stdout.fnmatch_lines(["unmarked on rfc-2014"])
    result = outcome(pytester, source, "-rP", "--kvmvfio-profile=mainline", "--kvmvfio-profile=draft-v4", passed=4)
    result.stdout.fnmatch_lines(["unmarked on mainline", "unmarked on draft-v4"])


def test_a_profile_that_does_not_exist(pytester: pytest.Pytester) -> None:
    result = outcome(pytester, "def test_nothing(): pass", "--kvmvfio-profile=linux-9")
    result.stderr.fnmatch_lines(["*--kvmvfio-profile: no profile 'linux-9'; known: draft-v3,*"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_wrong_profile_of_one_test_leaves_the_others_their_results(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
        import pytest

        @pytest.mark.kvmvfio_profile("linux-9")
        def test_wrong(kernel):
            pass

        @pytest.mark.kvmvfio_profile("mainline", machine="no-such-board")
        def test_wrong_board(kernel):
            pass

        def test_right(kernel):
            pass
        """,
        errors=2,
        passed=1,
    )
    result.stdout.fnmatch_lines(["*no profile 'linux-9'*", "*no-such-board*"])


SHARED = """
    import errno
    import pytest
    from kvmvfio_emu import uapi

    @pytest.mark.real_kvm
    @pytest.mark.kvmvfio_profile("linux-6.18-x86")
    def test_vms_are_files(kernel):
        kvm = kernel.open("/dev/kvm")
        vm = kernel.ioctl(kvm, uapi.KVM_CREATE_VM, 0)
        with pytest.raises(OSError) as refused:
            kernel.ioctl(vm, uapi.KVM_CREATE_VM, 0)
        assert refused.value.errno == errno.ENOTTY
        print("asked", type(kernel).__name__, kernel.open_files())
        kernel.close(vm)
        kernel.close(kvm)

    def test_needs_the_model(kernel, vfio_device):
        pass
    """


def test_the_shared_subset_in_process(pytester: pytest.Pytester) -> None:
    result = outcome(pytester, SHARED, "-rP", passed=2)
    result.stdout.fnmatch_lines(["asked Kernel *'kvm', 'vm'*"])


def test_the_shared_subset_on_the_real_kernel(pytester: pytest.Pytester) -> None:
    if (reason := real.missing() or real.cannot_serve("linux-6.18-x86")) is not None:
        pytest.skip(reason)
    # In a process of its own: what other tests left open of the real kernel would be listed as well.
    pytester.makepyfile(SHARED)
    result = pytester.runpytest_subprocess("-p", PLUGIN, "-p", "no:cacheprovider", "-rP", "--kvmvfio-real")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["asked RealKernel *'/dev/kvm', 'anon_inode:kvm-vm'*"])


def test_no_real_kernel_and_one_of_another_kind(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import pytest

        @pytest.mark.real_kvm
        @pytest.mark.kvmvfio_profile("rfc-2014", "linux-6.18-x86")
        def test_shared(kernel):
            pass

        @pytest.mark.real_kvm(only=True)
        def test_real(kernel):
            pass
        """
    monkeypatch.setattr(real, "missing", lambda: "no real KVM here: none was built")
    result = outcome(pytester, source, "-rs", "--kvmvfio-real", skipped=3)
    result.stdout.fnmatch_lines(["*no real KVM here: none was built"])
    outcome(pytester, source, skipped=1, passed=2)
    monkeypatch.setattr(real, "missing", lambda: None)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    result = outcome(pytester, source, "-rs", "--kvmvfio-real", "-k", "shared", skipped=2)
    result.stdout.fnmatch_lines(["*profile rfc-2014 is a kernel for arm64, this host's is for riscv64"])
    result = outcome(pytester, source, "--kvmvfio-real", "--kvmvfio-profile=rfc-2014")
    result.stderr.fnmatch_lines(["*--kvmvfio-profile: profile rfc-2014 is a kernel for arm*"])


def test_workers_of_xdist_do_not_meet(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_group_is_mine(kernel, number, vfio_device):
            assert kernel.open_files() == ["container", "group", "vfio-device"]
        """
    )
    result = pytester.runpytest_subprocess("-p", PLUGIN, "-n", "2")
    result.assert_outcomes(passed=8)


def test_the_plugin_loads_nothing_that_is_not_used() -> None:
    """What costs time at a start of pytest is modules; of ours only these may be there, and none of others."""
    program = (
        "import sys, pytest; before = set(sys.modules); import kvmvfio_emu.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.split() == ["kvmvfio_emu", "kvmvfio_emu.testing", PLUGIN]
    assert find_spec(PLUGIN) is not None
