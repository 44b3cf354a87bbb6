"""Every scenario, in the order of the table."""

from __future__ import annotations

from tests.faults import kills, lies, odd, outages
from tests.faults.stage import Scenario

SCENARIOS: list[Scenario] = [*kills.SCENARIOS, *lies.SCENARIOS, *odd.SCENARIOS, *outages.SCENARIOS]
