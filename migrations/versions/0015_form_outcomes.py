"""What became of forms that were sent.

Why: a form whose work failed was called done. Whoever sends it again is told whether it was done, or that this is not
known; a form that is known to have done nothing may simply be sent again.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0015_form_outcomes.sql")


def downgrade() -> None:
    op.execute("REVOKE UPDATE (done_at, made, claim) ON console_forms FROM mediagate_app")
    op.execute("ALTER TABLE console_forms DROP done_at, DROP made, DROP claim")
