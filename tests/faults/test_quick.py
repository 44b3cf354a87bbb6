"""The quick part of the fault matrix: ``dev.py faults --full`` has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import Scenario, Stage
from tests.plugins.servers import Servers, _worker_number

REDIS = 40
"""The rigs' numbered databases begin here, one for each test process."""
SEED = 1


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.quick is not None], ids=lambda s: s.name)
def test_every_invariant_holds_after(
    scenario: Scenario, servers: Servers, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    stage = Stage(
        servers=servers,
        folder=tmp_path,
        seed=SEED,
        size=scenario.quick or 0,
        is_full=False,
        name=scenario.name,
        redis_database=REDIS + _worker_number(pytestconfig),
        evidence=tmp_path / "evidence",
    )

    rows = scenario.play(stage)

    assert {row.fault: row.violations for row in rows if row.violations} == {}, f"logs and tables: {stage.evidence}"
    assert sum(row.tasks for row in rows) > 0
