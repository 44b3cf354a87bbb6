"""Upstream accounts with sealed secrets, routes, and the audit of administrators' changes.

Why: accounts and routes change while tasks run; a task is pinned to the version of the account that took it.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("audit", "routes", "upstream_credentials", "upstreams", "upstream_book")


def upgrade() -> None:
    sqlfiles.run("0002_upstreams.sql")


def downgrade() -> None:
    op.execute("ALTER TABLE tasks DROP COLUMN credential")
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")
