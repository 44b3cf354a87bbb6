"""Webhook endpoints with sealed secrets, the outbox of events, deliveries with their attempts, the low-credit mark.

Why: an event is written by the transaction that settles its task: none is lost, none is about what was rolled back.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = ("webhook_attempts", "webhook_deliveries", "webhook_events", "webhook_secrets", "webhook_endpoints")
FUNCTIONS = ("accounts_low", "tasks_outbox", "mg_webhook_event", "mg_uuid7")


def upgrade() -> None:
    sqlfiles.run("0005_webhooks.sql")


def downgrade() -> None:
    op.execute("DROP TRIGGER accounts_low ON accounts")
    op.execute("DROP TRIGGER tasks_outbox ON tasks")
    op.execute("ALTER TABLE accounts DROP COLUMN low_told, DROP COLUMN low_paid, DROP COLUMN low_credits")
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
