"""How many programs a test draws: a share of the profile's examples, as each takes as long as many others."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: The profiles of the suite have no more.
_SHORT = 100


def budget(divisor: int) -> settings:
    """One in ``divisor``. In the suite they are always the same: what a longer look finds is for a campaign."""
    most = settings().max_examples
    return settings(
        max_examples=most // divisor,
        derandomize=most <= _SHORT,
        database=None if most <= _SHORT else settings().database,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
