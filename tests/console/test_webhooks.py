"""The page of webhooks: endpoints, their secrets, and what was sent to them."""

from __future__ import annotations

import pytest

from app import db
from app.journal import Actor
from app.webhooks.deliveries import ONE_OFF
from tests.console.pages import filled, make_user, sign_in

HOSTILE = "<script>alert('x')</script>"
AT = "/console/webhooks"


@pytest.fixture
async def receiver(file_server) -> str:
    """A URL that our fetcher may reach. It takes no POST: it answers 405."""
    return file_server.url("hook", b"")


@pytest.fixture
async def tab(client, services):
    return await sign_in(client, services)


async def made(tab, services, url, **fields):
    page = await tab.post(AT, {"name": "Shop", "url": url, **fields}, on=AT)
    assert page.status == 200, page.alert
    [endpoint], _more = await services.webhooks.list(tab.account.id, limit=10)
    return page, endpoint


async def test_an_endpoint_is_made_and_its_secret_shown_once(tab, services, receiver):
    page, endpoint = await made(tab, services, receiver, name=HOSTILE, event_types=["image.completed", "credits.low"])

    assert page.root.one("code", id="secret").text.startswith("whsec_")
    assert (endpoint.name, endpoint.event_types) == (HOSTILE, ("image.completed", "credits.low"))
    listed = await tab.get(AT)
    shown = await tab.get(f"{AT}/{endpoint.public_id}")
    for one in (listed, shown):
        assert HOSTILE in one.text
        assert HOSTILE not in one.html
        assert page.root.one("code", id="secret").text not in one.html


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"url": "http://169.254.169.254/x"}, "URL"),
        ({"url": "javascript:alert(1)"}, "URL"),
        ({"name": ""}, "Name"),
        ({"event_types": []}, "Events"),
        ({"event_types": ["video.exploded"]}, "video.exploded"),
    ],
)
async def test_a_wrong_endpoint_is_refused_where_it_was_typed(tab, services, receiver, wrong, says):
    page = await tab.post(AT, {"name": "Shop", "url": receiver, **wrong}, on=AT)

    assert page.status == 400
    assert says in page.alert
    assert (await services.webhooks.list(tab.account.id, limit=10))[0] == []


async def test_it_is_changed_paused_and_deleted(tab, services, receiver):
    _page, endpoint = await made(tab, services, receiver)
    at = f"{AT}/{endpoint.public_id}"

    changed = await tab.post(at, {"name": "Shop 2", "event_types": ["video.failed"]}, on=at)
    wrong = await tab.post(at, {"url": "http://127.0.0.1:1/x"}, on=at)
    paused = await tab.post(f"{at}/status", on=at)
    found = await services.webhooks.get(tab.account.id, endpoint.public_id)
    resumed = await tab.post(f"{at}/status", on=at)
    gone = await tab.post(f"{at}/delete", on=at)

    assert (changed.url, changed.title) == (f"{at}?done=saved", "Shop 2")
    assert (wrong.status, wrong.alert != "") == (400, True)
    assert (found.state, found.event_types) == ("disabled", ("video.failed",))
    assert "You disabled it." in paused.text
    assert "You disabled it." not in resumed.text
    assert gone.url == f"{AT}?done=deleted"
    assert (await tab.get(at)).status == 404


async def test_a_tab_that_is_older_than_a_change_does_not_undo_it(tab, services, receiver):
    _page, endpoint = await made(tab, services, receiver)
    at = f"{AT}/{endpoint.public_id}"
    stale = filled((await tab.get(at)).form(at))
    await services.webhooks.update(tab.account.id, endpoint.public_id, name="Theirs", event_types=["image.failed"])

    page = await tab.send(at, stale | {"url": [f"{endpoint.url}?mine"]})
    clash = await tab.send(at, stale | {"name": ["Mine"]})
    found = await services.webhooks.get(tab.account.id, endpoint.public_id)

    assert (page.url, page.title) == (f"{at}?done=saved", "Theirs")
    assert (clash.status, "changed this meanwhile" in clash.alert) == (400, True)
    assert (found.name, found.url, found.event_types) == ("Theirs", f"{endpoint.url}?mine", ("image.failed",))


async def test_a_secret_is_replaced_once_for_each_time_the_form_is_shown(tab, services, receiver):
    page, endpoint = await made(tab, services, receiver)
    at = f"{AT}/{endpoint.public_id}"
    await tab.get(at)
    form = tab.page.form(f"{at}/rotate")
    sent = {name: form.one(name_=name)["value"] for name in ("csrf", "form_id")} | {"keep_old": "on"}

    first = await tab.send(f"{at}/rotate", sent)
    again = await tab.send(f"{at}/rotate", sent)

    assert first.root.one("code", id="secret").text != page.root.one("code", id="secret").text
    assert (again.status, again.root.all("code", id="secret")) == (409, [])
    assert len((await services.webhook_secrets.live([endpoint.owner]))[endpoint.owner]) == 2


async def test_a_test_event_stands_in_the_log_with_its_body_and_is_sent_again(tab, services, receiver):
    _page, endpoint = await made(tab, services, receiver)
    at = f"{AT}/{endpoint.public_id}"

    page = await tab.post(f"{at}/test", {"event_type": "video.completed"}, on=at)
    [delivery], _more = await services.webhook_log.list(tab.account.id, endpoint.public_id, limit=10)

    assert page.url == f"{at}?done=test-sent"
    assert '"test": true' in page.root.all("pre")[-1].raw
    assert "405" in page.rows[0]
    csv = await tab.get(f"{at}?format=csv")
    assert delivery.public_id in csv.response.text
    assert "No delivery matches" in (await tab.get(f"{at}?state=delivered")).text
    again = await tab.post(f"{at}/deliveries/{delivery.public_id}/redeliver", on=at)
    assert "Pending" in again.rows[0]
    assert (await tab.post(f"{at}/test", {"event_type": "x"}, on=at)).status == 400


async def test_the_threshold_and_the_secret_of_one_off_urls(tab, services):
    set_to = await tab.post(f"{AT}/low-credits", {"low_credits": "50"}, on=AT)
    wrong = await tab.post(f"{AT}/low-credits", {"low_credits": "0"}, on=AT)
    shown = await tab.post(f"{AT}/secret", on=AT)
    replaced = await tab.post(f"{AT}/secret/rotate", {"keep_old": ""}, on=AT)
    log = await tab.get(f"{AT}/{ONE_OFF}")

    assert set_to.url == f"{AT}?done=saved"
    assert "Threshold in credits" in wrong.alert
    assert (await services.webhooks.settings(tab.account.id)).low_credits == 50
    secrets = [page.root.one("code", id="secret").text for page in (shown, replaced)]
    assert secrets[0] != secrets[1] == await services.webhook_secrets.of_account(tab.account.id)
    assert "Nothing was sent yet" in log.text


async def test_the_endpoints_of_others_are_not_there(tab, services, receiver):
    other = await make_user(services)
    foreign, _secret = await services.webhooks.create(
        other.id, name="Theirs", url=receiver, event_types=["video.failed"]
    )
    page = await tab.get(AT)
    token = {"csrf": page.form(AT).one(name_="csrf")["value"], "name": "Mine", "event_type": "video.failed"}

    at = f"{AT}/{foreign.public_id}"
    answers = [await tab.get(at), await tab.get(f"{at}?format=csv"), await tab.send(at, token)]
    for action in ("status", "rotate", "test", "delete", "deliveries/whd_1/redeliver"):
        answers.append(await tab.send(f"{at}/{action}", token))

    assert [answer.status for answer in answers] == [404] * 8
    assert (await services.webhooks.get(other.id, foreign.public_id)).name == "Theirs"
    assert "Theirs" not in page.html


async def test_changes_of_webhooks_are_in_the_audit_without_a_secret(services, tab):
    webhooks, who = services.webhooks, Actor("mei (key_1)")
    made, secret = await webhooks.create(
        tab.account.id, name="a", url="https://example.com/a", event_types=["video.failed"], actor=who
    )
    await webhooks.update(tab.account.id, made.public_id, name="b", actor=who)
    await webhooks.rotate_secret(tab.account.id, made.public_id, keep_old=False, actor=who)
    await webhooks.delete(tab.account.id, made.public_id, actor=who)
    await services.webhook_secrets.of_account(tab.account.id, shown_to=who)

    rows = await db.once(services.engine, "SELECT * FROM audit WHERE actor = $1 ORDER BY id", (who.name,))
    did = ["create", "update", "rotate", "delete", "show_secret"]
    assert [row["action"] for row in rows] == [f"webhook.{one}" for one in did]
    assert secret not in str([dict(row) for row in rows])
