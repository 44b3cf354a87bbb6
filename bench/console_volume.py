"""Is every list of the console quick with a reseller's books? 2 million tasks, 4 million lines, 300,000 keys.

Makes the books in an embedded PostgreSQL with its usual settings (5 minutes and 6 GB; kept in --folder for the next
time), brings them to the newest revision while writers go on, and then asks what the pages ask, through the same
services. Prints of each: the first answer, the quickest of the last three of seven more (by then a connection may keep
another plan, and other programs on the machine count less), and how many blocks of 8 KB it looked at.

    python -m bench.console_volume --folder /var/tmp/books [--scale 1.0] [--only WORD] [--explain] [--to REVISION]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.accounts.keys import Keys, KeySearch
from app.accounts.users import Accounts, AccountSearch
from app.credits.redeem import Codes, CodeSearch
from app.credits.statements import LedgerSearch, Statements
from app.embedded.folder import locked
from app.embedded.postgres import EmbeddedPostgres
from app.errors import DatabaseUnavailable
from app.generation.journal import AuditLog, AuditSearch
from app.generation.statistics import Statistics
from app.migrate import head_revision, migrate
from app.requests import Operation
from app.settings import Settings
from app.tasks.queries import TaskFilter, TaskQueries, TaskSearch
from app.values import new_id
from app.webhooks.deliveries import DeliveryLog
from bench.volume import ENDPOINT_ID, RARE_MODEL, fill, fill_codes
from tests.factories import PEPPER

Ask = Callable[[], Awaitable[object]]
FILLED = "0009"
"""The revision that is filled: what comes later is built on big tables."""
SIZES = {"big": 1, "small": 77_779}
"""The account with a quarter of all tasks, and one with ten."""
WORDS = {
    "common part": "example.com",
    "rare part": "d2f9e",
    "name": "kim 1234",
    "whole e-mail": "mei.68d30a@shop",
    "2 letters, none": "zq",
    "1 letter": "e",
    "no match": "nobody@nowhere",
    "Chinese": "小明",
    "id": "acct_77",
}
REPEATS, KEPT = 7, 3
SLOW_MS = 100.0
PATIENCE_S = 20
PAST_MS = 1000.0
"""Asked once only."""
WRITERS, CALM_S = 2, 5.0
VIDEO = (Operation.VIDEO_GENERATE, Operation.VIDEO_EDIT, Operation.VIDEO_REMIX)
NOW = datetime.now(UTC)
SINCE, UNTIL = NOW - timedelta(days=200), NOW - timedelta(days=199)


def cases(engine: AsyncEngine) -> Mapping[str, Ask]:
    """Return what pages ask, by a name that says the page and the filter."""
    return {
        **_accounts(engine),
        **_own_tasks(engine),
        **_credits(engine),
        **_all_tasks(engine),
        **_audit(engine),
        **_codes(engine),
        **_dashboard(engine),
    }


def _accounts(engine: AsyncEngine) -> dict[str, Ask]:
    accounts, keys = Accounts(engine).search, Keys(engine, PEPPER).search
    found: dict[str, Ask] = {}
    for name, q in WORDS.items():
        found[f"users: {name}"] = partial(accounts, AccountSearch(q=q))
        found[f"keys: {name}"] = partial(keys, KeySearch(q=q))
    users = {
        "first page": AccountSearch(),
        "page 1000": AccountSearch(after=50_000),
        "active": AccountSearch(state="active"),
        "suspended": AccountSearch(state="suspended"),
        "closed": AccountSearch(state="closed"),
        "administrators": AccountSearch(is_admin=True),
        "closed administrators by name": AccountSearch(q="kim", state="closed", is_admin=True),
    }
    everybodys = {
        "first page": KeySearch(),
        "live": KeySearch(state="live"),
        "revoked": KeySearch(state="revoked"),
        "expired": KeySearch(state="expired"),
        "last four letters": KeySearch(q="a1b2"),
        "revoked of a rare name": KeySearch(q="laptop 9", state="revoked"),
    }
    found |= {f"users: {name}": partial(accounts, wanted) for name, wanted in users.items()}
    found |= {f"keys: {name}": partial(keys, wanted) for name, wanted in everybodys.items()}
    for size, who in SIZES.items():
        found[f"own keys ({size})"] = partial(keys, KeySearch(account_id=who))
        found[f"names of keys ({size})"] = partial(Keys(engine, PEPPER).list, who)
    return found


def _own_tasks(engine: AsyncEngine) -> dict[str, Ask]:
    page, found = TaskQueries(engine).page, dict[str, Ask]()
    kept = TaskFilter(("completed",), is_kept=True, limit=36)
    for size, who in SIZES.items():
        lists = {
            "all": TaskFilter(),
            "failed": TaskFilter(("failed",)),
            "cancelled": TaskFilter(("cancelled",)),
            "open": TaskFilter(("queued", "in_progress"), limit=8),
            "videos": TaskFilter(operations=VIDEO),
            "videos, oldest first": TaskFilter(operations=VIDEO, ascending=True),
            "rare model": TaskFilter(model=RARE_MODEL),
            "unknown model": TaskFilter(model="nothing"),
            "rare key": TaskFilter(key_id=200_000 + who),
            "a day 200 days ago": TaskFilter(since=SINCE, until=UNTIL),
            "failed, 200 days ago": TaskFilter(("failed",), since=SINCE, until=UNTIL),
            "prompt": TaskFilter(text="nothing like it"),
        }
        gallery = {
            "all": kept,
            "videos": replace(kept, operations=VIDEO),
            "rare model": replace(kept, model=RARE_MODEL),
            "last page": replace(kept, after=new_id(NOW - timedelta(days=13, hours=23))),
            "200 days ago": replace(kept, until=SINCE),
            "prompt": replace(kept, text="nothing like it"),
        }
        found |= {f"tasks ({size}): {name}": partial(page, one, account_id=who) for name, one in lists.items()}
        found |= {f"gallery ({size}): {name}": partial(page, one, account_id=who) for name, one in gallery.items()}
    return found


def _credits(engine: AsyncEngine) -> dict[str, Ask]:
    statements, found = Statements(engine), dict[str, Ask]()
    for size, who in SIZES.items():
        ledger = {
            "all": LedgerSearch(who),
            "top-ups": LedgerSearch(who, ("topup",)),
            "adjusted": LedgerSearch(who, ("adjust",)),
            "expired": LedgerSearch(who, ("expire",)),
            "refunds": LedgerSearch(who, ("refund",)),
            "a day 200 days ago": LedgerSearch(who, None, SINCE, UNTIL),
            "captures of that day": LedgerSearch(who, ("capture",), SINCE, UNTIL),
            "until a year ago": LedgerSearch(who, None, None, NOW - timedelta(days=363)),
            "csv, 1000 lines of it": LedgerSearch(who, limit=1000),
        }
        found |= {f"ledger ({size}): {name}": partial(statements.search, one) for name, one in ledger.items()}
        for days in (14, 30, 90, 366):
            daily = partial(statements.daily_usage, who, start=NOW - timedelta(days=days), end=NOW)
            found[f"usage ({size}): {days} days by model"] = daily
            found[f"usage ({size}): {days} days by key"] = partial(daily, split="key")
        found[f"usage ({size}): 30 days"] = partial(statements.usage, who, start=NOW - timedelta(days=30), end=NOW)
        found[f"lots ({size})"] = partial(statements.lots, who)
    return found


def _all_tasks(engine: AsyncEngine) -> dict[str, Ask]:
    big, small = SIZES.values()
    searches = {
        "all": TaskSearch(),
        "page 1000": TaskSearch(after=new_id(NOW - timedelta(days=100))),
        "big account": TaskSearch(account_id=big),
        "small account": TaskSearch(account_id=small),
        "small account, failed": TaskSearch(["failed"], account_id=small),
        "big account, unknown model": TaskSearch(account_id=big, model="nothing"),
        "big account, failed, a day": TaskSearch(["failed"], account_id=big, since=SINCE, until=UNTIL),
        "rare key": TaskSearch(key_id=200_001),
        "key": TaskSearch(key_id=small),
        "rare model": TaskSearch(model=RARE_MODEL),
        "common model": TaskSearch(model="model-i3"),
        "upstream": TaskSearch(upstream="vendor-a"),
        "unknown upstream": TaskSearch(upstream="nobody"),
        "unknown upstream, a year": TaskSearch(upstream="nobody", since=NOW - timedelta(days=360)),
        "pool": TaskSearch(pool="vendor-b/model-i1"),
        "upstream's id": TaskSearch(upstream_id="job-777777"),
        "token": TaskSearch(client_token=f"{new_id()}:1"),
        "request's id": TaskSearch(request_id="req_7"),
        "queued": TaskSearch(["queued"]),
        "uncertain": TaskSearch(["uncertain"]),
        "failed": TaskSearch(["failed"]),
        "reason": TaskSearch(reason="moderation_blocked"),
        "unknown reason": TaskSearch(reason="nothing"),
        "reason, rare model": TaskSearch(reason="upstream_error", model=RARE_MODEL),
        "succeeded, unknown model": TaskSearch(["succeeded"], model="nothing"),
        "remixes": TaskSearch(operations=[Operation.VIDEO_REMIX]),
        "a day 200 days ago": TaskSearch(since=SINCE, until=UNTIL),
        "cancelled, a month": TaskSearch(["cancelled"], since=SINCE - timedelta(days=30), until=SINCE),
    }
    return {f"all tasks: {name}": partial(TaskQueries(engine).search, one) for name, one in searches.items()}


def _audit(engine: AsyncEngine) -> dict[str, Ask]:
    log, who = AuditLog(engine), "admin3@example.com"
    searches = {
        "all": AuditSearch(),
        "page 1000": AuditSearch(after=100_000),
        "actor": AuditSearch(actor=who),
        "unknown actor": AuditSearch(actor="nobody@example.com"),
        "action": AuditSearch(action="credits.adjust"),
        "group of actions": AuditSearch(action="credits"),
        "unknown action": AuditSearch(action="nothing"),
        "target": AuditSearch(target="account:77"),
        "text": AuditSearch(q="nothing like it"),
        "a day": AuditSearch(since=SINCE, until=UNTIL),
        "actor and unknown action": AuditSearch(actor=who, action="nothing"),
        "actor, action and a day": AuditSearch(actor=who, action="model", since=SINCE, until=UNTIL),
        "busy actor without such an action": AuditSearch(actor="system", action="key.mint"),
    }
    found: dict[str, Ask] = {f"audit: {name}": partial(log.page, one) for name, one in searches.items()}
    return found | {"audit: actions": log.actions}


def _codes(engine: AsyncEngine) -> dict[str, Ask]:
    searches = {
        "all": CodeSearch(),
        "open": CodeSearch(state="open"),
        "expired": CodeSearch(state="expired"),
        "revoked": CodeSearch(state="revoked"),
        "note": CodeSearch(q="Campaign 7"),
        "no match": CodeSearch(q="nothing like it"),
        "e-mail": CodeSearch(q="d2f9e"),
        "last four letters": CodeSearch(q="A1B2"),
        "account": CodeSearch(account_id=77),
    }
    return {f"codes: {name}": partial(Codes(engine).search, one) for name, one in searches.items()}


def _dashboard(engine: AsyncEngine) -> dict[str, Ask]:
    statistics, deliveries = Statistics(engine, Settings(statistics_cache_s=0)), DeliveryLog(engine)
    log = partial(deliveries.list, SIZES["big"], ENDPOINT_ID, limit=50)
    return {
        "dashboard: minutes": statistics.minutes,
        "dashboard: backlog": statistics.backlog,
        "dashboard: a day by model": partial(statistics.outcomes, "24h", by="model"),
        "dashboard: 30 days by model": partial(statistics.outcomes, "30d", by="model"),
        "dashboard: 30 days in one sum": partial(statistics.outcomes, "30d", by="all"),
        "dashboard: dearest of 30 days": partial(statistics.top_accounts, "30d"),
        "dashboard: credits of 30 days": partial(statistics.money, 30),
        "storage": statistics._files,
        "webhook log: all": log,
        "webhook log: failed": partial(log, state="failed"),
        "webhook log: pending": partial(log, state="pending"),
    }


async def measure(url: str, *, only: str, explain: bool) -> None:
    engine = db.make_engine(url, pool_size=1, session={"statement_timeout": f"{PATIENCE_S}s"})
    sent: list[tuple[str, Any]] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda _c, _cursor, *said: sent.append(said[:2]))
    plans = await asyncpg.connect(url)
    await plans.execute(f"SET ROLE mediagate_app; SET statement_timeout = '{PATIENCE_S}s'")
    print("| what | first, ms | later, ms | blocks | |\n|---|---:|---:|---:|---|")
    for name, ask in cases(engine).items():
        if only not in name:
            continue
        sent.clear()
        first = later = await _time(ask)
        asked = [(sql, arguments) for sql, arguments in sent if not sql.startswith("SET ")]
        if first < PAST_MS:
            later = min([await _time(ask) for _ in range(REPEATS)][-KEPT:])
        blocks, texts = (0, []) if first > PATIENCE_S * PAST_MS else await _plans(plans, asked)
        print(f"| {name} | {first:.0f} | {later:.0f} | {blocks} | {'slow' if later > SLOW_MS else ''} |", flush=True)
        if explain:
            print(*texts, sep="\n")
    await plans.close()
    await engine.dispose()


async def _time(ask: Ask) -> float:
    started = time.perf_counter()
    try:
        await ask()
    except DatabaseUnavailable:
        return float("inf")
    return (time.perf_counter() - started) * 1000


async def _plans(plans: asyncpg.Connection, asked: list[tuple[str, Any]]) -> tuple[int, list[str]]:
    """Return how many blocks the statements look at, and how they are answered."""
    blocks, texts = 0, []
    for sql, arguments in asked:
        [row] = await plans.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *arguments)
        plan = json.loads(row[0])[0]["Plan"]
        blocks += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        texts += [line[0] for line in await plans.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {sql}", *arguments)]
    return blocks, texts


async def upgrade_under_load(url: str, revision: str, scale: float) -> None:
    """Bring the books to ``revision`` while tasks are made and captured, and say how long the longest had to wait."""
    engine = db.make_engine(url, pool_size=WRITERS, session={"lock_timeout": "60s", "statement_timeout": "120s"})
    done, waits = asyncio.Event(), list[float]()

    async def write(number: int) -> None:
        chance = random.Random(number)
        while not done.is_set():
            key = 10 * chance.randint(1, int(9000 * scale))  # one that lives, without a budget
            began = time.perf_counter()
            for sql, arguments in _life(key):
                await db.once(engine, sql, arguments)
            waits.append((time.perf_counter() - began) * 1000)

    writers = [asyncio.create_task(write(number)) for number in range(WRITERS)]
    await asyncio.sleep(CALM_S)
    calm, started = list(waits), time.monotonic()
    waits.clear()
    try:
        reached = await migrate(url, revision)
    finally:
        took = time.monotonic() - started
        done.set()
        await asyncio.gather(*writers)
        await engine.dispose()
    for when, found in (("before", calm), (f"while it came to {reached} in {took:.0f} s", waits)):
        ordered = sorted(found)
        middle, most = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        print(
            f"{when}: {len(found)} tasks, half in {middle:.0f} ms, 99% in {most:.0f} ms, the last {ordered[-1]:.0f} ms"
        )


def _life(key: int) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the statements of one task, from its hold to its capture."""
    task = new_id()
    asked = {
        "operation": "image.generate",
        "prompt": "a fox",
        "params": {},
        "quote": {},
        "warnings": [],
        "metadata": {},
    }
    file = {"id": str(new_id()), "role": "result", "position": 0, "storage_key": task.hex, "mime": "image/png"}
    file |= {"bytes": 9, "sha256": "00" * 32, "width": 8, "height": 8, "ttl_s": 86400.0}
    begin = """SELECT mg_begin($1, $2, 'image', 'model-i1', 'vendor-a/model-i1', 12, 900.0, $3::text::jsonb, '[]',
 'bench', 'bench', 60, 900, 100000)"""
    finish = "SELECT mg_finish($1, 1, 12, $2::text::jsonb, '{}')"
    return [(begin, (task, key, json.dumps(asked))), (finish, (task, json.dumps([file])))]


async def run(url: str, *, scale: float, to: str | None, only: str, explain: bool) -> None:
    administrator = await asyncpg.connect(url)
    try:
        if not await administrator.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL"):
            await migrate(url, FILLED)
            await fill(url, scale)
        if await administrator.fetchval("SELECT version_num FROM alembic_version") != (to or head_revision()):
            await upgrade_under_load(url, to or "head", scale)
        if not await administrator.fetchval("SELECT 1 FROM redeem_codes LIMIT 1"):
            await fill_codes(url, scale)
    finally:
        await administrator.close()
    await measure(url, only=only, explain=explain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="", help="measure what has this in its name")
    parser.add_argument("--explain", action="store_true", help="print the plans too")
    parser.add_argument("--to", help="the revision to measure, instead of the newest")
    options = vars(parser.parse_args())
    with locked(folder := options.pop("folder")):
        server = EmbeddedPostgres(folder / "pg")
        with server.started():
            asyncio.run(run(server.url, **options))


if __name__ == "__main__":
    main()
