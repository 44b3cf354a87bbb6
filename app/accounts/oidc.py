"""Signing in through an OpenID provider: authorization code with PKCE, a nonce, and a state bound to the browser.

What must be remembered between going there and coming back lies sealed in a short-lived cookie, so that nobody's
going fills our tables; that it came back is remembered here, so that it does not come back twice.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.accounts import tries
from app.accounts.logins import FORGET_OF_A_SOURCE, FREE_TRIES_OF_A_SOURCE
from app.accounts.oidc_provider import OidcProvider, Person
from app.accounts.registration import Registration
from app.accounts.sessions import end_links
from app.accounts.strangers import source_of
from app.accounts.tries import Mark
from app.db import once, retried, transaction
from app.errors import AccountExists, MediagateError, SignInRefused
from app.journal import Actor, note
from app.sealing import NONCE_BYTES, Sealed, SecretBox
from app.values import utcnow

VALID = timedelta(minutes=10)
"""From the button to the provider and back. The cookie lives as long."""
CALLBACK = "/console/oidc/callback"
MOST_COOKIE_CHARS = 4096


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in on its way: where the browser goes now, and what it must bring back."""

    url: str
    cookie: str = field(repr=False)


class _Cookie:
    """Where the sealed value belongs: it opens nowhere else."""

    aad = b"a sign-in on its way"
    remedy = "cookie of a sign-in"


class Oidc:
    """``name`` is what the button says. ``now`` is for tests."""

    def __init__(
        self,
        engine: AsyncEngine,
        provider: OidcProvider,
        box: SecretBox,
        registration: Registration,
        *,
        name: str,
        base_url: str,
        creates: bool,
    ) -> None:
        self._engine = engine
        self._provider = provider
        self._box = box
        self._registration = registration
        self._redirect_uri = base_url + CALLBACK
        self._creates = creates
        self.name = name

    async def close(self) -> None:
        await self._provider.close()

    async def begin(self, *, now: datetime | None = None) -> Begun:
        """Return where to send the browser, and the cookie to set. Raises: SignInUnavailable."""
        now = now or utcnow()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        url = prepare_grant_uri(
            await self._provider.authorization_endpoint(now),
            client_id=self._provider.client_id,
            response_type="code",
            redirect_uri=self._redirect_uri,
            scope=["openid", "email", "profile"],
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        left = {"state": state, "nonce": nonce, "verifier": verifier, "until": int((now + VALID).timestamp())}
        sealed = self._box.seal(json.dumps(left).encode(), _Cookie())
        text = urlsafe_b64encode(sealed.nonce + sealed.ciphertext).decode("ascii")
        return Begun(url, f"{sealed.key_id}.{text}")

    async def finish(
        self, cookie: str | None, query: Mapping[str, str], *, peer: str | None = None, now: datetime | None = None
    ) -> int:
        """Return whose account it is that has come back with ``query``; its first time links or makes the account.

        Each call of the provider is counted as a failed try of ``peer`` until it was none: a place cannot make us ask
        it without end.

        Raises: SignInRefused, SignInUnavailable, TooManyTries, InvalidParameter for an e-mail that none can be made of.
        """
        asked_at, now = now, now or utcnow()
        begun = self._opened(cookie)
        if not hmac.compare_digest(begun["state"].encode(), query.get("state", "").encode("utf-8", "replace")):
            raise _again()
        if begun["until"] <= now.timestamp() or query.get("iss", self._provider.issuer) != self._provider.issuer:
            raise _again()
        await self._use_up(begun)
        if "code" not in query:  # the person said no, or the provider did
            raise SignInRefused("The sign-in was not completed. Start it again.")
        source = source_of(peer)
        marks = [Mark(f"oidc {source}", FREE_TRIES_OF_A_SOURCE, FORGET_OF_A_SOURCE)] if source else []
        await retried(lambda: self._count(marks, asked_at))
        person = await self._provider.redeem(
            query["code"], verifier=begun["verifier"], redirect_uri=self._redirect_uri, nonce=begun["nonce"], now=now
        )
        try:
            return await retried(lambda: self._account_of(person, marks))
        except AccountExists:  # made this moment: by an administrator, or for somebody else with this e-mail
            return await retried(lambda: self._account_of(person, marks))

    def _opened(self, cookie: str | None) -> dict[str, Any]:
        """Raises: SignInRefused, for a cookie that is not there, or not ours."""
        key_id, _, text = (cookie or "")[:MOST_COOKIE_CHARS].partition(".")
        try:
            packed = urlsafe_b64decode(text.encode("ascii"))
            sealed = Sealed(packed[NONCE_BYTES:], packed[:NONCE_BYTES], key_id)
            found: dict[str, Any] = json.loads(self._box.open(sealed, _Cookie()))
        except (NotBase64, ValueError, MediagateError) as error:
            raise _again() from error
        return found

    async def _use_up(self, begun: Mapping[str, Any]) -> None:
        """Raises: SignInRefused, for a state that came back before."""
        mark = hashlib.sha256(begun["state"].encode()).digest()
        if not await once(self._engine, _USE_STATE, (mark, VALID)):
            raise _again()

    async def _count(self, marks: Sequence[Mark], now: datetime | None) -> None:
        async with transaction(self._engine) as connection:
            await tries.count(connection, marks, now=now)

    async def _account_of(self, person: Person, marks: Sequence[Mark] = ()) -> int:
        async with transaction(self._engine) as connection:
            account_id = await self._known(connection, person)
            if account_id is None:  # the same person, twice at once: the second finds what the first has made
                await connection.exec_driver_sql(_FIRST_TIME, (f"{person.issuer} {person.subject}",))
                account_id = await self._known(connection, person)
            if account_id is None:
                if person.email is None:
                    raise SignInRefused(
                        "The provider does not vouch for an e-mail address of yours, so none fits here."
                    )
                account_id = await self._link(connection, person, person.email)
            await tries.forget(connection, marks, wholly=False)
            return account_id

    async def _known(self, connection: AsyncConnection, person: Person) -> int | None:
        """Raises: SignInRefused, where the account is closed."""
        known = (await connection.exec_driver_sql(_KNOWN, (person.issuer, person.subject))).mappings().first()
        if known is not None and known["state"] == "closed":
            raise SignInRefused("This account is closed.")
        return None if known is None else int(known["account_id"])

    async def _link(self, connection: AsyncConnection, person: Person, email: str) -> int:
        """Tie a person to the account of their e-mail, or to a new one. Raises: SignInRefused, AccountExists."""
        found = (await connection.exec_driver_sql(_BY_EMAIL, (email, person.issuer))).mappings().first()
        if found is None and not self._creates:
            raise SignInRefused(f"There is no account for '{email[:254]}' here. Ask your administrator for one.")
        if found is not None and found["state"] == "closed":
            raise SignInRefused("This account is closed.")
        if found is not None and found["is_linked"]:  # the address has passed to another person
            raise SignInRefused(
                "The account of this e-mail address belongs to another identity. Ask your administrator."
            )
        if found is not None and found["is_self_registered"]:  # by whoever typed the address first: not proven theirs
            raise SignInRefused(
                "The account of this e-mail address was registered with a password. Sign in with that password, or ask "
                "your administrator for a link to reset it."
            )
        actor = Actor(email)
        if found is None:
            account_id = await self._registration.open_account(connection, email, person.name, actor=actor)
        else:
            account_id = int(found["id"])
            await end_links(connection, account_id)  # who has a way in now needs none of those sent before
        await connection.exec_driver_sql(_REMEMBER, (person.issuer, person.subject, account_id))
        after = {"issuer": person.issuer, "subject": person.subject}
        await note(connection, actor, "account.identity", f"account:{account_id}", after=after)
        return account_id


def _again() -> SignInRefused:
    return SignInRefused("This sign-in was begun in another browser, finished already, or is too old. Start it again.")


_USE_STATE = """
INSERT INTO oidc_states (state_hash, expires_at) VALUES ($1, now() + $2::interval)
ON CONFLICT DO NOTHING RETURNING state_hash"""
_KNOWN = """
UPDATE identities i SET seen_at = now() FROM accounts a
 WHERE i.issuer = $1 AND i.subject = $2 AND a.id = i.account_id RETURNING i.account_id, a.state"""
_FIRST_TIME = "SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))"
_BY_EMAIL = """
SELECT id, state, is_self_registered,
       EXISTS (SELECT FROM identities i WHERE i.account_id = a.id AND i.issuer = $2) AS is_linked
  FROM accounts a WHERE lower(email) = lower($1) FOR NO KEY UPDATE"""
_REMEMBER = "INSERT INTO identities (issuer, subject, account_id) VALUES ($1, $2, $3)"
