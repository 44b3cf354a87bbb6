"""What holds for every page: its headers, who may send a form, where a redirect leads, languages, files, and errors."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from app.console import i18n, shell, static
from app.console.visitor import safe_next
from app.journal import SYSTEM
from tests.console.pages import OURS, Tab, sign_in

CONSOLE = Path(shell.__file__).parent
ROOT = CONSOLE.parents[1]
PREFERENCES = "/console/preferences"


def csrf_of(tab: Tab) -> str:
    assert tab.page is not None
    return tab.page.root.one("meta", name_="csrf")["content"]


async def test_a_page_runs_nothing_but_our_own_files_and_is_kept_nowhere(client, services):
    tab = await sign_in(client, services)

    for page in (await tab.get("/console/account"), await Tab(client).get("/console/login")):
        headers = page.response.headers
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "content-encoding" not in headers
        sources = [script["src"] for script in page.root.all("script") if script["type"] != "application/json"]
        assert sources
        assert all(source.startswith("/console/static/") for source in sources)


def test_no_template_has_a_style_a_handler_or_a_foreign_address():
    wrong = re.compile(
        r"\sstyle=|\son\w+=|hx-on|javascript:|<style|<script>|(?:src|href)=\"(?:https?:)?//", re.IGNORECASE
    )
    found = {
        path.name: wrong.findall(path.read_text())
        for path in (CONSOLE / "templates").rglob("*.html")
        if wrong.search(path.read_text())
    }

    assert found == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": None, "origin": "http://evil.test"},
        {"sec-fetch-site": None},
    ],
    ids=str,
)
async def test_a_form_of_another_site_changes_nothing(client, services, headers):
    tab = await sign_in(client, services)
    await tab.get("/console/account")
    body = f"csrf={csrf_of(tab)}&theme=dark"
    sent = {"cookie": f"mg={tab.cookies['mg']}", "content-type": "application/x-www-form-urlencoded", **OURS, **headers}

    answer = await client.post(
        PREFERENCES, content=body, headers={name: value for name, value in sent.items() if value is not None}
    )

    assert answer.status_code == 403
    assert (await services.sessions.list(tab.account.id))[0].theme == "system"


@pytest.mark.parametrize("token", [None, "", "x" * 43, "ü"])
async def test_a_form_without_its_token_changes_nothing(client, services, token):
    tab = await sign_in(client, services)

    page = await tab.send(PREFERENCES, {"theme": "dark"} | ({} if token is None else {"csrf": token}))

    assert page.status == 403
    assert "Load it again" in page.text
    assert (await services.sessions.list(tab.account.id))[0].theme == "system"


async def test_the_token_of_another_session_is_none(client, services):
    tab, other = await sign_in(client, services), await sign_in(client, services)
    await other.get("/console/account")

    assert (await tab.send(PREFERENCES, {"theme": "dark", "csrf": csrf_of(other)})).status == 403


async def test_what_is_no_form_is_refused(client, services):
    tab = await sign_in(client, services)
    await tab.get("/console/account")
    token = csrf_of(tab)

    as_json = await tab.send(PREFERENCES, {"csrf": token}, headers={"content-type": "application/json"})
    with_nul = await tab.send("/console/account/profile", {"csrf": token, "name": "a\x00b"})
    too_large = await tab.send(PREFERENCES, {"csrf": token, "theme": "x" * (2 * 1024 * 1024 + 1)})
    many = await tab.send(PREFERENCES, {"csrf": token, "theme": ["x"] * 600})

    assert [page.status for page in (as_json, with_nul, too_large, many)] == [400] * 4
    assert all("Request id" in page.text for page in (as_json, with_nul, too_large, many))


async def test_a_session_that_was_stolen_is_worth_nothing_after_the_sign_out(client, services):
    tab = await sign_in(client, services)
    thief = Tab(client, dict(tab.cookies))
    assert (await thief.get("/console/account")).status == 200
    token = csrf_of(thief)

    page = await tab.post("/console/logout", on="/console/account")

    assert (page.url, page.title) == ("/console/login?done=signed-out", "Sign in")
    assert "mg" not in tab.cookies
    assert (await thief.get("/console/account")).response.headers["location"].startswith("/console/login")
    made = await thief.send("/console/keys", {"csrf": token}, follow=False)
    assert made.response.headers["location"] == "/console/login?ended=1"
    assert "nothing was changed" in (await thief.get(made.response.headers["location"])).alert
    assert await services.keys.list(tab.account.id) == []


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.test/console",
        "//evil.test/console",
        "/\\evil.test",
        "/console//evil.test",
        "/console\\@evil.test",
        "/console\r\nlocation: https://evil.test",
        "javascript:alert(1)",
        "console",
        "/v1/me",
        "",
        None,
    ],
)
def test_after_the_sign_in_nobody_is_led_away(target):
    assert safe_next(target) == "/console"


def test_after_the_sign_in_somebody_is_where_they_wanted_to_go():
    assert safe_next("/console/tasks?status=failed&q=a%2Fb") == "/console/tasks?status=failed&q=a%2Fb"
    assert safe_next("/console/tasks?q=狐狸") == "/console/tasks?q=%E7%8B%90%E7%8B%B8"


async def test_a_script_is_told_that_the_session_has_ended_and_its_page_stays(client, services):
    tab = await sign_in(client, services)
    await services.sessions.end_all(tab.account.id, reason="a test", actor=SYSTEM)

    fragment = await tab.get("/console/balance", headers={"hx-request": "true", "hx-request-type": "partial"})
    script = await tab.get("/console/session", headers={"accept": "application/json"})

    told = fragment.response.headers
    assert (fragment.status, told["hx-trigger"], told["hx-reswap"]) == (401, "signed-out", "none")
    assert "hx-redirect" not in told
    assert (script.status, script.response.json()["error"]["reason"]) == (401, "session_ended")


@pytest.mark.parametrize(
    ("came_from", "leads_to"),
    [
        ("http://gateway.test/console/admin/models?q=a", "%2Fconsole%2Fadmin%2Fmodels%3Fq%3Da&"),
        ("https://evil.test//evil", ""),
        ("http://[", ""),
    ],
)
async def test_a_form_that_came_too_late_leads_back_to_its_page(client, came_from, leads_to):
    page = await Tab(client).send(
        "/console/account/profile", {"name": "x"}, headers={"referer": came_from}, follow=False
    )

    found = page.response.headers["location"]
    assert found == "/console/login?" + (f"next={leads_to}" if leads_to else "") + "ended=1"


async def test_a_page_that_was_left_learns_the_token_of_a_newer_session(client, services):
    tab = await sign_in(client, services)
    page = await tab.get("/console/account")
    other = await sign_in(client, services, tab.account)

    told = (await other.get("/console/session")).response

    assert page.root.one("meta", name_="csrf")["data-account"] == told.json()["account"] == tab.account.public_id
    assert told.json()["csrf"] not in ("", csrf_of(tab))
    assert told.headers["cache-control"] == "no-store"


async def test_a_sign_out_leaves_nothing_in_the_browser_and_works_when_the_session_is_gone_already(client, services):
    tab = await sign_in(client, services)
    await tab.get("/console/account")
    await services.sessions.end_all(tab.account.id, reason="a test", actor=SYSTEM)

    page = await tab.post("/console/logout", follow=False)

    assert page.response.headers["location"] == "/console/login?done=signed-out"
    assert page.response.headers["clear-site-data"] == '"cache", "storage"'
    assert "mg" not in tab.cookies


@pytest.mark.parametrize(
    ("account", "cookie", "accept", "language"),
    [
        (None, None, "", "en"),
        (None, None, "zh-CN,zh;q=0.9,en;q=0.8", "zh_CN"),
        (None, None, "zh-TW", "zh_CN"),
        (None, None, "de-DE,de;q=0.9,en;q=0.5", "en"),
        (None, None, "fr;q=0.9,zh-Hans;q=0.8", "zh_CN"),
        (None, "zh_CN", "en-US", "zh_CN"),
        ("en", "zh_CN", "zh-CN", "en"),
        (None, "../../etc", "*", "en"),
        (None, None, "x" * 10000, "en"),
    ],
)
def test_a_page_speaks_its_reader_s_language(account, cookie, accept, language):
    assert i18n.chosen(account, cookie, accept) == language


async def test_language_and_theme_are_the_account_s_and_before_the_sign_in_the_browser_s(client, services):
    tab = await sign_in(client, services)
    stranger = Tab(client)

    chosen = await tab.post(PREFERENCES, {"language": "zh_CN", "theme": "dark"}, on="/console/account")
    await stranger.post(PREFERENCES, {"language": "zh_CN"}, on="/console/login")
    login = await stranger.get("/console/login")

    html = chosen.root.one("html")
    assert (chosen.url, html["lang"], html["data-theme"]) == ("/console/account", "zh-CN", "dark")
    assert login.root.one("html")["lang"] == "zh-CN"
    assert (await sign_in(client, services)).account.id != tab.account.id
    wrong = await tab.send(PREFERENCES, {"language": "klingon", "csrf": csrf_of(tab)})
    assert wrong.status == 400


async def test_files_come_packed_for_ever_under_an_address_that_changes_with_them(client):
    at = static.address("console.css")
    plain = static.assets()["console.css"].plain

    packed = await client.get(at, headers={"accept-encoding": "gzip, br"})
    unpacked = await client.get(at, headers={"accept-encoding": "identity"})
    old = await client.get("/console/static/000000000000/console.css")

    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert packed.headers["content-type"] == "text/css; charset=utf-8"
    assert packed.content == unpacked.content == plain
    assert len(gzip.compress(plain, mtime=0)) < len(plain)
    assert old.headers["cache-control"] == "no-cache"
    for name in ("nothing.js", "../shell.py", "%2e%2e/shell.py", "vendor/SHA256SUMS"):
        assert (await client.get(f"/console/static/{static.build()}/{name}")).status_code == 404


def test_what_a_page_loads_first_is_small():
    first = ["console.css", "app.js", "favicon.svg", "vendor/htmx-4.0.1.min.js", "texts.zh_CN.js"]
    sizes = {name: len(asset.packed or asset.plain) for name, asset in static.assets().items() if name in first}

    assert len(sizes) == len(first)
    assert sum(sizes.values()) < 100 * 1024


async def test_what_is_not_there_is_a_page_that_says_so(client, services):
    tab = await sign_in(client, services)

    page = await tab.get("/console/no/such<script>")
    stranger = await Tab(client).get("/console/no/such")

    assert (page.status, page.title) == (404, "Not found")
    assert page.response.headers["x-request-id"] in page.text
    assert "<script>" not in page.text
    assert (stranger.status, stranger.title) == (404, "Not found")


async def test_the_administrators_pages_are_not_there_for_others(client, services):
    tab = await sign_in(client, services)

    page = await tab.get("/console/admin")

    assert (page.status, page.title) == (404, "Not found")
    assert not any(link.startswith("/console/admin") for link in page.links)
    admin = await sign_in(client, services, is_admin=True)
    assert "/console/admin/users" in (await admin.get("/console")).links


async def test_nobody_registers_where_it_is_closed(client):
    stranger = Tab(client)

    page = await stranger.get("/console/register")
    sent = await stranger.send("/console/register", {"email": "ada@example.test", "password": "x" * 12})
    login = await stranger.get("/console/login")

    assert [page.status, sent.status] == [403, 403]
    assert "/console/register" not in login.links
    assert (await stranger.get("/console/oidc")).status == 404


@pytest.mark.parametrize("folder", [CONSOLE / "static" / "vendor", ROOT / "tests" / "console" / "vendor"], ids=str)
def test_files_of_others_are_as_they_came(folder: Path):
    sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "SHA256SUMS"
    }

    assert found == sums


def test_the_notice_names_what_comes_with_the_console():
    notice = (ROOT / "NOTICE").read_text()

    for name in ("htmx 4.0.1", "uPlot 1.6.32", "Lucide"):
        assert name in notice
