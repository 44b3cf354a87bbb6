"""The fault matrix as a command: ``python3 dev.py faults [--quick|--full] [--only NAME] [--seed N] [--list]``.

Prints one line for each fault, as a table in markdown. A fault that breaks an invariant leaves its logs and a dump of
its tables in a folder that is named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from app.log import configure
from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import Row, Scenario, Stage
from tests.plugins.servers import _start_servers

REDIS = 1
HEAD = "| fault | runs | tasks | attempts lost | violations | late | recovery |\n|---|---:|---:|---:|---:|---:|---:|"
SHOWN, SHOWN_ROWS = 5, 12


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py faults", description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the set that the tests run, about a minute (default)")
    size.add_argument("--full", action="store_true", help="everything, about 25 minutes on 2 cores")
    parser.add_argument("--pace", action="store_true", help="fail, too, when something takes longer than is promised")
    parser.add_argument("--only", metavar="NAME", help="scenarios whose name begins so")
    parser.add_argument("--seed", type=int, default=None, help="of the random choices; printed by each run")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    chosen = parser.parse_args()
    scenarios = [
        scenario
        for scenario in SCENARIOS
        if (scenario.full if chosen.full else scenario.quick) is not None
        and (chosen.only is None or scenario.name.startswith(chosen.only))
    ]
    if chosen.list or not scenarios:
        print("\n".join(f"{s.name:<24} quick {s.quick or '-':>4}  full {s.full or '-':>4}" for s in SCENARIOS))
        return 0 if chosen.list else 2
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    return run(scenarios, is_full=chosen.full, is_paced=chosen.pace, seed=seed)


def run(scenarios: list[Scenario], *, is_full: bool, is_paced: bool, seed: int) -> int:
    configure(form="console", level="error")
    folder = Path(tempfile.mkdtemp(prefix="mediagate-faults-"))
    print(f"seed {seed}, {len(scenarios)} scenarios, working in {folder}\n\n{HEAD}", flush=True)
    began, rows = time.monotonic(), []
    with ExitStack() as stack:
        servers = _start_servers(stack)
        for scenario in scenarios:
            stage = Stage(
                servers=servers,
                folder=folder,
                seed=seed,
                size=(scenario.full if is_full else scenario.quick) or 0,
                is_full=is_full,
                name=scenario.name,
                redis_database=REDIS,
                evidence=folder / "evidence" / scenario.name,
            )
            for row in scenario.play(stage):
                print(_line(row), flush=True)
                rows.append((scenario, row))
            shutil.rmtree(folder / f"{scenario.name}-1" / "data", ignore_errors=True)
    for _, row in rows:
        print("".join(f"late: {row.fault}: {text}\n" for text in row.late[:SHOWN]), end="")
    bad = [(scenario, row) for scenario, row in rows if row.violations]
    tasks, accepted, lost = (sum(getattr(row, name) for _, row in rows) for name in ("tasks", "accepted", "lost"))
    print(f"\n{tasks} tasks, {accepted} submits accepted by upstreams, {lost} attempts lost; "
          f"{sum(row.runs for _, row in rows)} runs in {time.monotonic() - began:.0f} s")  # fmt: skip
    for scenario, row in bad[:SHOWN_ROWS]:
        again = f"python3 dev.py faults {'--full' if is_full else '--quick'} --only {scenario.name} --seed {seed}"
        print(f"\n{row.fault}: {len(row.violations)} violations. Again: {again}")
        print("\n".join(f"  {text[:1000]}" for text in row.violations[:SHOWN]))
    if bad:
        print(f"\nLogs and tables of what failed: {folder / 'evidence'}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if is_paced and any(row.late for _, row in rows) else 0


def _line(row: Row) -> str:
    recovery = "-" if row.recovery_s is None else f"{row.recovery_s:.1f} s"
    counts = (row.runs, row.tasks, row.lost, len(row.violations), len(row.late))
    return f"| {row.fault} | {' | '.join(map(str, counts))} | {recovery} |"


if __name__ == "__main__":
    sys.exit(main())
