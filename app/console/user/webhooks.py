"""Webhooks: the reader's endpoints and their secrets, what was sent to them, and when credits are low."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from app.console import tables
from app.console.visitor import (
    ConsoleRoute,
    Form,
    FormDep,
    SomeVisitor,
    Visitor,
    blank,
    changed,
    go,
    once,
    refused,
    showing,
)
from app.console.wording import _
from app.errors import InvalidParameter, MediagateError
from app.webhooks.deliveries import ONE_OFF, Delivery
from app.webhooks.endpoints import MAX_ENDPOINTS, Endpoint, Status
from app.webhooks.events import EVENT_TYPES

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

HERE = "/console/webhooks"
EVENTS: Mapping[str, str] = {
    "video.completed": _("A video is done"),
    "video.failed": _("A video failed or was cancelled"),
    "image.completed": _("An image is done"),
    "image.failed": _("An image failed or was cancelled"),
    "credits.low": _("Credits are low"),
}
STATES: Mapping[str, str] = {"pending": _("Pending"), "delivered": _("Delivered"), "failed": _("Failed")}
DISABLED: Mapping[str, str] = {
    "by_owner": _("You disabled it."),
    "gone": _("The receiver answered 410: it wants no more events."),
}
"""Why an endpoint takes nothing."""
KEEP_OLD: Mapping[str, str] = {
    "": _("The old secret ends at once"),
    "on": _("Both sign for 24 hours"),
}


def new_form() -> Form:
    form = blank(name="", url="")
    form.fields["event_types"] = [kind for kind in EVENT_TYPES if kind.startswith("video.")]
    return form


@router.get(HERE)
async def list_endpoints(visitor: SomeVisitor) -> Response:
    return await _page(visitor)


@router.post(HERE)
async def create_endpoint(visitor: SomeVisitor, form: FormDep) -> Response:
    try:
        async with once(visitor, form, back=HERE) as sending:
            endpoint, secret = await visitor.services.webhooks.create(
                visitor.account_id,
                name=form.text("name"),
                url=form.text("url"),
                event_types=form.all("event_types"),
                actor=visitor.actor,
            )
            sending.made = f"{HERE}/{endpoint.public_id}"
    except MediagateError as error:
        return await _page(visitor, form=form.refuse(visitor.request, error), status=error.status)
    return _secret(visitor, secret, endpoint)


@router.post(HERE + "/low-credits")
async def set_low_credits(visitor: SomeVisitor, form: FormDep) -> Response:
    try:
        await visitor.services.webhooks.set_low_credits(
            visitor.account_id, form.number("low_credits"), actor=visitor.actor
        )
    except MediagateError as error:
        return await _page(visitor, low=form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, HERE, done="saved")


@router.post(HERE + "/secret")
async def show_secret(visitor: SomeVisitor, form: FormDep) -> Response:
    """Show the secret of one-off URLs: its owner may read it again, as with the API."""
    secrets = visitor.services.webhook_secrets
    return _secret(visitor, await secrets.of_account(visitor.account_id, shown_to=visitor.actor))


@router.post(HERE + "/secret/rotate")
async def rotate_account_secret(visitor: SomeVisitor, form: FormDep) -> Response:
    keep_old = form.is_on("keep_old")
    webhooks = visitor.services.webhooks
    async with once(visitor, form, back=HERE):
        secret = await webhooks.rotate_account_secret(visitor.account_id, keep_old=keep_old, actor=visitor.actor)
    return _secret(visitor, secret)


@router.get(HERE + "/{endpoint}")
async def one_endpoint(visitor: SomeVisitor, endpoint: str) -> Response:
    if not tables.wants_csv(visitor.request):
        return await _one(visitor, endpoint)
    state: Any = tables.query(visitor.request, "state", STATES)

    async def read(after: str | None) -> tuple[Sequence[Delivery], bool]:
        return await visitor.services.webhook_log.list(
            visitor.account_id, endpoint, limit=tables.CSV_PAGE_ROWS, after=after, state=state
        )

    pages = tables.by_rows(read, lambda delivery: delivery.public_id)
    return await tables.csv_pages("deliveries.csv", COLUMNS, pages)


@router.post(HERE + "/{endpoint}")
async def update_endpoint(visitor: SomeVisitor, endpoint: str, form: FormDep) -> Response:
    found = await visitor.services.webhooks.get(visitor.account_id, endpoint)
    try:
        given = {"name": form.text("name"), "url": form.text("url"), "event_types": form.all("event_types")}
        wanted: dict[str, Any] = {name: given[name] for name in changed(form, _shown(found))}
        await visitor.services.webhooks.update(visitor.account_id, endpoint, **wanted, actor=visitor.actor)
    except MediagateError as error:
        form = refused(visitor, form, _shown(found), error)
        return await _one(visitor, endpoint, form=form, status=error.status)
    return go(visitor.request, f"{HERE}/{endpoint}", done="saved")


@router.post(HERE + "/{endpoint}/status")
async def set_status(visitor: SomeVisitor, endpoint: str, form: FormDep) -> Response:
    is_active = form.text("status") == "active"
    status: Status = "active" if is_active else "disabled"
    await visitor.services.webhooks.update(visitor.account_id, endpoint, status=status, actor=visitor.actor)
    return go(visitor.request, f"{HERE}/{endpoint}", done="enabled" if is_active else "disabled")


@router.post(HERE + "/{endpoint}/rotate")
async def rotate_secret(visitor: SomeVisitor, endpoint: str, form: FormDep) -> Response:
    await visitor.services.webhooks.get(visitor.account_id, endpoint)
    async with once(visitor, form, back=f"{HERE}/{endpoint}"):
        found, secret = await visitor.services.webhooks.rotate_secret(
            visitor.account_id, endpoint, keep_old=form.is_on("keep_old"), actor=visitor.actor
        )
    return _secret(visitor, secret, found)


@router.post(HERE + "/{endpoint}/test")
async def send_test(visitor: SomeVisitor, endpoint: str, form: FormDep) -> Response:
    found = await visitor.services.webhooks.get(visitor.account_id, endpoint)
    try:
        if form.text("event_type") not in EVENT_TYPES:
            raise InvalidParameter(f"'event_type' must be one of: {', '.join(EVENT_TYPES)}.", param="event_type")
        await visitor.services.deliverer.test(found, form.text("event_type"))
    except MediagateError as error:
        return await _one(visitor, endpoint, test=form.refuse(visitor.request, error), status=error.status)
    return go(visitor.request, f"{HERE}/{endpoint}", done="test-sent")


@router.post(HERE + "/{endpoint}/delete")
async def delete_endpoint(visitor: SomeVisitor, endpoint: str, form: FormDep) -> Response:
    await visitor.services.webhooks.delete(visitor.account_id, endpoint, actor=visitor.actor)
    return go(visitor.request, HERE, done="deleted")


@router.post(HERE + "/{endpoint}/deliveries/{delivery}/redeliver")
async def redeliver(visitor: SomeVisitor, endpoint: str, delivery: str, form: FormDep) -> Response:
    await visitor.services.webhook_log.redeliver(visitor.account_id, endpoint, delivery)
    return go(visitor.request, f"{HERE}/{endpoint}", done="redelivered")


async def _page(visitor: Visitor, *, form: Form | None = None, low: Form | None = None, status: int = 200) -> Response:
    services = visitor.services
    endpoints, _more = await services.webhooks.list(visitor.account_id, limit=MAX_ENDPOINTS)
    settings = await services.webhooks.settings(visitor.account_id)
    return visitor.page(
        "user/webhooks.html",
        nav=HERE,
        status=status,
        form=form or new_form(),
        is_refused=form is not None,
        low=low or blank(low_credits=settings.low_credits),
        rotation=blank(keep_old="on"),
        hint=settings.hint,
        endpoints=endpoints,
        most=MAX_ENDPOINTS,
        events=EVENTS,
        disabled=DISABLED,
        keep_old=visitor.choices(KEEP_OLD),
        one_off=ONE_OFF,
    )


async def _one(
    visitor: Visitor, endpoint: str, *, form: Form | None = None, test: Form | None = None, status: int = 200
) -> Response:
    request, services = visitor.request, visitor.services
    found = None if endpoint == ONE_OFF else await services.webhooks.get(visitor.account_id, endpoint)
    state: Any = tables.query(request, "state", STATES)
    deliveries, has_more = await services.webhook_log.list(
        visitor.account_id,
        endpoint,
        limit=tables.PAGE_ROWS,
        after=tables.query(request, "after"),
        state=state,
    )
    return visitor.page(
        "user/webhook.html",
        nav=HERE,
        status=status,
        endpoint=found,
        at=f"{HERE}/{endpoint}",
        form=form or _shown(found),
        test=test or blank(event_type=found.event_types[0] if found else ""),
        rotation=blank(keep_old="on"),
        deliveries=[(one, _body(one)) for one in deliveries],
        paging=tables.Paging.of(request, has_more=has_more, last=deliveries[-1].public_id if deliveries else None),
        is_filtered=tables.is_filtered(request),
        events=EVENTS,
        disabled=DISABLED,
        states_shown=visitor.choices(STATES),
        keep_old=visitor.choices(KEEP_OLD),
    )


def _shown(endpoint: Endpoint | None) -> Form:
    if endpoint is None:
        return blank()
    form = blank(name=endpoint.name, url=endpoint.url)
    form.fields["event_types"] = list(endpoint.event_types)
    return showing(form)


def _secret(visitor: Visitor, secret: str, endpoint: Endpoint | None = None) -> Response:
    return visitor.page("user/webhook_secret.html", nav=HERE, secret=secret, endpoint=endpoint)


def _body(delivery: Delivery) -> str:
    """Return what is sent, as a reader reads it."""
    return json.dumps(json.loads(delivery.event.body()), indent=2, ensure_ascii=False)


COLUMNS: Mapping[str, Any] = {
    "id": lambda one: one.public_id,
    "event_id": lambda one: one.event.public_id,
    "event_type": lambda one: one.event.type,
    "url": lambda one: one.url,
    "status": lambda one: one.state,
    "tries": lambda one: one.tries,
    "last_status": lambda one: one.last_status,
    "last_error": lambda one: one.last_error,
    "created_at": lambda one: one.created_at,
    "delivered_at": lambda one: one.delivered_at,
}
