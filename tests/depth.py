"""How long the property tests and the fuzzing go on. ``MG_DEPTH`` names it: quick (the default), long, or nightly."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import HealthCheck, settings


@dataclass(frozen=True, slots=True)
class Depth:
    examples: int
    steps: int
    hammer_s: float
    fuzz_s: int
    """For each caller."""
    is_random: bool = False
    """Whether fuzzing goes another way each time; what gates a change must not."""

    @property
    def timeout_s(self) -> int:
        """Far more than a slow machine needs: a test that hangs must end, one that works must not."""
        return 120 + int(self.examples * self.steps * 0.05 + self.hammer_s * 3)

    def machine_settings(self, *, share: float = 1.0) -> settings:
        """For a rule-based machine that gets this ``share`` of the examples."""
        return settings(
            max_examples=max(1, int(self.examples * share)),
            stateful_step_count=self.steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            print_blob=True,
        )


DEPTH = {
    "quick": Depth(100, 40, 8.0, 20),
    "long": Depth(500, 60, 60.0, 60),
    "nightly": Depth(20_000, 60, 300.0, 900, is_random=True),
}[os.environ.get("MG_DEPTH", "quick")]
