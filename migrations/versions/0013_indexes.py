"""Indexes for the figures of a period, for lists and for searches, on tables that may be big already.

Why: a dashboard must not read every task there ever was. They are built beside the traffic, outside a transaction, so
that no hold and no settlement waits; what a build that failed has left is built again when the migration is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

NEW: Mapping[str, str] = {
    "lots_due": "credit_lots (expires_at) WHERE remaining > 0",
    "ledger_days": "ledger (created_at) INCLUDE (kind, amount, account_id)",
    "attempts_cost": "task_attempts (sent_at) INCLUDE (upstream_cost, cost_currency) WHERE upstream_cost IS NOT NULL",
    "audit_actor": "audit (actor, id DESC)",
    "audit_action": "audit (action, id DESC)",
    "audit_at": "audit (at)",
    "keys_account": "api_keys (account_id, id DESC)",
}
# Figures are read from the index alone, not from wide rows. None of the tasks' columns changes once it is settled.
WIDER: Mapping[str, tuple[str, str]] = {
    "tasks_settled": (
        "tasks (settled_at) INCLUDE (status, model, pool, created_at) WHERE settled_at IS NOT NULL",
        "tasks (settled_at) WHERE settled_at IS NOT NULL",
    ),
    "files_expiry": (
        "files (expires_at) INCLUDE (role, state, bytes) WHERE state <> 'deleted'",
        "files (expires_at) WHERE state <> 'deleted'",
    ),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _wait_for_readers(True)
        for name, what in NEW.items():
            _build(name, what)
        for name, (wide, _narrow) in WIDER.items():
            _replace(name, wide, is_wide=True)
        _wait_for_readers(False)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _wait_for_readers(True)
        for name, (_wide, narrow) in WIDER.items():
            _replace(name, narrow, is_wide=False)
        for name in NEW:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        _wait_for_readers(False)


def _wait_for_readers(does_wait: bool) -> None:
    """A build beside the traffic waits for transactions that are older, and nobody waits for it meanwhile."""
    op.execute(f"SET lock_timeout = '{'0' if does_wait else '10s'}'")


def _build(name: str, what: str) -> None:
    if _state(name) == "broken":
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {what}")


def _replace(name: str, what: str, *, is_wide: bool) -> None:
    """Build the other index first, and only then take the old one away: there is never none."""
    if _state(name) == ("wide" if is_wide else "narrow"):
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_new")
        return
    _build(f"{name}_new", what)
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"ALTER INDEX {name}_new RENAME TO {name}")


def _state(name: str) -> str | None:
    """Return ``wide``, ``narrow`` or ``broken``: a build that did not end; None: there is no such index."""
    found = op.get_bind().exec_driver_sql(
        "SELECT indisvalid, indnatts > indnkeyatts AS is_wide FROM pg_index WHERE indexrelid = to_regclass($1)", (name,)
    )
    row = found.first()
    if row is None:
        return None
    return ("wide" if row[1] else "narrow") if row[0] else "broken"
