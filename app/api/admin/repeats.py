"""The header Idempotency-Key where a line of the ledger is written: what is sent again finds the line it wrote."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import Depends, Request

from app.api.admin.deps import AdminPrincipal
from app.api.body import header_key
from app.credits.lines import KEYED
from app.errors import InvalidParameter


async def get_repeat(request: Request, principal: AdminPrincipal) -> str | None:
    """Return the ledger's reference that an Idempotency-Key stands for, the caller's account's own; None without one.

    Raises: InvalidParameter.
    """
    key = header_key(request)
    if key is None:
        return None
    return f"{KEYED}{principal.account_id}:{hashlib.sha256(key.encode()).hexdigest()[:40]}"


Repeat = Annotated[str | None, Depends(get_repeat)]
"""The line of the ledger that this request writes has it, so that its repeat finds that line."""
REPEATABLE: Any = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Your own word for this request, instead of `reference`. Sent again with the same key, it "
            "finds the line it wrote. With another request the key is a 400 `idempotency_key_reused`.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
        }
    ]
}


def check_one_name(repeat: str | None, reference: str | None) -> None:
    """Raises: InvalidParameter, where a request has two names by which it would be known again."""
    if repeat is not None and reference is not None:
        raise InvalidParameter(
            "The header 'Idempotency-Key' and the field 'reference' mean the same. Send one of them.", param="reference"
        )


def replayed(repeat: str | None, *, is_new: bool) -> dict[str, str]:
    """Return the headers of an answer to a request with a key."""
    return {} if repeat is None or is_new else {"idempotent-replayed": "true"}
