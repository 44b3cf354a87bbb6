"""Models and prices with the time they hold from.

Why: administrators change them while the gateway runs, ahead of time, and every quote names what priced it.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0011_model_versions.sql")


def downgrade() -> None:
    op.execute("DROP TABLE model_versions, model_book")
    op.execute("DROP FUNCTION mg_model_version_fixed()")
