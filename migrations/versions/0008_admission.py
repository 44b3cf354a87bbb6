"""An index of each pool's latest ends.

Why: a new task is refused while its pool's queue is longer than it may wait; the pool's speed must be cheap to learn.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0008_admission.sql")


def downgrade() -> None:
    op.execute("DROP INDEX tasks_ends")
