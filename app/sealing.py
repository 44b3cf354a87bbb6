"""Seals secrets that lie in the database: AES-256-GCM, bound to the one row and field they belong to.

Several keys may be given: the first seals, all open. So a new key is put in front, everything is sealed anew, and the
old one is taken away.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import SecretDamaged, WrongSecretsKey
from app.settings import parts_of

NONCE_BYTES, KEY_BYTES, ID_BYTES = 12, 32, 4
_CONTEXT = b"mediagate upstream secrets 1: "  # changed, it would open nothing any more


@dataclass(frozen=True, slots=True)
class Sealed:
    """What lies in the database."""

    ciphertext: bytes
    nonce: bytes
    key_id: str


class Place(Protocol):
    """Where a sealed value belongs: moved to any other place, it does not open."""

    @property
    def aad(self) -> bytes: ...

    @property
    def remedy(self) -> str:
        """What it is, and how to store it again, for the operator."""


class SecretBox:
    """Seals and opens with the keys of ``MEDIAGATE_SECRETS_KEY``. Raises: SettingsError for an empty key."""

    def __init__(self, keys: SecretStr) -> None:
        parts = parts_of("secrets_key", keys)
        self._ciphers = {_derived(part, b"id", ID_BYTES).hex(): AESGCM(_derived(part, b"key")) for part in parts}
        self.key_id = next(iter(self._ciphers))
        """Names the key that seals; it tells nothing about it."""

    async def claim(self, connection: AsyncConnection) -> None:
        """Refuse to seal with a key that this deployment's other processes do not have. Raises: WrongSecretsKey."""
        first = "UPDATE upstream_book SET secrets_key_id = $1 WHERE secrets_key_id IS NULL"
        await connection.exec_driver_sql(first, (self.key_id,))
        found = (await connection.exec_driver_sql("SELECT secrets_key_id FROM upstream_book")).scalar_one()
        if found not in self._ciphers:
            raise WrongSecretsKey(found)

    def seal(self, value: bytes, place: Place) -> Sealed:
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(self._ciphers[self.key_id].encrypt(nonce, value, place.aad), nonce, self.key_id)

    def open(self, sealed: Sealed, place: Place) -> bytes:
        """Raises: WrongSecretsKey, SecretDamaged when it was changed or belongs to another row."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise WrongSecretsKey(sealed.key_id)
        try:
            return cipher.decrypt(sealed.nonce, sealed.ciphertext, place.aad)
        except InvalidTag:
            raise SecretDamaged(place.remedy) from None


def _derived(part: str, purpose: bytes, length: int = KEY_BYTES) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=_CONTEXT + purpose).derive(part.encode())
