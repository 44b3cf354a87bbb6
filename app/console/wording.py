"""What the console says in a reader's language: errors by their reason, notices after a form, names of states.

Errors that say more than their reason have their sentences in `sentences`; `refusals` tells which is shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.console.i18n import Texts


def _(message: str) -> str:
    """Mark a text for the catalogue; it is translated when it is shown."""
    return message


ERRORS: Mapping[str, str] = {
    "wrong_password": _("The e-mail or the password is not right."),
    "too_many_tries": _("Too many tries. Wait a little, then try again."),
    "link_expired": _("This link has expired or was used already. Ask for a new one."),
    "csrf_failed": _("This page was open for too long or came from another place. Load it again, then try again."),
    "sign_in_refused": _("This sign-in did not work. Start it again, or ask your administrator."),
    "sign_in_unavailable": _("The sign-in provider cannot be reached right now. Try again in a moment."),
    "registration_closed": _("Registration is closed here. Ask an administrator for an invitation."),
    "account_exists": _("An account with this e-mail exists already."),
    "account_suspended": _("This account is suspended. Ask an administrator."),
    "account_not_found": _("There is no such account."),
    "key_not_found": _("There is no such API key."),
    "task_not_found": _("There is no such task, or it was deleted."),
    "webhook_endpoint_not_found": _("There is no such webhook endpoint."),
    "upstream_not_found": _("There is no such upstream account."),
    "model_route_not_found": _("There is no such route."),
    "model_not_found": _("There is no such model."),
    "route_not_found": _("There is no such page."),
    "method_not_allowed": _("This page does not accept that request."),
    "insufficient_credits": _("There are not enough credits for this."),
    "key_budget_exhausted": _("The budget of this key is used up."),
    "database_unavailable": _("The database cannot be reached right now. Try again in a moment."),
    "overloaded": _("The gateway is busy. Try again in a moment."),
    "internal_error": _("Something went wrong on our side. The request id helps to find out what."),
    "last_admin": _("This is the last active administrator. Make somebody else one first."),
    "account_busy": _("Tasks of this user are still running. Wait for them, or cancel them first."),
    "redeem_code_used": _("The code was redeemed already. To take its credits back, correct the balance."),
    "balance_too_high": _("The balance would be higher than the books can hold."),
    "task_ended": _("The task has ended already."),
    "nothing_to_refund": _("There is nothing left to refund."),
    "result_expired": _("The result has expired and was removed."),
    "content_policy_violation": _("The content filter refused this request. Change the prompt or the pictures."),
    "too_many_requests": _("Too many requests. Wait a little, then try again."),
    "provider_unavailable": _("No upstream can make this right now. Try again in a moment."),
    "upstream_error": _("The upstream could not make this. Try again, or choose another model."),
    "result_unavailable": _("The result could not be had from the upstream. Try again."),
    "queue_full": _("The queue of this model is full. Try again later."),
    "task_cancelled": _("The task was cancelled."),
    "redeem_code_not_found": _("There is no such redeem code."),
    "body_too_large": _("This file is too large."),
    "range_not_satisfiable": _("This part of the file does not exist."),
    "unsupported_media_type": _("This kind of data is not taken here."),
    "session_ended": _("This session has ended. Sign in again."),
    "signature_expired": _("This link is expired or not valid. Load the page again for a fresh one."),
    "missing_api_key": _("The API key is missing or not valid."),
    "invalid_api_key": _("The API key is missing or not valid."),
    "ip_not_allowed": _("This key may not be used from this address."),
    "metrics_closed": _("Metrics are not open to this page."),
    "invalid_metrics_token": _("Metrics are not open to this page."),
}

NOTICES: Mapping[str, str] = {
    "saved": _("Saved."),
    "created": _("Created."),
    "deleted": _("Deleted."),
    "revoked": _("Revoked."),
    "cancelled": _("Cancellation requested."),
    "refunded": _("Refunded."),
    "resolved": _("Resolved."),
    "signed-out": _("You are signed out."),
    "session-ended": _("The session was ended."),
    "sessions-ended": _("All other sessions were ended."),
    "rotated": _("Rotated."),
    "test-sent": _("A sample event was sent. The log below tells what came of it."),
    "redelivered": _("It is being sent again."),
    "password-changed": _("The password was changed. All other sessions are closed."),
    "credits-changed": _("The balance was changed."),
    "credits-known": _("This reference was booked before: nothing was changed."),
    "checked": _("Checked."),
    "redeemed": _("The code was redeemed. The credits are yours."),
    "redeemed-before": _("You redeemed this code before. Nothing was added again."),
    "sent": _("Sent."),
    "imported": _("Imported."),
    "suspended": _("Suspended."),
    "user-signed-out": _("Signed out everywhere."),
    "resumed": _("Resumed."),
    "closed": _("Closed."),
    "draining": _("The upstream takes no new tasks and finishes the running ones."),
    "enabled": _("Enabled."),
    "disabled": _("Disabled."),
    "scheduled": _("Scheduled. It takes effect at the set time."),
    "version-cancelled": _("The scheduled version was cancelled."),
}

STATES: Mapping[str, tuple[str, str, str]] = {
    "queued": (_("Queued"), "clock", "wait"),
    "submitting": (_("Submitting"), "send", "run"),
    "uncertain": (_("Uncertain"), "circle-alert", "warn"),
    "running": (_("Running"), "loader-circle", "run"),
    "in_progress": (_("In progress"), "loader-circle", "run"),
    "processing": (_("In progress"), "loader-circle", "run"),
    "storing": (_("Storing"), "download", "run"),
    "succeeded": (_("Succeeded"), "circle-check", "good"),
    "completed": (_("Succeeded"), "circle-check", "good"),
    "failed": (_("Failed"), "circle-x", "bad"),
    "cancelled": (_("Cancelled"), "ban", "off"),
    "active": (_("Active"), "circle-check", "good"),
    "live": (_("Active"), "circle-check", "good"),
    "suspended": (_("Suspended"), "pause", "warn"),
    "closed": (_("Closed"), "ban", "off"),
    "revoked": (_("Revoked"), "ban", "off"),
    "expired": (_("Expired"), "clock", "off"),
    "draining": (_("Draining"), "download", "warn"),
    "disabled": (_("Disabled"), "pause", "off"),
    "enabled": (_("Enabled"), "circle-check", "good"),
    "deleted": (_("Deleted"), "trash-2", "off"),
    "open": (_("Paused by errors"), "circle-alert", "bad"),
    "paused": (_("Paused by the vendor"), "pause", "warn"),
    "half_open": (_("Trying again"), "refresh-cw", "warn"),
    "healthy": (_("Healthy"), "heart-pulse", "good"),
    "resting": (_("Not in use"), "pause", "off"),
    "scheduled": (_("Scheduled"), "clock", "wait"),
    "in_force": (_("In force"), "circle-check", "good"),
    "replaced": (_("Replaced"), "history", "off"),
    "withdrawn": (_("Withdrawn"), "ban", "off"),
    "retired": (_("No longer offered"), "ban", "off"),
    "offered": (_("Offered"), "circle-check", "good"),
    "broken": (_("Broken"), "circle-alert", "bad"),
    "redeemed": (_("Redeemed"), "circle-check", "off"),
    "unused": (_("Unused"), "ticket", "good"),
    "pending": (_("Pending"), "clock", "wait"),
    "delivered": (_("Delivered"), "circle-check", "good"),
}
"""A state's name, icon and tone: never a colour alone."""

KINDS: Mapping[str, str] = {
    "topup": _("Top-up"),
    "grant": _("Grant"),
    "capture": _("Charge"),
    "refund": _("Refund"),
    "expire": _("Expired credits"),
    "adjust": _("Correction"),
}
"""Of ledger entries."""

OPERATIONS: Mapping[str, str] = {
    "image.generate": _("Image"),
    "image.edit": _("Image edit"),
    "video.generate": _("Video"),
    "video.edit": _("Video edit"),
    "video.remix": _("Video remix"),
}


def notice(name: str | None, texts: Texts) -> str | None:
    """Return what a page says after a form was done."""
    known = NOTICES.get(name or "")
    return texts.gettext(known) if known else None
