"""Small pictures of results: small indeed, their owner's alone, made once, and never the reason why a page fails."""

from __future__ import annotations

import asyncio
import io
import json
import os
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from app import db
from app.api.session import principal_of
from app.generation.previews import MOST_WAITING, Previews
from app.media.checks import Checker, open_pool
from app.storage.base import new_key
from app.storage.room import Room
from app.values import new_id, task_public_id
from tests.console.pages import Tab, sign_in
from tests.factories import finish_task, make_key, request_of

AT_ONCE = 2


@pytest.fixture
async def tab(client, services):
    return await sign_in(client, services, credits=1000)


@pytest.fixture
async def key(services, tab):
    return await make_key(services.engine, tab.account)


@pytest.fixture
async def pool():
    pool = open_pool(AT_ONCE + 2)
    yield pool
    await pool.close()


def drawn(size=(64, 48)):
    content = io.BytesIO()
    picture = Image.effect_noise((64, 36), 80).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    picture.save(content, "PNG", compress_level=1)
    return content.getvalue()


def bomb():
    """A small file that says it holds 900 megapixels."""
    content = bytearray(drawn())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


async def made(services, key, content):
    """Return a finished task whose result is this."""
    view = await services.queries.find(await finish_task(services.engine, key))
    put(services, view.files[0], content)
    return view


def put(services, file, content):
    path = services.storage.path_of(file.storage_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return file


def previews_of(services, pool, folder: Path, *, room=None, max_bytes=10**9):
    return Previews(
        folder,
        engine=services.engine,
        storage=services.storage,
        checker=Checker(pool),
        room=room or services.room,
        at_once=AT_ONCE,
        max_bytes=max_bytes,
    )


def pictures(folder: Path):
    return {path.stem for path in folder.glob("??/*")}


async def test_a_large_picture_is_shown_small_by_every_list_and_kept_by_the_browser(tab, services, key):
    task = await made(services, key, drawn((3840, 2160)))
    address = f"/console/preview/{task.public_id}/0"

    answer = (await tab.get(address)).response

    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert len(answer.content) < 60_000
    assert Image.open(io.BytesIO(answer.content)).size == (480, 270)
    for page in ("/console", "/console/tasks", "/console/gallery"):
        shown = (await tab.get(page)).root.all("img", src=address)
        assert len(shown) == 1
        assert {"width", "height", "loading", "decoding"} <= shown[0].attributes.keys()


async def test_a_browser_shows_the_picture_it_kept_only_while_its_reader_may_see_it(client, services, tab, key):
    task = await made(services, key, drawn())
    address, kept = f"/console/preview/{task.public_id}/0", Tab(client, dict(tab.cookies))
    known = {"if-none-match": (await tab.get(address)).response.headers["etag"]}

    same = await kept.get(address, headers=known)
    other = await kept.get(address, headers={"if-none-match": '"other"'})
    await services.tasks.delete(principal_of(await services.sessions.find(tab.cookies["mg"])), task.public_id)
    deleted = await kept.get(address, headers=known)
    await tab.post("/console/logout", on="/console/account")
    signed_out = await kept.get(address, headers=known)

    assert (same.status, same.response.content) == (304, b"")
    assert same.response.headers["etag"] == known["if-none-match"]
    assert [other.status, deleted.status, signed_out.status] == [200, 404, 303]


async def test_somebody_elses_picture_or_none_at_all_is_not_found(client, services, tab, key):
    task = await made(services, key, drawn())
    stranger = await sign_in(client, services)

    assert (await stranger.get(f"/console/preview/{task.public_id}/0")).status == 404
    for place in ("1", "input-0", "-1", "x"):
        assert (await tab.get(f"/console/preview/{task.public_id}/{place}")).status == 404
    assert (await tab.get(f"/console/preview/{task_public_id(new_id())}/0")).status == 404


@pytest.mark.parametrize("content", [bomb(), drawn((640, 480))[:2000], b"no picture", b""])
async def test_a_file_that_is_no_picture_gets_a_placeholder_that_no_browser_keeps(tab, services, key, content):
    task = await made(services, key, content)

    answer = (await tab.get(f"/console/preview/{task.public_id}/0")).response

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    assert answer.headers["cache-control"] == "no-store"


async def test_an_input_is_shown_on_its_tasks_page(tab, services, key):
    task_id = new_id()
    row = {
        "id": str(new_id()), "role": "input", "position": 0, "field": "image", "storage_key": new_key(task_id),
        "mime": "image/png", "bytes": 9, "sha256": "00" * 32, "width": 64, "height": 48, "duration_ms": None,
        "ttl_s": 3600,
    }  # fmt: skip
    await accept_with_input(services, key, task_id, row)
    view = await services.queries.find(task_id)
    put(services, view.files[0], drawn())
    page = await tab.get(f"/console/tasks/{view.public_id}")

    address = page.root.one("img", class_="input-preview")["src"]

    assert (await tab.get(address)).response.headers["content-type"] == "image/webp"


async def accept_with_input(services, key, task_id, row):
    await db.once(
        services.engine,
        "SELECT mg_accept($1, $2, 'image', 'model-a', 'test/model-a', 10, 900, $3::text::jsonb, $4::text::jsonb)",
        (task_id, key.id, json.dumps(request_of()), json.dumps([row])),
    )


async def test_a_picture_is_made_once_and_by_few_children_however_many_ask(services, key, pool, tmp_path):
    previews = previews_of(services, pool, tmp_path)
    file = (await made(services, key, drawn((800, 600)))).files[0]
    files = [put(services, replace(file, id=new_id(), storage_key=new_key(new_id())), drawn()) for _ in range(20)]

    one = await asyncio.gather(*(previews.get(file, account_id=1) for _ in range(20)))
    assert len(set(one)) == 1
    assert one[0]
    assert len(pool.pids()) == 1

    assert all(await asyncio.gather(*(previews.get(file, account_id=1) for file in files)))
    assert len(pool.pids()) == AT_ONCE

    await pool.close()  # no child can be asked any more
    assert await previews.get(file, account_id=1) == one[0]


async def test_who_asks_for_too_many_at_once_goes_without_and_nobody_else_does(services, key, pool, tmp_path):
    previews = previews_of(services, pool, tmp_path)
    file = (await made(services, key, drawn())).files[0]
    files = [put(services, replace(file, id=new_id(), storage_key=new_key(new_id())), drawn()) for _ in range(6)]

    burst = asyncio.gather(*(previews.get(files[0], account_id=1) for _ in range(MOST_WAITING + 20)))
    others = asyncio.gather(*(previews.get(file, account_id=2) for file in files[1:]))

    assert sum(picture is None for picture in await burst) == 20
    assert all(await others)


async def test_what_cannot_be_made_is_not_tried_again_at_once_and_a_full_disk_is_no_error(
    services, key, pool, tmp_path
):
    bad = (await made(services, key, bomb())).files[0]
    good = (await made(services, key, drawn())).files[0]
    lost = replace(good, id=new_id(), storage_key=new_key(new_id()))
    (tmp_path / "file").touch()
    full = Room(tmp_path, min_bytes=2**62, min_percent=0)

    assert await previews_of(services, pool, tmp_path, room=full).get(good, account_id=1) is None
    assert await previews_of(services, pool, tmp_path / "file").get(good, account_id=1) is None
    assert await previews_of(services, pool, tmp_path).get(lost, account_id=1) is None
    assert pool.pids() == []
    assert await previews_of(services, pool, tmp_path).get(bad, account_id=1) is None
    assert pictures(tmp_path) == {bad.id.hex}

    await pool.close()
    put(services, bad, drawn())
    assert await previews_of(services, pool, tmp_path).get(bad, account_id=1) is None
    another = open_pool(1)
    [marker] = tmp_path.glob("??/*")
    os.utime(marker, (0, 0))
    assert await previews_of(services, another, tmp_path).get(bad, account_id=1)
    await another.close()


async def test_a_picture_goes_with_its_file_and_the_oldest_when_they_fill_too_much(tab, services, key, pool, tmp_path):
    tasks = [await made(services, key, drawn()) for _ in range(3)]
    files = [task.files[0] for task in tasks]
    previews = previews_of(services, pool, tmp_path)
    sizes = [len(await previews.get(file, account_id=1) or b"") for file in files]
    for age_h, file in zip((3, 2, 1), files, strict=True):
        [path] = tmp_path.glob(f"??/{file.id.hex}.webp")
        os.utime(path, (time.time() - age_h * 3600,) * 2)
    await previews.get(replace(files[0], id=new_id()), account_id=1)  # of a file that nobody has
    await tab.get(f"/console/preview/{tasks[0].public_id}/0")
    assert files[0].id.hex in pictures(services.settings.preview_dir)

    assert await previews.sweep() == 1
    assert pictures(tmp_path) == {file.id.hex for file in files}
    await previews_of(services, pool, tmp_path, max_bytes=sum(sizes) - 1).sweep()
    assert pictures(tmp_path) == {file.id.hex for file in files[1:]}

    await tab.get("/console/gallery")
    await tab.post(f"/console/tasks/{tasks[0].public_id}/delete", on=f"/console/tasks/{tasks[0].public_id}")
    assert files[0].id.hex not in pictures(services.settings.preview_dir)
    assert (await tab.get(f"/console/preview/{tasks[0].public_id}/0")).status == 404
