"""What answers and orders look like: one sample for each shape of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.api.admin import samples as admin
from app.api.examples import CREATED, LINK, REQUEST_ID, SIGNED, TASK_ID
from app.errors import NOT_CHARGED

Json = dict[str, Any]

_TASK: Json = {
    "id": TASK_ID,
    "task_id": TASK_ID,
    "object": "task",
    "type": "video.generation",
    "model": "film-1",
    "status": "completed",
    "progress": 100,
    "prompt": "A paper boat in the rain",
    "resolution": "720p",
    "quality": None,
    "size": "1280x720",
    "aspect_ratio": "16:9",
    "duration": 5,
    "credits": 125,
    "credits_held": 0,
    "created_at": CREATED,
    "started_at": CREATED + 1,
    "completed_at": CREATED + 48,
    "expires_at": CREATED + 604848,
    "image_url": None,
    "video_url": f"{LINK}/video{SIGNED}",
    "result": {
        "images": None,
        "videos": [
            {
                "url": f"{LINK}/video{SIGNED}",
                "thumbnail_url": f"{LINK}/thumbnail{SIGNED}",
                "gif_url": None,
                "width": 1280,
                "height": 720,
                "duration": 5.04,
                "size_bytes": 1234567,
                "content_type": "video/mp4",
            }
        ],
    },
    "error": None,
    "warnings": [],
    "metadata": {},
}
_VIDEO: Json = {
    "id": TASK_ID,
    "object": "video",
    "model": "film-1",
    "status": "completed",
    "progress": 100,
    "created_at": CREATED,
    "completed_at": CREATED + 48,
    "expires_at": CREATED + 604848,
    "error": None,
    "prompt": "A paper boat in the rain",
    "remixed_from_video_id": None,
    "size": "1280x720",
    "seconds": "5",
    "task_id": TASK_ID,
    "url": f"{LINK}/video{SIGNED}",
    "credits": 125,
}
_REMIXED: Json = {
    "remixed_from_video_id": "task_01m86q9x4rf5s8m2v0c1d7e6h3",
    "type": "video.remix",
    "model": "film-1",
}
_PAGE: Json = {"first_id": TASK_ID, "last_id": TASK_ID, "has_more": False}
_MODEL: Json = {
    "id": "gpt-image-2",
    "object": "model",
    "created": CREATED,
    "owned_by": "mediagate",
    "mediagate": {
        "title": "GPT Image 2",
        "type": "image",
        "operations": ["image.edit", "image.generate"],
        "parameters": {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]},
        "price": {"unit": "image", "credits": {"standard": 1, "hd": 2, "uhd": 3}},
    },
}
_UPSTREAM: Json = {
    "object": "upstream",
    "name": "main-account",
    "provider": "demo",
    "state": "active",
    "base_url": None,
    "options": {},
    "concurrency": 8,
    "has_secret": True,
    "version": 2,
    "versions": 1,
    "open_tasks": 3,
    "created_at": CREATED,
    "updated_at": CREATED,
}
_UPSTREAM_TEST: Json = {
    "object": "upstream.test",
    "upstream": "main-account",
    "ok": True,
    "checks": [
        {"name": name, "ok": True, "outcome": "good", "found": found, "took_ms": took_ms, "missing_models": []}
        for name, found, took_ms in (
            ("state", "active", None),
            ("secret", "Set, and it can be opened.", None),
            ("routes", "3", None),
            ("host", "api.vendor.example:443 answers.", 41),
            ("vendor", "The vendor accepted the secret.", 212),
            ("models", "The vendor's list has the models of all routes.", None),
        )
    ],
}
_ENTRY: Json = {
    "title": "GPT Image 2",
    "type": "image",
    "price": {"unit": "image", "by": "quality", "credits": {"standard": 1, "hd": 3, "uhd": 5}},
}
_MANAGED_MODEL: Json = {
    "object": "managed_model",
    "id": "gpt-image-2",
    "type": "image",
    "title": "GPT Image 2",
    "state": "offered",
    "operations": ["image.edit", "image.generate"],
    "price_version": "gpt-image-2@1",
    "version": 1,
    "since": CREATED,
    "next": {"number": 2, "kind": "entry", "effective_from": CREATED + 86400, "note": "The vendor raises its prices."},
    "in_file": True,
    "differs_from_file": True,
    "prices": [{"path": "credits.hd", "label": "Credits per image, quality hd", "value": 3}],
    "unserved": [],
    "problem": None,
}
_PRICE_CHANGE: Json = {"path": "credits.hd", "label": "Credits per image, quality hd", "before": 2, "after": 3}
_MODEL_VERSION: Json = {
    "object": "model_version",
    "name": "gpt-image-2@2",
    "model": "gpt-image-2",
    "number": 2,
    "kind": "entry",
    "state": "scheduled",
    "effective_from": CREATED + 86400,
    "note": "The vendor raises its prices.",
    "created_by": "ada@example.com (key_7)",
    "created_at": CREATED,
    "cancelled_at": None,
    "cancelled_by": None,
    "entry": _ENTRY,
    "then": None,
}
_ROUTE: Json = {
    "object": "route",
    "id": "route_1",
    "model": "gpt-image-2",
    "upstream": "main-account",
    "upstream_model": "gpt-image-2",
    "priority": 0,
    "weight": 1,
    "enabled": True,
    "needs_permission": False,
    "operations": None,
    "options": {},
    "created_at": CREATED,
    "updated_at": CREATED,
}

_ADMIN_TASK: Json = {
    "object": "task",
    "id": TASK_ID,
    "account": "acct_12",
    "email": "ada@example.com",
    "key": "key_7",
    "type": "image.generation",
    "model": "gpt-image-2",
    "pool": "main-account/gpt-image-2",
    "status": "failed",
    "state": "failed",
    "attempts": 1,
    "upstream_id": None,
    "hold": 2,
    "charge": 0,
    "reason": "upstream_error",
    "cancel_requested_at": None,
    "created_at": CREATED,
    "started_at": CREATED,
    "completed_at": CREATED + 3,
    "deleted_at": None,
}
_ATTEMPT: Json = {
    "attempt_no": 1,
    "provider": "demo",
    "pool": "main-account/gpt-image-2",
    "client_token": "019b0d6b-f00a-7b0e-883a-0c4d9a2b0d3c:1",
    "upstream_id": None,
    "state": "lost",
    "fault": "lost",
    "http_status": 502,
    "error": "UpstreamOutcomeUnknown: 502",
    "cost_micros": None,
    "cost_currency": None,
    "sent_at": CREATED,
    "resolved_at": CREATED + 3,
    "late_at": None,
}
_DETAIL: Json = {name: value for name, value in _ADMIN_TASK.items() if name != "reason"} | {
    "key_name": "laptop",
    "progress": 0,
    "refunded": 0,
    "error": {
        "message": f"The upstream's answer was lost and cannot be found again. {NOT_CHARGED}",
        "type": "server_error",
        "code": 502,
        "param": None,
        "reason": "upstream_error",
        "request_id": None,
        "task_id": TASK_ID,
    },
    "credential": 1,
    "lease_owner": None,
    "wake_at": None,
    "deadline_at": None,
    "delivered_at": CREATED + 3,
    "attempts": [_ATTEMPT],
    "ledger": [],
    "actions": [],
    "webhooks": [],
    "files": [],
    "events": [
        {
            "at": CREATED + 0.123,
            "what": "accepted",
            "by": "ada@example.com with key_7 'laptop' (..x7Qz)",
            "text": "image.generation with gpt-image-2",
        }
    ],
}
_ENDPOINT: Json = {
    "id": "whe_01m86qbw0aeger83gk8kat0d3w",
    "object": "webhook_endpoint",
    "name": "shop",
    "url": "https://example.com/hooks/mediagate",
    "event_types": ["video.completed", "video.failed"],
    "status": "active",
    "disabled_reason": None,
    "created_at": CREATED,
    "updated_at": CREATED,
    "signing_secret_hint": "x7Qz",
}
_SECRET: Json = {"signing_secret": "whsec_c2FtcGxlLXNhbXBsZS1zYW1wbGUtc2FtcGxl"}
_DELIVERY: Json = {
    "id": "whd_01m86qbw0aeger83gk8kat0d3w",
    "object": "webhook_delivery",
    "status": "delivered",
    "event": {
        "id": "evt_01m86qbw0aeger83gk8kat0d3w",
        "object": "event",
        "type": "video.completed",
        "created_at": CREATED,
        "data": {"id": TASK_ID},
    },
    "url": "https://example.com/hooks/mediagate",
    "tries": 1,
    "next_try_at": None,
    "attempts": [{"at": CREATED + 1, "status_code": 200, "error": None, "duration_ms": 84}],
    "created_at": CREATED,
    "delivered_at": CREATED + 1,
}

ANSWERS: Mapping[str, Json] = {
    **admin.ANSWERS,
    "ErrorEnvelope": {
        "error": {
            "message": f"Insufficient credits. This request needs 125. {NOT_CHARGED}",
            "type": "insufficient_quota",
            "code": 402,
            "param": None,
            "reason": "insufficient_credits",
            "request_id": REQUEST_ID,
            "task_id": None,
        }
    },
    "ImagesReply": {
        "created": CREATED,
        "data": [{"b64_json": "iVBORw0KGgo=", "url": f"{LINK}/image{SIGNED}"}],
        "id": TASK_ID,
        "model": "gpt-image-2",
        "size": "1536x864",
        "output_format": "png",
        "credits": 2,
    },
    "Task": _TASK,
    "TaskList": {"object": "list", "data": [_TASK], **_PAGE},
    "Video": _VIDEO,
    "VideoList": {"object": "list", "data": [_VIDEO], **_PAGE},
    "RemixedVideo": _TASK | _VIDEO | _REMIXED,
    "Deleted": {"id": TASK_ID, "object": "task.deleted", "deleted": True},
    "QuoteReply": {
        "credits": 125,
        "unit": "second",
        "unit_credits": 25,
        "quantity": 5,
        "price_version": "2026-11-01",
        "explain": "25 credits a second x 5 s",
    },
    "Me": {
        "id": "acct_1",
        "email": "ada@example.com",
        "name": "Ada",
        "credits": 875,
        "held": 125,
        "key": {
            "id": "key_1",
            "name": "laptop",
            "last4": "x7Qz",
            "scopes": ["images:write", "videos:write", "tasks:read", "files:read", "account:read"],
            "models": None,
            "expires_at": None,
            "budget": None,
            "budget_period": "total",
            "spent": 0,
        },
    },
    "LedgerReply": {
        "object": "list",
        "data": [
            {
                "seq": 2,
                "kind": "capture",
                "amount": -125,
                "balance": 875,
                "task_id": TASK_ID,
                "model": "film-1",
                "type": "video.generation",
                "key_id": "key_1",
                "reference": None,
                "note": None,
                "created_at": CREATED + 48,
            }
        ],
        "has_more": True,
        "last_seq": 2,
    },
    "UsageReply": {
        "object": "list",
        "by": "day",
        "data": [{"group": "2026-11-24", "tasks": 1, "credits": 125}],
        "credits": 125,
    },
    "ModelObject": _MODEL,
    "ModelList": {"object": "list", "data": [_MODEL]},
    "Health": {"status": "ok"},
    "Readiness": {"status": "ready", "reason": None, "degraded": []},
    "UpstreamAccount": _UPSTREAM,
    "UpstreamTest": _UPSTREAM_TEST,
    "UpstreamList": {"object": "list", "data": [_UPSTREAM]},
    "ModelRoute": _ROUTE,
    "RouteList": {"object": "list", "data": [_ROUTE]},
    "AdminTaskList": {"object": "list", "data": [_ADMIN_TASK], "last_id": TASK_ID, "has_more": False},
    "AdminTaskDetail": _DETAIL,
    "RefundReply": {
        "object": "refund",
        "task_id": TASK_ID,
        "credits": 2,
        "reference": "ticket-4711",
        "ledger_id": 93,
        "replayed": False,
    },
    "WebhookEndpoint": _ENDPOINT,
    "WebhookEndpointWithSecret": _ENDPOINT | _SECRET,
    "WebhookEndpointList": {
        "object": "list",
        "data": [_ENDPOINT],
        "first_id": _ENDPOINT["id"],
        "last_id": _ENDPOINT["id"],
        "has_more": False,
    },
    "WebhookEndpointDeleted": {"id": _ENDPOINT["id"], "object": "webhook_endpoint.deleted", "deleted": True},
    "WebhookEventTypes": {"object": "list", "data": ["video.completed", "video.failed", "credits.low"]},
    "WebhookTestResult": {
        "object": "webhook_endpoint.test",
        "event_type": "video.completed",
        "status_code": 200,
        "success": True,
        "webhook_endpoint_id": _ENDPOINT["id"],
    },
    "ManagedModelList": {"object": "list", "data": [_MANAGED_MODEL]},
    "ManagedModelDetails": _MANAGED_MODEL | {"entry": _ENTRY, "yaml": "title: GPT Image 2\n"},
    "ModelVersionObject": _MODEL_VERSION,
    "ModelVersionList": {"object": "list", "data": [_MODEL_VERSION]},
    "PriceSimulation": {
        "object": "price_simulation",
        "model": "gpt-image-2",
        "operation": "image.generate",
        "params": {"quality": "hd", "size": "2048x2048"},
        "quote": {
            "credits": 3,
            "unit": "image",
            "unit_credits": 3,
            "quantity": 1,
            "price_version": "gpt-image-2@2",
            "explain": "1 image x 3 credits (hd)",
        },
        "warnings": [],
        "examples": [
            {
                "operation": "image.generate",
                "params": {"quality": "hd", "size": "1:1", "pixels": "2048x2048"},
                "before": 2,
                "after": 3,
                "difference": 1,
            }
        ],
    },
    "ModelImport": {
        "object": "model_import",
        "dry_run": True,
        "effective_from": CREATED,
        "changes": [
            {
                "model": "gpt-image-2",
                "change": "changed",
                "fields": ["price"],
                "before": {"price": {"unit": "image", "by": "quality", "credits": {"standard": 1, "hd": 2, "uhd": 5}}},
                "after": {"price": _ENTRY["price"]},
                "prices": [_PRICE_CHANGE],
            }
        ],
        "unchanged": ["film-1"],
        "missing": [],
        "ignored": ["Routes are not taken over: they are changed one by one."],
        "versions": [],
    },
    "WebhookDelivery": _DELIVERY,
    "WebhookDeliveryList": {
        "object": "list",
        "data": [_DELIVERY],
        "first_id": _DELIVERY["id"],
        "last_id": _DELIVERY["id"],
        "has_more": False,
    },
    "WebhookSettings": {"object": "webhook_settings", "low_credits": 100, "signing_secret_hint": "x7Qz"},
    "WebhookSecret": {"object": "webhook_secret"} | _SECRET,
}
"""By the name of the schema in the document."""

ORDERS: Mapping[str, Json] = {
    **admin.ORDERS,
    "create_upstream": {"name": "main-account", "provider": "demo", "secret": "the vendor's key", "concurrency": 8},
    "update_upstream": {"concurrency": 16},
    "rotate_upstream": {"secret": "the vendor's new key"},
    "create_route": {"model": "gpt-image-2", "upstream": "main-account", "upstream_model": "gpt-image-2"},
    "update_route": {"weight": 3},
    "create_model_version": {
        "price": {"credits.hd": 3},
        "effective_from": CREATED + 86400,
        "note": "The vendor raises its prices.",
    },
    "simulate_price": {"model": "gpt-image-2", "parameters": {"quality": "hd"}, "version": 2, "with_examples": True},
    "import_models": {"yaml": "models:\n  gpt-image-2: {family: image}\n", "note": "The new price list."},
    "cancel_any_task": {"reason": "The customer asked by mail."},
    "resolve_task": {"as": "failed", "reason": "The vendor lost the job."},
    "refund_task": {"credits": 2, "reason": "The video is black.", "reference": "ticket-4711"},
    "update_webhook_settings": {"low_credits": 100},
}
"""Bodies by the operation's id, for those that bring no examples of their own."""
