"""docs/webhooks.md: its receiver takes what the gateway sends, once, and refuses what somebody else sends."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from app.values import new_id, task_public_id, utcnow
from app.webhooks.deliver import RETRIES
from app.webhooks.events import EVENT_TYPES, Event
from app.webhooks.signing import headers, mint_secret

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()


@pytest.fixture
def secret():
    return mint_secret()


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def receiver(secret, tmp_path):
    """The page's own example, as a process. Returns its URL and what it printed so far."""
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    printed = tmp_path / "printed"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(port)},
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
    try:
        while not listens(port):
            assert process.poll() is None
            threading.Event().wait(0.05)
        yield f"http://127.0.0.1:{port}/", printed
    finally:
        process.terminate()
        process.wait()


async def test_the_receiver_takes_an_event_once_and_refuses_a_forged_one(receiver, secret):
    url, printed = receiver
    event = Event(new_id(), "video.completed", new_id(), {}, utcnow())
    body, now = event.body(), int(time.time())

    async def send(*, by: str, at: int = now) -> int:
        signed = headers([by], event_id=event.public_id, timestamp=at, body=body)
        async with httpx2.AsyncClient() as client:
            return (await client.post(url, content=body, headers=signed)).status_code

    statuses = [await send(by=secret), await send(by=secret), await send(by=mint_secret()), await send(by=secret, at=0)]

    assert statuses == [204, 204, 400, 400]
    assert event.task_id is not None
    assert printed.read_text() == f"video.completed {task_public_id(event.task_id)}\n"


def test_the_page_names_every_event_and_the_waits_between_the_tries():
    assert {name for name in EVENT_TYPES if f"`{name}`" not in PAGE} == set()
    assert [str(timedelta(seconds=wait)) for wait in RETRIES] == [
        "0:00:05", "0:00:30", "0:05:00", "0:30:00", "2:00:00", "6:00:00", "15:20:00",
    ]  # fmt: skip
    assert "about 5 s, 30 s, 5 min, 30 min, 2 h, 6 h and 15 h" in PAGE
