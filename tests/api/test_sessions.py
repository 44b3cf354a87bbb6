"""The API called with a console session: what it may, and what another site's page may not do with its cookie."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from starlette.requests import Request
from starlette.responses import Response

from app.accounts.principal import mint_secret
from app.accounts.sessions import OpenedSession
from app.api import session as cookies
from app.db import once
from app.errors import CsrfFailed, KeyNotFound, WrongPassword
from app.values import utcnow
from tests.factories import make_account

OURS = {"sec-fetch-site": "same-origin"}


@pytest.fixture
async def opened(caller) -> OpenedSession:
    return await sign_in(caller.services, caller.account.id)


async def sign_in(services, account_id: int) -> OpenedSession:
    return await services.sessions.open(account_id, user_agent="Firefox", peer="192.0.2.7")


def with_cookie(opened: OpenedSession, **headers: str) -> dict[str, str]:
    return {"cookie": f"mg={opened.token}"} | {name.replace("_", "-"): value for name, value in headers.items()}


def from_our_page(opened: OpenedSession) -> dict[str, str]:
    return with_cookie(opened, x_csrf_token=opened.session.csrf) | OURS


async def test_a_session_makes_an_image_under_the_console_s_key(client, caller, opened):
    made = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=from_our_page(opened))
    me = await client.get("/v1/me", headers=with_cookie(opened))

    file = await client.get(f"/api/jobs/{made.json()['id']}/image", headers=with_cookie(opened))

    assert (made.status_code, file.status_code) == (200, 200)
    assert me.json()["key"]["name"] == "Console"
    keys = await once(
        caller.services.engine,
        "SELECT DISTINCT api_key_id FROM ledger WHERE kind = 'capture' AND account_id = $1",
        (caller.account.id,),
    )
    assert [row["api_key_id"] for row in keys] == [opened.session.key_id]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": "http://gateway.test.evil.test"},
        {"origin": "https://gateway.test"},
    ],
    ids=lambda headers: " ".join(headers.values()) or "nothing said",
)
async def test_what_another_site_s_page_sends_with_the_cookie_is_refused(client, opened, headers):
    answer = await client.post(
        "/v1/images/generations",
        json={"prompt": "a fox"},
        headers=with_cookie(opened, x_csrf_token=opened.session.csrf, **headers),
    )

    assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "csrf_failed")


@pytest.mark.parametrize("token", [None, "", "x" * 43, "\u00fc"], ids=["none", "empty", "wrong", "not ascii"])
async def test_our_own_origin_is_not_enough_without_the_session_s_token(client, opened, token):
    headers = with_cookie(opened) | OURS | ({} if token is None else {"x-csrf-token": token.encode()})

    answer = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=headers)

    assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "csrf_failed")


@pytest.mark.parametrize("origin", ["http://gateway.test", "http://localhost:8000"])
async def test_an_older_browser_names_the_origin_instead(client, opened, origin):
    headers = with_cookie(opened, origin=origin, host=origin.removeprefix("http://"), x_csrf_token=opened.session.csrf)

    answer = await client.post("/v1/quote", json={"endpoint": "images/generations", "prompt": "a fox"}, headers=headers)

    assert answer.status_code == 200


async def test_the_csrf_token_of_another_session_does_not_help(client, caller, opened):
    other = await sign_in(caller.services, caller.account.id)

    answer = await client.post(
        "/v1/quote", json={"prompt": "a fox"}, headers=with_cookie(opened, x_csrf_token=other.session.csrf) | OURS
    )

    assert answer.json()["error"]["reason"] == "csrf_failed"


async def test_a_stolen_cookie_is_worth_nothing_after_its_owner_has_signed_out(client, caller, opened):
    assert (await client.get("/v1/me", headers=with_cookie(opened))).status_code == 200
    assert await caller.services.sessions.close(caller.account.id, opened.session.id)

    answer = await client.get("/v1/me", headers=with_cookie(opened))

    assert (answer.status_code, answer.json()["error"]["reason"]) == (401, "session_ended")


@pytest.mark.parametrize("cookie", ["mg=", "mg=x", "mg=" + "A" * 56, "mg=" + "\u00fc" * 43])
async def test_a_made_up_cookie_is_no_session(client, cookie):
    answer = await client.get("/v1/me", headers={"cookie": cookie.encode()})

    assert (answer.status_code, answer.json()["error"]["reason"]) == (401, "session_ended")


@pytest.mark.parametrize(
    "headers",
    [{"x_timer": "1"}, {"accept": "text/event-stream"}, {"accept": "image/avif,*/*"}, {"sec_fetch_dest": "video"}],
    ids=str,
)
async def test_what_a_page_asks_by_itself_does_not_count_as_use(client, caller, opened, headers):
    engine, seen = caller.services.engine, "SELECT seen_at FROM sessions WHERE token_hash = sha256($1)"
    before = utcnow() - timedelta(hours=1)
    await once(
        engine, "UPDATE sessions SET seen_at = $2 WHERE token_hash = sha256($1)", (opened.token.encode(), before)
    )

    assert (await client.get("/v1/me", headers=with_cookie(opened, **headers))).status_code == 200
    unseen = await once(engine, seen, (opened.token.encode(),))
    assert (await client.get("/v1/me", headers=with_cookie(opened))).status_code == 200
    used = await once(engine, seen, (opened.token.encode(),))

    assert unseen[0]["seen_at"] == before < used[0]["seen_at"]


async def test_with_an_authorization_the_cookie_is_not_looked_at(client, caller, opened):
    as_key = await client.get("/v1/me", headers=with_cookie(opened) | caller.headers)
    wrong = await client.get("/v1/me", headers=with_cookie(opened, authorization=f"Bearer {mint_secret()}"))
    basic = await client.get("/v1/me", headers=with_cookie(opened, authorization="Basic dXNlcjpwYXNz"))

    assert as_key.json()["key"]["id"] == caller.key.public_id
    assert wrong.json()["error"]["reason"] == "invalid_api_key"
    assert basic.json()["error"]["reason"] == "missing_api_key"


async def test_only_an_administrator_s_session_administers(client, caller, opened):
    admin = await make_account(caller.services.engine, is_admin=True)
    theirs = await sign_in(caller.services, admin.id)

    refused = await client.get("/admin/v1/upstreams", headers=with_cookie(opened))
    allowed = await client.get("/admin/v1/upstreams", headers=with_cookie(theirs))
    unsafe = await client.post("/admin/v1/upstreams/demo/enable", headers=with_cookie(theirs))
    changed = await client.post("/admin/v1/upstreams/nothing/enable", headers=from_our_page(theirs))

    assert (refused.status_code, refused.json()["error"]["reason"]) == (403, "scope_missing")
    assert allowed.status_code == 200
    assert (unsafe.status_code, unsafe.json()["error"]["reason"]) == (403, "csrf_failed")
    assert changed.json()["error"]["reason"] == "upstream_not_found"


async def test_an_administrator_makes_links_and_says_why_when_one_resets_a_password(client, caller, opened):
    services = caller.services
    admin = await make_account(services.engine, is_admin=True)
    headers = from_our_page(await sign_in(services, admin.id))
    path = f"/admin/v1/accounts/{caller.account.public_id}/link"

    invited = await client.post(path, json={}, headers=headers)
    token = invited.json()["url"].removeprefix("http://gateway.test/console/join/")
    assert (invited.status_code, invited.json()["purpose"]) == (201, "invite")
    assert await services.invitations.accept(token, "correct horse battery") == caller.account.id
    again = await client.post(path, json={}, headers=headers)
    silent = await client.post(path, json={"purpose": "reset"}, headers=headers)
    reset = await client.post(path, json={"purpose": "reset", "reason": "She forgot it."}, headers=headers)
    foreign = await client.post(path, json={}, headers=from_our_page(await sign_in(services, caller.account.id)))

    assert (again.status_code, again.json()["error"]["param"]) == (400, "purpose")
    assert (silent.status_code, silent.json()["error"]["param"]) == (400, "reason")
    assert reset.status_code == 201
    assert (foreign.status_code, foreign.json()["error"]["reason"]) == (403, "scope_missing")
    noted = await once(
        services.engine,
        "SELECT actor, after FROM audit WHERE action = 'account.link' AND target = $1 ORDER BY id DESC LIMIT 1",
        (f"account:{caller.account.id}",),
    )
    assert noted[0]["actor"].startswith(admin.email)
    assert noted[0]["after"]["reason"] == "She forgot it."


async def test_what_has_ended_is_swept(services, caller):
    engine, old = services.engine, utcnow() - timedelta(days=40)
    opened = await sign_in(services, caller.account.id)
    ended = await sign_in(services, caller.account.id)
    ended_id = int(ended.session.id.removeprefix("ses_"))
    await once(engine, "UPDATE sessions SET expires_at = $2 WHERE id = $1", (ended_id, old))
    token = await services.invitations.invite(caller.account.id)
    await once(engine, "UPDATE sign_in_links SET expires_at = $1", (old,))
    with pytest.raises(WrongPassword):
        await services.logins.sign_in("nobody@example.test", "x", peer=None, now=old)
    await once(engine, "INSERT INTO oidc_states VALUES (sha256($1), $2)", (token.encode(), old))

    await services.sessions.prune()

    for table in ("sign_in_links", "sign_in_tries", "oidc_states"):
        assert await once(engine, f"TABLE {table}") == []
    left = await once(engine, "SELECT id FROM sessions WHERE account_id = $1", (caller.account.id,))
    assert [f"ses_{row['id']}" for row in left] == [opened.session.id]


async def test_somebody_else_s_task_does_not_exist_for_a_session(client, caller, make_caller, opened):
    owner = await make_caller()
    made = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=owner.headers)

    answer = await client.get(f"/v1/tasks/{made.json()['id']}", headers=with_cookie(opened))

    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "task_not_found")


async def test_a_suspended_account_reads_but_does_not_spend(client, caller, opened):
    await caller.services.accounts.suspend(caller.account.id)

    me = await client.get("/v1/me", headers=with_cookie(opened))
    refused = await client.post("/v1/images/generations", json={"prompt": "a fox"}, headers=from_our_page(opened))

    assert me.status_code == 200
    assert (refused.status_code, refused.json()["error"]["reason"]) == (403, "account_suspended")


async def test_nobody_can_end_or_rotate_the_console_s_key(caller, opened):
    keys = caller.services.keys
    for change in (keys.rotate, keys.revoke):
        with pytest.raises(KeyNotFound):
            await change(opened.session.key_id)

    assert (await keys.get(opened.session.key_id)).revoked_at is None
    assert opened.session.key_id not in [key.id for key in await keys.list(caller.account.id)]


@pytest.mark.parametrize("base", ["http://gateway.test", "https://gateway.test"])
async def test_the_cookie_is_as_safe_as_the_address_allows(settings, opened, base):
    settings = settings.model_copy(update={"public_url": base})
    settings.__dict__.pop("base_url", None)
    response = Response()

    cookies.set_cookie(response, settings, opened)

    name, *attributes = [part.strip() for part in response.headers["set-cookie"].split(";")]
    safe = base.startswith("https")
    assert name == f"{'__Host-mg' if safe else 'mg'}={opened.token}"
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=604800"} <= set(attributes)
    assert ("Secure" in attributes) == safe
    assert not any(attribute.lower().startswith("domain") for attribute in attributes)


async def test_behind_https_only_the_public_address_is_our_own_origin(app, settings):
    secure = settings.model_copy(update={"public_url": "https://gateway.test"})
    secure.__dict__.pop("base_url", None)

    class Gateway:
        class state:
            class services:
                settings = secure

    def request(origin: str) -> Request:
        headers = [(b"origin", origin.encode()), (b"host", b"gateway.test")]
        scope = {"type": "http", "method": "POST", "scheme": "http", "path": "/", "headers": headers, "app": Gateway}
        return Request({**scope, "query_string": b"", "server": ("gateway.test", 80)})

    cookies.check_origin(request("https://gateway.test"))
    with pytest.raises(CsrfFailed):
        cookies.check_origin(request("http://gateway.test"))


class Watching:
    """A stream that is read as it comes: a client without a socket would wait for its end."""

    def __init__(self, app, path: str, headers: dict[str, str]) -> None:
        self.text = ""
        self._has_begun, self._scope = asyncio.Event(), {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "scheme": "http", "http_version": "1.1", "server": ("gateway.test", 80), "client": ("192.0.2.7", 1),
        }  # fmt: skip
        self._answer = asyncio.create_task(app(self._scope, self._receive, self._send))

    async def begun(self) -> None:
        await self._has_begun.wait()

    async def ended(self) -> str:
        await self._answer
        return self.text

    async def _receive(self):
        await asyncio.Event().wait()

    async def _send(self, message) -> None:
        self.text += message.get("body", b"").decode()
        if self.text:
            self._has_begun.set()


@pytest.mark.parametrize("end", ["signed out", "idle for too long", "the key revoked"])
async def test_a_stream_ends_soon_after_its_caller_may_watch_no_longer(app, client, caller, opened, end):
    services, engine = caller.services, caller.services.engine
    made = await client.post("/v1/videos/generations", json={"prompt": "a paper boat"}, headers=caller.headers)
    by_key = end == "the key revoked"
    watching = Watching(app, f"/v1/tasks/{made.json()['id']}/events", caller.headers if by_key else with_cookie(opened))
    await watching.begun()

    if end == "signed out":
        await services.sessions.close(caller.account.id, opened.session.id)
    elif by_key:
        await services.keys.revoke(caller.key.id)
    else:
        await once(
            engine,
            "UPDATE sessions SET seen_at = now() - interval '13 hours' WHERE account_id = $1",
            (caller.account.id,),
        )
    await services.tasks.cancel(cookies.principal_of(opened.session), made.json()["id"])  # it looks at once
    first, last = (await watching.ended()).strip().split("\n\n")

    assert first.startswith("event: task.updated")
    assert last.startswith("event: error")
    assert ("invalid_api_key" if by_key else "session_ended") in last
