"""``mediagate tour``: one image, one masked edit and one short video through the public API, and what each cost."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import click

from app.cli.output import table
from app.cli.session import Refused
from app.cli.up import is_ready
from app.embedded.process import ServerFailed, is_running, wait_for
from app.embedded.supervisor import Program, console_script
from app.settings import Settings, credentials_file, instance_file, plain_settings

START_TIMEOUT_S = 120.0
STOP_S = 180.0
CALL_TIMEOUT_S = 300.0
TASK_WAIT_S = 10
IMAGE_PROMPT = "A red fox in fresh snow, morning light"
EDIT_PROMPT = "The fox wears a blue scarf"
VIDEO_PROMPT = "A red fox runs through fresh snow"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway, and a key for it."""

    base_url: str
    key: str


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port, if the tour has to start the gateway.")
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="The gateway's data folder (MEDIAGATE_DATA)."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="tour",
    show_default=True,
    help="Where the files go.",
)
def tour(port: int | None, data: Path | None, out: Path) -> None:
    """Make an image, an edit and a video through the API, and show what each cost."""
    chosen = {name: value for name, value in (("port", port), ("data", data)) if value is not None}
    try:
        with _gateway(plain_settings(**chosen)) as gateway:
            out.mkdir(parents=True, exist_ok=True)
            asyncio.run(_walk(gateway, out))
    except ServerFailed as error:
        raise Refused(str(error)) from error
    except aiohttp.ClientConnectionError as error:
        raise Refused(f"the gateway does not answer: {error}") from error


@contextmanager
def _gateway(settings: Settings) -> Iterator[Gateway]:
    """The gateway that runs on this data folder, else one for the length of the block. Raises: ServerFailed."""
    running = _find_running(settings)
    if running is not None:
        click.echo(f"Using the gateway at {running.base_url}")
        yield running
        return
    click.echo("No gateway runs on this data folder: starting one ...")
    options = ["--port", str(settings.port), "--data", str(settings.data)]
    command = [str(console_script("mediagate")), "up", *options]
    program = Program("The gateway", command, env={"PYTHONUNBUFFERED": "1"}, stop_s=STOP_S)
    with program.started():
        wait_for(lambda: not program.is_alive or is_ready(settings), timeout_s=START_TIMEOUT_S)
        found = _find_running(settings)
        if found is None or not program.is_alive:
            program.stop()
            raise ServerFailed(f"The gateway did not start: {program.last_lines()}")
        yield found
        click.echo("Stopping the gateway ...")


def _find_running(settings: Settings) -> Gateway | None:
    try:
        note = json.loads(instance_file(settings.data).read_text())
        credentials = json.loads(credentials_file(settings.data).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Gateway(note["public_url"], credentials["demo_key"]) if is_running(note["pid"]) else None


async def _walk(gateway: Gateway, out: Path) -> None:
    async with aiohttp.ClientSession(
        base_url=gateway.base_url + "/",
        headers={"Authorization": f"Bearer {gateway.key}"},
        timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
    ) as api:
        made = [await _image(api, out / "image.png")]
        made.append(await _edit(api, out / "image.png", out / "edit.png"))
        made.append(await _video(api, out / "video.mp4"))
        click.echo("\nWhat it cost\n")
        click.echo(table(made, empty=""))
        click.echo("\nThe ledger (GET /v1/me/ledger)\n")
        ledger = await _call(api, "GET", "v1/me/ledger")
        names = ("seq", "kind", "type", "amount", "balance")
        click.echo(table([{name: line[name] for name in names} for line in ledger["data"]], empty="(empty)"))
        me = await _call(api, "GET", "v1/me")
        click.echo(f"\n{me['credits']} credits are left, {me['held']} are held.")


async def _image(api: aiohttp.ClientSession, path: Path) -> dict[str, Any]:
    click.echo("POST /v1/images/generations ...")
    answer = await _call(api, "POST", "v1/images/generations", json={"prompt": IMAGE_PROMPT, "response_format": "url"})
    await _save(api, answer["data"][0]["url"], path)
    return _made(path, answer["model"], answer["size"], answer["credits"])


async def _edit(api: aiohttp.ClientSession, source: Path, path: Path) -> dict[str, Any]:
    click.echo("POST /v1/images/edits, with a mask ...")
    answer = await _call(api, "POST", "v1/images/edits", data=_edit_form(source))
    await _save(api, answer["data"][0]["url"], path)
    return _made(path, answer["model"], answer["size"], answer["credits"])


def _edit_form(source: Path) -> aiohttp.FormData:
    mask = source.with_name("mask.png")
    mask.write_bytes(_mask_for(source))
    form = aiohttp.FormData({"prompt": EDIT_PROMPT, "response_format": "url"})
    for name, file in (("image", source), ("mask", mask)):
        form.add_field(name, file.read_bytes(), filename=file.name, content_type="image/png")
    return form


def _mask_for(source: Path) -> bytes:
    """Return a PNG of the same size whose transparent middle is what may change."""
    from PIL import Image, ImageDraw  # the only command that draws

    with Image.open(source) as image:
        width, height = image.size
    mask = Image.new("RGBA", (width, height), (0, 0, 0, 255))
    ImageDraw.Draw(mask).ellipse((width // 4, height // 4, width * 3 // 4, height * 3 // 4), fill=(0, 0, 0, 0))
    file = io.BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


async def _video(api: aiohttp.ClientSession, path: Path) -> dict[str, Any]:
    click.echo("POST /v1/videos/generations ...")
    body = {"prompt": VIDEO_PROMPT, "resolution": "480p", "duration": 4}
    task = await _call(api, "POST", "v1/videos/generations", json=body)
    while task["status"] in ("queued", "in_progress"):
        click.echo(f"  {task['status']}, {task['progress']} %")
        task = await _call(api, "GET", f"v1/tasks/{task['id']}", params={"wait": str(TASK_WAIT_S)})
    if task["status"] != "completed":
        raise Refused(f"the video {task['status']}: {(task['error'] or {}).get('message')}")
    await _save(api, task["video_url"], path)
    return _made(path, task["model"], f"{task['size']}, {task['duration']} s", task["credits"])


def _made(path: Path, model: str, what: str, cost: int) -> dict[str, Any]:
    return {"file": str(path), "model": model, "what": what, "bytes": path.stat().st_size, "credits": cost}


async def _save(api: aiohttp.ClientSession, url: str, path: Path) -> None:
    """Write what a signed URL holds into a file, piece by piece."""
    async with api.get(url) as answer:
        await _check(answer)
        with path.open("wb") as file:
            async for piece in answer.content.iter_chunked(256 * 1024):
                file.write(piece)  # a local disk, and a command with nothing else to do
    click.echo(f"  saved {path}")


async def _call(api: aiohttp.ClientSession, method: str, path: str, **arguments: Any) -> dict[str, Any]:
    async with api.request(method, path, **arguments) as answer:
        await _check(answer)
        found: dict[str, Any] = await answer.json()
        return found


async def _check(answer: aiohttp.ClientResponse) -> None:
    """Raises: Refused, with the API's own sentence."""
    if answer.ok:
        return
    try:
        error = (await answer.json())["error"]
    except (ValueError, KeyError, aiohttp.ContentTypeError):
        raise Refused(f"{answer.url.path} answered {answer.status}") from None
    raise Refused(f"{answer.url.path} answered {answer.status}: {error['message']}")
