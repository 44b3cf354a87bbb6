"""Passwords, sessions, one-time links, identities of an OpenID provider, and each account's console key.

Why: people sign in to the console, and what they spend there must stand under a key in the books.
"""

from __future__ import annotations

from alembic import op

from migrations import sqlfiles

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfiles.run("0009_sign_in.sql")


def downgrade() -> None:
    op.execute("DROP TABLE oidc_states, identities, sign_in_places, sign_in_tries, sign_in_links, sessions, passwords")
    # The console keys stay: tasks and the ledger name them. They are keys nobody knows a secret for.
    op.execute("ALTER TABLE api_keys DROP CONSTRAINT api_keys_console")
    op.execute("ALTER TABLE api_keys DROP COLUMN is_console")  # its index goes too
    op.execute("ALTER TABLE accounts DROP COLUMN language, DROP COLUMN theme, DROP COLUMN is_self_registered")
