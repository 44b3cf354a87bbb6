"""Forms of the console that were sent.

Why: a page that is loaded again, or a button pressed twice, must not create or pay twice.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0012_console_forms.sql")


def downgrade() -> None:
    op.execute("DROP TABLE console_forms")
