"""The columns of keys in a spreadsheet, for administrators and for a key's owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.accounts.key_info import KeyInfo
from app.accounts.users import account_public_id

KEY_COLUMNS: Mapping[str, Callable[[KeyInfo], object]] = {
    "id": lambda key: key.public_id,
    "account": lambda key: account_public_id(key.account_id),
    "email": lambda key: key.email,
    "name": lambda key: key.name,
    "last4": lambda key: key.last4,
    "state": lambda key: key.state,
    "scopes": lambda key: " ".join(key.scopes),
    "models": lambda key: None if key.models is None else " ".join(key.models),
    "cidrs": lambda key: " ".join(key.cidrs),
    "budget": lambda key: key.budget,
    "period": lambda key: key.period,
    "spent": lambda key: key.spent,
    "held": lambda key: key.held,
    "in_flight": lambda key: key.in_flight,
    "max_in_flight": lambda key: key.max_in_flight,
    "rpm": lambda key: key.rpm,
    "created_at": lambda key: key.created_at,
    "expires_at": lambda key: key.expires_at,
    "revoked_at": lambda key: key.revoked_at,
    "last_used_at": lambda key: key.last_used_at,
}
OWN_KEY_COLUMNS = {name: value for name, value in KEY_COLUMNS.items() if name not in ("account", "email")}
"""For whoever knows whose they are."""
