"""What answers look like, for the OpenAPI document: one example for each shape and for each reason of an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import NOT_CHARGED, MediagateError, restored

Json = dict[str, Any]

TASK_ID = "task_01m86qbw0aeger83gk8kat0d3w"
REQUEST_ID = "req_6ab0239f7df7cff5c14f7012"
CREATED = 1795522162
LINK = f"https://media.example.com/api/jobs/{TASK_ID}"
SIGNED = "?e=1795608568&k=1&s=Qm9vdHMgYW5kIGNhdHM"

MESSAGES: Mapping[str, str] = {
    "internal_error": "Something went wrong on our side. Tell your administrator the request id.",
    "invalid_parameter": "Invalid value for 'n': 2. Allowed for 'gpt-image-2': 1.",
    "missing_parameter": "Missing required parameter: 'prompt'.",
    "unsupported_parameter": "Unsupported parameter: 'audio_setting'. The model 'film-1' does not have it.",
    "content_policy_violation": f"The upstream refused this prompt. {NOT_CHARGED}",
    "input_url_refused": "The URL in 'image' is not allowed.",
    "input_url_unreachable": "The URL in 'image' could not be read.",
    "invalid_image": "'image' is not a PNG, JPEG or WebP image that can be read.",
    "task_not_ready": "The image is not ready yet.",
    "price_above_max": f"This request costs 3 credits, above 'max_credits' (2). {NOT_CHARGED}",
    "task_cancelled": f"The task was cancelled. {NOT_CHARGED}",
    "insufficient_credits": f"Insufficient credits. This request needs 125. {NOT_CHARGED}",
    "model_not_allowed": "This API key may not use the model 'gpt-image-2'.",
    "scope_missing": "This API key lacks the scope 'images:write'.",
    "model_not_found": "The model 'gpt-image-9' does not exist.",
    "task_not_found": f"No task '{TASK_ID}' in this account.",
    "route_not_found": "There is no GET /v1/image here. See /docs.",
    "method_not_allowed": "/v1/me does not take PUT. See /docs.",
    "result_expired": "This result was deleted at the end of its retention, or by its owner.",
    "body_too_large": "The JSON body is larger than 32 MiB.",
    "unsupported_media_type": "Content type 'text/plain' is not supported.",
    "range_not_satisfiable": "The range lies outside of this file of 1234567 bytes.",
    "too_many_requests": "Too many requests: this API key may send 60 a minute. Try again in 1 s.",
    "too_many_tries": "Too many tries. Wait 4 seconds, then try again.",
    "sign_in_refused": "The sign-in was not completed. Start it again.",
    "queue_full": f"Too many tasks wait for this model. Try again later. {NOT_CHARGED}",
    "upstream_error": f"The upstream did not finish in time. {NOT_CHARGED}",
    "result_unavailable": f"The upstream's result could not be fetched. {NOT_CHARGED}",
    "provider_unavailable": f"No upstream of this model can be reached just now. {NOT_CHARGED}",
    "overloaded": "The gateway is busy. Try again.",
    "database_unavailable": "The database is not reachable just now. Try again.",
    "account_exists": "There is an account with the e-mail 'ada@example.com' already.",
    "task_ended": f"The task {TASK_ID} has ended: completed.",
    "nothing_to_refund": f"Nothing was charged for the task {TASK_ID}.",
    "upstream_exists": "There is an upstream account 'main-account' already.",
    "model_version_fixed": "Version 3 of 'gpt-image-2' has begun: only one that has not begun can be cancelled.",
    "model_route_exists": "There is a route from 'gpt-image-2' to 'main-account/gpt-image-2' already.",
    "wrong_secrets_key": "MEDIAGATE_SECRETS_KEY is not the one the secrets in this database were sealed with.",
    "secret_damaged": "A stored secret does not open: its row was changed. Store it again.",
    "below_held": "The account has 30 spendable credits; it cannot be lowered by 50.",
    "account_busy": "2 tasks of this account run, and hold 91 credits. Suspend it, and close it when they have ended.",
    "redeem_code_refused": "This code is not known here. Check its letters and digits.",
    "redeem_code_used": "The code 'code_7' was redeemed already. To take its credits back, adjust the balance.",
    "redeem_code_not_found": "No redeem code 'code_7'.",
    "account_not_found": "No account 'ada@example.com'.",
    "key_not_found": "No API key 'key_7'.",
    "upstream_not_found": "No upstream account 'main-account'.",
    "model_version_not_found": "The model 'gpt-image-2' has no version 7.",
    "model_route_not_found": "No route 'route_7'.",
    "webhook_endpoint_not_found": "No webhook endpoint 'we_7' in this account.",
    "webhook_delivery_not_found": "No delivery 'whd_7' of this endpoint.",
    "sync_wait_exceeded": f"The image is not ready after 280 s. The task goes on: GET /v1/images/{TASK_ID}.",
}
"""For the reasons whose words depend on the request; the others say what they always say."""

ABOUT_A_TASK = frozenset(
    {"content_policy_violation", "task_not_ready", "task_cancelled", "result_expired", "upstream_error"}
    | {"result_unavailable", "sync_wait_exceeded"}
)
PARAMS: Mapping[str, str] = {
    "invalid_parameter": "n",
    "missing_parameter": "prompt",
    "unsupported_parameter": "audio_setting",
    "input_url_refused": "image",
    "input_url_unreachable": "image",
    "invalid_image": "image",
    "price_above_max": "max_credits",
    "model_not_allowed": "model",
    "model_not_found": "model",
}


def error_example(kind: type[MediagateError]) -> Json:
    """Return the envelope of an error of this kind."""
    message = MESSAGES.get(kind.reason)
    error = kind() if message is None else restored(kind.reason, message)  # type: ignore[call-arg]
    error.param = PARAMS.get(kind.reason, error.param)
    error.task_id = TASK_ID if kind.reason in ABOUT_A_TASK else None
    return {"error": error.body(REQUEST_ID) | {"type": kind.type, "code": kind.status}}
