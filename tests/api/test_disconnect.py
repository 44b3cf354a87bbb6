"""A caller who hangs up: what was begun is finished, charged once, and can be fetched. Real processes, real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.api.samples import size_of
from tests.factories import make_account, make_key
from tests.plugins.gateway import Gateway

PATIENCE_S = 30.0


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx2.Client]:
    """A client with the key of a new account with 10 credits."""

    async def new_key() -> str:
        account = await make_account(gateway.database_url, credits=10)
        return (await make_key(gateway.database_url, account)).secret

    headers = {"authorization": f"Bearer {asyncio.run(new_key())}"}
    with httpx2.Client(base_url=gateway.base_url, headers=headers, timeout=PATIENCE_S) as client:
        yield client


def send(client: httpx2.Client, body: dict[str, Any]) -> socket.socket:
    """Send a request for an image and return the connection, with nothing read from it."""
    content = json.dumps(body).encode()
    address = urlsplit(str(client.base_url))
    connection = socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
        f"authorization: {client.headers['authorization']}\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


def until_one(client: httpx2.Client) -> str:
    """Wait until the account's one task exists, and return its id."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        tasks = client.get("/v1/tasks").json()["data"]
        if tasks:
            return tasks[0]["id"]
    raise AssertionError("no task was made")


def assert_made_and_paid_once(client: httpx2.Client, task_id: str) -> None:
    task = client.get(f"/v1/tasks/{task_id}?wait=20").json()
    assert (task["status"], task["credits"]) == ("completed", 1), task
    image = client.get(f"/v1/images/{task_id}").json()["data"][0]
    assert size_of(base64.b64decode(image["b64_json"])) == (1024, 1024)
    assert [line["amount"] for line in client.get("/v1/me/ledger").json()["data"]] == [-1, 10]
    assert client.get("/v1/me").json()["held"] == 0


def test_a_caller_who_hangs_up_while_the_image_is_made(client):
    connection = send(client, {"prompt": "a fox [[delay=0.5]]"})
    task_id = until_one(client)

    connection.close()

    assert_made_and_paid_once(client, task_id)


def test_a_caller_who_hangs_up_in_the_middle_of_a_stream(client):
    connection = send(client, {"prompt": "a fox", "stream": True, "partial_images": 3})
    task_id = until_one(client)
    connection.recv(1)  # the first frame is on its way

    connection.close()

    assert_made_and_paid_once(client, task_id)


def test_a_caller_who_hangs_up_before_the_first_frame(client):
    connection = send(client, {"prompt": "a fox [[delay=0.5]]", "stream": True, "partial_images": 3})
    task_id = until_one(client)

    connection.close()

    assert_made_and_paid_once(client, task_id)


def test_a_body_that_breaks_off_makes_nothing(client):
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) as connection:
        head = (
            f"POST /v1/images/generations HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
            f'authorization: {client.headers["authorization"]}\r\ncontent-length: 100\r\n\r\n{{"prompt": "a fo'
        )
        connection.sendall(head.encode())

    assert client.get("/v1/tasks").json()["data"] == []
    assert client.get("/v1/me").json()["credits"] == 10
