"""Examples shared through a Redis: found on one kernel, tried first on another, and a Redis that comes and goes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.database import InMemoryExampleDatabase, MultiplexedDatabase

redis = pytest.importorskip("redis")

from kvmvfio_emu.testing.examples import SharedExamples  # noqa: E402

pytest_plugins = ["pytester"]
PLUGIN = "kvmvfio_emu.testing.plugin"
ROOT = Path(__file__).parents[2]
SECONDS = 60
#: A profile that keeps examples, also where CI is set; phases of the second worker: only what it is given.
PROFILES = """
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis.database import DirectoryBasedExampleDatabase

    common = {
        "deadline": None,
        "derandomize": False,
        "database": DirectoryBasedExampleDatabase(".hypothesis/examples"),
        "suppress_health_check": list(HealthCheck),
    }
    settings.register_profile("search", max_examples=2000, phases=[Phase.reuse, Phase.generate], **common)
    settings.register_profile("replay", phases=[Phase.reuse], **common)
    """


class Server:
    """A redis-server of this test's own, which keeps nothing and listens on a socket file."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._socket = f"{directory}/redis.sock"
        self.url = f"unix://{self._socket}?db=3"
        self.client = redis.Redis.from_url(self.url)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", self._socket, "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            ["redis-server", *options, "--dir", self._directory], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                assert self._process.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server does not answer"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def keys(self) -> list[bytes]:
        return sorted(self.client.keys())


@pytest.fixture
def server() -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server (Debian's package of that name)")
    directory = tempfile.mkdtemp(prefix="kvmvfio-emu-")  # the path of a socket must be short
    server = Server(directory)
    server.start()
    yield server
    server.kill()
    server.client.close()
    shutil.rmtree(directory)


class Workers:
    """pytest processes on one test file, each in a directory of its own, as on machines of their own."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory, self._url = directory, url

    def run(self, name: str, source: str, *options: str, **environment: str) -> tuple[int, str]:
        """(exit status, output) of a worker called ``name``."""
        place = self._directory / name
        place.mkdir(exist_ok=True)
        (place / "conftest.py").write_text(_dedented(PROFILES))
        (place / "test_mine.py").write_text(_dedented(source))
        command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", "-q", *options]
        variables = {"PYTHONPATH": str(ROOT), "TRIED": str(place / "tried"), "KVMVFIO_EMU_EXAMPLES": self._url}
        done = subprocess.run(
            command,
            cwd=place,
            env=os.environ | variables | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * SECONDS,
        )
        return done.returncode, done.stdout

    def tried(self, name: str) -> list[str]:
        """A line for each example that this worker has tried."""
        return (self._directory / name / "tried").read_text().splitlines()


@pytest.fixture
def workers(tmp_path: Path, server: Server) -> Workers:
    return Workers(tmp_path, server.url)


def _dedented(source: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in source.splitlines()) + "\n"


LIVES = """
    import os

    from kvmvfio_emu.testing.machine import Life
    from kvmvfio_emu.testing.safeguards import Safeguards

    class Careless(Life):
        profile = os.environ["KERNEL"]
        safeguards = Safeguards(assign_when_idle=False)

        def __init__(self):
            super().__init__()
            self.tell(self.profile)

        def explain(self):
            self.tell("failed")
            super().explain()

        def tell(self, what):
            with open(os.environ["TRIED"], "a") as tried:
                print(what, file=tried)

    TestCareless = Careless.TestCase
    """


def test_an_order_that_fails_on_one_kernel_is_the_first_that_another_tries(workers: Workers) -> None:
    status, output = workers.run("first", LIVES, "--hypothesis-profile=search", KERNEL="rfc-2014")
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert "1 failed" in output
    searched = workers.tried("first")
    # Its own kernel, its own directory: what it knows, it knows from the Redis.
    status, output = workers.run("second", LIVES, "--hypothesis-profile=replay", KERNEL="rfc-v2")
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert searched.index("failed") > 1
    assert workers.tried("second")[:2] == ["rfc-v2", "failed"]
    status, output = workers.run(
        "third", LIVES, "--hypothesis-profile=replay", KERNEL="rfc-v2", KVMVFIO_EMU_EXAMPLES=""
    )
    assert status == pytest.ExitCode.OK, "without the Redis there is nothing to replay"
    with pytest.raises(FileNotFoundError):
        workers.tried("third")


PROFILED = """
    import os

    from hypothesis import given, strategies as st
    from kvmvfio_emu import Kernel

    @given(st.integers(0, 1_000_000))
    def test_numbers(kvmvfio_profile, number):
        with Kernel(kvmvfio_profile), open(os.environ["TRIED"], "a") as tried:
            print(number, file=tried)
        assert number < 100_000 or kvmvfio_profile == "rfc-2014"
    """


def test_kernels_of_the_option_share_what_the_same_test_found(workers: Workers) -> None:
    status, output = workers.run("first", PROFILED, "--hypothesis-profile=search", "--kvmvfio-profile=mainline")
    assert status == pytest.ExitCode.TESTS_FAILED, output
    found = workers.tried("first")
    assert int(found[0]) < 100_000
    # A kernel on which it passes does not take it away from the others.
    status, output = workers.run("passes", PROFILED, "--hypothesis-profile=replay", "--kvmvfio-profile=rfc-2014")
    assert status == pytest.ExitCode.OK, output
    assert int(workers.tried("passes")[0]) >= 100_000
    status, output = workers.run("second", PROFILED, "--hypothesis-profile=replay", "--kvmvfio-profile=draft-v4")
    assert status == pytest.ExitCode.TESTS_FAILED, output
    first = workers.tried("second")[0]
    assert int(first) >= 100_000
    assert first in found


def test_workers_of_xdist_share_and_warn_once(workers: Workers, server: Server) -> None:
    pytest.importorskip("xdist")
    status, output = workers.run("first", PROFILED, "--hypothesis-profile=search", "--kvmvfio-profile=mainline", "-n2")
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert "warning: shared" not in output
    assert server.keys()
    server.kill()
    status, output = workers.run("second", PROFILED, "--hypothesis-profile=search", "--kvmvfio-profile=mainline", "-n2")
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert output.count("warning: shared examples at unix://") == 1
    assert "went on without it to the end in " in output
    assert "number < 100_000" in output


MIDDLE = """
    import os
    import signal

    from hypothesis import given, strategies as st

    @given(st.integers())
    def test_before(number):
        assert number < 50_000

    def test_the_redis_goes_away():
        os.kill(int(os.environ["REDIS"]), signal.SIGKILL)

    @given(st.integers())
    def test_after(number):
        assert number < 100_000

    @given(st.integers())
    def test_passes(number):
        pass
    """


def test_a_redis_that_is_killed_in_the_middle(workers: Workers, server: Server) -> None:
    assert server._process is not None
    pid = server._process.pid
    status, output = workers.run("first", MIDDLE, "--hypothesis-profile=search", REDIS=str(pid))
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert "2 failed, 2 passed" in output
    assert output.count("kvmvfio-emu: warning: shared examples at unix://") == 1
    # What was found after that is still there, locally: it is the first that is tried.
    status, output = workers.run("first", MIDDLE, "--hypothesis-profile=replay", "-k", "after or before")
    assert "2 failed" in output


# -- one database, with a clock of ours --------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """A worker's examples, its own and the shared ones, as Hypothesis sees them."""

    def __init__(self, url: str) -> None:
        self.clock = Clock()
        local = InMemoryExampleDatabase()
        self.shared = SharedExamples(url, local, self.clock)
        self.both = MultiplexedDatabase(self.shared, local)


NewWorker = Callable[[], Worker]


@pytest.fixture
def worker(server: Server) -> Iterator[NewWorker]:
    made: list[Worker] = []

    def make() -> Worker:
        made.append(Worker(server.url))
        return made[-1]

    yield make
    for one in made:
        one.shared.close()


def test_it_comes_back_and_gets_what_it_has_missed(server: Server, worker: NewWorker) -> None:
    ours, theirs = worker(), worker()
    ours.both.save(b"key", b"early")
    assert set(theirs.both.fetch(b"key")) == {b"early"}
    server.kill()
    ours.both.save(b"key", b"late")
    ours.both.save(b"key", b"regretted")
    ours.both.delete(b"key", b"regretted")
    assert set(ours.both.fetch(b"key")) == {b"early", b"late"}, "the local ones"
    assert ours.shared.away
    first = ours.shared.failure
    assert first is not None
    server.start()
    assert list(ours.shared.fetch(b"key")) == [], "it is left alone for a while"
    ours.clock.now += 60
    assert list(ours.shared.fetch(b"key")) == [b"late"]
    assert not ours.shared.away
    assert ours.shared.failure == first
    ours.both.move(b"key", b"other", b"late")
    assert list(ours.shared.fetch(b"key")) == []
    assert list(ours.shared.fetch(b"other")) == [b"late"]


def test_only_who_has_failed_takes_an_example_away(worker: NewWorker) -> None:
    """To a kernel that passes it is no failure that is over."""
    ours, theirs = worker(), worker()
    ours.both.save(b"key", b"value")
    theirs.both.delete(b"key", b"value")
    assert set(ours.shared.fetch(b"key")) == {b"value"}
    theirs.both.save(b"key", b"value")  # it has failed there, too
    theirs.both.delete(b"key", b"value")
    assert list(ours.shared.fetch(b"key")) == []


def test_what_is_owed_is_sent_at_the_end(server: Server, worker: NewWorker) -> None:
    ours = worker()
    server.kill()
    ours.both.save(b"key", b"value")
    server.start()
    ours.shared.close()
    assert set(worker().both.fetch(b"key")) == {b"value"}


def test_a_redis_that_hangs_costs_one_wait(server: Server, worker: NewWorker) -> None:
    """Stopped, it accepts and says nothing; without the pause each example would wait for it."""
    assert server._process is not None
    ours = worker()
    server._process.send_signal(signal.SIGSTOP)
    try:
        for number in range(200):
            ours.both.save(b"key", bytes([number]))
        assert ours.shared.failure is not None
        assert "imeout" in ours.shared.failure
    finally:
        server._process.send_signal(signal.SIGCONT)


def test_what_is_there_is_no_example(server: Server, worker: NewWorker) -> None:
    server.client.set("hypothesis-example:key", "a string")
    ours = worker()
    assert list(ours.both.fetch(b"key")) == []
    assert ours.shared.failure is not None
    assert "WRONGTYPE" in ours.shared.failure


# -- what the option says ----------------------------------------------------------------------------------------------


def outcome(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    pytester.makepyfile("def test_nothing(): pass")
    return pytester.runpytest_inprocess("-p", PLUGIN, "-p", "no:cacheprovider", *options)


def test_a_url_that_is_none(pytester: pytest.Pytester) -> None:
    result = outcome(pytester, "--kvmvfio-examples=http://redis.example/0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--kvmvfio-examples: http://redis.example/0: Redis URL must specify*"])


def test_a_profile_that_keeps_no_examples(pytester: pytest.Pytester) -> None:
    settings.register_profile("the same each time", derandomize=True)
    result = outcome(pytester, "--kvmvfio-examples=redis://localhost:1", "--hypothesis-profile=the same each time")
    settings.load_profile("suite")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'the same each time' is derandomized*"])


def test_a_password_is_not_shown_and_hypothesis_is_as_before(pytester: pytest.Pytester) -> None:
    settings.register_profile("kept", settings.get_profile("suite"), derandomize=False)
    settings.load_profile("kept")
    before = settings.get_profile("kept").database
    result = outcome(pytester, "-v", "--kvmvfio-examples=redis://me:sesame@localhost:1/4")
    assert settings.get_current_profile_name() == "kept"
    assert settings().database is before
    settings.load_profile("suite")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*examples shared at redis://localhost:1/4"])
    result.stdout.no_fnmatch_line("*sesame*")
