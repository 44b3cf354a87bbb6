"""Accounts that are not there, not active, or must not be changed now."""

from __future__ import annotations

from app.errors.base import Forbidden, InvalidRequest, NotFound


class AccountExists(InvalidRequest):
    reason = "account_exists"

    def __init__(self, email: str) -> None:
        super().__init__(f"There is an account with the e-mail '{email}' already.", param="email")


class LastAdmin(InvalidRequest):
    """For operators: somebody must be able to administer."""

    reason = "last_admin"

    def __init__(self) -> None:
        super().__init__("This is the last active administrator. Make another account one first.")


class AccountBusy(InvalidRequest):
    """For operators: tasks that run belong to somebody."""

    reason = "account_busy"

    def __init__(self, *, in_flight: int, held: int) -> None:
        super().__init__(
            f"{in_flight} tasks of this account run, and hold {held} credits. Suspend it, and close it when they have "
            "ended; or cancel them."
        )


class AccountSuspended(Forbidden):
    reason = "account_suspended"

    def __init__(self) -> None:
        super().__init__("This account is suspended. Ask your administrator.")


class RegistrationClosed(Forbidden):
    reason = "registration_closed"

    def __init__(self) -> None:
        super().__init__("Nobody can register here by themselves. Ask your administrator for an invitation.")


class AccountNotFound(NotFound):
    """Operators only: no client learns which accounts exist."""

    reason = "account_not_found"

    def __init__(self, account: str) -> None:
        super().__init__(f"No account '{account[:254]}'.")
