"""Signing in through an OpenID provider: a real little one on this machine, honest and not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.oidc import VALID, Oidc
from app.accounts.oidc_provider import OidcProvider
from app.accounts.passwords import Passwords
from app.accounts.registration import Registration
from app.accounts.users import insert_account
from app.credits.ledger import Ledger
from app.credits.lines import grant_first
from app.db import once
from app.errors import LinkExpired, SignInRefused, SignInUnavailable, TooManyTries
from app.journal import SYSTEM
from app.sealing import SecretBox
from app.values import utcnow
from tests.accounts.conftest import PASSWORD
from tests.accounts.issuer import (
    CLIENT,
    EC_KEY,
    OTHER_KEY,
    SAME_NAME,
    SECRET,
    SHARED_KEY,
    Issuer,
    running_issuer,
)
from tests.factories import SECRETS_KEY, make_account
from tests.ledger.test_money_functions import is_waiting, until

Make = Callable[..., Oidc]


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as issuer:
        issuer.claims = {"sub": uuid4().hex, "email": f"{uuid4().hex}@example.test", "name": "Ada\n Lovelace"}
        yield issuer


@pytest.fixture
async def make(engine: AsyncEngine, passwords: Passwords, issuer: Issuer) -> AsyncIterator[Make]:
    made: list[Oidc] = []

    def make(*, creates: bool = False) -> Oidc:
        registration = Registration(engine, passwords, is_open=False, credits=25, grant=grant_first)
        provider = OidcProvider(issuer.url, CLIENT, SecretStr(SECRET))
        box = SecretBox(SECRETS_KEY)
        made.append(
            Oidc(engine, provider, box, registration, name="IT", base_url="http://gateway.test", creates=creates)
        )
        return made[-1]

    yield make
    for oidc in made:
        await oidc.close()


@pytest.fixture
def oidc(make: Make) -> Oidc:
    return make()


async def sign_in(oidc: Oidc, issuer: Issuer) -> int:
    begun = await oidc.begin()
    return await oidc.finish(begun.cookie, issuer.consent(begun.url))


async def test_a_person_is_tied_to_the_account_of_their_verified_e_mail(engine, oidc, issuer):
    account = await make_account(engine, email=issuer.claims["email"].title(), credits=0)

    assert await sign_in(oidc, issuer) == account.id
    noted = await once(
        engine, "SELECT * FROM audit WHERE action = 'account.identity' AND target = $1", (f"account:{account.id}",)
    )
    assert noted[0]["after"]["subject"] == issuer.claims["sub"]

    issuer.claims |= {"email": "renamed@example.test"}
    assert await sign_in(oidc, issuer) == account.id
    assert issuer.hits.count("document") == issuer.hits.count("keys") == 1


async def test_nobody_gets_an_account_unless_that_is_wanted(engine, make, issuer):
    with pytest.raises(SignInRefused, match="Ask your administrator"):
        await sign_in(make(), issuer)

    made = await sign_in(make(creates=True), issuer)

    rows = await once(engine, "SELECT * FROM accounts WHERE id = $1", (made,))
    assert (rows[0]["email"], rows[0]["name"], rows[0]["is_admin"]) == (issuer.claims["email"], "Ada Lovelace", False)
    assert (await Ledger(engine).balance(made)).credits == 25
    assert await sign_in(make(), issuer) == made


@pytest.mark.parametrize("verified", [False, None, "false", 1, "yes"])
async def test_an_e_mail_that_the_provider_does_not_vouch_for_opens_nothing(engine, make, issuer, verified):
    await make_account(engine, email=issuer.claims["email"], credits=0)
    issuer.claims["email_verified"] = verified

    with pytest.raises(SignInRefused, match="vouch"):
        await sign_in(make(creates=True), issuer)


async def test_an_e_mail_that_passed_to_another_person_does_not_hand_over_the_account(engine, oidc, issuer):
    await make_account(engine, email=issuer.claims["email"], credits=0)
    await sign_in(oidc, issuer)
    issuer.claims["sub"] = "somebody else"

    with pytest.raises(SignInRefused, match="another identity"):
        await sign_in(oidc, issuer)


async def test_an_e_mail_that_somebody_only_typed_hands_no_account_over(
    engine, make, issuer, registration, invitations, logins
):
    made = await registration.register(issuer.claims["email"].upper(), "", PASSWORD, peer=None)

    with pytest.raises(SignInRefused, match="registered with a password"):
        await sign_in(make(creates=True), issuer)
    rows = await once(engine, "SELECT id FROM accounts WHERE lower(email) = $1", (issuer.claims["email"],))
    assert [row["id"] for row in rows] == [made]
    assert await logins.identities(made) == []

    token = await invitations.invite(made, purpose="reset", reason="it is theirs")
    await invitations.accept(token, "a wholly new password")
    assert await sign_in(make(), issuer) == made


async def test_a_closed_account_stays_closed(engine, oidc, issuer):
    account = await make_account(engine, email=issuer.claims["email"], credits=0)
    await sign_in(oidc, issuer)
    await once(engine, "UPDATE accounts SET state = 'closed' WHERE id = $1", (account.id,))

    with pytest.raises(SignInRefused, match="closed"):
        await sign_in(oidc, issuer)


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"aud": "somebody-else"},
        {"aud": [CLIENT, "somebody-else"]},
        {"aud": None},
        {"iss": "https://evil.test"},
        {"iss": None},
        {"exp": 1_000_000_000},  # long ago
        {"exp": None},
        {"iat": None},
        {"nbf": 4_000_000_000},  # not for decades
        {"sub": None},
        {"sub": 7},
        {"azp": "somebody-else"},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_this_sign_in_is_refused(engine, oidc, issuer, claims):
    await make_account(engine, email=issuer.claims["email"], credits=0)
    issuer.claims |= claims

    with pytest.raises(SignInRefused, match="could not be verified"):
        await sign_in(oidc, issuer)


async def test_a_key_that_the_provider_does_not_publish_signs_nothing(engine, oidc, issuer):
    account = await make_account(engine, email=issuer.claims["email"], credits=0)
    issuer.signs_with = OTHER_KEY
    begun = await oidc.begin()

    with pytest.raises(SignInRefused):
        await oidc.finish(begun.cookie, issuer.consent(begun.url))

    issuer.publishes.append(OTHER_KEY)  # it changed its keys: we see that, at most once a minute
    begun = await oidc.begin()
    with pytest.raises(SignInRefused):
        await oidc.finish(begun.cookie, issuer.consent(begun.url))
    later = utcnow() + timedelta(seconds=61)
    begun = await oidc.begin(now=later)
    assert await oidc.finish(begun.cookie, issuer.consent(begun.url), now=later) == account.id


async def test_a_state_comes_back_once(engine, oidc, issuer):
    await make_account(engine, email=issuer.claims["email"], credits=0)
    begun = await oidc.begin()
    await oidc.finish(begun.cookie, issuer.consent(begun.url))

    with pytest.raises(SignInRefused, match="finished already"):
        await oidc.finish(begun.cookie, issuer.consent(begun.url))


async def test_only_the_browser_that_began_may_finish_and_only_for_ten_minutes(make, oidc, issuer):
    begun, other = await oidc.begin(), await oidc.begin()
    query = issuer.consent(begun.url)

    for cookie in (
        None,
        "",
        "x",
        "a.b",
        other.cookie,
        begun.cookie[:-4] + "AAAA",
        "\u00fc",
        begun.cookie.partition(".")[2],
    ):
        with pytest.raises(SignInRefused):
            await oidc.finish(cookie, query)
    for wrong in (
        {},
        {"code": "x"},
        query | {"state": "x"},
        query | {"state": "\ud800"},
        query | {"iss": "https://evil.test"},
    ):
        with pytest.raises(SignInRefused):
            await oidc.finish(begun.cookie, wrong)
    with pytest.raises(SignInRefused, match="too old"):
        await oidc.finish(begun.cookie, query, now=utcnow() + VALID)
    assert "token" not in issuer.hits


async def test_who_says_no_is_not_signed_in(oidc, issuer):
    begun = await oidc.begin()
    state = issuer.consent(begun.url)["state"]

    with pytest.raises(SignInRefused, match="not completed"):
        await oidc.finish(begun.cookie, {"error": "access_denied", "state": state})


async def test_the_cookie_hides_the_verifier_and_the_nonce(oidc):
    begun = await oidc.begin()

    assert "verifier" not in begun.cookie
    assert begun.cookie not in repr(begun)
    assert "code_challenge=" in begun.url


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.test"},
        {"token_endpoint": "ftp://127.0.0.1/token"},
        {"token_endpoint": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
    ids=str,
)
async def test_a_document_that_makes_no_sense_is_not_used(oidc, issuer, document):
    issuer.document = document

    with pytest.raises(SignInUnavailable):
        await oidc.begin()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b"x" * (300 * 1024), SignInUnavailable),
        (200, b"no json", SignInUnavailable),
        (200, b"[]", SignInUnavailable),
        (200, b"{}", SignInRefused),
        (200, b'{"id_token": 7}', SignInRefused),
        (302, b"", SignInUnavailable),
        (400, b"{}", SignInRefused),
        (500, b"", SignInUnavailable),
    ],
)
async def test_what_the_token_endpoint_may_answer_has_limits(oidc, issuer, status, body, told):
    issuer.status, issuer.body = status, body

    with pytest.raises(told):
        await sign_in(oidc, issuer)
    assert issuer.hits == ["document", "token"]


async def test_an_unsigned_token_and_one_signed_with_the_client_s_secret_are_refused(oidc, issuer):
    for token in ("eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJIUzI1NiJ9.e30.", "a.b.c", "a", ""):
        issuer.body = f'{{"id_token": "{token}"}}'.encode()
        with pytest.raises(SignInRefused):
            await sign_in(oidc, issuer)
    issuer.body, issuer.signs_with, issuer.algorithm = None, SHARED_KEY, "HS256"
    with pytest.raises(SignInRefused):
        await sign_in(oidc, issuer)


async def test_a_provider_that_is_away_is_said_to_be(make, issuer):
    issuer.url = "http://127.0.0.1:9"

    with pytest.raises(SignInUnavailable):
        await make().begin()


async def test_an_e_mail_may_come_from_the_userinfo_of_the_same_person(engine, oidc, issuer):
    email = issuer.claims.pop("email")
    issuer.claims["email_verified"] = None
    account = await make_account(engine, email=email, credits=0)
    issuer.userinfo = {"sub": "somebody else", "email": email, "email_verified": True}
    with pytest.raises(SignInRefused):
        await sign_in(oidc, issuer)

    issuer.userinfo["sub"] = issuer.claims["sub"]
    assert await sign_in(oidc, issuer) == account.id


async def test_an_e_mail_of_the_userinfo_is_not_vouched_for_by_the_token(engine, oidc, issuer):
    email = issuer.claims.pop("email")
    await make_account(engine, email=email, credits=0)
    issuer.userinfo = {"sub": issuer.claims["sub"], "email": email, "email_verified": False}

    with pytest.raises(SignInRefused, match="vouch"):
        await sign_in(oidc, issuer)


async def test_an_address_that_only_looks_the_same_in_small_letters_is_another(engine, oidc, issuer):
    name = f"kim-{uuid4().hex}@example.test"
    await make_account(engine, email=name, credits=0)
    issuer.claims["email"] = name.replace("k", "\N{KELVIN SIGN}", 1)

    with pytest.raises(SignInRefused, match="vouch"):
        await sign_in(oidc, issuer)


@pytest.mark.parametrize("sub", ["a\0b", "a\nb"])
async def test_a_name_that_no_database_holds_is_nobody(oidc, issuer, sub):
    issuer.claims["sub"] = sub

    with pytest.raises(SignInRefused):
        await sign_in(oidc, issuer)


async def test_the_first_sign_in_through_a_provider_ends_links_that_were_sent_before(engine, oidc, issuer, invitations):
    account = await make_account(engine, email=issuer.claims["email"], credits=0)
    before = await invitations.invite(account.id)

    assert await sign_in(oidc, issuer) == account.id

    with pytest.raises(LinkExpired):
        await invitations.find(before)
    later = await invitations.invite(account.id)
    assert await sign_in(oidc, issuer) == account.id
    assert (await invitations.find(later)).account_id == account.id


async def test_a_client_may_be_registered_to_send_its_secret_in_the_body(engine, oidc, issuer):
    account = await make_account(engine, email=issuer.claims["email"], credits=0)
    issuer.registered_with = "client_secret_post"
    issuer.document = {"token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"]}

    assert await sign_in(oidc, issuer) == account.id
    assert issuer.hits.count("token") == 2
    assert await sign_in(oidc, issuer) == account.id  # it remembers which way works
    assert issuer.hits.count("token") == 3


async def test_a_provider_that_does_not_know_us_is_asked_each_way_once(oidc, issuer):
    issuer.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}

    with pytest.raises(SignInRefused):
        await sign_in(oidc, issuer)
    assert issuer.hits.count("token") == 1


async def test_a_token_may_be_signed_on_a_curve_and_keys_of_tomorrow_are_passed_over(engine, oidc, issuer):
    account = await make_account(engine, email=issuer.claims["email"], credits=0)
    issuer.signs_with, issuer.algorithm, issuer.publishes = EC_KEY, "ES256", [OTHER_KEY, EC_KEY]
    issuer.publishes_too = [{"kty": "EC", "crv": "P-9999", "x": "AA", "y": "AA"}, {"kty": "OKP"}, {"kty": "NEW"}]

    assert await sign_in(oidc, issuer) == account.id


async def test_a_new_key_under_an_old_name_is_looked_for_too(engine, oidc, issuer):
    account = await make_account(engine, email=issuer.claims["email"], credits=0)
    assert await sign_in(oidc, issuer) == account.id
    issuer.signs_with, issuer.publishes = SAME_NAME, [SAME_NAME]

    later = utcnow() + timedelta(seconds=61)
    begun = await oidc.begin(now=later)
    assert await oidc.finish(begun.cookie, issuer.consent(begun.url), now=later) == account.id


@pytest.mark.parametrize("has_account", [False, True])
async def test_the_first_sign_ins_of_one_person_at_once_are_all_let_in(engine, make, issuer, has_account):
    oidc = make(creates=True)
    if has_account:
        await make_account(engine, email=issuer.claims["email"], credits=0)

    found = await asyncio.gather(*(sign_in(oidc, issuer) for _ in range(6)))

    assert len(set(found)) == 1
    noted = await once(engine, "SELECT action FROM audit WHERE target = $1", (f"account:{found[0]}",))
    assert [row["action"] for row in noted].count("account.identity") == 1
    assert (await Ledger(engine).balance(found[0])).credits == (0 if has_account else 25)


async def test_an_account_that_is_made_meanwhile_is_the_persons_own(engine, make, issuer):
    async with engine.connect() as administrator:
        made = await insert_account(administrator, issuer.claims["email"], name=None, is_admin=False, actor=SYSTEM)
        signing_in = asyncio.create_task(sign_in(make(creates=True), issuer))
        await until(lambda: is_waiting(engine, administrator))
        await administrator.commit()

    assert await signing_in == made.id


async def test_a_place_that_fails_again_and_again_cannot_make_us_ask_the_provider_without_end(oidc, issuer, peer):
    now = utcnow()

    async def come_back(*, code: str | None = None) -> int:
        begun = await oidc.begin(now=now)
        query = issuer.consent(begun.url) | ({"code": code} if code else {})
        return await oidc.finish(begun.cookie, query, peer=peer, now=now)

    with pytest.raises(SignInRefused, match="no account"):
        await come_back()
    told = []
    for _ in range(55):
        try:
            await come_back(code="made up")
        except (SignInRefused, TooManyTries) as error:
            told.append(error.reason)

    assert told == ["sign_in_refused"] * 49 + ["too_many_tries"] * 6
    assert issuer.hits.count("token") == 50


async def test_a_whole_office_that_signs_in_keeps_nobody_out(engine, oidc, issuer, peer):
    account, now = await make_account(engine, email=issuer.claims["email"], credits=0), utcnow()

    for _ in range(55):
        begun = await oidc.begin(now=now)
        assert await oidc.finish(begun.cookie, issuer.consent(begun.url), peer=peer, now=now) == account.id
