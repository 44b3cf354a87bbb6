"""Models and prices by version: in force by the clock, checked as the file is, undone by administrators alone."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.catalog.book import Book
from app.catalog.catalogs import Catalogs
from app.catalog.entries import read_entry
from app.catalog.exchange import exported, read_import
from app.catalog.load import load_catalog, read_files
from app.catalog.prices import PriceEdit
from app.catalog.rows import from_json
from app.catalog.timeline import ModelVersion, entries_at, in_force
from app.catalog.versions import ModelVersions
from app.db import make_engine, once
from app.errors import (
    DatabaseUnavailable,
    InvalidParameter,
    ModelNotFound,
    ModelVersionFixed,
    ModelVersionNotFound,
    UnsupportedParameter,
)
from app.journal import Actor
from app.requests import Operation
from app.upstreams.registry import Registry
from tests.factories import SECRETS_KEY
from tests.unit.catalogs import CONFIG, EVERYTHING, MODELS, UPSTREAMS

ADMIN = Actor("admin@example.test (key_1)", "req_1")
PROVIDERS = {"demo": EVERYTHING}
NOTE = "The vendor raised its prices."
HOUR = timedelta(hours=1)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def engine(fresh_database: Callable[..., str]) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(fresh_database(migrated=True), pool_size=4)
    yield engine
    await engine.dispose()


@dataclass
class Process:
    """One process's hand on the models: nothing is shared with another but the database."""

    catalogs: Catalogs
    versions: ModelVersions
    skew_s: float = 0.0

    def price(self, quality: str = "large") -> tuple[int, str]:
        model = self.catalogs.current().get_model("painter")
        quote = model.quote(model.choose({"prompt": "a fox", "quality": quality}))
        return int(quote.credits), quote.price_version


MakeProcess = Callable[..., Process]


@pytest.fixture
def make_process(engine: AsyncEngine, tmp_path: Path) -> MakeProcess:
    def make(models: str = MODELS) -> Process:
        (tmp_path / "models.yaml").write_text(models)
        (tmp_path / "upstreams.yaml").write_text(UPSTREAMS)
        process: Process

        def clock() -> float:
            return 1_000.0 + process.skew_s

        catalogs = Catalogs(read_files(tmp_path, providers=PROVIDERS), engine, clock=clock)
        process = Process(catalogs, ModelVersions(engine, catalogs, PROVIDERS))
        return process

    return make


async def audit_of(engine: AsyncEngine) -> list[tuple[str, str]]:
    return [
        (row["action"], row["target"]) for row in await once(engine, "SELECT action, target FROM audit ORDER BY id")
    ]


async def how_many(engine: AsyncEngine) -> int:
    count: int = (await once(engine, "SELECT count(*) AS n FROM model_versions"))[0]["n"]
    return count


async def test_a_price_changes_at_its_moment_in_every_process_without_a_look(
    engine: AsyncEngine, make_process: MakeProcess
) -> None:
    ours, other = make_process(), make_process()
    with pytest.raises(DatabaseUnavailable):
        other.catalogs.current()  # the file might name a price that no longer holds
    await ours.catalogs.refresh()
    await other.catalogs.refresh()

    first = await ours.versions.add("painter", price=PriceEdit({"credits.large": 5}), note=NOTE, actor=ADMIN)
    assert (first.state, ours.price(), other.price()) == ("in_force", (5, "painter@1"), (2, "1"))
    assert await other.catalogs.refresh()
    later = await other.versions.add(
        "painter",
        price=PriceEdit({"credits.large": 7}),
        effective_from=other.catalogs.now() + HOUR,
        note=NOTE,
        actor=ADMIN,
    )
    await ours.catalogs.refresh()

    assert (later.state, ours.price(), other.price()) == ("scheduled", (5, "painter@1"), (5, "painter@1"))
    held = ours.catalogs.current()
    ours.skew_s = HOUR.total_seconds() + 1  # its clock goes on; nobody looks
    assert (ours.price(), other.price()) == ((7, "painter@2"), (5, "painter@1"))
    assert ours.price("small") == (1, "painter@2")
    assert held.get_model("painter").version == "painter@1"  # who has a catalogue keeps it
    assert await audit_of(engine) == [("model.version", "model:painter")] * 2
    [row, _] = await once(engine, "SELECT before, after FROM audit ORDER BY id")
    before, after = from_json(row["before"]), from_json(row["after"])
    assert (before["version"], before["price"]["credits"]["large"]) == ("1", 2)
    assert (after["version"], after["entry"]["price"]["credits"]["large"], after["note"]) == ("painter@1", 5, NOTE)


async def test_a_version_is_history_once_it_has_begun_and_can_be_cancelled_before(
    engine: AsyncEngine, make_process: MakeProcess
) -> None:
    process = make_process()
    await process.catalogs.refresh()
    edit = PriceEdit({"credits.small": 9})
    await process.versions.add("painter", price=edit, note=NOTE, actor=ADMIN)
    at = process.catalogs.now() + HOUR
    await process.versions.add("painter", withdraw=False, use_file=True, effective_from=at, note=NOTE, actor=ADMIN)

    cancelled = await process.versions.cancel("painter", 2, actor=ADMIN)
    listed = await process.versions.versions("painter")

    assert (cancelled.state, cancelled.version.cancelled_by) == ("cancelled", ADMIN.name)
    assert [(v.version.number, v.state) for v in listed] == [(2, "cancelled"), (1, "in_force"), (0, "past")]
    for number, kind in ((1, ModelVersionFixed), (2, ModelVersionFixed), (3, ModelVersionNotFound)):
        with pytest.raises(kind):
            await process.versions.cancel("painter", number, actor=ADMIN)
    for statement in (
        "UPDATE model_versions SET cancelled_at = effective_from - interval '1 s', cancelled_by = 'x' WHERE number = 1",
        "UPDATE model_versions SET entry = NULL",
        "DELETE FROM model_versions",
    ):
        with pytest.raises(DBAPIError):
            await once(engine, statement)
    assert (await audit_of(engine))[-1] == ("model.version_cancel", "model:painter")


async def test_a_withdrawn_model_is_gone_for_new_requests_and_there_for_what_goes_on_from_an_old_task(
    make_process: MakeProcess,
) -> None:
    second = MODELS.replace("models:\n", "models:\n  sketcher:\n    family: moving\n    title: S\n"
        "    operations: [video.generate, video.remix]\n    price: {unit: call, credits: 4}\n"
        "    routes: [{upstream: demo, model: s-1}]\n")  # fmt: skip
    process = make_process(second)
    await process.catalogs.refresh()

    await process.versions.add("sketcher", withdraw=True, note=NOTE, actor=ADMIN)
    catalog, state = process.catalogs.current(), await process.versions.get("sketcher")

    assert (state.state, state.title, state.differs, state.price_version) == ("withdrawn", "S", True, "sketcher@1")
    assert "sketcher" not in catalog.models
    with pytest.raises(ModelNotFound):
        catalog.pick({"model": "sketcher"}, Operation.VIDEO_GENERATE)
    remixed = catalog.pick({"model": "sketcher"}, Operation.VIDEO_REMIX)
    assert remixed.quote(remixed.choose({"prompt": "on"}, operation=Operation.VIDEO_REMIX)).credits == 4
    with pytest.raises(InvalidParameter, match="nothing to withdraw"):
        await process.versions.add("sketcher", withdraw=True, note=NOTE, actor=ADMIN)
    with pytest.raises(InvalidParameter, match="default model"):
        await process.versions.add("painter", withdraw=True, note=NOTE, actor=ADMIN)
    await process.versions.add("sketcher", use_file=True, note=NOTE, actor=ADMIN)
    assert process.catalogs.current().get_model("sketcher").version == "1"


async def test_another_file_undoes_no_version_and_the_difference_is_told(make_process: MakeProcess) -> None:
    process = make_process()
    await process.catalogs.refresh()
    await process.versions.add("painter", price=PriceEdit({"credits.large": 5}), note=NOTE, actor=ADMIN)

    deployed = make_process(MODELS.replace("{small: 1, large: 2}", "{small: 1, large: 3}").replace('"1"', '"2"', 1))
    await deployed.catalogs.refresh()
    [change] = await deployed.versions.diff()

    assert deployed.price() == (5, "painter@1")
    assert (change.model, change.change, change.fields) == ("painter", "changed", ("price",))
    assert [(price.path, price.before, price.after) for price in change.prices] == [("credits.large", 3, 5)]
    # A file that no longer has what a version needs: rather no offer than another price.
    broken = make_process(MODELS.replace("images:", "pictures:").replace("table: images", "table: pictures"))
    await broken.catalogs.refresh()
    state = await broken.versions.get("painter")
    assert (state.state, broken.catalogs.current().problems.keys()) == ("broken", {"painter"})
    assert "unknown size table 'images'" in (state.problem or "")
    with pytest.raises(ModelNotFound):
        broken.price()


BOMB = "c0: &c0 [x, x]\n" + "".join(f"c{n}: &c{n} [*c{n - 1}, *c{n - 1}]\n" for n in range(1, 31))
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"document": {"title": "P"}}, "models.painter.price: missing"),
    ({"document": "title: P\nprise: 3\n"}, "document:2: models.painter.prise: unknown key"),
    ({"document": "title: [\n"}, "document:"),
    ({"document": {"family": ["a"]}}, "unknown family"),
    ({"document": "routes: []\n"}, "document:1: routes are kept apart"),
    ({"document": "title: a\ntitle: b\n"}, "document:2: the key 'title' occurs twice"),
    ({"document": BOMB}, "parts"),
    ({"price": PriceEdit({"credits.huge": 3})}, "no number \"credits.huge\". Known: credits.large, credits.small"),
    ({"price": PriceEdit({"credits.large": 0})}, "'credits.large' must be a whole number from 1"),
    ({"price": PriceEdit({})}, "names no number"),
    ({"price": PriceEdit({"credits.large": 3}), "withdraw": True}, "Give one of"),
    ({"price": PriceEdit({"credits.large": 3}), "note": " "}, "'note' must say why"),
    ({"price": PriceEdit({"credits.large": 3}), "effective_from": datetime(2020, 1, 1, tzinfo=UTC)}, "in the past"),
    ({"price": PriceEdit({"credits.large": 3}), "effective_from": datetime(2030, 1, 1)}, "offset from UTC"),  # noqa: DTZ001
]  # fmt: skip


async def test_what_is_wrong_is_refused_with_its_place_and_leaves_no_trace(
    engine: AsyncEngine, make_process: MakeProcess, tmp_path: Path
) -> None:
    process = make_process()
    await process.catalogs.refresh()
    book = Book(engine, SECRETS_KEY, catalog=process.catalogs.files.catalog(), providers=PROVIDERS, work_dir=tmp_path)
    await book.refresh(Registry({}))
    await book.routes.update(
        (await book.routes.list("filmer"))[0].id, operations=[Operation.VIDEO_GENERATE], actor=ADMIN
    )
    filmer = (await process.versions.get("filmer")).entry
    before = await audit_of(engine)

    for arguments, words in REFUSED:
        with pytest.raises(InvalidParameter) as caught:
            await process.versions.add("painter", **{"note": NOTE, "actor": ADMIN} | arguments)
        assert words in caught.value.message, caught.value.message
    for changed, words in (
        ({"type": "image"}, "models.filmer"),
        ({"price": {"unit": "second", "credits": {"720p": 3}}}, "models.filmer.price: 'by' names"),
        ({"price": {"unit": "image", "credits": 3}}, "covers no video.generate"),
        ({"operations": ["video.remix"], "price": {"unit": "call", "credits": 3}}, "the route to demo/filmer-1"),
    ):
        with pytest.raises(InvalidParameter) as caught:
            await process.versions.add("filmer", document={**filmer, **changed}, note=NOTE, actor=ADMIN)
        assert words in caught.value.message, caught.value.message
    with pytest.raises(ModelNotFound):
        await process.versions.add("nobody", price=PriceEdit({"credits": 1}), note=NOTE, actor=ADMIN)

    assert await audit_of(engine) == before
    assert await how_many(engine) == 0


async def test_a_price_is_tried_before_it_is_made(make_process: MakeProcess) -> None:
    process = make_process()
    await process.catalogs.refresh()
    versions = process.versions
    at = process.catalogs.now() + HOUR
    await versions.add("filmer", price=PriceEdit({"credits": 4}), effective_from=at, note=NOTE, actor=ADMIN)

    now = await versions.simulate("filmer", {"duration": 3})
    then = await versions.simulate("filmer", {"duration": 3}, number=1)
    draft = await versions.simulate("filmer", {"duration": 3}, price={"unit": "call", "credits": 50})
    table = await versions.examples("filmer", number=1)
    pictures = await versions.examples("painter", price=PriceEdit({"credits.large": 1}))

    assert [(s.quote.credits, s.quote.price_version) for s in (now, then, draft)] == [
        (9, "1"),
        (12, "filmer@1"),
        (50, "draft"),
    ]
    assert [(e.params, e.before, e.after, e.difference) for e in table][:2] == [
        ({"resolution": "720p", "seconds": 1}, 3, 4, 1),
        ({"resolution": "720p", "seconds": 2}, 6, 8, 2),
    ]
    assert len(table) == 5
    assert [(e.params["quality"], e.params["pixels"], e.difference) for e in pictures] == [
        ("small", "64x64", 0),
        ("large", "128x128", -1),
    ]
    with pytest.raises(UnsupportedParameter):
        await versions.simulate("painter", {"duration": 3})


async def test_every_shipped_model_can_be_simulated_and_survives_its_way_through_a_file(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    catalogs = Catalogs(read_files(CONFIG, providers=_shipped_providers()), engine)
    versions = ModelVersions(engine, catalogs, _shipped_providers())

    for state in await versions.list():
        for operation in state.operations:
            simulated = await versions.simulate(state.id, {}, operation=operation, input_seconds=4.2)
            assert (simulated.operation, simulated.quote.price_version) == (operation, catalogs.files.version)
        assert await versions.examples(state.id)
    text = await versions.export()
    found = await versions.preview(text)

    assert (found.changes, found.missing) == ((), ())
    (tmp_path / "models.yaml").write_text(text)
    (tmp_path / "upstreams.yaml").write_text((CONFIG / "upstreams.yaml").read_text())
    again = load_catalog(tmp_path, providers=_shipped_providers())
    assert {m.id: m.spec for m in again.models.values()} == {m.id: m.spec for m in catalogs.current().models.values()}


async def test_a_file_is_taken_over_whole_at_one_moment_or_not_at_all(
    engine: AsyncEngine, make_process: MakeProcess
) -> None:
    process = make_process()
    await process.catalogs.refresh()
    text = await process.versions.export()
    changed = text.replace("{small: 1, large: 2}", "{small: 1, large: 8}", 1).replace("  filmer:", "  mover:")
    at = process.catalogs.now() + HOUR

    seen = await process.versions.preview(changed)
    made = await process.versions.apply(changed, effective_from=at, note=NOTE, actor=ADMIN)

    assert [(change.model, change.change) for change in seen.changes] == [("painter", "changed"), ("mover", "added")]
    assert (seen.missing, seen.versions) == (("filmer",), ())
    assert [version.name for version in made.versions] == ["painter@1", "mover@1"]
    assert {version.effective_from for version in made.versions} == {at}
    assert {state.id: state.state for state in await process.versions.list()} == {
        "painter": "offered",
        "filmer": "offered",
        "mover": "scheduled",
    }
    wrong = changed.replace("large: 8}", "large: zero}", 1).replace("credits: 3", "credits: -3", 1)
    with pytest.raises(InvalidParameter) as caught:
        await process.versions.apply(wrong, note=NOTE, actor=ADMIN)
    assert caught.value.message.count("import.yaml:") >= 2
    with pytest.raises(InvalidParameter, match="default model"):
        await process.versions.apply(changed, withdraw_missing=True, note=NOTE, actor=ADMIN)
    assert await how_many(engine) == 2


async def test_of_two_versions_that_begin_at_once_the_later_made_holds(make_process: MakeProcess) -> None:
    files = make_process().catalogs.files
    entry = files.entry("painter") or {}
    versions = [ModelVersion("painter", n, "entry", entry | {"title": str(n)}, NOW, NOTE, "a", NOW) for n in (2, 1)]

    assert in_force(files, versions, NOW).models["painter"].title == "2"
    assert in_force(files, versions, NOW - HOUR).models["painter"].title == "Painter"
    planned = ModelVersion("dauber", 1, "entry", entry, NOW + HOUR, NOTE, "a", NOW)
    before = in_force(files, [planned], NOW)
    assert ("dauber" in before.models, before.find_known("dauber") is not None) == (
        False,
        True,
    )  # routes may come first
    text = exported(files, entries_at(files, versions, NOW), (), version="3")
    assert read_import(files, text).entries["painter"].spec.title == "2"


def _shipped_providers() -> dict[str, Any]:
    from app.upstreams.registry import discover

    return Registry(discover()).capabilities


async def test_a_change_before_a_planned_version_tells_what_that_one_takes_back(make_process: MakeProcess) -> None:
    process = make_process()
    await process.catalogs.refresh()
    versions, at = process.versions, process.catalogs.now() + HOUR
    planned = await versions.add(
        "painter", price=PriceEdit({"credits.small": 8}), effective_from=at, note=NOTE, actor=ADMIN
    )
    large = (await versions.simulate("painter", {"quality": "large"})).quote.credits

    draft = await versions.draft("painter", price=PriceEdit({"credits.large": large + 5}))
    urgent = await versions.add("painter", price=PriceEdit({"credits.large": large + 5}), note=NOTE, actor=ADMIN)
    after = await versions.add(
        "painter", price=PriceEdit({"credits.large": 30}), effective_from=at + HOUR, note=NOTE, actor=ADMIN
    )

    assert (planned.then, after.then) == (None, None)
    assert draft is not None
    for then in (draft.then, urgent.then):
        assert then is not None
        assert then.version.name == "painter@1"
        back = {one.path: (one.before, one.after) for one in then.change.prices}
        assert back["credits.large"] == (large + 5, large)
        assert back["credits.small"][1] == 8


def test_a_file_to_import_and_an_entry_may_name_a_family_of_the_file() -> None:
    files = read_files(CONFIG, providers=_shipped_providers())
    short = {"type": "image", "title": "Short", "family": "image"}

    with pytest.raises(InvalidParameter, match=r"import\.yaml:2"):
        read_import(files, "models:\n  gpt-image-2: {family: image}\n")
    with pytest.raises(InvalidParameter, match=r"models\.short"):
        read_entry(files, "short", short)


@dataclass
class Counted:
    """Counts the lines of Python that run, which no noise of the machine changes."""

    lines: int = 0

    def __call__(self, frame: object, event: str, argument: object) -> Counted:
        self.lines += 1
        return self


def test_reading_an_entry_takes_time_by_its_length_and_not_by_its_square() -> None:
    files = read_files(CONFIG, providers=_shipped_providers())
    steps = []
    for parts in (200, 400, 800):
        text = yaml.safe_dump({"title": "Big", **{f"field_{n}": {"a": n} for n in range(parts)}})
        counted, before = Counted(), sys.gettrace()
        sys.settrace(counted)
        try:
            with pytest.raises(InvalidParameter):
                read_entry(files, "big", text)
        finally:
            sys.settrace(before)
        steps.append(counted.lines)

    assert steps[2] - steps[1] < 2.5 * (steps[1] - steps[0])


def test_an_entry_longer_than_any_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidParameter, match="100000 characters"):
        read_entry(read_files(CONFIG, providers=_shipped_providers()), "big", "a: b\n" * 25_000)
