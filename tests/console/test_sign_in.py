"""The ways in: password, one-time link, registration, and an OpenID provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import structlog
from pydantic import SecretStr

from app.api.peer import _warn_once
from app.values import Credits
from tests.accounts.issuer import CLIENT, SECRET, Issuer, running_issuer
from tests.console.pages import PASSWORD, Tab, make_user, sign_in
from tests.factories import make_account

LOGIN = "/console/login"


@pytest.fixture(scope="module")
async def issuer(anyio_backend) -> AsyncIterator[Issuer]:
    async with running_issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def settings(settings, issuer):
    """With everything open that is closed by default."""
    open_ways = {
        "registration": True,
        "registration_credits": 25,
        "oidc_issuer": issuer.url,
        "oidc_client_id": CLIENT,
        "oidc_client_secret": SecretStr(SECRET),
        "oidc_name": "Acme",
    }
    return settings.model_copy(update=open_ways)


@pytest.fixture
def tab(client) -> Tab:
    return Tab(client)


async def test_a_password_leads_to_where_its_person_wanted_to_go(tab, services):
    account = await make_user(services, password=PASSWORD)
    asked = await tab.get("/console/keys?state=live")

    await tab.get(asked.response.headers["location"])
    page = await tab.post(LOGIN, {"email": account.email.upper(), "password": PASSWORD})

    assert asked.status == 303
    assert page.url == "/console/keys?state=live"
    assert page.status == 200
    assert (await tab.get(LOGIN)).response.headers["location"] == "/console"


async def test_who_signs_in_as_somebody_else_leaves_no_session_behind(services, client):
    tab, other = await sign_in(client, services), await make_user(services)
    old, path = tab.cookies["mg"], f"/console/join/{await services.invitations.invite(other.id)}"

    page = await tab.post(path, {"password": PASSWORD}, on=path, follow=False)

    assert page.status == 303
    assert await services.sessions.find(old) is None
    assert (await services.sessions.find(tab.cookies["mg"])).account_id == other.id


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(tab, services):
    account = await make_user(services, password=PASSWORD)

    page = await tab.post(LOGIN, {"email": account.email, "password": PASSWORD}, on=LOGIN, follow=False)

    attributes = {part.strip().lower() for part in page.response.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/"} <= attributes
    assert "domain" not in page.response.headers["set-cookie"].lower()


async def test_wrong_passwords_are_told_apart_from_nothing_and_slowed_down(tab, services):
    account = await make_user(services, password=PASSWORD)
    told = set()
    for _ in range(5):
        for email in (account.email, f"{account.email}.nobody"):
            page = await tab.post(LOGIN, {"email": email, "password": "not the password"}, on=LOGIN)
            assert page.status == 401
            told.add(page.alert.split("Request id")[0])

    page = await tab.post(LOGIN, {"email": account.email, "password": PASSWORD}, on=LOGIN)

    assert told == {"The e-mail or the password is not right. "}
    assert page.status == 429
    assert "Too many tries. Wait" in page.alert
    assert int(page.response.headers["retry-after"]) >= 1
    assert page.form(LOGIN).one(name_="email")["value"] == account.email
    assert page.form(LOGIN).one(name_="password")["value"] == ""


@pytest.mark.parametrize(
    ("purpose", "is_admin", "lands_on"),
    [("invite", False, "/console"), ("reset", False, "/console"), ("first_admin", True, "/console/admin")],
)
async def test_a_link_sets_a_password_once_and_signs_in(tab, services, client, purpose, is_admin, lands_on):
    account = await make_account(services.engine, is_admin=is_admin)
    token = await services.invitations.invite(account.id, purpose=purpose, reason="a test")
    at = f"/console/join/{token}"

    shown = await tab.get(at)
    short = await tab.post(at, {"password": "too short"})
    page = await tab.post(at, {"password": PASSWORD})

    assert shown.root.one(id="f-email")["value"] == account.email
    assert shown.root.one(id="f-password")["minlength"] == "12"
    assert (short.status, "12 to 128" in short.alert) == (400, True)
    assert (page.status, page.url) == (200, lands_on)
    for again in (await Tab(client).get(at), await Tab(client).send(at, {"password": PASSWORD})):
        assert (again.status, again.title) == (410, "This link no longer works")
    assert (await services.logins.sign_in(account.email, PASSWORD, peer=None)).account_id == account.id


async def test_who_registers_starts_with_credits(tab, services):
    email = f"{uuid4().hex}@example.test"

    wrong = await tab.post("/console/register", {"email": "nobody", "password": PASSWORD}, on="/console/register")
    page = await tab.post("/console/register", {"email": email, "name": "<b>Ada", "password": PASSWORD})
    twice = await Tab(tab.client).post(
        "/console/register", {"email": email, "password": PASSWORD}, on="/console/register"
    )

    assert (wrong.status, "e-mail" in wrong.alert) == (400, True)
    assert page.url == "/console"
    account = await services.accounts.get(email)
    assert (account.name, (await services.ledger.balance(account.id)).credits) == ("<b>Ada", Credits(25))
    assert "<b>Ada" not in page.html
    assert twice.status == 400


async def test_a_person_of_the_provider_comes_in_and_goes_where_they_wanted(tab, services, issuer):
    account = await make_account(services.engine)
    issuer.claims = {"sub": uuid4().hex, "email": account.email}
    login = await tab.get(f"{LOGIN}?next=/console/usage")
    link = next(found for found in login.root.all("a") if "Acme" in found.text)

    away = await tab.get(link["href"])
    back = issuer.consent(away.response.headers["location"])
    page = await tab.get(f"/console/oidc/callback?code={back['code']}&state={back['state']}", follow=True)

    assert away.response.headers["location"].startswith(issuer.url)
    assert page.url == "/console/usage"
    assert set(tab.cookies) == {"mg"}
    assert issuer.url in (await tab.get("/console/account")).text


@pytest.mark.parametrize(
    ("public_url", "names", "path"),
    [
        ("https://gateway.test", {"__Host-mg_oidc", "__Host-mg_oidc_next"}, "Path=/;"),
        ("http://gateway.test", {"mg_oidc", "mg_oidc_next"}, "Path=/console/oidc;"),
    ],
)
async def test_no_other_host_can_set_the_cookies_of_the_way_to_the_provider(tab, services, public_url, names, path):
    settings = services.settings
    object.__setattr__(services, "settings", settings.model_copy(update={"public_url": public_url}))
    services.settings.__dict__.pop("base_url", None)
    try:
        away = await tab.get("/console/oidc")
        back = await tab.get("/console/oidc/callback")
    finally:
        object.__setattr__(services, "settings", settings)

    for page in (away, back):
        set_cookies = page.response.headers.get_list("set-cookie")
        assert {cookie.partition("=")[0] for cookie in set_cookies} == names
        assert all(path in f"{cookie};" for cookie in set_cookies)
        assert all(("Secure" in cookie) == public_url.startswith("https") for cookie in set_cookies)


async def test_a_proxy_that_nobody_has_named_is_warned_of_once(tab):
    _warn_once.cache_clear()
    fields = {"email": "nobody@example.test", "password": PASSWORD}

    with structlog.testing.capture_logs() as logged:
        for _ in range(2):
            await tab.send(LOGIN, fields, headers={"x-forwarded-for": "192.0.2.1"})

    assert [line["log_level"] for line in logged if line["event"] == "sign_in.unknown_proxy"] == ["warning"]


@pytest.mark.parametrize("query", ["", "?code=x&state=y", "?error=access_denied&state=y"])
async def test_who_comes_back_without_having_gone_stays_outside(tab, query):
    page = await tab.get(f"/console/oidc/callback{query}")

    assert (page.status, page.title) == (401, "Sign in")
    assert "Start it again" in page.alert
    assert "mg" not in tab.cookies
