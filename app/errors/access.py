"""Who may not come in, or not here: keys, sessions, passwords, links."""

from __future__ import annotations

from app.errors.base import Forbidden, MediagateError, NotFound, RateLimited, Unauthorized


class MissingApiKey(Unauthorized):
    reason = "missing_api_key"

    def __init__(self) -> None:
        super().__init__("Missing API key. Send it as 'Authorization: Bearer sk-...'.")


class InvalidApiKey(Unauthorized):
    """Unknown, expired and revoked look the same: no oracle."""

    reason = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("Invalid API key. Check it, or ask your administrator for a new one.")


class SessionEnded(Unauthorized):
    """Signed out, expired, and never there look the same."""

    reason = "session_ended"

    def __init__(self) -> None:
        super().__init__("This session has ended. Sign in again.")


class WrongPassword(Unauthorized):
    """Unknown people, those without a password, and wrong passwords look the same: no oracle."""

    reason = "wrong_password"

    def __init__(self, message: str = "The e-mail address or the password is not right.") -> None:
        super().__init__(message)


class SignInRefused(Unauthorized):
    """The OpenID provider's answer does not hold, or nobody here belongs to it."""

    reason = "sign_in_refused"


class WrongMetricsToken(Unauthorized):
    reason = "invalid_metrics_token"

    def __init__(self) -> None:
        super().__init__("Send the metrics token as 'Authorization: Bearer ...'.")


class ScopeMissing(Forbidden):
    reason = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This API key lacks the scope '{scope}'.")


class MetricsClosed(Forbidden):
    reason = "metrics_closed"

    def __init__(self) -> None:
        super().__init__(
            "Metrics need MEDIAGATE_METRICS_TOKEN; without it only this machine may read them in development."
        )


class IpNotAllowed(Forbidden):
    reason = "ip_not_allowed"

    def __init__(self) -> None:
        super().__init__("This API key may not be used from this address.")


class CsrfFailed(Forbidden):
    """A browser sent the session's cookie with a request that none of our own pages made."""

    reason = "csrf_failed"

    def __init__(self) -> None:
        super().__init__("This request did not come from a page of this session. Reload the page, then try again.")


class SignatureExpired(Forbidden):
    reason = "signature_expired"

    def __init__(self) -> None:
        super().__init__("This link is expired or not valid. Read the task again for a fresh one.")


class KeyNotFound(NotFound):
    """Operators only: no client learns which keys exist."""

    reason = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"No API key '{key_id[:64]}'.")


class LinkExpired(MediagateError):
    """Used, replaced, too old and never made look the same."""

    status, type, reason = 410, "not_found_error", "link_expired"

    def __init__(self) -> None:
        super().__init__("This link was used already, or is too old. Ask your administrator for a new one.")


class TooManyTries(RateLimited):
    """To sign in or to register. The right password would be refused too."""

    reason = "too_many_tries"

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"Too many tries. Wait {wait_s} seconds, then try again.", retry_after_s=wait_s)


class SignInUnavailable(MediagateError):
    status, reason = 503, "sign_in_unavailable"

    def __init__(self) -> None:
        super().__init__("The sign-in provider does not answer as it should. Try again.", retry_after_s=5)
