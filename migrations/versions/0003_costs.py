"""The currency of an attempt's cost, late successes, and an index for polling in batches.

Why: failed but billed attempts must be seen, and a thousand videos are polled with one statement.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0003_costs.sql")


def downgrade() -> None:
    op.execute("DROP INDEX tasks_polls")
    op.execute("ALTER TABLE task_attempts DROP COLUMN cost_currency, DROP COLUMN late_at")
