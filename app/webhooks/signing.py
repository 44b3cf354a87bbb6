"""Standard Webhooks signatures: a secret as receivers keep it, and the headers of one delivery."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

PREFIX = "whsec_"
SECRET_BYTES = 32


def mint_secret() -> str:
    """Make a signing secret: the standard, padded alphabet, as receivers decode it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def hint_of(secret: str) -> str:
    """Return what tells secrets apart and helps nobody to guess one."""
    return f"{PREFIX}...{secret[-5:]}"


def signature(secret: str, *, event_id: str, timestamp: int, body: bytes) -> str:
    """Return one value of the signature header. The key is what the secret decodes to."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def headers(live: Iterable[str], *, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of one try: the id stays, the time is fresh, each live secret signs."""
    signatures = (signature(secret, event_id=event_id, timestamp=timestamp, body=body) for secret in live)
    return {
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": "Mediagate-Webhooks",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
