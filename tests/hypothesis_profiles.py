"""Hypothesis profiles beside its own: ``pytest -p tests.hypothesis_profiles --hypothesis-profile=campaign``."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: Hours rather than seconds; for changes to state machines, and before a release.
settings.register_profile(
    "campaign",
    max_examples=20_000,
    stateful_step_count=100,
    deadline=None,
    derandomize=False,  # where CI is set, too
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

#: For machines that share their CPU with others: the same examples each time, and no deadline.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
