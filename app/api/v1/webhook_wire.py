"""The shapes of webhooks: OpenAI's for endpoints, ours for deliveries, settings and secrets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from app.api.admin.bodies import Body
from app.api.v1 import wire
from app.webhooks import deliveries, endpoints


class _Body(Body):
    model_config = ConfigDict(extra="ignore")


class EndpointCreate(_Body):
    name: str = Field(description="For you; 1 to 100 characters.")
    url: str = Field(description="Public; https, or http where the gateway allows it.")
    event_types: list[str] = Field(description="See `/v1/webhook_event_types`.")


class EndpointUpdate(_Body):
    name: str | None = None
    url: str | None = None
    event_types: list[str] | None = Field(None, description="All of them.")
    status: Literal["active", "disabled"] | None = Field(None, description="`disabled`: nothing is sent.")


class SecretRotation(_Body):
    keep_old_secret_active_for_24_hours: bool | None = Field(
        None, description="Sign with both for a day, so that receivers can change over. Otherwise the old one ends now."
    )


class TestEvent(_Body):
    __test__ = False  # not a test of ours

    event_type: str = Field(description="The type of the sample.")


class SettingsUpdate(_Body):
    low_credits: int | None = Field(description="Send `credits.low` below this balance; null: never.")


class WebhookEndpoint(wire.Wire):
    """OpenAI's object; `status` and `disabled_reason` are ours."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[str]
    status: Literal["active", "disabled"]
    disabled_reason: Literal["by_owner", "gone", "secret_lost"] | None = Field(
        description="`gone`: it answered 410. `secret_lost`: rotate its secret, then set it active."
    )
    created_at: int
    updated_at: int
    signing_secret_hint: str

    @classmethod
    def of(cls, endpoint: endpoints.Endpoint, **more: Any) -> WebhookEndpoint:
        return cls(
            id=endpoint.public_id,
            name=endpoint.name,
            url=endpoint.url,
            event_types=list(endpoint.event_types),
            status=endpoint.state,
            disabled_reason=endpoint.disabled_reason,
            created_at=wire.unix(endpoint.created_at),
            updated_at=wire.unix(endpoint.updated_at),
            signing_secret_hint=endpoint.hint,
            **more,
        )


class WebhookEndpointWithSecret(WebhookEndpoint):
    signing_secret: str = Field(description="Shown this once.")


class WebhookEndpointList(wire.Wire):
    object: Literal["list"] = "list"
    data: list[WebhookEndpoint]
    first_id: str | None
    last_id: str | None = Field(description="Send it as `after` for the next page.")
    has_more: bool


class WebhookEndpointDeleted(wire.Wire):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookEventTypes(wire.Wire):
    object: Literal["list"] = "list"
    data: list[str]


class WebhookTestResult(wire.Wire):
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    event_type: str
    status_code: int = Field(description="What the receiver answered; 2xx means taken.")
    success: Literal[True] = Field(True, description="It answered at all.")
    webhook_endpoint_id: str


class WebhookAttempt(wire.Wire):
    at: int
    status_code: int | None
    error: str | None = Field(
        description="`status` (not 2xx), `timeout`, `unreachable`, `refused` (not a public address), `no_secret`."
    )
    duration_ms: int


class WebhookEvent(wire.Wire):
    """What is sent."""

    id: str
    object: Literal["event"] = "event"
    type: str
    created_at: int
    data: dict[str, Any]


class WebhookDelivery(wire.Wire):
    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    status: Literal["pending", "delivered", "failed"]
    event: WebhookEvent
    url: str
    tries: int
    next_try_at: int | None
    attempts: list[WebhookAttempt] = Field(description="The newest last; at most 20.")
    created_at: int
    delivered_at: int | None

    @classmethod
    def of(cls, delivery: deliveries.Delivery) -> WebhookDelivery:
        return cls(
            id=delivery.public_id,
            status=delivery.state,
            event=WebhookEvent.model_validate_json(delivery.event.body()),
            url=delivery.url,
            tries=delivery.tries,
            next_try_at=wire.unix(delivery.due_at) if delivery.state == "pending" else None,
            attempts=[
                WebhookAttempt(at=wire.unix(a.at), status_code=a.status, error=a.error, duration_ms=a.ms)
                for a in delivery.attempts
            ],
            created_at=wire.unix(delivery.created_at),
            delivered_at=wire.find_unix(delivery.delivered_at),
        )


class WebhookDeliveryList(wire.Wire):
    object: Literal["list"] = "list"
    data: list[WebhookDelivery]
    first_id: str | None
    last_id: str | None = Field(description="Send it as `after` for the next page.")
    has_more: bool


class WebhookSettings(wire.Wire):
    """What holds for all webhooks of the account."""

    object: Literal["webhook_settings"] = "webhook_settings"
    low_credits: int | None = Field(description="`credits.low` is sent below this balance; null: never.")
    signing_secret_hint: str | None = Field(description="Of the secret that signs one-off `webhook_url`s.")

    @classmethod
    def of(cls, found: endpoints.AccountSettings) -> WebhookSettings:
        return cls(low_credits=found.low_credits, signing_secret_hint=found.hint)


class WebhookSecret(wire.Wire):
    object: Literal["webhook_secret"] = "webhook_secret"
    signing_secret: str
