"""The official OpenAI Python SDK against the real processes, over a real socket."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator

import httpx2
import openai
import pytest
from openai import OpenAI

from tests.api.samples import mask, png, size_of
from tests.factories import make_account, make_key
from tests.plugins.gateway import Gateway

# The SDK marks its videos as deprecated: its vendor ended them, we did not.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

IMAGE_KEYS = {"b64_json", "url"}


def new_key(gateway: Gateway, *, credits: int) -> str:
    """Return a key of a new account."""

    async def make() -> str:
        account = await make_account(gateway.database_url, credits=credits)
        return (await make_key(gateway.database_url, account)).secret

    return asyncio.run(make())


@pytest.fixture
def key(gateway: Gateway) -> str:
    """A key of an account with 2,000 credits."""
    return new_key(gateway, credits=2000)


@pytest.fixture
def client(gateway: Gateway, key: str) -> Iterator[OpenAI]:
    """The SDK as its users make it, but with answers checked against its own types."""
    with OpenAI(api_key=key, base_url=f"{gateway.base_url}/v1", _strict_response_validation=True) as client:
        yield client


def credits(client: OpenAI) -> tuple[int, int]:
    me = client.get("/me", cast_to=object)
    return me["credits"], me["held"]


def test_an_image_is_made_and_its_url_has_the_same_bytes(client):
    made = client.images.generate(model="gpt-image-2", prompt="a fox", size="1024x1024")

    image = base64.b64decode(made.data[0].b64_json)
    assert size_of(image) == (1024, 1024)
    assert httpx2.get(made.data[0].url).content == image
    assert made._request_id
    assert credits(client) == (1999, 0)


def test_extra_body_carries_what_the_sdk_does_not_know(client):
    made = client.images.generate(
        prompt="a fox", size="21:9", quality="hd", extra_body={"max_credits": 2, "sparkle": 1}
    )

    assert made.size == "2688x1152"
    assert made.credits == 2
    assert made.warnings == ["Unknown field 'sparkle' was ignored."]


def test_raw_responses_show_the_headers(client):
    answer = client.images.with_raw_response.generate(prompt="a fox", response_format="url")

    assert answer.headers["x-credits-charged"] == "1"
    assert answer.headers["x-credits-remaining"] == "1999"
    assert answer.headers["x-task-id"] == answer.parse().id
    assert answer.parse().data[0].b64_json is None


@pytest.mark.parametrize("as_list", [True, False])
def test_an_edit_with_a_mask(client, as_list):
    source = ("source.png", io.BytesIO(png()), "image/png")

    made = client.images.edit(image=[source] if as_list else source, mask=mask(), prompt="make it night", quality="low")

    assert size_of(base64.b64decode(made.data[0].b64_json)) == (1024, 1024)
    assert credits(client) == (1999, 0)


def test_raw_bytes_are_an_image_too(client):
    made = client.images.edit(image=png(), prompt="make it night")

    assert made.data[0].b64_json


def test_a_stream_of_images(client):
    events = list(client.images.generate(prompt="a fox", stream=True, partial_images=2))

    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert size_of(base64.b64decode(events[-1].b64_json)) == (1024, 1024)
    assert events[-1].usage.total_tokens == 0


def test_a_stream_of_an_edit(client):
    events = list(client.images.edit(image=png(), prompt="make it night", stream=True))

    assert [event.type for event in events] == ["image_edit.completed"]


def test_a_video_from_prompt_to_file(client):
    video = client.videos.create_and_poll(
        prompt="a paper boat", model="doubao-seedance-2.0-fast", seconds="4", size="1280x720", poll_interval_ms=200
    )
    content = client.videos.download_content(video.id)
    thumbnail = client.videos.download_content(video.id, variant="thumbnail")

    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "4", "1280x720")
    assert content.read()[4:8] == b"ftyp"
    assert thumbnail.read()[:4] == b"RIFF"
    assert credits(client) == (1900, 0)
    task = client.get(f"/tasks/{video.id}", cast_to=object)
    assert (task["status"], task["credits"], task["type"]) == ("completed", 100, "video.generation")


def test_a_video_from_a_picture(client):
    video = client.videos.create(prompt="it sails", input_reference=("upload", png((640, 360))), seconds="4")

    assert video.status in ("queued", "in_progress")
    assert client.videos.delete(video.id).deleted is True


def test_a_failed_video_is_told_by_its_status(client):
    video = client.videos.create_and_poll(prompt="a boat [[fail]]", seconds="4", poll_interval_ms=100)

    assert (video.status, video.error.code) == ("failed", "upstream_error")
    assert credits(client) == (2000, 0)


def test_videos_are_paged_and_deleted(client):
    made = [client.videos.create(prompt=f"boat {number} [[delay=60]]", seconds="4").id for number in range(3)]

    listed = [video.id for video in client.videos.list(limit=2)]  # goes on to the second page by itself
    for video_id in made:
        assert client.videos.delete(video_id).object == "video.deleted"
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(made[0])

    assert listed == list(reversed(made))
    assert client.videos.list().data == []


def test_a_remix_of_a_video(client):
    source = client.videos.create_and_poll(prompt="a boat", model="veo3.1-lite", poll_interval_ms=200)

    remix = client.videos.remix(source.id, prompt="it sails on", extra_body={"raw": True})

    assert (remix.remixed_from_video_id, remix.model, remix.seconds) == (source.id, "veo3.1-lite", "8")
    client.videos.delete(remix.id)


def test_models_are_listed_and_read(client):
    listed = client.models.list().data

    assert {model.id for model in listed} >= {"gpt-image-2", "veo3.1-fast"}
    assert client.models.retrieve("gpt-image-2").owned_by


FAULTS = {
    "no prompt": (lambda c: c.images.generate(prompt=""), openai.BadRequestError, 400, "missing_parameter"),
    "n of 2": (lambda c: c.images.generate(prompt="x", n=2), openai.BadRequestError, 400, "invalid_parameter"),
    "no image": (lambda c: c.images.edit(image=[], prompt="x"), openai.BadRequestError, 400, "missing_parameter"),
    "empty image": (lambda c: c.images.edit(image=b"", prompt="x"), openai.BadRequestError, 400, "invalid_image"),
    "policy": (
        lambda c: c.images.generate(prompt="[[policy]]"),
        openai.BadRequestError,
        400,
        "content_policy_violation",
    ),
    "seconds": (lambda c: c.videos.create(prompt="x", seconds="99"), openai.BadRequestError, 400, "invalid_parameter"),
    "model": (lambda c: c.images.generate(prompt="x", model="no"), openai.NotFoundError, 404, "model_not_found"),
    "read a model": (lambda c: c.models.retrieve("no"), openai.NotFoundError, 404, "model_not_found"),
    "read a video": (lambda c: c.videos.retrieve("task_no"), openai.NotFoundError, 404, "task_not_found"),
    "not built": (lambda c: c.post("/videos/edits", cast_to=object), openai.NotFoundError, 404, "route_not_found"),
    "method": (lambda c: c.post("/models", cast_to=object), openai.APIStatusError, 405, "method_not_allowed"),
    "upstream": (lambda c: c.images.generate(prompt="[[fail]]"), openai.InternalServerError, 502, "upstream_error"),
}


@pytest.mark.parametrize(("call", "kind", "status", "reason"), FAULTS.values(), ids=FAULTS)
def test_faults_are_the_sdk_s_own_exceptions(client, call, kind, status, reason):
    with pytest.raises(kind) as raised:
        call(client)

    error = raised.value
    assert type(error) is kind
    assert (error.status_code, error.body["code"], error.body["reason"]) == (status, status, reason)
    assert error.request_id == error.body["request_id"]
    assert error.body["message"] in str(error)
    assert credits(client) == (2000, 0)


def test_a_wrong_key_is_an_authentication_error(gateway, client):
    with pytest.raises(openai.AuthenticationError) as raised:
        client.with_options(api_key="sk-wrong").models.list()

    assert raised.value.body["reason"] == "invalid_api_key"


def test_no_credits_is_a_status_error_that_is_not_retried(gateway):
    poor = OpenAI(api_key=new_key(gateway, credits=0), base_url=f"{gateway.base_url}/v1")

    with poor, pytest.raises(openai.APIStatusError) as raised:
        poor.images.generate(prompt="a fox")

    assert (raised.value.status_code, raised.value.body["type"]) == (402, "insufficient_quota")


def test_the_sdk_s_own_retries_make_no_second_task(client):
    with pytest.raises(openai.InternalServerError) as raised:
        client.images.generate(prompt="a fox [[fail]]")

    made = client.get("/tasks", cast_to=object)["data"]
    assert [task["id"] for task in made] == [raised.value.body["task_id"]]


async def test_the_asynchronous_client_works_alike(gateway, key):
    async with openai.AsyncOpenAI(api_key=key, base_url=f"{gateway.base_url}/v1") as client:
        made = await client.images.generate(prompt="a fox")
        events = [event.type async for event in await client.images.generate(prompt="a fox", stream=True)]

    assert made.data[0].b64_json
    assert events == ["image_generation.completed"]
