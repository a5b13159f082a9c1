"""Hypothesis's examples shared between machines: `--kvmvfio-examples redis://...` of the pytest plugin.

Models nothing. What one worker finds is kept in a Redis and tried first by all others. A campaign lasts for hours and a
network does not, so a Redis that is not there costs one warning at the end: examples are kept locally as well, what
could not be sent is sent when it is there again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

try:
    from hypothesis import settings
    from hypothesis.database import ExampleDatabase, InMemoryExampleDatabase, MultiplexedDatabase
    from hypothesis.extra.redis import RedisExampleDatabase
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry
except ImportError:
    raise pytest.UsageError(
        "--kvmvfio-examples needs hypothesis and redis: pip install kvmvfio-emu[campaign]"
    ) from None

_T = TypeVar("_T")
#: Seconds that a Redis has for an answer, and that one which had none is left alone.
_PATIENCE, _PAUSE = 2.0, 5.0
#: Examples that are kept for a Redis that is away; a campaign finds few, and they are in the local database, too.
_MOST_OWED = 1000
_KEY = "kvmvfio_examples"


class SharedExamples(ExampleDatabase):
    """A `RedisExampleDatabase` that may come and go. Connects when it is first asked; ValueError for a wrong ``url``.

    Hypothesis deletes an example that does not fail (any more). One that only fails on another worker's kernel has to
    stay, so that is done only for those in ``local``: what has failed here. ``clock``: seconds, from anywhere.
    """

    def __init__(self, url: str, local: ExampleDatabase, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._local = local
        client = Redis.from_url(
            url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, retry=Retry(NoBackoff(), 0)
        )
        self._shared = RedisExampleDatabase(client)
        self._clock = clock
        self._again = clock()
        self._owed: dict[tuple[bytes, bytes], None] = {}
        self.place = _without_secrets(url)
        self.failure: str | None = None  #: the first one
        self.away = False  #: at the last attempt

    def __repr__(self) -> str:
        return f"SharedExamples({self.place!r})"

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """As `ExampleDatabase`; nothing while the Redis is away."""
        return self._ask(lambda: list(self._shared.fetch(key))) or ()

    def save(self, key: bytes, value: bytes) -> None:
        """As `ExampleDatabase`."""
        self._owed[key, value] = None
        if len(self._owed) > _MOST_OWED:
            del self._owed[next(iter(self._owed))]
        self._ask(lambda: None)

    def delete(self, key: bytes, value: bytes) -> None:
        """As `ExampleDatabase`. What is not deleted because the Redis is away is tried once more some time."""
        self._owed.pop((key, value), None)
        if value in set(self._local.fetch(key)):
            self._ask(lambda: self._shared.delete(key, value))

    def close(self) -> None:
        """The last attempt to send what is owed."""
        if self._owed:
            self._again = self._clock()
            self._ask(lambda: None)
        self._shared.redis.close()

    def _ask(self, question: Callable[[], _T]) -> _T | None:
        if self._clock() < self._again:
            return None
        try:
            for key, value in list(self._owed):
                self._shared.save(key, value)
                del self._owed[key, value]
            answer = question()
        except RedisError as error:
            self.failure = self.failure or _told(error)
            self.away = True
            self._again = self._clock() + _PAUSE
            return None
        self.away = False
        return answer


class Campaign:
    """The plugin that the option adds: it puts the shared examples under every test, and tells of them at the end."""

    def __init__(self, url: str) -> None:
        self._before = settings.get_current_profile_name()
        chosen = settings.get_profile(self._before)
        local = chosen.database or InMemoryExampleDatabase()
        try:
            self._examples = SharedExamples(url, local)
        except ValueError as error:
            raise pytest.UsageError(f"--kvmvfio-examples: {_without_secrets(url)}: {error}") from None
        if chosen.derandomize:
            raise pytest.UsageError(
                f"--kvmvfio-examples: the Hypothesis profile {self._before!r} is derandomized and keeps no examples; "
                "choose another one by --hypothesis-profile"
            )
        self._workers = 0
        self._failed: list[str] = []
        self._away = False
        name = f"{self._before}, shared"
        # In this order, since the first one asks what the second one has, before that deletes it.
        settings.register_profile(name, chosen, database=MultiplexedDatabase(self._examples, local))
        settings.load_profile(name)

    def pytest_report_header(self) -> str:
        """Where examples come from."""
        return f"kvmvfio-emu: examples shared at {self._examples.place}"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker's account goes to the controller."""
        examples = self._examples
        examples.close()
        account = {"failure": examples.failure, "away": examples.away}
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_KEY] = account
        else:
            self._count(account)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """xdist: a worker is done."""
        account = getattr(node, "workeroutput", {}).get(_KEY)
        if account is not None:
            self._workers += 1
            self._count(account)

    def _count(self, account: dict[str, Any]) -> None:
        if account["failure"] is not None:
            self._failed.append(account["failure"])
            self._away |= account["away"]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One warning, whatever has happened in how many workers."""
        if self._failed:
            where = f" in {len(self._failed)} of {self._workers} workers" if self._workers else ""
            how = "without it to the end" if self._away else "without it for a while"
            terminalreporter.write_line(
                f"kvmvfio-emu: warning: shared examples at {self._examples.place}: {self._failed[0]}; "
                f"went on {how}{where}, with local examples",
                yellow=True,
            )

    def pytest_unconfigure(self) -> None:
        """Hypothesis is as it was."""
        settings.load_profile(self._before)


def _told(error: RedisError) -> str:
    """A line of what went wrong; redis's own are sometimes empty, or many."""
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__


def _without_secrets(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
