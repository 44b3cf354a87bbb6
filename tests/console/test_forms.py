"""Forms: done once, given back when nothing was done, told apart when nobody knows; and numbers as people type them."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import OperationalError

from app.accounts.forms import SentBefore
from app.console.visitor import Form
from app.db import make_engine, once
from app.errors import (
    AccountExists,
    AccountNotFound,
    DatabaseUnavailable,
    InvalidParameter,
    OutcomeUnknown,
    Overloaded,
)
from app.values import new_id
from tests.console.pages import PASSWORD, Tab, filled, make_user, sign_in
from tests.factories import make_account

KEYS, USERS, LOGIN = "/console/keys", "/console/admin/users", "/console/login"


async def sent(services, account, form_id, error=None):
    """Do the work of a form, which ends like this. Returns how it was refused: None if it was done."""
    try:
        async with services.forms.once(account.id, str(form_id), back="/console") as sending:
            sending.made = "/console/keys/key_7"
            if error is not None:
                raise error
    except SentBefore as before:
        return before
    return None


@pytest.mark.parametrize(
    "error", [AccountExists("a@b.c"), InvalidParameter("x"), DatabaseUnavailable("away")], ids=repr
)
async def test_a_form_whose_work_was_certainly_not_done_may_be_sent_again(services, error):
    account, form_id = await make_account(services.engine), new_id()

    with pytest.raises(type(error)):
        await sent(services, account, form_id, error)
    again = await sent(services, account, form_id)
    third = await sent(services, account, form_id)

    assert again is None
    assert (third.is_done, third.back) == (True, "/console/keys/key_7")


@pytest.mark.parametrize("error", [OutcomeUnknown("away"), Overloaded("full"), ZeroDivisionError()], ids=repr)
async def test_a_form_whose_outcome_is_not_known_is_neither_done_again_nor_called_done(services, error):
    account, form_id = await make_account(services.engine), new_id()

    with pytest.raises(type(error)):
        await sent(services, account, form_id, error)
    again = await sent(services, account, form_id)

    assert (again.is_done, again.back) == (False, "/console")


async def test_of_a_refused_form_that_was_sent_twice_at_once_the_second_is_judged_too(services):
    account, form_id, begun = await make_account(services.engine), str(new_id()), asyncio.Event()

    async def refused():
        async with services.forms.once(account.id, form_id, back="/console"):
            begun.set()
            await services.accounts.get(account.id)
            raise InvalidParameter("x")

    async def second():
        await begun.wait()
        return await sent(services, account, form_id, InvalidParameter("x"))

    outcomes = await asyncio.gather(refused(), second(), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [InvalidParameter, InvalidParameter]


async def test_a_claim_whose_answer_was_lost_is_still_ones_own(services, monkeypatch):
    account, lost = await make_account(services.engine), []

    async def lossy(engine, sql, arguments):
        rows = await once(engine, sql, arguments)
        if "INSERT" in sql and not lost:
            lost.append(rows)
            raise OperationalError(sql, {}, ConnectionResetError(), connection_invalidated=True)
        return rows

    monkeypatch.setattr("app.accounts.forms.once", lossy)

    assert await sent(services, account, new_id()) is None
    assert len(lost) == 1


async def test_somebody_elses_form_tells_nothing(services):
    account, other, form_id = await make_account(services.engine), await make_account(services.engine), new_id()
    await sent(services, account, form_id)

    before = await sent(services, other, form_id)

    assert (before.is_done, before.back) == (False, "/console")


async def test_a_button_pressed_twice_waits_for_the_first_time(services):
    account, form_id, begun = await make_account(services.engine), str(new_id()), asyncio.Event()

    async def slow():
        async with services.forms.once(account.id, form_id, back="/console"):
            begun.set()
            await services.accounts.get(account.id)

    async def second():
        await begun.wait()
        return await sent(services, account, form_id)

    _done, before = await asyncio.gather(slow(), second())

    assert before.is_done


async def test_the_page_of_a_form_sent_again_says_whether_it_was_done_and_where_to_look(client, services):
    tab = await sign_in(client, services)
    done = filled((await tab.get(KEYS)).form(KEYS)) | {"name": ["Mine"]}
    refused = filled((await tab.get(KEYS)).form(KEYS)) | {"rpm": ["1,5"]}
    unknown = filled((await tab.get(KEYS)).form(KEYS))
    with pytest.raises(OutcomeUnknown):
        await sent(services, tab.account, unknown["form_id"][0], OutcomeUnknown("away"))

    pages = [await tab.send(KEYS, fields) for fields in (done, done, refused, refused | {"rpm": ["15"]}, unknown)]

    assert [page.status for page in pages] == [200, 409, 400, 200, 409]
    [mine] = [key for key in await services.keys.list(tab.account.id) if key.name == "Mine"]
    assert "It was done once" in pages[1].text
    assert f"{KEYS}/{mine.public_id}" in pages[1].links
    assert "is not known" in pages[4].text
    assert "done once" not in pages[4].text
    assert KEYS in pages[4].links
    assert len(await services.keys.list(tab.account.id)) == 2


async def test_a_user_and_the_first_credits_are_made_together_or_not_at_all(client, services):
    boss, other = await sign_in(client, services, is_admin=True), await make_account(services.engine, credits=0)
    reference = f"invoice-{other.id}"
    await services.ledger.top_up(other.id, 10, ref=reference, actor="a test")
    fields = {"email": f"new-{other.id}@example.test", "credits": "1,000", "kind": "topup", "reference": reference}

    taken = await boss.post(f"{USERS}/new", fields, on=f"{USERS}/new")
    with pytest.raises(AccountNotFound):
        await services.accounts.get(fields["email"])
    made = await boss.post(f"{USERS}/new", {"reference": f"{reference}-b"})

    assert (taken.status, "used before" in taken.alert) == (400, True)
    assert (made.status, (await services.accounts.get(fields["email"])).credits) == (200, 1000)


@pytest.mark.parametrize(
    ("text", "number"),
    [("15", 15), ("1,500", 1500), ("-1,234,567", -1234567), (" 7 ", 7), ("", None), ("9" * 18, 10**18 - 1)],
)
def test_a_number_is_read_as_people_write_it(text, number):
    assert Form({"amount": [text]}).number("amount") == number


@pytest.mark.parametrize(
    "text", ["1,5", "1,00", "15,00", "1500,000", ",5", "1.5", "1_000", "１５", "9" * 19, "1,5,000", "x"]
)
def test_what_may_mean_another_number_is_refused(text):
    with pytest.raises(InvalidParameter, match="'amount' must be a whole number") as error:
        Form({"amount": [text]}).number("amount")

    assert error.value.param == "amount"


async def test_a_wrong_number_is_named_by_its_label(client, services):
    boss = await sign_in(client, services, is_admin=True)
    path = f"{USERS}/{(await make_account(services.engine, credits=0)).public_id}/credits"

    page = await boss.post(path, {"amount": "1,5"}, on=path)

    assert page.status == 400
    assert "'Credits' must be a whole number of at most 18 digits, such as 1500 or 1,500." in page.alert


async def test_a_link_that_cannot_be_looked_up_is_no_error_of_ours(client, services, monkeypatch, tmp_path):
    token = await services.invitations.invite((await make_account(services.engine)).id)
    tab, away = Tab(client), make_engine(f"postgresql:///x?host={tmp_path}", pooled=False)
    await tab.get(f"/console/join/{token}")
    monkeypatch.setattr(services.invitations, "_engine", away)

    page = await tab.post(f"/console/join/{token}", {"password": PASSWORD})

    assert page.status == 503


async def test_a_sign_in_form_of_another_tab_works_after_a_sign_in(client, services):
    first, second = [await make_user(services, password=PASSWORD) for _ in range(2)]
    tab, other = Tab(client), Tab(client)
    await tab.get(LOGIN)
    await other.get(f"{LOGIN}?next=/console/tasks")
    await tab.post(LOGIN, {"email": first.email, "password": PASSWORD}, follow=False)
    other.cookies = tab.cookies

    page = await other.post(LOGIN, {"email": second.email, "password": PASSWORD}, follow=False)

    assert (page.status, page.response.headers["location"]) == (303, "/console/tasks")
    assert (await services.sessions.find(tab.cookies["mg"])).account_id == second.id
    assert await services.sessions.list(first.id) == []
    foreign = await other.send(LOGIN, {"email": first.email}, headers={"sec-fetch-site": "cross-site"})
    assert foreign.status == 403
