"""What a campaign has reached: states of interrupts, and clauses by which calls were refused. Printed and asserted."""

from __future__ import annotations

import errno
from collections import Counter

from kvmvfio_emu.testing.route import Route


class Coverage:
    """Counts over all examples of one state machine."""

    def __init__(self) -> None:
        self.examples = 0
        self.steps = 0
        self.states: Counter[str] = Counter()
        self.clauses: Counter[str] = Counter()

    def state(self, route: Route) -> None:
        """Note how an interrupt stands."""
        self.states[route.state()] += 1

    def refusal(self, what: str, error: OSError) -> None:
        """Note what was refused, and how."""
        self.clauses[f"{what}: {errno.errorcode.get(error.errno or 0, '?')}"] += 1

    def __str__(self) -> str:
        lines = [f"{self.examples} examples, {self.steps} steps; {len(self.states)} states of an interrupt:"]
        lines += [f"  {count:6} {state}" for state, count in self.states.most_common()]
        lines += [f"{len(self.clauses)} clauses:"]
        lines += [f"  {count:6} {clause}" for clause, count in self.clauses.most_common()]
        return "\n".join(lines)
