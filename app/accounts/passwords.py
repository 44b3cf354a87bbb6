"""What a password must be, and how it is stored: argon2id, two at a time, so that guesses never eat the memory."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import InvalidParameter, Overloaded

MIN_CHARS, MAX_CHARS = 12, 128
MIN_DIFFERENT = 5
MEMORY_KIB, ROUNDS = 64 * 1024, 3
AT_ONCE, WAITING = 2, 32
RETRY_AFTER_S = 2

T = TypeVar("T")


class Passwords:
    """Hashes and checks in threads. One per process: it holds the turns."""

    def __init__(self, *, memory_kib: int = MEMORY_KIB, rounds: int = ROUNDS, at_once: int = AT_ONCE) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory_kib, parallelism=1, type=Type.ID)
        self._turns = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._dummy: str | None = None

    async def hash(self, password: str) -> str:
        """Raises: Overloaded, when too many wait for their turn."""
        return await self._in_turn(self._hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether it is the password. Without a stored one it takes as long, and is not. Raises: Overloaded."""
        return await self._in_turn(self._verify, stored, password)

    def is_outdated(self, stored: str) -> bool:
        """Whether it was hashed with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    async def _in_turn(self, work: Callable[..., T], *arguments: object) -> T:
        if self._waiting >= WAITING:
            raise Overloaded("Too many people are signing in just now. Try again.", retry_after_s=RETRY_AFTER_S)
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._waiting -= 1

    def _hash(self, password: str) -> str:
        _check_length(password, "password")
        return self._hasher.hash(normal(password))

    def _verify(self, stored: str | None, password: str) -> bool:
        if self._dummy is None:
            self._dummy = self._hasher.hash(secrets.token_urlsafe())
        if len(password) > MAX_CHARS:  # nobody's: it takes as long as any other, and no longer
            stored, password = None, ""
        try:
            fits = self._hasher.verify(stored or self._dummy, normal(password))
        except (VerificationError, InvalidHashError):
            return False
        return fits and stored is not None


def checked_password(password: str, *, email: str = "", param: str = "password") -> str:
    """Return it as it is to be hashed. Raises: InvalidParameter, for one that is too short or too easy to guess."""
    _check_length(password, param)
    password = normal(password)
    _check_length(password, param, least=MIN_CHARS)
    simple = password.casefold()
    if len(set(simple)) < MIN_DIFFERENT or simple in (email.casefold(), email.casefold().partition("@")[0]):
        raise InvalidParameter(
            "This password is too easy to guess. A few unrelated words make a good one.", param=param
        )
    return password


def _check_length(password: str, param: str, *, least: int = 0) -> None:
    """Raises: InvalidParameter."""
    if not least <= len(password) <= MAX_CHARS:
        raise InvalidParameter(f"A password has {MIN_CHARS} to {MAX_CHARS} characters.", param=param)


def normal(password: str) -> str:
    """Return one spelling for what looks alike: keyboards differ in how they write an accent. No half characters.

    For what is at most ``MAX_CHARS`` long: a hundred thousand accents on one letter would stop the process for minutes.
    """
    return unicodedata.normalize("NFKC", password.encode("utf-8", "replace").decode("utf-8"))
