"""One OpenID provider as we see it: its document, its keys, the exchange of a code, and what an ID token must hold.

The provider is the operator's choice, yet its answers are bounded: in time, in size, and to the addresses it named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus, urlsplit

import aiohttp
import structlog
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import Key, KeySet, import_key
from pydantic import SecretStr

from app.errors import SignInRefused, SignInUnavailable

log = structlog.get_logger()

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signed with a key that only the provider has: never ``none``, and never the client's own secret."""
TOTAL_S, CONNECT_S = 10.0, 4.0
MOST_BYTES = 256 * 1024
KEEP = timedelta(hours=1)
NEW_KEYS_EVERY = timedelta(minutes=1)
LEEWAY_S = 60
SUFFIX = "/.well-known/openid-configuration"
IN_HEADER, IN_BODY = "client_secret_basic", "client_secret_post"
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class Person:
    """Who the provider says has signed in."""

    issuer: str
    subject: str
    email: str | None
    """Only one that the provider has verified."""
    name: str


@dataclass(frozen=True, slots=True)
class _Document:
    read_at: datetime
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    takes_secret_by: tuple[str, ...]
    """The ways it knows, ours first: ``client_secret_basic`` is what the standard assumes."""


class _NotTheClient(Exception):
    """The provider does not take us for its client, or not this way: ``invalid_client``."""


class OidcProvider:
    """Reads the provider's document and keys when they are first needed, and again when they are old."""

    def __init__(self, issuer: str, client_id: str, client_secret: SecretStr | None) -> None:
        self.issuer = issuer
        self.client_id = client_id
        self._secret = client_secret
        self._refused_by: set[str | None] = set()
        """Ways to send our secret that the provider knows, and not from us: it registers each client with one."""
        self._http: aiohttp.ClientSession | None = None
        self._document: _Document | None = None
        self._keys: KeySet | None = None
        self._keys_read_at: datetime | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def authorization_endpoint(self, now: datetime) -> str:
        """Raises: SignInUnavailable."""
        return (await self._discovered(now)).authorization_endpoint

    async def redeem(self, code: str, *, verifier: str, redirect_uri: str, nonce: str, now: datetime) -> Person:
        """Exchange a code for its ID token, and return whom that names. Raises: SignInRefused, SignInUnavailable."""
        document = await self._discovered(now)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "client_id": self.client_id,
        }
        answer = await self._exchange(document, form)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise self._refused("its answer holds no ID token")
        access = answer.get("access_token")
        claims = await self._claims(token, nonce=nonce, access_token=access, now=now)
        if "email" not in claims and document.userinfo_endpoint is not None and isinstance(access, str):
            more = await self._call("GET", document.userinfo_endpoint, authorization=f"Bearer {access}")
            if more.get("sub") == claims["sub"]:  # of another person otherwise
                claims = {**more, **claims, "email_verified": more.get("email_verified")}  # of that e-mail
        return self._person(claims)

    async def _exchange(self, document: _Document, form: Mapping[str, str]) -> dict[str, Any]:
        """Send a code with our secret. A provider that does not take us that way has not looked at the code yet."""
        ways: list[str | None] = sorted(document.takes_secret_by, key=self._refused_by.__contains__)
        for way in [None] if self._secret is None else ways:
            try:
                return await self._call("POST", document.token_endpoint, **self._proved(form, way))
            except _NotTheClient:
                self._refused_by.add(way)
        self._refused_by.clear()
        raise self._refused("it knows neither our client nor its secret")

    def _proved(self, form: Mapping[str, str], way: str | None) -> dict[str, Any]:
        secret = "" if self._secret is None else self._secret.get_secret_value()
        if way == IN_HEADER:
            basic = aiohttp.encode_basic_auth(quote_plus(self.client_id), quote_plus(secret))
            return {"data": form, "authorization": basic}
        return {"data": {**form, "client_secret": secret} if way == IN_BODY else form}

    async def _claims(self, token: str, *, nonce: str, access_token: object, now: datetime) -> Mapping[str, Any]:
        try:
            try:
                signed = jwt.decode(token, await self._key_set(now), algorithms=ALGORITHMS)
            except (InvalidKeyIdError, BadSignatureError):  # signed with a key that we have not seen yet
                signed = jwt.decode(token, await self._key_set(now, are_missing_one=True), algorithms=ALGORITHMS)
            claims = CodeIDToken(
                signed.claims,
                signed.header,
                options={
                    "iss": {"essential": True, "value": self.issuer},
                    "aud": {"essential": True, "value": self.client_id},
                    "nonce": {"essential": True},
                },
                params={
                    "nonce": nonce,
                    "client_id": self.client_id,
                    "access_token": access_token if isinstance(access_token, str) else None,
                },
            )
            claims.validate(now=int(now.timestamp()), leeway=LEEWAY_S)
        except (JoseError, ValueError, TypeError) as error:
            raise self._refused(f"its ID token does not hold: {type(error).__name__} {error}") from error
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255 or not subject.isprintable():
            raise self._refused("its ID token names nobody")
        return dict(claims)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        is_verified = claims.get("email_verified") is True or claims.get("email_verified") == "true"
        email = claims.get("email") if is_verified else None
        name = claims.get("name")
        return Person(
            issuer=self.issuer,
            subject=claims["sub"],
            email=email if isinstance(email, str) and _is_plain(email) else None,
            name="".join(letter for letter in name if letter.isprintable())[:100] if isinstance(name, str) else "",
        )

    # --- what the provider publishes --------------------------------------------------------------------------------

    async def _discovered(self, now: datetime) -> _Document:
        if self._document is not None and now - self._document.read_at < KEEP:
            return self._document
        found = await self._call("GET", self.issuer.rstrip("/") + SUFFIX)
        if found.get("issuer") != self.issuer:
            raise self._unavailable(f"its document names another issuer: {str(found.get('issuer'))[:200]}")
        for name in ENDPOINTS:
            if not isinstance(found.get(name), str) or not self._may_call(found[name]):
                raise self._unavailable(f"its document has no usable {name}")
        userinfo = found.get("userinfo_endpoint")
        self._document = _Document(
            read_at=now,
            authorization_endpoint=found["authorization_endpoint"],
            token_endpoint=found["token_endpoint"],
            jwks_uri=found["jwks_uri"],
            userinfo_endpoint=userinfo if isinstance(userinfo, str) and self._may_call(userinfo) else None,
            takes_secret_by=_ways(found.get("token_endpoint_auth_methods_supported")),
        )
        return self._document

    async def _key_set(self, now: datetime, *, are_missing_one: bool = False) -> KeySet:
        """Return the provider's keys. Who sends tokens of unknown keys makes us ask for new ones once a minute."""
        age = None if self._keys_read_at is None else now - self._keys_read_at
        limit = NEW_KEYS_EVERY if are_missing_one else KEEP
        if self._keys is None or age is None or age >= limit:
            found = await self._call("GET", (await self._discovered(now)).jwks_uri)
            try:
                self._keys = KeySet(_usable(found.get("keys")))
            except (JoseError, ValueError, TypeError) as error:
                raise self._unavailable(f"its keys cannot be read: {type(error).__name__}") from error
            self._keys_read_at = now
        return self._keys

    def _may_call(self, url: str) -> bool:
        """A provider that is spoken to over HTTPS does not send us, or anybody's browser, anywhere without it."""
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.scheme in ("https", urlsplit(self.issuer).scheme)

    async def _call(
        self, method: str, url: str, *, data: Mapping[str, str] | None = None, authorization: str | None = None
    ) -> dict[str, Any]:
        """Return the JSON object of an answer. Redirects are not followed: they could carry our secret away."""
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=TOTAL_S, connect=CONNECT_S)
            self._http = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        headers = {"accept": "application/json"} | ({"authorization": authorization} if authorization else {})
        try:
            async with self._http.request(method, url, data=data, headers=headers, allow_redirects=False) as answer:
                body = bytearray()
                async for piece in answer.content.iter_chunked(64 * 1024):
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise self._unavailable("its answer is too large")
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._unavailable(type(error).__name__) from error
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if 400 <= status < 500 and method == "POST":
            said = document.get("error") if isinstance(document, dict) else None
            if said == "invalid_client":
                raise _NotTheClient
            raise self._refused(f"it answers {status} to the code: {str(said)[:100]}")
        if status != 200:
            raise self._unavailable(f"it answers {status}")
        if not isinstance(document, dict):
            raise self._unavailable("its answer is no JSON object")
        return document

    def _refused(self, why: str) -> SignInRefused:
        log.warning("oidc.refused", issuer=self.issuer, why=why)
        return SignInRefused("The sign-in could not be verified. Start it again.")

    def _unavailable(self, why: str) -> SignInUnavailable:
        log.error("oidc.unavailable", issuer=self.issuer, why=why)
        return SignInUnavailable()


def _ways(methods: object) -> tuple[str, ...]:
    known = [way for way in (IN_HEADER, IN_BODY) if isinstance(methods, list) and way in methods]
    return tuple(known) or ((IN_BODY,) if isinstance(methods, list) else (IN_HEADER,))


def _usable(keys: object) -> list[Key]:
    """Return the keys for signatures of kinds that we know: a provider may publish others too."""
    if not isinstance(keys, list):
        raise TypeError("no list of keys")
    found: list[Key] = []
    for key in keys:
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig":
            with suppress(JoseError, ValueError, TypeError, KeyError):  # a curve of tomorrow
                found.append(import_key(key))
    if not found:
        raise ValueError("no key for signatures")
    return found


def _is_plain(email: str) -> bool:
    """Whether it can only be the address it looks like.

    Small and capital letters are one to us, and some foreign capitals have a plain small letter: the sign for Kelvin
    would be a "k", and its owner somebody else.
    """
    return email.isprintable() and all(letter.isascii() or letter == letter.lower() for letter in email)
