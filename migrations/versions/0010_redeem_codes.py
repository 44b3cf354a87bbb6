"""Codes that are worth credits, credits that expire, and indexes for the figures of a period.

Why: credits are handed out without an administrator at hand, and a dashboard must not read every task there ever was.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0010_redeem_codes.sql")


def downgrade() -> None:
    op.execute(
        "DROP INDEX keys_account, audit_at, audit_action, audit_actor, attempts_cost, ledger_days, tasks_settled"
    )
    op.execute("CREATE INDEX tasks_settled ON tasks (settled_at) WHERE settled_at IS NOT NULL")
    op.execute("DROP FUNCTION mg_set_admin, mg_expire_due, mg_redeem")
    op.execute("DROP INDEX lots_due")
    op.execute("DROP TABLE redeem_tries, redeem_codes")
