"""Accounts, keys and tasks for tests, made through the same code as an operator's and a caller's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.accounts.keys import Keys, MintedKey
from app.accounts.users import Account, Accounts
from app.credits.ledger import Ledger
from app.values import Credits, new_id

PEPPER = SecretStr("a pepper that only tests use, 40 letters")
SECRETS_KEY = SecretStr("a secrets key that only tests use, 40 ..")
RESULT_BYTES = 1234


@asynccontextmanager
async def engine_of(database: AsyncEngine | str) -> AsyncIterator[AsyncEngine]:
    """Use an engine, or make one for a URL."""
    if not isinstance(database, str):
        yield database
        return
    engine = db.make_engine(database, pooled=False)
    try:
        yield engine
    finally:
        await engine.dispose()


async def make_account(
    database: AsyncEngine | str,
    *,
    credits: int = 1000,
    email: str | None = None,
    is_admin: bool = False,
    max_in_flight: int | None = None,
) -> Account:
    """Make an account of its own: an e-mail nobody else has, and ``credits`` to spend."""
    async with engine_of(database) as engine:
        accounts = Accounts(engine)
        account = await accounts.create(email or f"{uuid4().hex}@example.test", is_admin=is_admin)
        if credits:
            await Ledger(engine).top_up(account.id, Credits(credits), ref=f"test:{account.id}", actor="test")
        if max_in_flight is not None:
            await accounts.set_limits(account.id, max_in_flight=max_in_flight)
        return await accounts.get(account.id)


async def make_key(
    database: AsyncEngine | str, account: Account | int, *, pepper: SecretStr = PEPPER, **options: Any
) -> MintedKey:
    """Mint a key for an account; ``options`` are those of `Keys.mint`. The app must run with the same ``pepper``."""
    async with engine_of(database) as engine:
        return await Keys(engine, pepper).mint(account if isinstance(account, int) else account.id, **options)


def request_of(operation: str = "image.generate", **more: Any) -> dict[str, Any]:
    """Return what a task row remembers of a request."""
    return {"operation": operation, "prompt": "a fox", "params": {}, "quote": {}, "warnings": [], "metadata": {}} | more


async def accept_task(
    database: AsyncEngine | str,
    key: MintedKey | int,
    *,
    hold: int = 10,
    task_id: UUID | None = None,
    model: str = "model-a",
    pool: str | None = None,
    request: Mapping[str, Any] | None = None,
) -> UUID:
    """Accept a queued task with its hold, as the API does. Raises what the database raises: DBAPIError."""
    request = request or request_of()
    task_id = task_id or new_id()
    async with engine_of(database) as engine:
        await db.once(
            engine,
            "SELECT mg_accept($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, '[]')",
            (
                task_id,
                key if isinstance(key, int) else key.id,
                request["operation"].partition(".")[0],
                model,
                pool or f"test/{model}",
                hold,
                900.0,
                json.dumps(request),
            ),
        )
    return task_id


async def finish_task(
    database: AsyncEngine | str,
    key: MintedKey | int,
    *,
    hold: int = 10,
    charge: int | None = None,
    model: str = "model-a",
) -> UUID:
    """Run a whole task: hold, attempt, one result file (whose object does not exist), capture."""
    task_id = new_id()
    file = {
        "id": str(uuid4()),
        "role": "result",
        "position": 0,
        "storage_key": f"{task_id.hex[:2]}/{task_id.hex}",
        "mime": "image/png",
        "bytes": RESULT_BYTES,
        "sha256": "00" * 32,
        "width": 8,
        "height": 8,
        "ttl_s": 86400.0,
    }
    async with engine_of(database) as engine:
        await db.once(
            engine,
            "SELECT mg_begin($1, $2, 'image', $3, $4, $5, $6, $7::text::jsonb, '[]', 'test', 'test', 60, 900, 1000)",
            (
                task_id,
                key if isinstance(key, int) else key.id,
                model,
                f"test/{model}",
                hold,
                900.0,
                json.dumps(request_of()),
            ),
        )
        rows = await db.once(
            engine,
            "SELECT mg_finish($1, 1, $2, $3::text::jsonb, '{}') AS ok",
            (task_id, hold if charge is None else charge, json.dumps([file])),
        )
        assert rows[0]["ok"] is True
    return task_id
