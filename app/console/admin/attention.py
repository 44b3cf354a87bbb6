"""What needs an administrator now, in words: what is wrong, what to do about it, and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from app.console.shell import texts_of
from app.console.visitor import Visitor
from app.console.wording import _
from app.generation.attention import Concern, Kind
from app.generation.faults import Fault

UPSTREAMS, TASKS = "/console/admin/upstreams", "/console/admin/tasks"
SHOWN_MODELS = 5


@dataclass(frozen=True, slots=True)
class Words:
    title: str
    advice: str
    button: str
    link: Callable[[Concern], str]


@dataclass(frozen=True, slots=True)
class Told:
    """A concern as the page shows it."""

    is_urgent: bool
    title: str
    text: str
    fault: Fault | None
    button: str
    link: str


def _of_model(concern: Concern) -> str:
    return f"{UPSTREAMS}?model={quote(concern.models[0])}" if len(concern.models) == 1 else UPSTREAMS


def _of_upstream(concern: Concern) -> str:
    return f"{UPSTREAMS}/{quote(concern.upstream)}"


WORDS: Mapping[Kind, Words] = {
    "unrouted": Words(
        _("Nobody can make these models: %(models)s"),
        _("No enabled route leads to an active upstream. Add or enable one, or withdraw the models."),
        _("Look at the routes"),
        _of_model,
    ),
    "secretless": Words(
        _("%(upstream)s has no secret"),
        _("Its vendor refuses every call. Set the secret, or disable the account's routes."),
        _("Open the upstream"),
        _of_upstream,
    ),
    "stopped": Words(
        _("These models stand still: %(models)s"),
        _(
            "All their routes are paused; tasks wait and fail when it lasts. The next try is in %(seconds)s s. "
            "A route through another upstream would take over."
        ),
        _("Look at the routes"),
        _of_model,
    ),
    "broken": Words(
        _("%(pool)s is cut off after errors"),
        _(
            "It is tried again by itself in %(seconds)s s. Test the account; with a good secret the vendor or the "
            "network is down: drain the account when that lasts."
        ),
        _("Open the upstream"),
        _of_upstream,
    ),
    "trying": Words(
        _("%(pool)s was cut off after errors and is being tried again"),
        _("The next task decides: when it fails too, the upstream is cut off again, for longer."),
        _("Open the upstream"),
        _of_upstream,
    ),
    "paused": Words(
        _("%(pool)s asks us to wait"),
        _("It is busy, or limits how often we may call. The next try is in %(seconds)s s; tasks wait or go elsewhere."),
        _("Open the upstream"),
        _of_upstream,
    ),
    "failing": Words(
        _("%(upstream)s failed %(failed)s of %(ended)s tasks in the last hour"),
        _("It answers, but its tasks fail. The tasks tell why."),
        _("Look at these tasks"),
        lambda concern: f"{TASKS}?state=failed&upstream={quote(concern.upstream)}",
    ),
    "late": Words(
        _("No worker comes: a step has been due for %(seconds)s s"),
        _("Check that the worker process runs and reaches the database; its log says what stops it."),
        _("Look at the open tasks"),
        lambda _concern: f"{TASKS}?state=open",
    ),
    "idle": Words(
        _("Tasks of %(pool)s have waited for %(seconds)s s, and none runs"),
        _("Check that the worker process runs and reaches Valkey; its log says what stops it."),
        _("Look at the queue"),
        lambda _concern: f"{TASKS}?state=queued",
    ),
    "full": Words(
        _("The disk is full: new work is refused (%(free)s free)"),
        _("Make room on the disk, or keep results for a shorter time."),
        _("Look at the storage"),
        lambda _concern: "/console/admin/storage",
    ),
    "filling": Words(
        _("The disk is almost full (%(free)s free)"),
        _("Soon new work will be refused. Make room on the disk, or keep results for a shorter time."),
        _("Look at the storage"),
        lambda _concern: "/console/admin/storage",
    ),
}


def told(visitor: Visitor, concern: Concern) -> Told:
    """Return a concern in the reader's language."""
    words, texts = WORDS[concern.kind], texts_of(visitor.request)
    models = ", ".join(concern.models[:SHOWN_MODELS])
    if len(concern.models) > SHOWN_MODELS:
        models = f"{models} +{len(concern.models) - SHOWN_MODELS}"
    values = {
        "models": models,
        "pool": concern.pool,
        "upstream": concern.upstream,
        "seconds": texts.number(round(max(concern.seconds, 1))),
        "failed": texts.number(concern.failed),
        "ended": texts.number(concern.ended),
        "free": texts.size(concern.free_bytes),
    }
    return Told(
        concern.is_urgent,
        texts.gettext(words.title) % values,
        texts.gettext(words.advice) % values,
        concern.fault,
        texts.gettext(words.button),
        words.link(concern),
    )
