"""The state machine against an idle one with the same steps and arguments: what the model costs beside Hypothesis."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from kvmvfio_emu.testing.machine import Life

EXAMPLES = 100
ROUNDS = 5


class Busy(Life):
    """As it is."""


class Idle(Life):
    """Nothing is done."""

    acts = False


def rate(machine: type[Life]) -> float:
    """Examples a second."""
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=50,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    begin = time.perf_counter()
    run_state_machine_as_test(machine, settings=chosen)
    return EXAMPLES / (time.perf_counter() - begin)


if __name__ == "__main__":
    rates: dict[type[Life], list[float]] = {Idle: [], Busy: []}
    for _ in range(ROUNDS):  # in turns, since the machine's other load changes
        for machine, seen in rates.items():
            seen.append(rate(machine))
    idle, busy = max(rates[Idle]), max(rates[Busy])
    print(f"idle {idle:.1f} examples/s, busy {busy:.1f} examples/s: {busy / idle:.2f} (bound 0.5)")
