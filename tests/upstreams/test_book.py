"""The book of accounts and routes: the seed, changes while tasks run, rotation, deletion, and no secret anywhere."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import log
from app.catalog.book import Book
from app.catalog.load import Catalog, load_catalog
from app.db import make_engine, once
from app.errors import (
    InvalidParameter,
    MediagateError,
    ModelNotFound,
    ModelRouteExists,
    ModelRouteNotFound,
    SecretDamaged,
    UpstreamExists,
    UpstreamNotFound,
    WrongSecretsKey,
)
from app.journal import Actor
from app.migrate import migrate
from app.requests import Operation
from app.upstreams.protocols import Capabilities, SubmitSafety
from app.upstreams.registry import Registry, UnknownUpstream
from tests.factories import SECRETS_KEY, accept_task, make_account, make_key
from tests.unit.catalogs import MODELS

ADMIN = Actor("admin@example.test (key_1)", "req_1")
NOW = timedelta(0)
PROVIDERS = {
    "demo": Capabilities(frozenset(Operation), SubmitSafety.IDEMPOTENT),
    "stills": Capabilities(frozenset({Operation.IMAGE_GENERATE}), SubmitSafety.BLIND),
}
UPSTREAMS = """\
upstreams:
  demo:
    provider: demo
    concurrency: 7
  main:
    provider: demo
    base_url: https://main.test
    secret_env: BOOK_MAIN_KEY
    options: {region: eu}
"""
TWO_ROUTES = MODELS.replace(
    "model: painter-1}", "model: painter-1}\n      - {upstream: main, model: painter-2, weight: 3}"
)
VARIABLE = "BOOK_MAIN_KEY"
OTHER_KEY = SecretStr("another secrets key that only tests use..")


@pytest.fixture
async def engine(fresh_database: Callable[..., str]) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(fresh_database(migrated=True), pool_size=4)
    yield engine
    await engine.dispose()


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "models.yaml").write_text(TWO_ROUTES)
    (tmp_path / "upstreams.yaml").write_text(UPSTREAMS)
    return load_catalog(tmp_path, providers=PROVIDERS)


MakeBook = Callable[..., Book]


@pytest.fixture
def make_book(engine: AsyncEngine, catalog: Catalog, tmp_path: Path) -> MakeBook:
    """Make the book as another process would: nothing is shared but the database."""

    def make(key: SecretStr = SECRETS_KEY, **how: Any) -> Book:
        return Book(engine, key, catalog=catalog, providers=PROVIDERS, work_dir=tmp_path / "work", **how)

    return make


@pytest.fixture
def book(make_book: MakeBook, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.delenv(VARIABLE, raising=False)
    return make_book()


@pytest.fixture
def registry() -> Registry:
    return Registry({})


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged, as a process writes it; the log is as before afterwards."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    text = io.StringIO()
    log.configure(form="json", level="debug", stream=text)
    yield text
    logging.captureWarnings(False)
    root.handlers, root.level = before


async def audit_of(engine: AsyncEngine) -> list[dict[str, Any]]:
    return [dict(row) for row in await once(engine, "SELECT * FROM audit ORDER BY id")]


async def running_task(engine: AsyncEngine, pool: str, *, credential: int | None, status: str = "submitting") -> UUID:
    """A task that is with the upstream; how it got there is told elsewhere."""
    key = await make_key(engine, await make_account(engine))
    task_id = await accept_task(engine, key, pool=pool)
    if status != "queued":
        await once(
            engine, "UPDATE tasks SET status = 'submitting', credential = $2 WHERE id = $1", (task_id, credential)
        )
    return task_id


async def end_task(engine: AsyncEngine, task_id: UUID) -> None:
    [row] = await once(engine, "SELECT mg_fail($1, NULL, 'upstream_error', 'over', NULL, NULL) AS done", (task_id,))
    assert row["done"]


def secret_of(registry_or_book: Any, name: str, version: int | None = None) -> str | None:
    secret = registry_or_book.upstream(name, version).secret
    return None if secret is None else secret.get_secret_value()


# --- the seed -------------------------------------------------------------------------------------------------------


async def test_the_first_start_writes_what_the_files_name(book: Book, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(VARIABLE, "sk-main-1")

    await book.seed()

    found = await book.snapshot()
    main = found.accounts["main"].by_version[1]
    assert (found.accounts["demo"].concurrency, found.accounts["demo"].state) == (7, "active")
    assert (main.base_url, main.options, main.work_dir) == (
        "https://main.test",
        {"region": "eu"},
        tmp_path / "work/main",
    )
    assert main.secret == SecretStr("sk-main-1")
    assert [(r.pool, r.priority, r.weight) for r in found.routes["painter"]] == [
        ("demo/painter-1", 0, 1),
        ("main/painter-2", 1, 3),
    ]


async def test_a_second_start_changes_nothing(book: Book, make_book: MakeBook, engine: AsyncEngine, monkeypatch):
    monkeypatch.setenv(VARIABLE, "sk-main-1")
    await book.seed()
    before = await audit_of(engine)

    await asyncio.gather(*(make_book().seed() for _ in range(3)))

    assert await audit_of(engine) == before
    assert {row["action"] for row in before} == {"upstream.add", "route.add"}


async def test_many_processes_that_start_at_once_seed_once(make_book: MakeBook, engine: AsyncEngine, monkeypatch):
    monkeypatch.setenv(VARIABLE, "sk-main-1")

    await asyncio.gather(*(make_book().seed() for _ in range(4)))

    actions = [row["action"] for row in await audit_of(engine)]
    assert actions.count("upstream.add") == 2
    assert actions.count("route.add") == 3


async def test_an_account_without_its_variable_waits_with_its_routes(book: Book, make_book: MakeBook, monkeypatch):
    await book.seed()
    before = await book.snapshot()
    monkeypatch.setenv(VARIABLE, "sk-main-1")

    await make_book().seed()

    after = await book.snapshot()
    assert [route.upstream for route in before.routes["painter"]] == ["demo"]
    assert "main" not in before.accounts
    assert [route.upstream for route in after.routes["painter"]] == ["demo", "main"]


async def test_what_was_deleted_or_removed_never_comes_back(book: Book, make_book: MakeBook, monkeypatch):
    monkeypatch.setenv(VARIABLE, "sk-main-1")
    await book.seed()
    await book.upstreams.delete("main", actor=ADMIN)
    await book.routes.remove((await book.routes.find("filmer", "demo")).id, actor=ADMIN)
    await book.upstreams.update("demo", concurrency=2, actor=ADMIN)
    await book.purge(after=NOW)

    monkeypatch.setenv(VARIABLE, "sk-main-2")
    await make_book().seed()

    found = await book.snapshot()
    assert set(found.accounts) == {"demo"}
    assert found.accounts["demo"].concurrency == 2
    assert [route.entry.pool for route in await book.routes.list()] == ["demo/painter-1"]


async def test_another_secret_in_the_environment_is_rotated_in_once(book: Book, make_book: MakeBook, monkeypatch):
    monkeypatch.setenv(VARIABLE, "sk-main-1")
    await book.seed()

    monkeypatch.setenv(VARIABLE, "sk-main-2")
    await make_book().seed()
    await make_book().seed()

    account = (await book.snapshot()).accounts["main"]
    assert (account.newest, set(account.by_version)) == (2, {1, 2})
    assert account.by_version[2].secret == SecretStr("sk-main-2")


async def test_a_start_does_not_undo_an_administrators_rotation(book: Book, make_book: MakeBook, monkeypatch):
    monkeypatch.setenv(VARIABLE, "sk-main-1")
    await book.seed()
    await book.upstreams.rotate("main", SecretStr("sk-by-admin"), actor=ADMIN)
    await book.purge(after=NOW)

    await make_book().seed()

    account = (await book.snapshot()).accounts["main"]
    assert account.by_version[account.newest].secret == SecretStr("sk-by-admin")


# --- changes --------------------------------------------------------------------------------------------------------


async def test_a_registry_takes_a_change_over_at_the_next_look(book: Book, make_book: MakeBook, registry: Registry):
    assert await book.refresh(registry)
    assert not await book.refresh(registry)

    await make_book().upstreams.add("second", provider="demo", secret=SecretStr("sk-2"), actor=ADMIN)

    with pytest.raises(UnknownUpstream):
        registry.account("second")
    assert await book.refresh(registry)
    assert secret_of(registry, "second") == "sk-2"
    assert not await book.refresh(registry)


async def test_the_watch_seeds_and_follows_until_it_is_cancelled(book: Book, make_book: MakeBook, registry: Registry):
    taken = asyncio.Event()

    class Noticing(Registry):
        def replace(self, snapshot: Any) -> None:
            super().replace(snapshot)
            if "second" in snapshot.accounts:
                taken.set()

    noticing = Noticing({})
    watch = asyncio.create_task(book.watch(noticing, every_s=0.01))
    await make_book().upstreams.add("second", provider="demo", actor=ADMIN)
    async with asyncio.timeout(30):
        await taken.wait()

    assert {"demo", "second"} <= set(noticing.snapshot.accounts)
    assert not watch.done()
    watch.cancel()


async def test_a_watch_waits_for_the_migration_and_says_so_once(
    fresh_database: Callable[..., str], catalog: Catalog, tmp_path: Path, logged: io.StringIO
):
    url = fresh_database()
    engine = make_engine(url, role=None, pooled=False)
    book = Book(engine, SECRETS_KEY, catalog=catalog, providers=PROVIDERS, work_dir=tmp_path)
    registry = Registry({})
    watch = asyncio.create_task(book.watch(registry, every_s=0.01))

    async with asyncio.timeout(30):
        while "upstreams.postponed" not in logged.getvalue():  # noqa: ASYNC110 - the log has no event to wait for
            await asyncio.sleep(0.01)
        await migrate(url)
        while "demo" not in registry.snapshot.accounts:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.01)

    watch.cancel()
    await engine.dispose()
    assert logged.getvalue().count("upstreams.postponed") == 1
    assert "watch_failed" not in logged.getvalue()


async def test_an_account_is_changed_drained_and_enabled(book: Book):
    await book.upstreams.add("a", provider="demo", base_url="https://a.test/v1/", options={"x": 1}, actor=ADMIN)

    changed = await book.upstreams.update("a", concurrency=9, actor=ADMIN)
    drained = await book.upstreams.set_state("a", "draining", actor=ADMIN)
    moved = await book.upstreams.update("a", base_url=None, options={"x": 2}, actor=ADMIN)
    again = await book.upstreams.set_state("a", "active", actor=ADMIN)

    assert (changed.base_url, changed.concurrency, changed.version) == ("https://a.test/v1", 9, 1)
    assert drained.state == "draining"
    assert (moved.base_url, moved.options, moved.version, moved.versions) == (None, {"x": 2}, 2, 2)
    assert (again.state, again.has_secret) == ("active", False)
    by_version = (await book.snapshot()).accounts["a"].by_version
    assert [by_version[n].base_url for n in (1, 2)] == ["https://a.test/v1", None]


async def test_a_stored_secret_goes_to_no_other_host_unless_it_is_given_again(book: Book):
    how = {"base_url": "https://a.test/v1", "secret": SecretStr("sk-a")}
    await book.upstreams.add("a", provider="demo", **how, actor=ADMIN)  # type: ignore[arg-type]

    for other in ("https://new.test/v1", "http://a.test/v1", "https://a.test:8443/v1", None):
        with pytest.raises(InvalidParameter, match="give the secret again"):
            await book.upstreams.update("a", base_url=other, actor=ADMIN)
    await book.upstreams.update("a", base_url="https://a.test:443/v2", actor=ADMIN)
    account = (await book.snapshot()).accounts["a"]
    assert account.by_version[account.newest].secret == SecretStr("sk-a")
    await book.upstreams.update("a", base_url="https://new.test", secret=SecretStr("sk-b"), actor=ADMIN)

    account = (await book.snapshot()).accounts["a"]
    newest = account.by_version[account.newest]
    assert (newest.base_url, newest.secret) == ("https://new.test", SecretStr("sk-b"))


async def test_in_production_a_secret_travels_unsealed_over_private_networks_only(make_book: MakeBook):
    book = make_book(needs_https=True)
    private = ["127.0.0.1:8188", "10.1.2.3", "192.168.0.9/v1", "[::1]:8000", "comfy:8188", "gpu.internal", "gpu.lan"]
    for number, place in enumerate(private):
        await book.upstreams.add(f"a{number}", provider="demo", base_url=f"http://{place}", actor=ADMIN)
    await book.upstreams.add("far", provider="demo", base_url="https://api.example.com", actor=ADMIN)

    for place in ("api.example.com", "8.8.8.8", "[2606:4700::1]:80", "10.1.2.3.example.com", "internal.example.com"):
        url = f"http://{place}"
        with pytest.raises(InvalidParameter, match="must be an https:// address") as refused:
            await book.upstreams.add("open", provider="demo", base_url=url, actor=ADMIN)
        with pytest.raises(InvalidParameter, match="must be an https:// address"):
            await book.upstreams.update("far", base_url=url, secret=SecretStr("sk-hidden"), actor=ADMIN)
        assert refused.value.param == "base_url"

    assert (await book.upstreams.get("far")).base_url == "https://api.example.com"
    assert (await make_book().upstreams.update("far", base_url="http://8.8.8.8", actor=ADMIN)).version == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"provider": "nobody"}, "provider"),
        ({"base_url": "ftp://a.test"}, "base_url"),
        ({"base_url": "https://"}, "base_url"),
        ({"base_url": "https://a.test:port"}, "base_url"),
        ({"base_url": f"https://{'a' * 64}.test"}, "base_url"),
        ({"base_url": "https://a..test"}, "base_url"),
        ({"base_url": "https://user:sk-hidden@a.test"}, "base_url"),
        ({"base_url": "https://a.test/?key=sk-hidden"}, "base_url"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"options": {"a": float("nan")}}, "options"),
        ({"options": {"a": "\0"}}, "options"),
        ({"options": {"result_hosts": "cdn.example"}}, "options"),
        ({"options": {"result_hosts": []}}, "options"),
        ({"options": {"result_hosts": ["https://cdn.example"]}}, "options"),
        ({"options": {"a": "\ud800"}}, "options"),
        ({"secret": SecretStr("")}, "secret"),
        ({"secret": SecretStr("sk-hidden ")}, "secret"),
        ({"secret": SecretStr("sk-hidden\0")}, "secret"),
    ],
)
async def test_a_mistake_is_refused_by_field_and_changes_nothing(
    book: Book, engine: AsyncEngine, fields: dict[str, Any], param: str
):
    given = {"name": "a", "provider": "demo", "actor": ADMIN} | fields

    with pytest.raises(InvalidParameter) as caught:
        await book.upstreams.add(given.pop("name"), **given)

    assert caught.value.param == param
    assert "hidden" not in caught.value.message
    assert await audit_of(engine) == []


async def test_names_are_taken_once_and_unknown_ones_are_said(book: Book):
    await book.upstreams.add("a", provider="demo", actor=ADMIN)

    with pytest.raises(UpstreamExists):
        await book.upstreams.add("a", provider="demo", actor=ADMIN)
    for work in (
        book.upstreams.get("b"),
        book.upstreams.rotate("b", None, actor=ADMIN),
        book.upstreams.update("b", concurrency=1, actor=ADMIN),
        book.upstreams.set_state("b", "active", actor=ADMIN),
        book.upstreams.delete("b", actor=ADMIN),
        book.routes.add("painter", "b", "m", actor=ADMIN),
    ):
        with pytest.raises(UpstreamNotFound):
            await work


async def test_routes_are_added_changed_removed_and_added_again(book: Book):
    await book.upstreams.add("a", provider="demo", actor=ADMIN)

    added = await book.routes.add("painter", "a", "vendor/painter", weight=2, options={"k": "v"}, actor=ADMIN)
    changed = await book.routes.update(added.id, priority=5, is_enabled=False, actor=ADMIN)
    with pytest.raises(ModelRouteExists):
        await book.routes.add("painter", "a", "vendor/painter", actor=ADMIN)
    removed = await book.routes.remove(added.id, actor=ADMIN)
    [left] = (await book.snapshot()).routes["painter"]
    back = await book.routes.add("painter", "a", "vendor/painter", needs_permission=True, actor=ADMIN)

    assert (added.entry.pool, added.entry.weight, added.entry.options) == ("a/vendor/painter", 2, {"k": "v"})
    assert (changed.entry.priority, changed.entry.is_enabled, changed.entry.weight) == (5, False, 2)
    assert removed.entry == changed.entry
    assert (left.pool, left.is_enabled, left.options) == ("a/vendor/painter", False, {"k": "v"})
    assert (back.entry.needs_permission, back.entry.is_enabled, back.entry.options) == (True, True, {})
    assert (await book.routes.find("painter", "a")).id == (await book.routes.find(back.public_id)).id == added.id


async def test_a_route_must_fit_the_catalogue_and_the_provider(book: Book):
    await book.upstreams.add("a", provider="stills", actor=ADMIN)

    with pytest.raises(InvalidParameter, match=r"The provider 'stills' cannot do video\.generate"):
        await book.routes.add("filmer", "a", "m", actor=ADMIN)
    with pytest.raises(InvalidParameter, match=r"must be some of what 'painter' does: image\.generate"):
        await book.routes.add("painter", "a", "m", operations=[Operation.IMAGE_EDIT], actor=ADMIN)
    with pytest.raises(ModelNotFound):
        await book.routes.add("nothing", "a", "m", actor=ADMIN)
    with pytest.raises(ModelRouteNotFound):
        await book.routes.update(10**9, weight=2, actor=ADMIN)


async def test_problems_name_rows_that_fit_no_more_and_models_without_a_route(book: Book, engine: AsyncEngine):
    await book.seed()
    assert await book.routes.problems() == []

    await once(engine, "INSERT INTO routes (model, upstream, upstream_model) VALUES ('gone', 'demo', 'm')")
    await book.upstreams.set_state("demo", "draining", actor=ADMIN)

    first, *rest = await book.routes.problems()
    assert "(gone -> demo/m): The model 'gone' does not exist." in first
    assert rest == [
        "painter: no enabled route to an active account for image.generate.",
        "filmer: no enabled route to an active account for video.generate.",
    ]


# --- rotation, deletion and running tasks ---------------------------------------------------------------------------


async def test_rotation_keeps_the_old_version_for_running_tasks_and_purges_it_afterwards(
    book: Book, engine: AsyncEngine, registry: Registry
):
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-old"), actor=ADMIN)
    task = await running_task(engine, "a/m", credential=1)
    await running_task(engine, "a/m", credential=None, status="queued")

    await book.upstreams.rotate("a", SecretStr("sk-new"), actor=ADMIN)
    kept = await book.purge(after=NOW)
    await book.refresh(registry)
    secrets = [secret_of(registry, "a", version) for version in (1, 2, None)]
    await end_task(engine, task)
    young = await book.purge()
    purged = await book.purge(after=NOW)
    await book.refresh(registry)

    assert secrets == ["sk-old", "sk-new", "sk-new"]
    assert (kept, young, purged) == (0, 0, 1)
    assert set(registry.account("a").by_version) == {2}
    assert await once(engine, "SELECT version FROM upstream_credentials WHERE upstream = 'a'") == [{"version": 2}]


async def test_a_running_task_without_a_number_keeps_every_version(book: Book, engine: AsyncEngine):
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-old"), actor=ADMIN)
    await running_task(engine, "a/m", credential=None)
    await book.upstreams.rotate("a", SecretStr("sk-new"), actor=ADMIN)

    assert await book.purge(after=NOW) == 0


async def test_a_deleted_account_goes_when_its_last_task_has_ended(book: Book, engine: AsyncEngine, registry: Registry):
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-a"), actor=ADMIN)
    await book.routes.add("painter", "a", "m", options={"o": 1}, actor=ADMIN)
    task = await running_task(engine, "a/m", credential=1)

    deleted = await book.upstreams.delete("a", actor=ADMIN)
    assert await book.purge(after=NOW) == 0
    await book.refresh(registry)
    route = registry.route_of("painter", "a/m")
    with pytest.raises(UpstreamExists, match="tasks of it may still run"):
        await book.upstreams.add("a", provider="demo", actor=ADMIN)
    assert (deleted.state, deleted.open_tasks) == ("deleted", 1)
    assert (registry.account("a").state, secret_of(registry, "a", 1)) == ("deleted", "sk-a")
    assert route is not None
    assert (route.is_enabled, route.options) == (False, {"o": 1})

    await end_task(engine, task)
    assert await book.purge(after=NOW) == 1
    await book.refresh(registry)
    with pytest.raises(UnknownUpstream):
        registry.account("a")
    assert [account.name for account in await book.upstreams.list()] == ["demo"]
    again = await book.upstreams.add("a", provider="stills", actor=ADMIN)
    assert (again.version, again.has_secret) == (2, False)  # no task ever finds another one's version


async def test_rotating_and_deleting_with_200_tasks_running_loses_no_version(
    book: Book, engine: AsyncEngine, registry: Registry
):
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-1"), actor=ADMIN)
    key = await make_key(engine, await make_account(engine, credits=10_000, max_in_flight=500))
    tasks = [await accept_task(engine, key, pool="a/m") for _ in range(200)]
    took: dict[UUID, int] = {}
    for number in range(1, 5):
        await book.refresh(registry)
        for task in tasks[(number - 1) * 50 : number * 50]:
            took[task] = registry.account("a").newest
            await once(
                engine,
                "UPDATE tasks SET status = 'submitting', credential = $2 WHERE id = $1",
                (task, took[task]),
            )
        await book.upstreams.rotate("a", SecretStr(f"sk-{number + 1}"), actor=ADMIN)
    await book.upstreams.delete("a", actor=ADMIN)

    left = dict(took)
    for task, version in took.items():
        if int(task.hex[-2:], 16) % 4 == 0 or len(left) % 50 == 0:
            await book.purge(after=NOW)
            await book.refresh(registry)
        assert secret_of(registry, "a", version) == f"sk-{version}"
        await end_task(engine, task)
        del left[task]

    assert await book.purge(after=NOW) > 0
    await book.refresh(registry)
    assert set(registry.snapshot.accounts) == {"demo"}


# --- secrets --------------------------------------------------------------------------------------------------------


async def test_planted_secrets_are_nowhere_but_in_the_snapshot(
    book: Book,
    make_book: MakeBook,
    engine: AsyncEngine,
    registry: Registry,
    logged: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
):
    canaries = [f"canary-{index:02}-{'x' * 20}" for index in range(12)]
    said: list[str] = []

    monkeypatch.setenv(VARIABLE, canaries[0])
    await book.seed()
    monkeypatch.setenv(VARIABLE, canaries[1])
    await make_book().seed()
    for index, canary in enumerate(canaries[2:10]):
        said.append(repr(await book.upstreams.add(f"a{index}", provider="demo", secret=SecretStr(canary), actor=ADMIN)))
    said.append(repr(await book.upstreams.rotate("a0", SecretStr(canaries[10]), actor=ADMIN)))
    for name, secret in (("a1", SecretStr(canaries[11] + " ")), ("a2", SecretStr("\ud800" + canaries[11]))):
        with pytest.raises(MediagateError) as caught:
            await book.upstreams.rotate(name, secret, actor=ADMIN)
        said.append(f"{caught.value!r} {caught.value.body()}")
    await book.upstreams.delete("a3", actor=ADMIN)
    await book.purge(after=NOW)
    await once(engine, "UPDATE upstream_credentials SET ciphertext = '\\x00' WHERE upstream = 'a4'")
    with pytest.raises(SecretDamaged) as damaged:
        await book.refresh(registry)
    said.append(repr(damaged.value))
    await book.upstreams.rotate("a4", SecretStr(canaries[11]), actor=ADMIN)
    await book.refresh(registry)
    said += [repr(await book.upstreams.list()), repr(registry.snapshot), repr(book), repr(vars(book))]
    structlog.get_logger("test").info("all", snapshot=registry.snapshot, book=vars(book))

    dump = "".join([await dump_of(engine, table) for table in await tables(engine)])
    opened = repr(
        [
            u.secret.get_secret_value()
            for a in registry.snapshot.accounts.values()
            for u in a.by_version.values()
            if u.secret
        ]
    )
    assert logged.getvalue()
    assert "upstream:a0" in dump
    for canary in canaries:
        hexed = canary.encode().hex()
        for text in (dump, logged.getvalue(), *said):
            assert canary not in text
            assert hexed not in text
    assert sum(canary in opened for canary in canaries) == 8  # the others were replaced or deleted


async def dump_of(engine: AsyncEngine, table: str) -> str:
    rows = await once(engine, f"SELECT row_to_json(t)::text AS line FROM {table} t")  # noqa: S608 - from the catalogue
    return "".join(row["line"] for row in rows)


async def tables(engine: AsyncEngine) -> list[str]:
    rows = await once(
        engine,
        """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
            AND has_table_privilege(oid, 'SELECT')""",
    )
    return [row["relname"] for row in rows]


async def test_a_ciphertext_that_was_moved_to_another_row_is_noticed(book: Book, engine: AsyncEngine):
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-a"), actor=ADMIN)
    await book.upstreams.add("b", provider="demo", secret=SecretStr("sk-b"), actor=ADMIN)

    await once(
        engine,
        """UPDATE upstream_credentials b SET ciphertext = a.ciphertext, nonce = a.nonce FROM upstream_credentials a
           WHERE a.upstream = 'a' AND b.upstream = 'b'""",
    )

    with pytest.raises(SecretDamaged, match="'b' \\(version 1\\)"):
        await book.snapshot()


async def test_a_process_with_another_key_says_so_and_stores_nothing(book: Book, make_book: MakeBook):
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-a"), actor=ADMIN)
    stranger = make_book(OTHER_KEY)

    with pytest.raises(WrongSecretsKey, match="MEDIAGATE_SECRETS_KEY is not the one"):
        await stranger.snapshot()
    with pytest.raises(WrongSecretsKey):
        await stranger.upstreams.rotate("a", SecretStr("sk-b"), actor=ADMIN)

    assert (await book.upstreams.get("a")).version == 1


async def test_a_registry_keeps_what_it_has_while_secrets_do_not_open(
    book: Book, make_book: MakeBook, engine: AsyncEngine, registry: Registry
):
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-a"), actor=ADMIN)
    await book.refresh(registry)
    await once(engine, "UPDATE upstream_credentials SET key_id = 'ffffffff' WHERE upstream = 'a'")
    await make_book().upstreams.add("b", provider="demo", actor=ADMIN)

    with pytest.raises(WrongSecretsKey):
        await book.refresh(registry)
    said_again = await book.refresh(registry)

    assert said_again is False
    assert set(registry.snapshot.accounts) == {"demo", "a"}


async def test_keys_are_changed_in_three_steps(book: Book, make_book: MakeBook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "sk-main-1")
    await book.seed()
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-a"), actor=ADMIN)
    await book.upstreams.rotate("a", SecretStr("sk-b"), actor=ADMIN)

    both = make_book(SecretStr(f"{OTHER_KEY.get_secret_value()},{SECRETS_KEY.get_secret_value()}"))
    done = await both.reencrypt(actor=ADMIN)

    new = make_book(OTHER_KEY)
    await new.seed()
    by_version = (await new.snapshot()).accounts["a"].by_version
    assert (done.sealed, done.dropped) == (3, ())
    assert [by_version[n].secret for n in (1, 2)] == [SecretStr("sk-a"), SecretStr("sk-b")]
    assert (await new.snapshot()).accounts["main"].newest == 1
    with pytest.raises(WrongSecretsKey):
        await book.upstreams.rotate("a", SecretStr("sk-c"), actor=ADMIN)


async def test_after_a_lost_key_accounts_are_disabled_and_can_be_rotated(book: Book, make_book: MakeBook):
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-a"), actor=ADMIN)
    new = make_book(OTHER_KEY)

    with pytest.raises(WrongSecretsKey, match="drop-unreadable"):
        await new.reencrypt(actor=ADMIN)
    done = await new.reencrypt(actor=ADMIN, drop_unreadable=True)
    await new.upstreams.rotate("a", SecretStr("sk-b"), actor=ADMIN)

    account = (await new.snapshot()).accounts["a"]
    assert (done.sealed, done.dropped) == (0, ("a",))
    assert (account.state, account.by_version[2].secret) == ("disabled", SecretStr("sk-b"))


# --- the audit ------------------------------------------------------------------------------------------------------


async def test_every_change_is_noted_with_who_what_before_and_after(book: Book, engine: AsyncEngine):
    await book.upstreams.add("a", provider="demo", secret=SecretStr("sk-a"), actor=ADMIN)
    await book.upstreams.update("a", concurrency=9, actor=ADMIN)
    await book.upstreams.update("a", concurrency=9, actor=ADMIN)  # nothing to note
    await book.upstreams.set_state("a", "disabled", actor=ADMIN)
    await book.upstreams.rotate("a", None, actor=ADMIN)
    route = await book.routes.add("painter", "a", "m", actor=ADMIN)
    await book.routes.update(route.id, weight=4, actor=ADMIN)
    await book.routes.remove(route.id, actor=ADMIN)
    await book.upstreams.delete("a", actor=ADMIN)

    rows = await audit_of(engine)
    assert [row["action"].partition(".")[2] for row in rows] == [
        *("add", "update", "state", "rotate"),
        *("add", "update", "remove", "delete"),
    ]
    assert {(row["actor"], row["request_id"]) for row in rows} == {(ADMIN.name, "req_1")}
    assert [row["target"] for row in rows[:4]] == ["upstream:a"] * 4
    changed = [(row["before"], row["after"]) for row in rows[1:4]]
    assert changed == [
        ({"concurrency": 4}, {"concurrency": 9}),
        ({"state": "active"}, {"state": "disabled"}),
        ({"version": 1, "has_secret": True}, {"version": 2, "has_secret": False}),
    ]
    assert rows[5]["after"] == {"weight": 4}


async def test_the_audit_cannot_be_rewritten_even_by_its_owner(book: Book, engine: AsyncEngine):
    await book.upstreams.add("a", provider="demo", actor=ADMIN)
    owner = make_engine(engine.url.render_as_string(hide_password=False), role=None, pooled=False)

    for statement in ("UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(DBAPIError, match="append-only"):
            await once(owner, statement)

    await owner.dispose()
