"""Credits that are missing, or that must not be moved."""

from __future__ import annotations

from app.errors.base import NOT_CHARGED, InsufficientQuota, InvalidRequest, NotFound
from app.values import MAX_CREDITS, Credits


class PriceAboveMax(InvalidRequest):
    reason = "price_above_max"

    def __init__(self, *, credits: Credits, max_credits: int) -> None:
        super().__init__(
            f"This request costs {credits} credits, above 'max_credits' ({max_credits}). {NOT_CHARGED}",
            param="max_credits",
        )


class BelowHeld(InvalidRequest):
    """For operators: a correction may not take what running tasks have put aside."""

    reason = "below_held"

    def __init__(self, *, spendable: Credits, amount: int) -> None:
        super().__init__(
            f"The account has {spendable} spendable credits; it cannot be lowered by {-amount}.", param="amount"
        )


class RedeemCodeRefused(InvalidRequest):
    """Unknown, used, withdrawn or too old: nothing was added."""

    reason = "redeem_code_refused"


class RedeemCodeUsed(InvalidRequest):
    """For operators: what was redeemed cannot be revoked."""

    reason = "redeem_code_used"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"The code '{public_id}' was redeemed already. To take its credits back, adjust the balance.")


class BalanceTooHigh(InvalidRequest):
    """For operators: beyond it a JSON number would lose its last digits."""

    reason = "balance_too_high"

    def __init__(self) -> None:
        super().__init__(f"No balance may pass {MAX_CREDITS} credits.", param="credits")


class NothingToRefund(InvalidRequest):
    """For operators: the task was never charged, or all of it was given back."""

    reason = "nothing_to_refund"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"The task '{public_id}' has no captured credits left to give back.", task_id=public_id)


class InsufficientCredits(InsufficientQuota):
    reason = "insufficient_credits"

    def __init__(self, *, needed: Credits | None = None) -> None:
        why = "The account has none to spend." if needed is None else f"This request needs {needed}."
        super().__init__(f"Insufficient credits. {why} {NOT_CHARGED}")


class KeyBudgetExhausted(InsufficientQuota):
    reason = "key_budget_exhausted"

    def __init__(self) -> None:
        super().__init__(f"This API key has used up its budget. {NOT_CHARGED}")


class RedeemCodeNotFound(NotFound):
    """Operators only: no client learns which codes exist."""

    reason = "redeem_code_not_found"

    def __init__(self, code_id: str) -> None:
        super().__init__(f"No redeem code '{code_id[:64]}'.")
