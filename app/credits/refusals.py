"""What the money functions of the database refuse, as the errors a client may see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from app import db
from app.errors import (
    AccountSuspended,
    BalanceTooHigh,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidApiKey,
    InvalidRequest,
    KeyBudgetExhausted,
    TooManyTasks,
)
from app.values import Credits


class ReferenceConflict(InvalidRequest):
    """The reference was used before, for another amount or account; or a refund is above its capture."""

    reason = "invalid_parameter"


@contextmanager
def money_errors(*, needed: Credits) -> Iterator[None]:
    """Turn the money functions' error codes into the errors a client may see."""
    try:
        yield
    except DBAPIError as error:
        match db.sqlstate_of(error):
            case "MG400":
                raise IdempotencyKeyReused from error
            case "MG401":
                raise InvalidApiKey from error
            case "MG402":
                raise InsufficientCredits(needed=needed) from error
            case "MG403":
                raise KeyBudgetExhausted from error
            case "MG409":
                raise ReferenceConflict(
                    "This reference was used before with another amount or account, or a refund is above its capture.",
                    param="ref",
                ) from error
            case "MG411":
                raise AccountSuspended from error
            case "MG429":
                raise TooManyTasks from error
            case "23505" if "ledger_ref" in str(error.orig):  # two accounts at once
                raise ReferenceConflict(
                    "This reference was used before with another amount or account.", param="ref"
                ) from error
            case "23514" if "accounts_posted_max" in str(error.orig):
                raise BalanceTooHigh from error
        raise
