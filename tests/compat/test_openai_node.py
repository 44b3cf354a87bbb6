"""The official OpenAI Node SDK against the real processes. Needs node, and the SDK that ``dev.py test`` installs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.samples import mask, png
from tests.factories import make_account, make_key
from tests.plugins.gateway import Gateway

SCRIPT = Path(__file__).with_name("openai_node.mjs")
SDK_FOLDER = Path(__file__).parents[1] / "node"
CALL_S = 60

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (SDK_FOLDER / "node_modules" / "openai").exists(),
    reason="needs Node and its SDK: npm ci --prefix tests/node",
)


@pytest.fixture
def run(gateway: Gateway) -> Callable[..., dict[str, Any]]:
    """Run one function of the script, as a new account with 2,000 credits, and return what it printed."""

    async def new_key() -> str:
        account = await make_account(gateway.database_url, credits=2000)
        return (await make_key(gateway.database_url, account)).secret

    def call(name: str, **values: bytes) -> dict[str, Any]:
        environment = {
            "PATH": os.environ["PATH"],
            "NODE_SDK_FOLDER": str(SDK_FOLDER),
            "OPENAI_API_KEY": asyncio.run(new_key()),
            "OPENAI_BASE_URL": f"{gateway.base_url}/v1",
            "INPUT": json.dumps({key: base64.b64encode(value).decode() for key, value in values.items()}),
        }
        done = subprocess.run(
            ["node", str(SCRIPT), name], env=environment, capture_output=True, text=True, timeout=CALL_S, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return call


def test_an_image(run):
    made = run("image")

    assert made["is_same"] is True
    assert (made["size"], made["credits"]) == ("2048x1152", 2)
    assert made["request_id"]


def test_an_edit_with_a_mask(run):
    made = run("edit", image=png(), mask=mask())

    assert base64.b64decode(made["image"]["b64_json"]).startswith(b"\x89PNG")
    assert made["credits"] == 1


def test_a_stream(run):
    events = run("stream")["events"]

    assert [event["type"].split(".")[1] for event in events] == ["partial_image", "partial_image", "completed"]


def test_a_video_from_prompt_to_file(run):
    made = run("video")

    assert (made["video"]["status"], made["video"]["seconds"], made["video"]["size"]) == ("completed", "4", "1280x720")
    assert made["brand"] == "ftyp"
    assert made["charged"] == 100
    assert made["deleted"]["deleted"] is True


def test_pages_of_videos(run):
    found = run("pages")

    assert found["listed"] == list(reversed(found["made"]))


def test_models(run):
    found = run("models")

    assert "gpt-image-2" in found["listed"]
    assert found["one"]["object"] == "model"


def test_faults_are_the_sdk_s_own_exceptions_and_are_not_retried(run):
    found = run("errors")

    told = {name: (error["status"], error["code"], error["reason"]) for name, error in found["found"].items()}
    assert told == {
        "BadRequestError": (400, 400, "invalid_parameter"),
        "NotFoundError": (404, 404, "task_not_found"),
        "InternalServerError": (502, 502, "upstream_error"),
        "AuthenticationError": (401, 401, "invalid_api_key"),
    }
    assert all(error["is_its_class"] and error["has_request_id"] for error in found["found"].values())
    assert found["tasks"] == ["failed"]  # one: the SDK did not send it again
