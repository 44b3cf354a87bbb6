"""A browser, a gateway of real processes, and people who may sign in: what every test of the console's pages uses.

    async def test_something(open_page, make_person):
        person = await make_person(credits=100)
        page = await open_page(person, language="zh-CN", theme="dark", width=360)
        await page.goto("/console/keys")

A page is watched: when it complains in its console, breaks its content security policy or asks anything of another
host, the test fails at its end. ``watch_of(page).expect(pattern)`` lets one complaint pass. Conditions are written with
`expect` and locators; ``wait_for_function`` needs an eval, which the policy forbids.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from playwright.async_api import Browser, Page

from app.accounts.keys import MintedKey
from app.accounts.users import Account
from tests.console.browser import chromium, snippets
from tests.console.browser.life import Life, live
from tests.console.browser.pages import Language, Theme, new_context, sign_in, watch_of
from tests.factories import engine_of, make_account, make_key
from tests.plugins.gateway import Gateway

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account and a password; ``key`` is a key of theirs, made as the API does."""

    account: Account
    key: MintedKey
    password: str = PASSWORD

    @property
    def email(self) -> str:
        return self.account.email

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key.secret}"}


class OpenPage(Protocol):
    async def __call__(
        self,
        person: Person | None = None,
        *,
        language: Language = "en",
        theme: Theme = "light",
        width: int = 1280,
        **more: Any,
    ) -> Page: ...


MakePerson = Callable[..., Awaitable[Person]]
StateOf = Callable[[Person | None], Awaitable[Any]]
RunSnippet = Callable[..., Awaitable[snippets.Ran]]

_snippets = itertools.count(1)


@pytest.fixture(scope="session")
async def browser(anyio_backend: Any) -> AsyncIterator[Browser]:
    path = chromium.find_chromium()
    if path is None:
        pytest.exit(f"the browser's tests cannot run: {chromium.MISSING}", returncode=1)
    async with chromium.launched(path) as browser:
        yield browser


@pytest.fixture(scope="session")
async def state_of(browser: Browser, gateway: Gateway) -> StateOf:
    """Somebody's signed-in profile. Each signs in once: it costs the hash of a password."""
    known: dict[str, Any] = {}

    async def find(person: Person | None) -> Any:
        if person is None:
            return None
        if person.email not in known:
            context = await browser.new_context(base_url=gateway.base_url)
            await sign_in(await context.new_page(), person.email, person.password)
            known[person.email] = await context.storage_state()
            await context.close()
        return known[person.email]

    return find


@pytest.fixture
async def open_page(browser: Browser, gateway: Gateway, state_of: StateOf) -> AsyncIterator[OpenPage]:
    """A factory of pages, each in a profile of its own, and signed in where a person is given."""
    async with AsyncExitStack() as stack:
        watches = []

        async def open_one(person: Person | None = None, **how: Any) -> Page:
            context = await new_context(browser, gateway.base_url, await state_of(person), **how)
            stack.push_async_callback(context.close)
            page = await context.new_page()
            watches.append(watch_of(page))
            return page

        yield open_one
    complaints = [text for watch in watches for text in watch.taken()]
    assert complaints == [], "\n".join(complaints)


@pytest.fixture(scope="session")
async def make_person(gateway: Gateway, anyio_backend: Any) -> MakePerson:
    """A factory of people with a password. Tests that change a person's settings or money make their own."""

    async def make(*, email: str | None = None, is_admin: bool = False, credits: int = 1000) -> Person:
        from app.accounts.logins import Logins
        from app.accounts.passwords import Passwords

        async with engine_of(gateway.database_url) as engine:
            account = await make_account(
                engine, credits=credits, email=email or f"{uuid4().hex[:12]}@example.test", is_admin=is_admin
            )
            await Logins(engine, Passwords()).set_password(account.id, PASSWORD)
            return Person(account, await make_key(engine, account, name="From a test"))

    return make


@pytest.fixture(scope="session")
async def user(make_person: MakePerson) -> Person:
    """Somebody ordinary, for tests that only look."""
    return await make_person(email="user@example.test")


@pytest.fixture(scope="session")
async def admin(make_person: MakePerson) -> Person:
    """An administrator, for tests that only look."""
    return await make_person(email="admin@example.test", is_admin=True)


@pytest.fixture(scope="session")
async def life(gateway: Gateway, user: Person) -> Life:
    """What ``user`` has made, so that pages have something to show."""
    return await live(gateway, user.headers, user.account.public_id)


@pytest.fixture
def run_snippet(tmp_path: Path) -> RunSnippet:
    """Run a text as ``curl`` (bash), ``python`` or ``node``, with only the given environment."""

    async def run(text: str, kind: snippets.Kind, **environment: str) -> snippets.Ran:
        return await snippets.run(text, kind, tmp_path / f"snippet-{next(_snippets)}", environment)

    return run
