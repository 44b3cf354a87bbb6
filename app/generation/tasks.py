"""What an owner, or an operator, may do with a task: read, wait, list, cancel, delete, fetch its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

from app.accounts.keys import Principal
from app.credits.ledger import Ledger
from app.errors import FileNotFound, InvalidParameter, ResultExpired, TaskNotFound, TaskNotReady, TooManyRequests
from app.generation.advance import Advancer
from app.generation.retention import Retention
from app.queue import ArqQueue
from app.tasks.lifecycle import Lifecycle
from app.tasks.queries import StoredFile, TaskFilter, TaskPage, TaskQueries, TaskView
from app.tasks.waiting import Waiters
from app.values import find_task_id, utcnow

WATCH_S = 1.0
MOST_WATCHED = 20
"""Streams of an account at once, in this process."""
WATCHED_AGAIN_S = 5
ROLES = {"image": "result", "video": "result", "thumbnail": "thumbnail", "gif": "gif"}


class Tasks:
    def __init__(
        self,
        *,
        queries: TaskQueries,
        lifecycle: Lifecycle,
        ledger: Ledger,
        waiters: Waiters,
        queue: ArqQueue,
        advancer: Advancer,
        retention: Retention,
    ) -> None:
        self._queries = queries
        self._lifecycle = lifecycle
        self._ledger = ledger
        self._waiters = waiters
        self._queue = queue
        self._advancer = advancer
        self._retention = retention
        self._watched: Counter[int] = Counter()

    async def get(self, principal: Principal, public_id: str) -> TaskView:
        """Return the caller's task. Raises: TaskNotFound (unknown, deleted, or another account's)."""
        return await self._get(public_id, account_id=principal.account_id)

    async def _get(self, public_id: str, *, account_id: int | None) -> TaskView:
        task_id = find_task_id(public_id)
        view = await self._queries.find(task_id, account_id=account_id) if task_id else None
        if view is None or (view.deleted_at is not None and account_id is not None):
            raise TaskNotFound(public_id)
        return view

    async def wait(self, principal: Principal, public_id: str, seconds: float) -> TaskView:
        """Return the task as soon as it has ended, or as it stands after ``seconds``. Raises: TaskNotFound."""
        view = await self.get(principal, public_id)
        if not view.is_final and seconds > 0:
            await self._waiters.wait(view.id, seconds, until_stop=True)
            view = await self.get(principal, public_id)
        return view

    async def changes(
        self, principal: Principal, public_id: str, *, check: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[TaskView]:
        """Yield the task now and after each visible change, until it has ended or the process stops.

        However many watch, the database is asked once a second for all of them.

        Raises: TaskNotFound; TooManyRequests when the account watches too many here already; and what ``check``
        raises, every second, when the caller may watch no longer.
        """
        view = await self.get(principal, public_id)
        if view.is_final:
            yield view
            return
        with self._watching(principal.account_id):
            yield view
            while not (view.is_final or self._waiters.is_stopping):
                is_news = await self._waiters.wait(view.id, WATCH_S, until_stop=True, than=view.look)
                await check()
                if not is_news:
                    continue
                newer = await self.get(principal, public_id)
                if (newer.public_status, newer.progress) != (view.public_status, view.progress):
                    yield newer
                view = newer

    @contextmanager
    def _watching(self, account_id: int) -> Iterator[None]:
        """Raises: TooManyRequests."""
        if self._watched[account_id] >= MOST_WATCHED:
            raise TooManyRequests(
                f"This account watches {MOST_WATCHED} tasks already. End one of these streams, or read the task with "
                "GET /v1/tasks/{id}?wait=60 instead.",
                retry_after_s=WATCHED_AGAIN_S,
            )
        self._watched[account_id] += 1
        try:
            yield
        finally:
            self._watched[account_id] -= 1
            if not self._watched[account_id]:
                del self._watched[account_id]

    async def page(self, principal: Principal, wanted: TaskFilter, *, after: str | None) -> TaskPage:
        """Return one page of the caller's tasks. Raises: InvalidParameter when ``after`` is not one of them."""
        cursor: UUID | None = None
        if after is not None:  # a deleted one still says where a page ended
            cursor = find_task_id(after)
            if cursor is None or await self._queries.find(cursor, account_id=principal.account_id) is None:
                raise InvalidParameter("'after' must be the id of a task in this list.", param="after")
        return await self._queries.page(replace(wanted, after=cursor), account_id=principal.account_id)

    async def cancel(self, principal: Principal, public_id: str) -> TaskView:
        """Cancel: free while queued, best effort once an upstream has it, nothing at the end. Raises: TaskNotFound."""
        return await self._cancel(await self.get(principal, public_id))

    async def _cancel(self, view: TaskView) -> TaskView:
        if view.is_final:
            return view
        # The token read together with 'queued' proves that nobody has claimed it since.
        if view.status == "queued" and await self._ledger.cancel(view.id, view.lease_token):
            await self._advancer.announce(view.id)
        elif await self._lifecycle.request_cancel(view.id):
            await self._queue.enqueue(view.id)
        newer = await self._queries.find(view.id)
        return newer or view

    async def delete(self, principal: Principal, public_id: str) -> TaskView:
        """Cancel it if it runs, remove its files, hide it. The ledger keeps its rows. Raises: TaskNotFound."""
        view = await self._cancel(await self.get(principal, public_id))
        await self._lifecycle.mark_deleted(view.id)
        await self._retention.remove_files_of(view.id)
        return view

    async def file(self, principal: Principal | None, public_id: str, kind: str) -> StoredFile:
        """Return the file behind ``/api/jobs/{id}/{kind}``; no principal means that the link's signature was checked.

        Raises: TaskNotFound, FileNotFound, TaskNotReady, ResultExpired, the task's own error.
        """
        view = await self._get(public_id, account_id=principal.account_id if principal else None)
        if view.deleted_at is not None:
            raise ResultExpired(view.public_id)
        if kind not in ROLES or (kind in ("image", "video") and kind != view.operation.kind):
            raise FileNotFound(view.public_id, kind)
        if not view.is_final:
            raise TaskNotReady("The task is not finished yet.", retry_after_s=2, task_id=view.public_id)
        if view.error is not None:
            raise view.error
        found = view.find_file(ROLES[kind])
        if found is None:
            raise FileNotFound(view.public_id, kind)
        if not found.is_kept(utcnow()):
            raise ResultExpired(view.public_id)
        return found

    async def input_file(self, public_id: str, name: str) -> StoredFile:
        """Return an input, a mask too, for whoever has its signed link: an upstream, or the playground doing it again.

        Raises: TaskNotFound, FileNotFound, ResultExpired.
        """
        view = await self._get(public_id, account_id=None)
        given = (*view.files_of("input"), *view.files_of("mask"))
        found = next((file for file in given if file.id.hex == name), None)
        if found is None:
            raise FileNotFound(view.public_id, "such input")
        if view.deleted_at is not None or not found.is_kept(utcnow()):
            raise ResultExpired(view.public_id)
        return found
