"""Result URLs that carry their own permission: whoever has one may read one file of one task until it expires."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from pydantic import SecretStr

from app.errors import SignatureExpired

KINDS: Final = ("image", "video", "thumbnail", "gif")
SKEW = timedelta(seconds=60)
"""How far our clocks may be apart."""

_KEY_ID = "1"
_INPUT = re.compile(r"inputs/[0-9a-f]{32}", re.ASCII)
_EXPIRY = re.compile(r"[0-9]{1,12}", re.ASCII)


class Links:
    """Signs and verifies ``{base}/api/jobs/<task>/<kind>?e=<unix seconds>&k=<key id>&s=<HMAC-SHA256>``."""

    def __init__(self, secret: SecretStr, base_url: str) -> None:
        self._secret = secret.get_secret_value().encode()
        self._base_url = base_url.rstrip("/")

    def sign(self, public_task_id: str, kind: str, expires: datetime) -> str:
        """Return a URL that works until ``expires`` (whole seconds, rounded down)."""
        if not _is_kind(kind):
            raise ValueError(f"no such kind of file: {kind!r}")
        expiry = str(int(expires.timestamp()))
        signature = self._signature(public_task_id, kind, expiry)
        return f"{self._base_url}/api/jobs/{public_task_id}/{kind}?e={expiry}&k={_KEY_ID}&s={signature}"

    def verify(self, public_task_id: str, kind: str, query: Mapping[str, str], now: datetime) -> None:
        """Accept the query of a URL that ``sign`` made and that has not expired. Raises: SignatureExpired."""
        expiry, signature = query.get("e", ""), query.get("s", "")
        is_ours = hmac.compare_digest(
            self._signature(public_task_id, kind, expiry).encode(), signature.encode("utf-8", "replace")
        )
        if not is_ours or query.get("k") != _KEY_ID or not _is_kind(kind) or not _EXPIRY.fullmatch(expiry):
            raise SignatureExpired
        if now.timestamp() > int(expiry) + SKEW.total_seconds():
            raise SignatureExpired

    def _signature(self, public_task_id: str, kind: str, expiry: str) -> str:
        signed = "\n".join(("GET", public_task_id, kind, expiry, _KEY_ID))
        return hmac.new(self._secret, signed.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _is_kind(kind: str) -> bool:
    return kind in KINDS or _INPUT.fullmatch(kind) is not None
