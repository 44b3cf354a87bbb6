"""A request that is sent again means the task it made the first time.

Why: clients and SDKs repeat requests whose answer they did not get, and each repeat would be a second charge. The key's
row must be written in the transaction that places the hold, so the functions that place it take the key.
"""

from __future__ import annotations

from migrations import sqlfiles

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0004_idempotency.sql")


def downgrade() -> None:
    sqlfiles.run("0004_idempotency_down.sql")
