"""``mediagate webhooks``: an account's endpoints, what was sent to them, and to send it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from app.cli.output import emit, json_option, table
from app.cli.session import with_services

if TYPE_CHECKING:
    from app.webhooks.deliveries import Delivery
    from app.wiring import Services

PAGE = 100


@click.group()
def webhooks() -> None:
    """Look at webhooks, and send them again. ENDPOINT is an id (whe_...), or one_off: the URLs of single requests."""


@webhooks.command("list")
@click.argument("email")
@json_option
def list_endpoints(email: str, as_json: bool) -> None:
    """List the endpoints of an account."""

    async def work(services: Services) -> list[dict[str, Any]]:
        account = await services.accounts.get(email)
        found, _ = await services.webhooks.list(account.id, limit=PAGE)
        return [
            {
                "id": endpoint.public_id,
                "name": endpoint.name,
                "url": endpoint.url,
                "event_types": ", ".join(endpoint.event_types),
                "state": endpoint.disabled_reason or endpoint.state,
            }
            for endpoint in found
        ]

    rows = with_services(work)
    emit(rows, as_json=as_json, text=table(rows, empty="This account has no webhook endpoints."))


@webhooks.command()
@click.argument("email")
@click.argument("endpoint")
@click.option("--state", type=click.Choice(["pending", "delivered", "failed"]), help="Only these.")
@json_option
def deliveries(email: str, endpoint: str, state: Any, as_json: bool) -> None:
    """List the newest 100 deliveries to an endpoint."""

    async def work(services: Services) -> list[dict[str, Any]]:
        account = await services.accounts.get(email)
        found, _ = await services.webhook_log.list(account.id, endpoint, limit=PAGE, state=state)
        return [_shown(delivery) for delivery in found]

    rows = with_services(work)
    emit(rows, as_json=as_json, text=table(rows, empty="Nothing was sent there in 30 days."))


@webhooks.command()
@click.argument("email")
@click.argument("endpoint")
@click.argument("delivery")
@json_option
def redeliver(email: str, endpoint: str, delivery: str, as_json: bool) -> None:
    """Send one delivery again, now and with all its tries."""

    async def work(services: Services) -> dict[str, Any]:
        account = await services.accounts.get(email)
        return _shown(await services.webhook_log.redeliver(account.id, endpoint, delivery))

    row = with_services(work)
    emit(row, as_json=as_json, text=f"{row['id']} is on its way again: {row['event']} to {row['url']}")


def _shown(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.public_id,
        "event": delivery.event.type,
        "event_id": delivery.event.public_id,
        "url": delivery.url,
        "state": delivery.state,
        "tries": delivery.tries,
        "status": delivery.last_status,
        "error": delivery.last_error,
        "created_at": delivery.created_at,
    }
