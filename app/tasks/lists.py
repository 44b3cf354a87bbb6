"""What lists of tasks are asked for, and the statements that find their ids: each by one index, a part at a time.

A filter that few tasks match must not read all there are. So a page looks at `ENTRIES` entries of an index at most, or
at `ROWS` rows where no index holds what it asks for, and says where it stopped: the next page goes on there, also after
an empty one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.db import Where
from app.requests import Operation
from app.values import first_id

CLOCKS_APART = timedelta(hours=1)
"""Ids sort by time, by the clock of the process that made them."""
ENTRIES = 50_000
ROWS = 10_000
SCATTERED = 5000
"""Rows that do not lie beside each other, or whose prompts are read."""
FINAL = frozenset({"succeeded", "failed", "cancelled"})
LOST = frozenset({"failed", "cancelled"})
PUBLIC_STATUS = {
    "queued": "queued",
    "submitting": "in_progress",
    "uncertain": "in_progress",
    "running": "in_progress",
    "storing": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """What a list shows. None means any."""

    statuses: Sequence[str] | None = None
    """Public statuses."""
    model: str | None = None
    operations: Sequence[Operation] | None = None
    after: UUID | None = None
    limit: int = 20
    ascending: bool = False
    key_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    """In the prompt, whatever the case of its letters."""
    is_kept: bool = False
    """Only tasks with a result that can still be had."""


@dataclass(frozen=True, slots=True)
class TaskSearch:
    """What an operator looks for among all tasks. None means any."""

    statuses: Sequence[str] | None = None
    """Internal states."""
    model: str | None = None
    operations: Sequence[Operation] | None = None
    account_id: int | None = None
    key_id: int | None = None
    pool: str | None = None
    upstream: str | None = None
    """The account of the pool."""
    upstream_id: str | None = None
    """The upstream's id for the job, of any attempt."""
    client_token: str | None = None
    request_id: str | None = None
    """Of the request that made it."""
    reason: str | None = None
    """Why it failed."""
    since: datetime | None = None
    until: datetime | None = None
    only: UUID | None = None
    """This one, if the rest is true of it."""
    after: UUID | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Listing:
    """How one page is found."""

    page: str
    """Ends with the table ``page`` of ids, in order."""
    stop: str
    """Finds the last id that the page looked at, or none where it looked at all there are."""
    direction: str
    arguments: Sequence[object]
    stop_arguments: Sequence[object]


def of_account(wanted: TaskFilter, account_id: int) -> Listing:
    """Return how a page of one account's tasks is found; deleted ones are left out."""
    states = None
    if wanted.statuses is not None:
        states = [state for state, public in PUBLIC_STATUS.items() if public in wanted.statuses]
    by = Where()
    account = by.number(account_id)
    if wanted.is_kept:
        source, at, owner, looks = _KEPT, "f.task_id", "f.account_id", SCATTERED
    else:
        source, at, owner, looks = _TASKS, "t.id", "t.account_id", ENTRIES if wanted.text is None else SCATTERED
        if states is not None and FINAL.isdisjoint(states):
            by.where.append("t.settled_at IS NULL")
    by.where.append(f"{owner} = {account}")
    mark = f"({owner}, {at}) {{}} ({account}, {{{{}}}})"
    _bound(by, mark, wanted.since, wanted.until)
    by.add(mark.format(">" if wanted.ascending else "<"), wanted.after)
    but = Where(by)
    but.where.append("t.deleted_at IS NULL")
    but.where += ["t.expires_at > now()"] if wanted.is_kept else []
    _match(but, states, wanted.model, wanted.operations, wanted.key_id, wanted.since, wanted.until)
    but.add("strpos(lower(t.request->>'prompt'), lower({}::text)) > 0", wanted.text)
    columns = _COLUMNS + (", t.request" if wanted.text is not None else "")
    return _listing(source, columns, at, looks, by, but, limit=wanted.limit, ascending=wanted.ascending)


def of_all(wanted: TaskSearch) -> Listing:
    """Return how a page of all accounts' tasks is found, newest first, deleted ones too."""
    by = Where()
    by.add("t.id = {}", wanted.only)
    by.add("t.id IN (SELECT task_id FROM task_attempts WHERE upstream_id = {})", wanted.upstream_id)
    by.add("t.id = (SELECT task_id FROM task_attempts WHERE client_token = {})", wanted.client_token)
    by.add(f"t.id = ANY(ARRAY({_OF_REQUEST}))", wanted.request_id)
    account = Where(by)
    source, mark, looks, states = _TASKS, "t.id {} {{}}", ROWS, set(wanted.statuses or ())
    for value, owner in ((wanted.key_id, "(SELECT account_id FROM api_keys WHERE id = {})"), (wanted.account_id, "{}")):
        if value is not None:
            owner = owner.format(account.number(value))
            account.where.append(f"t.account_id = {owner}")
            mark = f"(t.account_id, t.id) {{}} ({owner}, {{{{}}}})"
    needs_rows = any(part is not None for part in (wanted.reason, wanted.pool, wanted.upstream))
    if by.where:  # a few at most
        by.where += account.where
        by.arguments = account.arguments
    elif states and FINAL.isdisjoint(states):
        source = _OPEN
        by.where += account.where
        by.arguments = account.arguments
    elif account.where:
        looks = SCATTERED if needs_rows else ENTRIES
        by = account
    elif wanted.reason is not None:
        looks = SCATTERED
        by.where.append("t.status = 'failed'")
        by.add("t.error_code = {}", wanted.reason)
    elif states and states <= LOST:
        looks = SCATTERED
        by.where.append("t.status IN ('failed', 'cancelled')")
    _bound(by, mark, wanted.since, wanted.until)
    by.add(mark.format("<"), wanted.after)
    but = Where(by)
    _match(but, wanted.statuses, wanted.model, wanted.operations, wanted.key_id, wanted.since, wanted.until)
    if wanted.reason is not None:
        but.where.append("t.status = 'failed'")
    but.add("t.error_code = {}", wanted.reason)
    but.add("t.pool = {}", wanted.pool)
    but.add("split_part(t.pool, '/', 1) = {}", wanted.upstream)
    columns = _COLUMNS + (", t.error_code, t.pool" if needs_rows else "")
    return _listing(source, columns, "t.id", looks, by, but, limit=wanted.limit, ascending=False)


def _bound(by: Where, mark: str, since: datetime | None, until: datetime | None) -> None:
    """Keep to the ids of a time, with the tolerance that clocks need.

    ``mark`` compares with an id; where the account is known, both as a pair: by the account's index alone, never
    through everybody's tasks of that time.
    """
    by.add(mark.format(">="), None if since is None else first_id(since - CLOCKS_APART))
    by.add(mark.format("<"), None if until is None else first_id(until + CLOCKS_APART))


def _match(
    but: Where,
    states: Sequence[str] | None,
    model: str | None,
    operations: Sequence[Operation] | None,
    key_id: int | None,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Add what the index of an account's tasks holds."""
    but.add("t.status = ANY({}::text[])", None if states is None else list(states))
    but.add("t.model = {}", model)
    but.add("t.operation = ANY({}::text[])", [operation.value for operation in operations] if operations else None)
    but.add("t.api_key_id = {}", key_id)
    but.add("t.created_at >= {}", since)
    but.add("t.created_at < {}", until)


def _listing(
    source: str, columns: str, at: str, looks: int, by: Where, but: Where, *, limit: int, ascending: bool
) -> Listing:
    """``by`` is what the index finds, ``but`` what is asked of each that it finds."""
    direction = "ASC" if ascending else "DESC"
    looked = source.format(columns=columns, by=by.sql, order=f"{at} {direction}", looks=f"LIMIT {looks:d}")
    page = f"""{looked},
page AS (SELECT t.id FROM looked t WHERE {but.sql} ORDER BY t.id {direction} LIMIT {limit + 1:d})"""  # noqa: S608 - our own words
    last = f"OFFSET {looks - 1:d} LIMIT 1"
    looked = source.format(columns="t.id", by=by.sql, order=f"{at} {direction}", looks=last)
    stop = f"{looked} SELECT id FROM looked"  # noqa: S608
    return Listing(page, stop, direction, but.arguments, by.arguments)


# Those that have ended by their index; of the open ones there are few.
_OF_REQUEST = """SELECT id FROM tasks WHERE settled_at IS NOT NULL AND request->>'request_id' = {0}
 UNION ALL SELECT id FROM tasks WHERE settled_at IS NULL AND request->>'request_id' = {0}"""
# All in the index `tasks_account`.
_COLUMNS = "t.id, t.deleted_at, t.status, t.operation, t.model, t.api_key_id, t.created_at"
_TASKS = "WITH looked AS (SELECT {columns} FROM tasks t WHERE {by} ORDER BY {order} {looks})"
# The open ones first: there are few, wherever in the order they lie.
_OPEN = """WITH unsettled AS MATERIALIZED (SELECT {columns} FROM tasks t WHERE t.settled_at IS NULL AND {by}),
looked AS (SELECT * FROM unsettled t ORDER BY {order} {looks})"""
# From the index of results that are there; a task may have several.
_KEPT = """WITH kept AS (SELECT f.task_id, max(f.expires_at) AS expires_at FROM files f
  WHERE f.role = 'result' AND f.state = 'ready' AND {by} GROUP BY f.task_id ORDER BY {order} {looks}),
looked AS (SELECT {columns}, f.expires_at FROM kept f JOIN tasks t ON t.id = f.task_id ORDER BY {order})"""
