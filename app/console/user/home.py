"""The first page: the balance, what runs, what was spent, what was made last, and what to do first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from app.api.session import principal_of
from app.console import shell, wording
from app.console.user import shown
from app.console.user.usage import daily_chart
from app.console.visitor import ConsoleRoute, FormDep, SomeVisitor, Visitor, go
from app.console.wording import _
from app.requests import Operation
from app.tasks.queries import TaskFilter, TaskPage, TaskView
from app.values import utcnow

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

HOME = "/console"
DAYS = 14
RUNNING, LATEST = 8, 8
EXPIRES_SOON = timedelta(days=14)
HIDDEN_COOKIE, HIDDEN_S = "mg_first_steps", 365 * 86400
IMAGES = (Operation.IMAGE_GENERATE, Operation.IMAGE_EDIT)
VIDEOS = (Operation.VIDEO_GENERATE, Operation.VIDEO_EDIT, Operation.VIDEO_REMIX)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do first."""

    title: str
    text: str
    path: str
    icon: str
    is_done: bool


@router.get(HOME)
async def home(visitor: SomeVisitor) -> Response:
    titles = shown.model_titles(visitor)
    running = await shown.open_tasks(visitor, limit=RUNNING)
    keys = await shown.key_names(visitor, (task.key_id for task in running))
    account = await visitor.services.accounts.get(visitor.account_id)
    now: dict[str, Any] = {
        "account": account,
        "running": shown.rows_of(running, titles, keys),
        "operations": wording.OPERATIONS,
        "every_s": 3 if running else 30,
    }
    if shell.is_fragment(visitor.request):
        return visitor.page("user/home_now.html", **now)
    today = utcnow().date()
    first = today - timedelta(days=DAYS - 1)
    cells = await visitor.services.statements.daily_usage(
        visitor.account_id, start=shown.midnight(first), end=shown.midnight(today + timedelta(days=1))
    )
    latest = (await _made(visitor, limit=LATEST)).items
    lots = await visitor.services.statements.lots(visitor.account_id)
    return visitor.page(
        "user/home.html",
        nav=HOME,
        **now,
        spent=sum(cell.credits for cell in cells),
        chart=daily_chart(cells, first, today, titles, visitor.gettext) if cells else None,
        latest=shown.rows_of(latest, titles, await shown.key_names(visitor, (task.key_id for task in latest))),
        steps=await _steps(visitor, latest),
        is_low=account.credits <= (visitor.services.settings.low_credits or 0),
        expiring=[lot for lot in lots if lot.expires_at - utcnow() < EXPIRES_SOON],
    )


async def _made(visitor: Visitor, *, limit: int, operations: tuple[Operation, ...] | None = None) -> TaskPage:
    wanted = TaskFilter(("completed",), operations=operations, limit=limit)
    return await visitor.services.tasks.page(principal_of(visitor.session), wanted, after=None)


async def _steps(visitor: Visitor, latest: Sequence[TaskView]) -> list[Step]:
    """Return what to do first, ticked by what the account really has; nothing once all is done, or it was hidden."""
    if visitor.request.cookies.get(HIDDEN_COOKIE) == "hidden":
        return []

    async def has_made(operations: tuple[Operation, ...]) -> bool:
        if any(task.operation in operations for task in latest):
            return True
        made = await _made(visitor, limit=1, operations=operations)
        return bool(made.items) or made.has_more  # who has so many tasks that not all were looked at is past this

    steps = [
        Step(
            _("Make an image"),
            _("In the playground, with a sentence: no code is needed."),
            "/console/playground",
            "image",
            await has_made(IMAGES),
        ),
        Step(
            _("Make a video"),
            _("Choose a video model. It takes a little longer, and you see how far it is."),
            f"/console/playground?model={visitor.services.catalog.default_video_model}",
            "video",
            await has_made(VIDEOS),
        ),
        Step(
            _("Create an API key"),
            _("Your programs call with it. It is shown once."),
            "/console/keys",
            "key-round",
            await visitor.services.keys.has_any(visitor.account_id),
        ),
    ]
    return [] if all(step.is_done for step in steps) else steps


@router.post("/console/first-steps")
async def hide_first_steps(visitor: SomeVisitor, form: FormDep) -> Response:
    response = go(visitor.request, HOME)
    response.set_cookie(
        HIDDEN_COOKIE,
        "hidden",
        max_age=HIDDEN_S,
        path=HOME,
        secure=visitor.services.settings.base_url.startswith("https://"),
        httponly=True,
        samesite="lax",
    )
    return response
