"""The states a task went through, refunds, a limit on balances, and totals for the metrics.

Why: an operator must see what became of a task and who did it, give credits back once and never too many, and be warned
without a query over all tasks.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0006_operations.sql")


def downgrade() -> None:
    op.execute("DROP TABLE watch, attempt_counts, task_counts")
    op.execute("DROP FUNCTION mg_refund")
    op.execute("ALTER TABLE accounts DROP CONSTRAINT accounts_posted_max")
    op.execute("DROP INDEX tasks_settled, tasks_failed, attempts_late, attempts_upstream, ledger_task")
    op.execute("DROP TRIGGER tasks_moved ON tasks")
    op.execute("DROP FUNCTION tasks_moved")
    op.execute("DROP TABLE task_events")
