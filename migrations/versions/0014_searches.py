"""Indexes by which lists and searches find their rows where there are very many.

Why: a page of the console must not read a whole table, whatever it is asked for. They are built beside the traffic, as
in 0013. Those for a part of a word need the extension pg_trgm, which comes with PostgreSQL but may not be there, or not
be allowed: without it the searches find the same, by reading all accounts, keys or codes.
"""

from __future__ import annotations

from collections.abc import Mapping

from alembic import op
from sqlalchemy.exc import DBAPIError

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

NEW: Mapping[str, str] = {
    # Lists by account, filtered from the index alone; it takes the place of two below.
    "tasks_account": ("tasks (account_id, id) INCLUDE (status, operation, model, api_key_id, created_at, deleted_at)"),
    "tasks_open": "tasks (account_id, id) WHERE settled_at IS NULL",
    "tasks_lost": "tasks (id DESC) WHERE status IN ('failed', 'cancelled')",
    "tasks_request": "tasks ((request->>'request_id')) WHERE settled_at IS NOT NULL",
    # What was charged, by its time: charts of usage are read from it alone.
    "tasks_spent": "tasks (account_id, settled_at) INCLUDE (model, api_key_id, charge) WHERE charge > 0",
    "files_kept": "files (account_id, task_id) INCLUDE (expires_at) WHERE role = 'result' AND state = 'ready'",
    "ledger_kinds": "ledger (account_id, kind, seq DESC) WHERE kind <> 'capture'",
    "accounts_apart": "accounts (id DESC) WHERE state <> 'active' OR is_admin",
    "keys_ending": "api_keys (id DESC) WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL",
    "keys_last4": "api_keys (lower(last4), id DESC)",
    "codes_last4": "redeem_codes (lower(last4), id DESC)",
    "codes_unused": "redeem_codes (id DESC) WHERE redeemed_at IS NULL",
    # By whole e-mails, whatever the order of letters in this database.
    "audit_who": "audit (split_part(actor, ' (', 1), id DESC)",
    "webhook_deliveries_open": "webhook_deliveries (account_id, endpoint_id, id) WHERE state <> 'delivered'",
}
OLD: Mapping[str, str] = {
    "tasks_acct": "tasks (account_id, created_at DESC)",
    "tasks_list": "tasks (account_id, id DESC) WHERE deleted_at IS NULL",
    "audit_actor": "audit (actor, id DESC)",
}
PARTS: Mapping[str, str] = {
    "accounts_email_part": "accounts USING gin (lower(email) {trigrams})",
    "accounts_name_part": "accounts USING gin (lower(name) {trigrams})",
    "keys_name_part": "api_keys USING gin (lower(name) {trigrams})",
    "codes_note_part": "redeem_codes USING gin (lower(note) {trigrams})",
}
MEASURED = ("accounts", "api_keys", "redeem_codes", "audit", "tasks")
"""What the planner knows of an index of expressions, it learns with the next look at its table."""
OURS = "made by Mediagate, for its searches"
NOT_TO_BE_HAD = ("42501", "0A000", "58P01")
"""No right to it, not offered here, its files are missing."""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _wait_for_readers(True)
        for name, what in NEW.items():
            _build(name, what)
        trigrams = _trigrams()
        if trigrams is not None:
            for name, what in PARTS.items():
                _build(name, what.format(trigrams=trigrams))
        _drop(OLD)
        for table in MEASURED:
            op.execute(f"ANALYZE {table}")
        _wait_for_readers(False)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _wait_for_readers(True)
        for name, what in OLD.items():
            _build(name, what)
        _drop(PARTS)
        _drop(NEW)
        if _find("SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'pg_trgm'") == OURS:
            op.execute(
                "DO $$ BEGIN DROP EXTENSION pg_trgm; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $$"
            )  # somebody's own index uses it by now
        _wait_for_readers(False)


def _trigrams() -> str | None:
    """Return the operators of trigrams by their whole name, making the extension where we may; None: where not."""
    if _find("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'") is None:
        return None
    if _find("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'") is None:
        try:
            op.execute("CREATE EXTENSION pg_trgm")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) in NOT_TO_BE_HAD:
                return None
            raise
        op.execute(f"COMMENT ON EXTENSION pg_trgm IS '{OURS}'")
    found = _find("""
SELECT quote_ident(nspname) || '.gin_trgm_ops' FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE extname = 'pg_trgm'""")
    return str(found)


def _wait_for_readers(does_wait: bool) -> None:
    """A build beside the traffic waits for transactions that are older, and nobody waits for it meanwhile."""
    op.execute(f"SET lock_timeout = '{'0' if does_wait else '10s'}'")


def _build(name: str, what: str) -> None:
    found = op.get_bind().exec_driver_sql("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", (name,))
    if found.scalar() is False:  # what a build that failed has left
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {what}")


def _drop(names: Mapping[str, str]) -> None:
    for name in names:
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def _find(sql: str) -> object | None:
    return op.get_bind().exec_driver_sql(sql).scalar()
