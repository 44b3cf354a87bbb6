"""The audit log over HTTP: found by who, what, whom, when and why; newest first."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.administrator import Administrator
from tests.factories import make_account


@pytest.fixture
async def admin(client, services) -> Administrator:
    return await Administrator.make(client, services)


async def test_a_search_in_the_text_goes_on_where_one_request_stopped(admin, services, monkeypatch):
    account, other = [await make_account(services.engine, credits=0) for _ in range(2)]
    await admin.call("POST", f"/accounts/{account.public_id}/suspend", {"reason": "needle"})
    for _ in range(3):
        await admin.call("POST", f"/accounts/{other.public_id}/suspend", {"reason": "hay"})
        await admin.call("POST", f"/accounts/{other.public_id}/resume", {"reason": "hay"})
    monkeypatch.setattr("app.generation.journal.WINDOW", 2)
    monkeypatch.setattr("app.generation.journal.SLACK", 0)

    pages, after = [], {}
    while True:
        search = {"q": "needle", "from": "2020-01-01", "limit": 5} | after
        pages.append(await admin.call("GET", "/audit", params=search))
        if pages[-1]["data"]:
            break
        assert pages[-1]["has_more"]
        after = {"after": pages[-1]["last_id"]}
    ended = await admin.call("GET", "/audit", params={"q": "needle", "after": 1})
    early = await admin.call("GET", "/audit", params={"q": "needle", "to": "2020-01-01"})

    assert len(pages) > 1
    assert [row["target"] for row in pages[-1]["data"]] == [f"account:{account.id}"]
    assert [(page["data"], page["has_more"]) for page in (ended, early)] == [([], False)] * 2


async def test_the_log_is_searched_and_paged(admin, services):
    account = await make_account(services.engine, credits=0)
    word = uuid4().hex
    path, target = f"/accounts/{account.public_id}", f"account:{account.id}"
    for change in ("suspend", "resume", "suspend"):
        await admin.call("POST", f"{path}/{change}", {"reason": f"because {word}"})

    async def ids(**search):
        return [row["id"] for row in (await admin.call("GET", "/audit", params=search))["data"]]

    everything = await ids(target=target)
    first = await admin.call("GET", "/audit", params={"target": target, "limit": 3})
    second = await admin.call("GET", "/audit", params={"target": target, "limit": 3, "after": first["last_id"]})
    sheet = await admin.client.get(
        "/admin/v1/audit", params={"target": target}, headers=admin.headers | {"accept": "text/csv"}
    )

    assert everything == sorted(everything, reverse=True)
    assert [row["id"] for row in first["data"] + second["data"]] == everything
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert await ids(q=word.upper()) == await ids(actor=admin.account.email, target=target) == everything[:3]
    assert await ids(action="account.suspend", target=target) == [everything[0], everything[2]]
    assert await ids(action="account", target=target) == everything
    assert await ids(action="acc", target=target) == await ids(to="2020-01-01", target=target) == []
    assert await ids(**{"from": "2020-01-01"}, target=target) == everything
    assert [line.split(",")[0] for line in sheet.text.splitlines()[1:]] == [str(number) for number in everything]
    assert {"account.create", "account.suspend", "account.resume"} <= set(await services.audit_log.actions())
