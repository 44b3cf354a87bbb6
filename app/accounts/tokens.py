"""256-bit tokens that open something: signed, so that one that somebody made up costs no query."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode

from pydantic import SecretStr

TOKEN_BYTES, TAG_BYTES = 32, 10
_TOKEN = re.compile(r"[A-Za-z0-9_-]{56}")


class Tokens:
    """Tokens of one purpose. Another ``secret`` ends them all; without one anybody can sign, as in tests."""

    def __init__(self, secret: SecretStr | None, purpose: bytes) -> None:
        self._secret = (secret.get_secret_value() if secret else "").encode()
        self._purpose = purpose

    def mint(self) -> str:
        return self._signed(secrets.token_bytes(TOKEN_BYTES))

    def is_ours(self, token: str) -> bool:
        """Whether we made it. It says nothing of whether it works still."""
        if not _TOKEN.fullmatch(token):
            return False
        return hmac.compare_digest(token, self._signed(urlsafe_b64decode(token)[:TOKEN_BYTES]))

    def _signed(self, random: bytes) -> str:
        tag = hmac.digest(self._secret, self._purpose + random, hashlib.sha256)[:TAG_BYTES]
        return urlsafe_b64encode(random + tag).decode("ascii")


def token_hash(token: str) -> bytes:
    """Return what the database holds of a token. No pepper: 256 random bits cannot be guessed from it."""
    return hashlib.sha256(token.encode("ascii")).digest()
