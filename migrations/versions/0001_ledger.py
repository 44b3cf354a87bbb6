"""Accounts, keys, ledger, tasks, attempts and files, with the functions that alone move credits.

Why: PostgreSQL is the only truth; what must never happen is refused by it, not by convention.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "files",
    "idempotency",
    "credit_lots",
    "ledger",
    "task_attempts",
    "tasks",
    "key_budgets",
    "api_keys",
    "accounts",
    "task_transitions",
    "deployment",
)
FUNCTIONS = (
    "mg_fail",
    "mg_finish",
    "mg_begin",
    "mg_put_files",
    "mg_accept",
    "mg_expire",
    "mg_post",
    "mg_settle",
    "mg_burn",
    "mg_reserve",
    "no_rewrite",
    "tasks_guard",
)


def upgrade() -> None:
    sqlfiles.run("0001_tables.sql", "0001_functions.sql", "0001_steps.sql", "0001_roles.sql")


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {table} CASCADE")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function} CASCADE")
    op.execute(
        "REVOKE ALL ON SCHEMA public FROM mediagate_app"
    )  # the role is the cluster's: another database may use it
