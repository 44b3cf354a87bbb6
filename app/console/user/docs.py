"""The docs page: quick start and reference, with the reader's own base URL in every line that is copied."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter
from starlette.responses import Response

from app.console.snippets import VARIABLE, Snippet, snippets
from app.console.visitor import ConsoleRoute, SomeVisitor
from app.console.wording import OPERATIONS, _
from app.requests import Operation

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

HERE = "/console/docs"
PARTS: Mapping[str, str] = {
    "start": _("Quick start"),
    "edits": _("Edit an image"),
    "videos": _("Videos"),
    "tasks": _("Tasks"),
    "webhooks": _("Webhooks"),
    "errors": _("Errors"),
    "idempotency": _("Retries and idempotency"),
    "limits": _("Limits"),
    "models": _("Models"),
}
"""In the order of the page; the names are its anchors."""
CALLS = ("image", "edit", "video", "tasks", "errors", "idempotency")
"""In the order of the page, in which they go on from each other."""
ERRORS: tuple[tuple[int, str, str], ...] = (
    (400, "invalid_parameter, missing_parameter", _("A field is wrong: param names it. Correct the request.")),
    (400, "content_policy_violation", _("The upstream refused the prompt. Word it differently.")),
    (401, "invalid_api_key", _("The key is unknown, revoked or expired.")),
    (402, "insufficient_credits, key_budget_exhausted", _("Top up, or raise the budget of the key.")),
    (403, "scope_missing, model_not_allowed, ip_not_allowed", _("The key may not do this.")),
    (404, "task_not_found, model_not_found", _("There is no such thing in your account.")),
    (410, "result_expired", _("The files were removed at the end of their retention.")),
    (429, "too_many_requests, too_many_tasks, queue_full", _("Wait for as long as retry-after says, then try again.")),
    (502, "upstream_error", _("The upstream failed. Nothing was charged; try again.")),
    (503, "overloaded, provider_unavailable", _("Busy, or no upstream is reachable. Try again.")),
    (504, "sync_wait_exceeded", _("The image takes longer. The task goes on: ask for it by its id.")),
)


def page_snippets(
    base_url: str, image_model: str, edit_model: str, video_model: str, gettext: Callable[[str], str] = str
) -> dict[str, list[Snippet]]:
    """Return the page's programs by their names in `CALLS`, with prompts in the reader's language."""
    models = {"edit": edit_model, "video": video_model}
    return {name: snippets(name, base_url, model=models.get(name, image_model), gettext=gettext) for name in CALLS}


@router.get(HERE)
async def docs(visitor: SomeVisitor) -> Response:
    catalog, settings = visitor.services.catalog, visitor.services.settings
    image, video = catalog.default_image_model, catalog.default_video_model
    edits = [model.id for model in catalog.models.values() if Operation.IMAGE_EDIT in model.operations]
    edit = image if image in edits or not edits else edits[0]
    return visitor.page(
        "user/docs.html",
        nav=HERE,
        parts=PARTS,
        snippets=page_snippets(settings.base_url, image, edit, video, visitor.gettext),
        variable=VARIABLE,
        errors=ERRORS,
        operations=OPERATIONS,
        models=[(model, sorted(one.value for one in model.operations)) for model in catalog.models.values()],
        key_rpm=settings.key_rpm,
        limits=settings,
    )
