"""A reseller's books, made up: accounts, keys, tasks, files, ledger, audit and codes, by statements of the database.

The rows are what the gateway would have written, in the order of time; they go in past the triggers, which would take
hours. One account has a quarter of all tasks, a hundred have another quarter.
"""

# ruff: noqa: S608 - our own numbers and words

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from uuid import UUID

import asyncpg

from app.values import public_id

ACCOUNTS, KEYS, TASKS, LEDGER = 100_000, 300_000, 2_000_000, 4_000_000
AUDIT, CODES, DELIVERIES = 500_000, 100_000, 200_000
YEAR = "interval '365 days'"
KEPT = "interval '14 days'"
"""How long results are kept."""
RARE_MODEL = "model-rare"
"""Used by the fifty oldest tasks alone."""
ENDPOINT = "00000000-0000-7000-8000-000000000001"
ENDPOINT_ID = public_id("whe_", UUID(ENDPOINT))
"""Of the biggest account's webhooks."""


def statements(scale: float) -> Iterator[tuple[str, str]]:
    """Yield what fills the tables that every revision since 0009 has, by their names and in order."""
    accounts, keys, tasks, audit = (int(most * scale) for most in (ACCOUNTS, KEYS, TASKS, AUDIT))
    yield (
        "accounts",
        f"""
INSERT INTO accounts (name, email, is_admin, state, posted, created_at)
SELECT (ARRAY['Mei','Wang','Li','Anna','Jonas','Ravi','Chen','Olga','Pedro','Aiko'])[1 + i % 10] || ' ' ||
       (ARRAY['Lin','Zhao','Schmidt','Patel','Silva','Tanaka','Novak','Costa','Kim','Haas'])[1 + i / 10 % 10] ||
       ' ' || i,
       (ARRAY['mei','wang','li','anna','jonas','ravi','chen','olga','pedro','aiko'])[1 + i % 10] || '.' ||
       md5(i::text)::varchar(6) || '@shop' || i % 5000 || '.example.com', i % 10000 = 5,
       CASE WHEN i % 5000 = 7 THEN 'closed' WHEN i % 1000 = 9 THEN 'suspended' ELSE 'active' END, 1000000,
       now() - {YEAR} + i * ({YEAR} / {accounts})
  FROM generate_series(1, {accounts}) i""",
    )
    yield (
        "api_keys",
        f"""
INSERT INTO api_keys (account_id, key_mac, name, last4, created_at, revoked_at, expires_at, last_used_at)
SELECT 1 + (i - 1) % {accounts}, sha256(('k' || i)::bytea),
       (ARRAY['production','staging','laptop','mobile app','batch'])[1 + i % 5] || ' ' || i,
       substr(md5('s' || i), 1, 4),
       now() - {YEAR} + i * ({YEAR} / {keys}), CASE WHEN i % 500 = 3 THEN now() END,
       CASE WHEN i % 1000 = 4 THEN now() - interval '1 day' WHEN i % 10 = 6 THEN now() + {YEAR} END, now()
  FROM generate_series(1, {keys}) i""",
    )
    yield (
        "key_budgets",
        """
INSERT INTO key_budgets (api_key_id, limit_amount) SELECT id, CASE WHEN id % 10 > 4 THEN 5000 END FROM api_keys""",
    )
    yield "tasks", _tasks(accounts, tasks)
    yield (
        "task_attempts",
        """
INSERT INTO task_attempts (task_id, attempt_no, provider, client_token, state, upstream_id, upstream_cost,
                           cost_currency, sent_at, resolved_at)
SELECT id, 1, split_part(pool, '/', 1), id || ':1', CASE WHEN settled_at IS NULL THEN 'accepted'
       WHEN status = 'succeeded' THEN 'done' ELSE 'failed' END, upstream_id, 40000, 'USD', created_at, settled_at
  FROM tasks ORDER BY id""",
    )
    yield (
        "files",
        f"""
INSERT INTO files (id, account_id, task_id, role, storage_key, state, mime, bytes, sha256, expires_at, created_at)
SELECT gen_random_uuid(), account_id, id, r, id || '/' || r, CASE WHEN created_at > now() - {KEPT}
       AND deleted_at IS NULL THEN 'ready' ELSE 'deleted' END, kind || '/png', 150000, sha256(id::text::bytea),
       created_at + {KEPT}, created_at
  FROM tasks, unnest(CASE kind WHEN 'video' THEN ARRAY['result','thumbnail'] ELSE ARRAY['result'] END) r
 WHERE status = 'succeeded' ORDER BY tasks.id""",
    )
    yield "ledger", _ledger(accounts, max(int(LEDGER * scale) - tasks, accounts))
    yield (
        "audit",
        f"""
INSERT INTO audit (at, actor, action, target, before, after, request_id)
SELECT now() - {YEAR} + i * ({YEAR} / {audit}),
       CASE i % 4 WHEN 0 THEN 'system' ELSE 'admin' || i % 20 || '@example.com (session)' END,
       (ARRAY['account.create','key.mint','key.revoke','credits.topup','credits.adjust','account.update','task.refund',
              'model.update'])[1 + i % 8], 'account:' || 1 + (i::bigint * 31) % {accounts}, '{{"balance": 5}}',
       jsonb_build_object('balance', i, 'reason', 'A request by mail, ' || i), 'req_' || md5(i::text)
  FROM generate_series(1, {audit}) i""",
    )
    yield "webhooks", _webhooks(int(DELIVERIES * scale))
    yield (
        "sequences",
        """
UPDATE accounts a SET entry_seq = m FROM (SELECT account_id, max(seq) m FROM ledger GROUP BY 1) l
 WHERE l.account_id = a.id""",
    )


def _id(at: str, salt: str = "") -> str:
    """Return an id as the gateway makes it: by its millisecond, then by the row's number."""
    return f"""(lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '7' ||
 substr(md5('{salt}' || i), 1, 3) || '8' || substr(md5('{salt}' || i), 4, 15))::uuid"""


def _tasks(accounts: int, tasks: int) -> str:
    """6 of 100 failed, 1 was cancelled, the newest are open; a seventh are videos, none of the biggest account."""
    return f"""
INSERT INTO tasks (id, account_id, api_key_id, kind, model, pool, status, hold, charge, settled_at, started_at, wake_at,
                   attempt_no, upstream_id, deadline_at, error_code, request, result, progress, deleted_at,
                   delivered_at, created_at)
SELECT {_id("at")}, account,
       account + {accounts} * CASE WHEN account = 1 AND i < 2000 THEN 2 WHEN i % 3 = 0 THEN 1 ELSE 0 END, kind,
       CASE WHEN i <= 50 THEN '{RARE_MODEL}' ELSE model END,
       (ARRAY['vendor-a','vendor-b','vendor-c'])[1 + i % 3] || '/' || model, status, 12,
       CASE WHEN is_open THEN NULL WHEN status = 'succeeded' THEN 12 ELSE 0 END,
       CASE WHEN NOT is_open THEN at + i % 90 * interval '1 second' END, at + interval '1 second', at, 1, 'job-' || i,
       at + interval '1 hour', CASE WHEN status = 'failed' THEN
         CASE WHEN i % 100 = 1 THEN 'moderation_blocked' ELSE 'upstream_error' END END,
       jsonb_build_object('operation', kind || '.generate', 'prompt', 'A lantern number ' || i || ' over a quiet ' ||
         'harbour, long exposure, soft light, ' || md5(i::text) || ', in the manner of an old photograph',
         'params', jsonb_build_object('size', '1024x1024'), 'quote', jsonb_build_object('credits', 12),
         'warnings', '[]'::jsonb, 'metadata', '{{}}'::jsonb, 'request_id', 'req_' || i), '{{}}', 100,
       CASE WHEN i % 50 = 11 AND NOT is_open THEN at + interval '1 day' END,
       CASE WHEN NOT is_open THEN at + i % 90 * interval '1 second' END, at
  FROM (SELECT i, now() - {YEAR} + i * ({YEAR} / {tasks}) AS at,
          CASE WHEN i % 7 = 0 AND i % 4 > 0 THEN 'video' ELSE 'image' END AS kind,
          'model-' || CASE WHEN i % 7 = 0 THEN 'v' ELSE 'i' END || i % 6 AS model,
          i > {tasks} - {tasks // 1000} AS is_open,
          CASE WHEN i > {tasks} - {tasks // 1000} THEN CASE WHEN i % 2 = 0 THEN 'queued' ELSE 'running' END
               WHEN i % 100 < 6 THEN 'failed' WHEN i % 100 < 7 AND i % 4 > 0 THEN 'cancelled' ELSE 'succeeded'
          END AS status,
          CASE i % 4 WHEN 0 THEN 1 WHEN 1 THEN 2 + (i::bigint / 4 * 7919) % 99 ELSE 1 + (i::bigint * 7919) % {accounts}
          END AS account
          FROM generate_series(1, {tasks}) i) t"""


def _ledger(accounts: int, topups: int) -> str:
    return f"""
INSERT INTO ledger (account_id, seq, contra, kind, amount, balance, task_id, api_key_id, external_ref, actor, note,
                    created_at)
SELECT account_id, row_number() OVER (PARTITION BY account_id ORDER BY at, kind), contra, kind, amount, 1000000,
       task_id, key_id, ref, actor, CASE WHEN kind <> 'capture' THEN 'a note of some words' END, at
  FROM (SELECT account_id, 'revenue' AS contra, 'capture' AS kind, -charge AS amount, id AS task_id,
               api_key_id AS key_id, NULL AS ref, 'system' AS actor, settled_at AS at FROM tasks WHERE charge > 0
         UNION ALL
        SELECT account_id, 'revenue', 'refund', charge, id, NULL, id::text, 'boss@example.com',
               settled_at + interval '1 hour' FROM tasks WHERE charge > 0 AND upstream_id LIKE '%25'
         UNION ALL
        SELECT 1 + i % {accounts}, CASE WHEN i % 400 = 1 THEN 'adjust' WHEN i % 3 = 0 THEN 'promo' ELSE 'topup' END,
               CASE WHEN i % 400 = 1 THEN 'adjust' WHEN i % 3 = 0 THEN 'grant' ELSE 'topup' END, 5000, NULL, NULL,
               'order-' || i, 'boss@example.com', now() - {YEAR} + i * ({YEAR} / {topups})
          FROM generate_series(1, {topups}) i) l
 ORDER BY at"""


def _webhooks(deliveries: int) -> str:
    """Deliveries of the biggest account's newest tasks; one has failed."""
    return f"""
INSERT INTO webhook_endpoints (id, account_id, name, url, event_types)
VALUES ('{ENDPOINT}', 1, 'shop', 'https://shop.example/hook', '{{video.completed}}');
INSERT INTO webhook_events (id, account_id, type, task_id, created_at)
SELECT {_id("created_at", "e")}, account_id, 'image.completed', id, created_at
  FROM (SELECT *, row_number() OVER (ORDER BY id DESC) AS i FROM tasks
         WHERE account_id = 1 AND settled_at IS NOT NULL ORDER BY id DESC LIMIT {deliveries}) t;
INSERT INTO webhook_deliveries (id, event_id, account_id, endpoint_id, lane, state, tries, delivered_at, created_at)
SELECT {_id("created_at", "d")}, id, account_id, '{ENDPOINT}', '{ENDPOINT}',
       CASE WHEN i = {deliveries} / 2 THEN 'failed' ELSE 'delivered' END, 1, created_at, created_at
  FROM (SELECT *, row_number() OVER (ORDER BY id DESC) AS i FROM webhook_events) v;
INSERT INTO webhook_attempts (delivery_id, at, status, ms) SELECT id, created_at, 200, 80 FROM webhook_deliveries"""


def _codes(scale: float) -> str:
    return f"""
INSERT INTO redeem_codes (batch, code_hash, last4, kind, amount, note, created_by, created_at, expires_at, revoked_at,
                          redeemed_at, account_id, ledger_id)
SELECT md5('batch' || i / 1000)::uuid, sha256(('c' || i)::bytea), upper(substr(md5('c' || i), 1, 4)), 'grant', 100,
       'Campaign ' || i / 1000, 'boss@example.com', now(), CASE WHEN i % 1000 = 3 THEN now() - interval '1 day' END,
       CASE WHEN i % 2000 = 7 THEN now() END, CASE WHEN i % 2 = 0 THEN now() END,
       CASE WHEN i % 2 = 0 THEN 1 + i % {int(ACCOUNTS * scale)} END, CASE WHEN i % 2 = 0 THEN i END
  FROM generate_series(1, {int(CODES * scale)}) i"""


async def fill(url: str, scale: float, *, say: Callable[[str], object] = print) -> None:
    """Fill a database that is migrated to 0009 or later, as its superuser."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET synchronous_commit = off; SET work_mem = '512MB'")
        for table, sql in statements(scale):
            started = time.monotonic()
            await connection.execute(sql)
            say(f"{table}: {time.monotonic() - started:.1f} s")
        if await connection.fetchval("SELECT to_regclass('redeem_codes') IS NOT NULL"):
            await connection.execute(_codes(scale))
        await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()


async def fill_codes(url: str, scale: float) -> None:
    """Fill what came with 0010."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(_codes(scale))
        await connection.execute("VACUUM (ANALYZE) redeem_codes")
    finally:
        await connection.close()
