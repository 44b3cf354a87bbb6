"""Codes that are worth credits, and credits that expire.

Why: credits are handed out without an administrator at hand.
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
    op.execute("DROP FUNCTION mg_set_admin, mg_expire_due, mg_redeem")
    op.execute("DROP TABLE redeem_tries, redeem_codes")
