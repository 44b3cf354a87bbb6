"""The audit's invariants as one question, for tests that ask after every step."""

from __future__ import annotations

from app.credits import audit

VIOLATIONS = " UNION ALL ".join(
    f"SELECT '{entry[0]}' AS broken, x.id::text FROM ({entry[-1]}) x(id)"  # noqa: S608 - our own words
    for entry in audit._INVARIANTS
)
"""Returns (invariant, id) for each violation: I1 to I9, as far as rows alone can tell."""
