"""Webhook endpoints and deliveries that are not there."""

from __future__ import annotations

from app.errors.base import NotFound


class WebhookEndpointNotFound(NotFound):
    """Unknown, deleted and somebody else's look the same."""

    reason = "webhook_endpoint_not_found"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"No webhook endpoint '{public_id[:64]}' in this account.")


class WebhookDeliveryNotFound(NotFound):
    reason = "webhook_delivery_not_found"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"No delivery '{public_id[:64]}' to this webhook endpoint; they are kept for 30 days.")
