"""The bare-metal example: a real driver takes a device's interrupts, as the scripted guest of the demo does."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import descriptors_of

from kvmvfio_emu import Kernel
from kvmvfio_emu.cli import story

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "vmm.py"
SOURCES = EXAMPLE.with_name("baremetal")
#: The version of GCC, Debian 12's, that built the images that are kept.
BUILT_BY = "12.2.0"
MANY = 10_000
#: Instructions by width: HVC, and one that is none.
CALL = {64: b"\x02\x00\x00\xd4", 32: b"\x70\x00\x40\xe1"}
UNDEFINED = {64: bytes(4), 32: b"\xf0\x00\xf0\xe7"}


@pytest.fixture(scope="module")
def example() -> Any:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    spec = importlib.util.spec_from_file_location("vmm_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def midway(profile: str = "rfc-2014") -> Iterator[Kernel]:
    with Kernel(profile, "calxeda-midway") as kernel:
        yield kernel
        for fd in descriptors_of(kernel):
            kernel.close(fd)


#: Whose guest it is: arm64's two kinds, and a 32-bit host's.
GUESTS = pytest.mark.parametrize(("profile", "width"), [("rfc-2014", 64), ("rfc-2014", 32), ("rfc-2014-arm", 32)])


@GUESTS
@pytest.mark.parametrize("forward", [False, True], ids=["unforwarded", "forwarded"])
def test_as_the_demo(example: Any, forward: bool, profile: str, width: int) -> None:
    with midway() as kernel:
        scripted = story.tell(kernel, forward=forward, interrupts=1).one()
    with midway(profile) as kernel:
        counted = example.MachineVmm(kernel, forward=forward, width=width).handle(1)
    assert {name: counted[name] for name in scripted} == scripted


@GUESTS
@pytest.mark.parametrize("forward", [False, True], ids=["unforwarded", "forwarded"])
def test_each_assertion_is_one_interrupt(example: Any, forward: bool, profile: str, width: int) -> None:
    """Two vCPUs: one starts the other, which takes the interrupts."""
    with midway(profile) as kernel:
        vmm = example.MachineVmm(kernel, forward=forward, vcpus=2, waits=True, width=width)
        counted = vmm.handle(MANY)
        assert vmm.shared == (MANY, 0)
        assert counted["line_up"] == counted["guest_iar"] == counted["guest_eoi"] == MANY
        assert counted["hw_deactivate"] == (MANY if forward else 0)
        assert counted["vmexit_maint"] == (0 if forward else MANY)
        kernel.check()
        for call in vmm.others:
            call.interrupt()


@pytest.mark.parametrize(("width", "vector"), [(64, 1 << 25), (32, 4)], ids=["ESR_EL1", "undefined"])
def test_it_tells_of_an_exception_that_it_does_not_expect(example: Any, width: int, vector: int) -> None:
    with midway() as kernel:
        vmm = example.MachineVmm(kernel, forward=False, width=width)
        vmm.ram[example.SHARED] = 2  # so that it calls PSCI
        at = vmm.ram[:].index(CALL[width])
        vmm.ram[at : at + 4] = UNDEFINED[width]
        with pytest.raises(RuntimeError, match=f"{1 << 63 | vector:#x}$"):
            vmm.handle(1)


@pytest.mark.parametrize(
    ("image", "compiler"), [("guest", "aarch64-linux-gnu-gcc"), ("guest32", "arm-linux-gnueabi-gcc")]
)
def test_the_kept_image_is_what_its_sources_are_built_to(tmp_path: Path, image: str, compiler: str) -> None:
    if shutil.which(compiler) is None or shutil.which("make") is None:
        pytest.skip(f"no {compiler}, or no make")
    version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    if version != BUILT_BY:
        pytest.skip(f"GCC {version} may build another one")
    for source in SOURCES.iterdir():
        if source.suffix not in (".bin", ".elf"):
            shutil.copy(source, tmp_path)
    subprocess.run(["make", f"{image}.bin"], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / f"{image}.bin").read_bytes() == (SOURCES / f"{image}.bin").read_bytes()


def test_without_the_extra_it_says_what_to_install() -> None:
    program = f"""
import sys
sys.modules["unicorn"] = None
sys.argv = ["vmm.py"]
import importlib.util
spec = importlib.util.spec_from_file_location("vmm_example", {str(EXAMPLE)!r})
vmm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(vmm)
from kvmvfio_emu import Kernel, uapi
with Kernel("rfc-2014", "calxeda-midway") as kernel:
    one = vmm.MachineVmm(kernel, forward=False)
    kernel.ioctl(one.vcpu, uapi.KVM_RUN)
    run = uapi.ffi.from_buffer("struct kvm_run *", one.run_page)
    print(run.exit_reason == uapi.KVM_EXIT_INTERNAL_ERROR)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert done.stderr.count("\n") == 1
    assert "pip install kvmvfio-emu[vcpu]" in done.stderr
