"""The key pepper: the secret under which keys are stored. Two may be live, so that it can be changed.

The database numbers the peppers it has met, by a check value of each. A key's row says under which one it lies.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import WrongPepper
from app.settings import parts_of

_MARK = "the pepper of this deployment"
_NAME = "key_pepper"
_NUMBERED = re.compile(rf"{_NAME}(?:_([0-9]{{1,4}}))?")


class Pepper:
    """The keys of ``MEDIAGATE_KEY_PEPPER``: the first stores, all verify. Raises: SettingsError for an empty one."""

    def __init__(self, secret: SecretStr) -> None:
        self._parts = [part.encode() for part in parts_of(_NAME, secret)]

    def __len__(self) -> int:
        return len(self._parts)

    def mac(self, secret: str) -> bytes:
        """Return what is stored of a key now."""
        return _mac(self._parts[0], secret)

    def macs(self, secret: str) -> list[bytes]:
        """Return what may be stored of a key, `mac` first."""
        return [_mac(part, secret) for part in self._parts]

    async def version(self, connection: AsyncConnection) -> int:
        """Return the number of the first pepper in this database; one that follows the last known gets a new number.

        Raises: WrongPepper when this process does not hold the newest: others would not know what it stores, or it
        would not know what they store.
        """
        marks = self.macs(_MARK)
        while True:
            known = await _known(connection)
            newest = max(known.values(), default=0)
            if newest and not any(known.get(mark) == newest for mark in marks):
                raise WrongPepper
            if marks[0] in known:
                return known[marks[0]]
            name = f"{_NAME}_{newest + 1}" if newest else _NAME
            await connection.exec_driver_sql(_LEAVE_MARK, (name, marks[0]))  # somebody else may be first: look again


async def _known(connection: AsyncConnection) -> dict[bytes, int]:
    rows = (await connection.exec_driver_sql(_READ_MARKS)).mappings()
    found = [(row["value"], _NUMBERED.fullmatch(row["name"])) for row in rows]
    return {bytes(value): int(number[1] or 1) for value, number in found if number}


def _mac(part: bytes, secret: str) -> bytes:
    return hmac.digest(part, secret.encode("ascii"), hashlib.sha256)


_LEAVE_MARK = "INSERT INTO deployment (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"

_READ_MARKS = f"SELECT name, value FROM deployment WHERE name LIKE '{_NAME}%'"  # noqa: S608 - a constant
