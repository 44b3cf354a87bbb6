"""Migrations go up and down on a real database, twice, and at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.db import make_engine, once
from app.migrate import FOLDER, head_revision, migrate
from tests.factories import finish_task, make_account, make_key

OBJECTS = """SELECT relname AS name FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r','i','S','v')
 UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"""


async def objects_of(url: str) -> set[str]:
    engine = make_engine(url, role=None, pooled=False)
    try:
        return {row["name"] for row in await once(engine, OBJECTS)}
    finally:
        await engine.dispose()


async def test_down_undoes_everything_that_up_did(fresh_database: Callable[..., str]) -> None:
    url = fresh_database()

    assert await migrate(url) == head_revision()
    made = await objects_of(url)
    assert await migrate(url, "base") is None
    left = await objects_of(url)

    assert {"ledger", "tasks", "mg_reserve", "mg_settle"} <= made
    assert left == {"alembic_version", "alembic_version_pkc"}
    assert await migrate(url) == head_revision()
    assert await objects_of(url) == made


async def test_an_index_that_was_left_half_built_is_built_again(fresh_database: Callable[..., str]) -> None:
    url = fresh_database()
    await migrate(url, "0012")
    owner = make_engine(url, role=None, pooled=False)
    await once(owner, "CREATE INDEX tasks_settled_new ON tasks (id)")
    await once(owner, "CREATE INDEX audit_at ON audit (id)")
    await once(
        owner,
        """UPDATE pg_index SET indisvalid = false
            WHERE indexrelid IN ('tasks_settled_new'::regclass, 'audit_at'::regclass)""",
    )

    await migrate(url)

    rows = await once(
        owner,
        """SELECT indexname AS name, indexdef AS made FROM pg_indexes JOIN pg_index ON indexrelid = indexname::regclass
            WHERE (indexname ~ '^(tasks_settled|files_expiry)' OR indexname = 'audit_at') AND indisvalid""",
    )
    made = {row["name"]: row["made"] for row in rows}
    assert set(made) == {"tasks_settled", "files_expiry", "audit_at"}
    assert "INCLUDE (status" in made["tasks_settled"]
    assert made["audit_at"].endswith("(at)")
    await owner.dispose()


async def test_keys_that_were_rotated_before_get_their_whole_life_back(fresh_database: Callable[..., str]) -> None:
    url = fresh_database()
    await migrate(url, "0006")
    owner = make_engine(url, role=None, pooled=False)
    await once(owner, "INSERT INTO accounts (email, name) VALUES ('a@b.c', 'a')")
    await once(  # key 2 follows 1, 3 follows 2; 5 follows 4, and both live for ever
        owner,
        """INSERT INTO api_keys (account_id, key_mac, last4, created_at, replaces, expires_at)
           SELECT a.id, sha256(n::text::bytea), 'last', now(), follows, now() + days * interval '1 day'
             FROM accounts a, (VALUES (1, NULL, 1), (2, 1, 1), (3, 2, 90), (4, NULL, 1), (5, 4, NULL))
                AS k (n, follows, days)""",
    )

    await migrate(url)

    rows = await once(owner, "SELECT life FROM api_keys ORDER BY id")
    assert [row["life"] and row["life"].days for row in rows] == [90, 90, 90, None, None]
    await owner.dispose()


async def test_two_deploys_at_once_take_turns(fresh_database: Callable[..., str]) -> None:
    url = fresh_database()

    revisions = await asyncio.gather(*(migrate(url) for _ in range(3)))

    assert revisions == [head_revision()] * 3


async def test_a_migrated_database_works_as_the_restricted_role(fresh_database: Callable[..., str]) -> None:
    url = fresh_database(migrated=True)
    account = await make_account(url, credits=100)
    await finish_task(url, await make_key(url, account), hold=10)

    engine = make_engine(url, pooled=False)
    try:
        [row] = await once(engine, "SELECT current_user AS who, posted FROM accounts WHERE id = $1", (account.id,))
    finally:
        await engine.dispose()

    assert (row["who"], row["posted"]) == ("mediagate_app", 90)


def test_the_head_by_file_names_is_alembics_head() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")

    assert ScriptDirectory.from_config(config).get_current_head() == head_revision()
