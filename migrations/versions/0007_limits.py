"""Keys that replace each other share a budget; a key's requests per minute are a sane number.

Why: while a rotated key and its successor both worked, each had a budget of its own, so what was left could be spent
twice. Keys rotated before keep the budgets they got then. And a key's life span is a column, as a rotation overwrites
its expiry.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0007_limits.sql")


def downgrade() -> None:
    op.execute("DROP TRIGGER tasks_family_budget ON tasks")
    op.execute("DROP FUNCTION mg_family_budget(), mg_period_start(text)")
    op.execute("ALTER TABLE api_keys DROP CONSTRAINT api_keys_rpm, DROP COLUMN life")
    op.execute("ALTER TABLE key_budgets DROP COLUMN family")
