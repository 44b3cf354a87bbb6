"""A small OpenID provider on this machine, with real keys. Its answers can be spoilt, one test at a time."""

from __future__ import annotations

import base64
import hashlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OctKey, RSAKey

CLIENT, SECRET = "mediagate", "a secret: with/odd signs"
KEY = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
SAME_NAME = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
EC_KEY = ECKey.generate_key("P-256", {"kid": "curve", "use": "sig", "alg": "ES256"})
SHARED_KEY = OctKey.import_key(SECRET, {"kid": "first"})
"""What a token would be signed with that anybody who knows the client's secret can make."""
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "second", "use": "sig", "alg": "RS256"})


@dataclass(slots=True)
class Issuer:
    """``claims`` and ``document`` go over what is right; None takes away."""

    url: str
    claims: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)
    signs_with: Key = field(default_factory=lambda: KEY)
    publishes: list[Key] = field(default_factory=lambda: [KEY])
    publishes_too: list[dict[str, str]] = field(default_factory=list)
    """Keys as they come, of kinds that nobody may know."""
    algorithm: str = "RS256"
    registered_with: str = "client_secret_basic"
    """How this client must send its secret, whatever else the document says."""
    status: int = 200
    body: bytes | None = None
    """What the token endpoint says instead."""
    hits: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def consent(self, url: str, **more: str) -> dict[str, str]:
        """Be the person who says yes, and return the query that the browser comes back with."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{len(self._codes)}"
        self._codes[code] = asked
        return {"code": code, "state": asked["state"]} | more

    async def answer_document(self, request: web.Request) -> web.Response:
        self.hits.append("document")
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "userinfo_endpoint": f"{self.url}/userinfo",
            }
            | self.document
        )

    async def answer_keys(self, request: web.Request) -> web.Response:
        self.hits.append("keys")
        known = KeySet(self.publishes).as_dict(private=False)["keys"]
        return web.json_response({"keys": [*self.publishes_too, *known]})

    async def answer_userinfo(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == "Bearer access"
        return web.json_response(self.userinfo)

    async def answer_token(self, request: web.Request) -> web.Response:
        self.hits.append("token")
        if self.status != 200 or self.body is not None:
            return web.Response(status=self.status, body=self.body, headers={"location": f"{self.url}/keys"})
        form = await request.post()
        scheme, _, packed = request.headers.get("authorization", "").partition(" ")
        if (scheme == "Basic") != (self.registered_with == "client_secret_basic"):
            return web.json_response({"error": "invalid_client"}, status=401)
        if scheme == "Basic":
            name, _, secret = base64.b64decode(packed).decode().partition(":")
            assert (unquote_plus(name), unquote_plus(secret)) == (CLIENT, SECRET)
            assert "client_secret" not in form
        else:
            assert (form["client_id"], form["client_secret"]) == (CLIENT, SECRET)
        asked = self._codes.pop(str(form["code"]), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest())
        if asked is None or challenge.decode().rstrip("=") != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        assert form["redirect_uri"] == asked["redirect_uri"]
        return web.json_response({"id_token": self._token(asked["nonce"]), "access_token": "access"})

    def _token(self, nonce: str) -> str:
        now = int(time.time())
        right = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce, "email_verified": True}
        claims = {name: value for name, value in (right | self.claims).items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.signs_with.kid}
        return jwt.encode(header, claims, self.signs_with, algorithms=[self.algorithm])


@asynccontextmanager
async def running_issuer() -> AsyncIterator[Issuer]:
    listener = socket.create_server(("127.0.0.1", 0))
    issuer = Issuer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", issuer.answer_document)
    app.router.add_get("/keys", issuer.answer_keys)
    app.router.add_get("/userinfo", issuer.answer_userinfo)
    app.router.add_post("/token", issuer.answer_token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    try:
        yield issuer
    finally:
        await runner.cleanup()
