"""What the lists of the administration have in common: a search word, a page, and where the page before ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path, Query

from app.api.v1.tasks import NAME
from app.errors import InvalidParameter
from app.journal import MAX_REASON_CHARS

MAX_PAGE = 1000
REASON = f"Why, for the audit: 1 to {MAX_REASON_CHARS} printable characters."
LAST_SECOND = 253402300799  # of the year 9999

Q = Annotated[str | None, Query(max_length=200, description="Part of a name or an e-mail; capitals do not matter.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
After = Annotated[str | None, Query(max_length=64, description="The `last_id` of the page before.")]
Since = Annotated[str | None, Query(alias="from", max_length=64, examples=["2026-11-01"])]
Until = Annotated[str | None, Query(alias="to", max_length=64, examples=["2026-11-30"])]
Reference = Annotated[str, Path(max_length=254, pattern=NAME, description="`acct_12`, or an e-mail address.")]
AccountFilter = Annotated[
    str | None, Query(max_length=254, pattern=NAME, description="`acct_12`, or an e-mail address.")
]
WHEN = "Unix seconds; null: never."


def last_id(text: str | None, find: Callable[[str], int | None]) -> int | None:
    """Read ``after``. Raises: InvalidParameter."""
    if text is None:
        return None
    found = find(text)
    if found is None:
        raise InvalidParameter("'after' must be the last id of the page before.", param="after")
    return found


def moment(seconds: int | None, param: str = "expires_at") -> datetime | None:
    """Read Unix seconds of a body. Raises: InvalidParameter."""
    if seconds is None:
        return None
    if not 0 <= seconds <= LAST_SECOND:
        raise InvalidParameter(f"'{param}' must be a time in Unix seconds.", param=param)
    return datetime.fromtimestamp(seconds, UTC)
