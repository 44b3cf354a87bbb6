"""What fails on our side for now: a database, room, providers."""

from __future__ import annotations

from app.errors.base import MediagateError


class ProviderUnavailable(MediagateError):
    status, reason = 503, "provider_unavailable"


class Overloaded(MediagateError):
    status, reason = 503, "overloaded"


class DatabaseUnavailable(MediagateError):
    status, reason = 503, "database_unavailable"


class OutcomeUnknown(DatabaseUnavailable):
    """The database went away under a statement: what it did before is not known. Nobody may repeat it blindly."""
