"""The pytest plugin: fixtures ``kernel``, ``vm``, ``vfio_device``, ``irq_trace``, their options and markers.

Models nothing. It is imported at every start of pytest, so it imports only pytest itself; what a fixture needs
comes in when a test asks for it. It keeps nothing outside of pytest's own objects, so workers of xdist do not meet.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kvmvfio_emu.testing.fixtures import IrqTrace, Session
    from kvmvfio_emu.testing.vmm import VfioDevice, Vm

_SESSION: pytest.StashKey[Session] = pytest.StashKey()
_TRACE: pytest.StashKey[IrqTrace] = pytest.StashKey()
_MARKERS = (
    "kvmvfio_profile(*names, machine=None, gic=None): which emulated kernels the test's `kernel` is, one test each, "
    "on which board and interrupt controller",
    "real_kvm(only=False): the test holds on the host's own kernel, too; --kvmvfio-real runs it there, and skips it "
    "where there is no /dev/kvm. With only=True it always needs that kernel",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("kvmvfio-emu", "emulated KVM and VFIO")
    group.addoption(
        "--kvmvfio-profile",
        action="append",
        default=[],
        metavar="NAME",
        help="emulated kernel for tests that do not say; several: each such test runs on each",
    )
    group.addoption(
        "--kvmvfio-real",
        action="store_true",
        help="run tests marked real_kvm on this machine's /dev/kvm, and skip others that use a kernel",
    )
    group.addoption(
        "--kvmvfio-examples",
        default=os.environ.get("KVMVFIO_EMU_EXAMPLES"),
        metavar="URL",
        help="share Hypothesis's failing examples through this Redis: redis://HOST:PORT/DB, or unix://PATH. By default "
        "what KVMVFIO_EMU_EXAMPLES says",
    )


@pytest.hookimpl(trylast=True)  # Hypothesis has loaded the profile that its own option names
def pytest_configure(config: pytest.Config) -> None:
    """The markers; a wrong option is told before any test runs."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    names = config.getoption("--kvmvfio-profile")
    if names:
        from kvmvfio_emu.testing.fixtures import judge_profiles

        judge_profiles(names, real=config.getoption("--kvmvfio-real"))
    url = config.getoption("--kvmvfio-examples")
    if url:
        from kvmvfio_emu.testing.examples import Campaign

        config.pluginmanager.register(Campaign(url), "kvmvfio-emu-examples")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each kernel that its marker, or the option, names."""
    if "kvmvfio_profile" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("kvmvfio_profile")
    names = (marker.args if marker is not None else ()) or metafunc.config.getoption("--kvmvfio-profile")
    if names:
        metafunc.parametrize("kvmvfio_profile", names, ids=[str(getattr(name, "name", name)) for name in names])


@pytest.fixture
def kvmvfio_profile() -> Any:
    """Which kernel `kernel` is; override it, or mark the test."""
    return None


@pytest.fixture
def kernel(request: pytest.FixtureRequest, kvmvfio_profile: Any) -> Iterator[Any]:
    """A kernel of the test's own: a `Kernel`, or with ``--kvmvfio-real`` the host's, with the same calls.

    When the test is over no file of its own may be open and `Kernel.check` must be content; else the test fails.
    """
    from kvmvfio_emu.testing.fixtures import Session

    session = Session.of(request, kvmvfio_profile)
    request.node.stash[_SESSION] = session
    with session:
        yield session.kernel


@pytest.fixture
def vm(kernel: Any, request: pytest.FixtureRequest) -> Iterator[Vm]:
    """A virtual machine of `kernel`, as a small VMM holds it."""
    from kvmvfio_emu.testing.vmm import Vm

    with request.node.stash[_SESSION].lend(Vm(kernel)) as made:
        yield made


@pytest.fixture
def vfio_device(kernel: Any, request: pytest.FixtureRequest) -> Iterator[VfioDevice]:
    """A device taken from the host, with an eventfd for each interrupt; ``parametrize`` it indirectly by its name."""
    from kvmvfio_emu.testing.vmm import VfioDevice

    with request.node.stash[_SESSION].lend(VfioDevice(kernel, getattr(request, "param", None))) as made:
        yield made


@pytest.fixture
def irq_trace(kernel: Any, request: pytest.FixtureRequest) -> Iterator[IrqTrace]:
    """What happened to interrupts so far; if the test fails, its report shows it."""
    from kvmvfio_emu.testing.fixtures import IrqTrace

    with IrqTrace(kernel) as trace:
        request.node.stash[_TRACE] = trace
        yield trace


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """The kernel is asked while the test is still running, so that it is the test that fails."""
    result = yield
    session = item.stash.get(_SESSION, None)
    if session is not None:
        session.judge()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the interrupts of a test that failed."""
    report = yield
    if report.failed and call.when == "call" and (trace := item.stash.get(_TRACE, None)) is not None:
        report.sections.append(("interrupts", str(trace)))
    return report
