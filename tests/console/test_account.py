"""The account's page: name, password, and where its owner is signed in."""

from __future__ import annotations

import pytest

from app.console.user.account import SESSION_ROWS
from app.console.user.devices import device
from tests.console.pages import PASSWORD, make_user, sign_in

AT = "/console/account"


async def test_the_name_is_changed_and_shown_as_text(client, services):
    tab = await sign_in(client, services)

    page = await tab.post(f"{AT}/profile", {"name": "<img src=x onerror=alert(1)>"}, on=AT)
    wrong = await tab.post(f"{AT}/profile", {"name": ""})

    assert page.url == f"{AT}?done=saved"
    assert page.root.one(id="f-name")["value"] == "<img src=x onerror=alert(1)>"
    assert "<img src=x" not in page.html
    assert (wrong.status, "Name" in wrong.alert) == (400, True)


async def test_a_new_password_needs_the_old_one_and_ends_the_other_sessions(client, services):
    account = await make_user(services, password=PASSWORD)
    tab, other = await sign_in(client, services, account), await sign_in(client, services, account)
    new = "another horse, another battery"

    wrong = await tab.post(f"{AT}/password", {"old_password": "not this one", "new_password": new}, on=AT)
    short = await tab.post(f"{AT}/password", {"old_password": PASSWORD, "new_password": "short"}, on=AT)
    page = await tab.post(f"{AT}/password", {"old_password": PASSWORD, "new_password": new}, on=AT)

    assert (wrong.status, wrong.alert) == (401, "This is not your current password.")
    assert (short.status, "12 to 128" in short.alert) == (400, True)
    assert PASSWORD not in wrong.html + short.html
    assert page.url == f"{AT}?done=password-changed"
    assert (await other.get(AT)).status == 303
    assert (await services.logins.sign_in(account.email, new, peer=None)).account_id == account.id


async def test_sessions_are_listed_in_words_and_ended_one_by_one_or_all(client, services):
    account = await make_user(services)
    tabs = [await sign_in(client, services, account) for _ in range(4)]
    stranger = await sign_in(client, services)

    page = await tabs[0].get(AT)
    [mine] = [row for row in page.rows if "This session" in row]
    form = page.forms(f"{AT}/sessions/end")[0]
    ended = form.one(name_="session")["value"]
    await tabs[0].post(f"{AT}/sessions/end", having={"session": ended})
    left = await tabs[0].get(AT)
    alone = await tabs[0].post(f"{AT}/sessions/end-others")

    assert len(page.rows) == 4
    assert mine.startswith("Firefox This session 192.0.2.7")
    assert len(left.rows) == 3
    assert len(alone.rows) == 1
    assert [(await tab.get("/console")).status for tab in (*tabs, stranger)] == [200, 303, 303, 303, 200]


async def test_nobody_ends_the_session_of_another(client, services):
    tab, other = await sign_in(client, services), await sign_in(client, services)
    theirs = (await services.sessions.list(other.account.id))[0].id
    page = await tab.get(AT)
    token = page.form("/console/logout").one(name_="csrf")["value"]

    await tab.send(f"{AT}/sessions/end", {"csrf": token, "session": theirs})

    assert (await other.get("/console")).status == 200


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/143.0 Safari/537.36 Edg/143.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1 Version/26.0 Safari/605.1.15",
            "Safari on macOS",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1 CriOS/143.0 Safari/604.1",
            "Chrome on iOS",
        ),
        ("Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 Chrome/143.0 Mobile Safari/537.36", "Chrome on Android"),
        ("curl/8.15.0", "curl"),
        ("", "Unknown device"),
    ],
)
def test_a_device_is_named_as_its_owner_knows_it(user_agent, words):
    assert device(user_agent, str) == words


async def test_sessions_are_a_spreadsheet_without_anything_that_opens_one(client, services):
    account = await make_user(services, password=PASSWORD)
    tab, _other = await sign_in(client, services, account), await sign_in(client, services, account)
    listed = await services.sessions.list(account.id)

    page = await tab.get(f"{AT}?format=csv")

    lines = page.response.text.splitlines()
    assert lines[0] == "id,device,address,seen_at,created_at,expires_at"
    assert {line.split(",")[0] for line in lines[1:]} == {one.id for one in listed}


async def test_sessions_are_filtered_by_device_or_address_and_paged(client, services):
    account = await make_user(services)
    tab = await sign_in(client, services, account)
    for number in range(SESSION_ROWS):
        await services.sessions.open(account.id, user_agent="curl/8.15.0", peer=f"198.51.100.{number}")
    edge = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/143.0 Safari/537.36 Edg/143.0"
    await services.sessions.open(account.id, user_agent=edge, peer="203.0.113.9")

    first = await tab.get(AT)
    [older] = [link for link in first.links if "after=" in link]
    second = await tab.get(older)
    by_name, by_address = await tab.get(f"{AT}?q=edge on win"), await tab.get(f"{AT}?q=198.51.100.1")
    none, gone = await tab.get(f"{AT}?q=%3Cb%3Enobody"), await tab.get(f"{AT}?after=ses_1&q=CURL")
    csv = await tab.get(f"{AT}?q=edge&format=csv")

    assert (len(first.rows), len(second.rows)) == (SESSION_ROWS, 2)
    assert set(first.rows).isdisjoint(second.rows)
    assert [row.split()[0] for row in by_name.rows] == ["Edge"]
    assert len(by_address.rows) == 11
    assert (none.rows, "No session matches" in none.text, "<b>nobody" in none.html) == ([], True, False)
    assert len(gone.rows) == SESSION_ROWS
    assert len(csv.response.text.splitlines()) == 2
    assert [form for form in by_name.forms(f"{AT}/sessions/end-others")]

    ended = await tab.post(f"{AT}/sessions/end", on=f"{AT}?q=edge")
    assert "No session matches" in ended.text
