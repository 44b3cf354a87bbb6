"""The fake of Google's APIs satisfies Google's own SDK; and what concerns both images and videos."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import types
from google.genai.errors import ClientError
from google.oauth2.credentials import Credentials
from pydantic import SecretStr

from app.providers.google.api import Api, is_operation_name
from app.providers.google.errors import cleaned
from app.upstreams import wording
from app.upstreams.contract.harness import POLL_BEHAVIOURS, SECRET, SUBMIT_BEHAVIOURS, Harness
from app.upstreams.protocols import (
    Picky,
    Progress,
    Provider,
    SubmitSafety,
    Upstream,
    UpstreamDenied,
    UpstreamError,
    VideoSubmitter,
)
from tests.providers.fakes.google import PROJECT, FakeGoogle, png
from tests.providers.google_calls import (
    AGENT,
    BEARER,
    GEMINI,
    IMAGE_MODEL,
    VIDEO_MODEL,
    Desk,
    GoogleHarness,
    video_request,
)

# The SDK derives from aiohttp's session.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")


def harness() -> Harness:
    """For the shared contract suite."""
    return GoogleHarness()


@pytest.fixture
async def fake() -> AsyncIterator[FakeGoogle]:
    made = FakeGoogle()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(autouse=True)
def no_google_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        monkeypatch.delenv(name, raising=False)


def account(options: Mapping[str, Any], secret: str | None = SECRET) -> Upstream:
    return Upstream("g", "google", None, SecretStr(secret) if secret else None, options)


def sdk(fake: FakeGoogle, *, version: str | None = None, **more: Any) -> genai.Client:
    return genai.Client(http_options=types.HttpOptions(base_url=fake.url, api_version=version), **more)


# --- the SDK against the fake ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vertexai", [False, True])
async def test_googles_sdk_makes_an_image_at_the_fake(fake: FakeGoogle, vertexai: bool) -> None:
    client = sdk(fake, api_key=SECRET, vertexai=vertexai)

    answer = await client.aio.models.generate_content(
        model=IMAGE_MODEL,
        contents=["make it night", types.Part.from_bytes(data=png("red"), mime_type="image/png")],
        config=types.GenerateContentConfig(
            response_modalities=["IMAGE"], image_config=types.ImageConfig(aspect_ratio="16:9", image_size="2K")
        ),
    )
    await client.aio.aclose()

    parts = answer.candidates[0].content.parts
    images = [part.inline_data.data for part in parts if part.inline_data and not part.thought]
    assert images == [png("blue")]
    assert fake.accepted == 1
    assert fake.seen[0].path.startswith("/v1beta1/publishers/google/" if vertexai else "/v1/models/")


async def test_googles_sdk_is_refused_a_lower_case_size_and_a_preview_id(fake: FakeGoogle) -> None:
    client = sdk(fake, api_key=SECRET)
    small = types.GenerateContentConfig(response_modalities=["IMAGE"], image_config=types.ImageConfig(image_size="2k"))

    with pytest.raises(ClientError, match="400 INVALID_ARGUMENT"):
        await client.aio.models.generate_content(model=IMAGE_MODEL, contents="a fox", config=small)
    with pytest.raises(ClientError, match="404 NOT_FOUND"):
        await client.aio.models.generate_content(model=f"{IMAGE_MODEL}-preview", contents="a fox", config=small)
    await client.aio.aclose()

    assert fake.accepted == 0


@pytest.mark.parametrize("by", ["key", "bearer"])
async def test_googles_sdk_makes_a_video_at_the_fake(fake: FakeGoogle, by: str) -> None:
    if by == "key":
        client = sdk(fake, vertexai=True, api_key=SECRET)
    else:
        client = sdk(
            fake, vertexai=True, project=PROJECT, location="us-central1", credentials=Credentials(token=SECRET)
        )
    fake.will("running")

    operation = await client.aio.models.generate_videos(
        model=VIDEO_MODEL,
        source=types.GenerateVideosSource(
            prompt="a kite", image=types.Image(image_bytes=png("red"), mime_type="image/png")
        ),
        config=types.GenerateVideosConfig(
            aspect_ratio="9:16",
            resolution="1080p",
            duration_seconds=8,
            generate_audio=False,
            seed=7,
            last_frame=types.Image(image_bytes=png("blue"), mime_type="image/png"),
        ),
    )
    running = await client.aio.operations.get(operation)
    done = await client.aio.operations.get(operation)
    await client.aio.aclose()

    assert not running.done
    assert done.done
    assert done.response.generated_videos[0].video.video_bytes == fake.video
    assert fake.accepted == 1


async def test_googles_sdk_extends_and_refers_at_the_fake(fake: FakeGoogle) -> None:
    client = sdk(fake, vertexai=True, api_key=SECRET)
    reference = types.VideoGenerationReferenceImage(
        image=types.Image(image_bytes=png("red"), mime_type="image/png"), reference_type="ASSET"
    )

    await client.aio.models.generate_videos(
        model=VIDEO_MODEL,
        source=types.GenerateVideosSource(
            prompt="on", video=types.Video(video_bytes=fake.video, mime_type="video/mp4")
        ),
    )
    await client.aio.models.generate_videos(
        model=VIDEO_MODEL,
        source=types.GenerateVideosSource(prompt="two foxes"),
        config=types.GenerateVideosConfig(reference_images=[reference, reference]),
    )
    await client.aio.aclose()

    assert fake.accepted == 2


async def test_googles_sdk_polls_and_downloads_the_older_shape_at_the_fake(fake: FakeGoogle) -> None:
    """The SDK no longer submits to that API; it still asks and downloads."""
    client = sdk(fake, version="v1beta", api_key=SECRET, vertexai=False)
    name = f"models/{VIDEO_MODEL}/operations/op-1"
    fake.know(name)

    done = await client.aio.operations.get(types.GenerateVideosOperation(name=name))
    video = done.response.generated_videos[0].video
    data = await client.aio.files.download(file=video)
    await client.aio.aclose()

    assert data == fake.video


# --- our account and its API -----------------------------------------------------------------------------------------


def test_the_provider_is_found_and_has_no_safe_second_submit() -> None:
    provider = harness().provider

    assert isinstance(provider, Provider)
    assert isinstance(provider, VideoSubmitter)
    assert isinstance(provider, Picky)
    assert (provider.name, provider.capabilities.submit) == ("google", SubmitSafety.BLIND)


@pytest.mark.parametrize(
    ("options", "video", "url"),
    [
        (AGENT, False, "https://generativelanguage.googleapis.com/v1beta/models/m:x"),
        (AGENT, True, "https://aiplatform.googleapis.com/v1beta1/publishers/google/models/m:x"),
        (GEMINI, True, "https://generativelanguage.googleapis.com/v1beta/models/m:x"),
        ({"api": "agent"}, False, "https://aiplatform.googleapis.com/v1beta1/publishers/google/models/m:x"),
        ({"version": "v1"}, False, "https://generativelanguage.googleapis.com/v1/models/m:x"),
        (
            {"project": "p"},
            True,
            "https://us-central1-aiplatform.googleapis.com/v1beta1/projects/p/locations/us-central1"
            "/publishers/google/models/m:x",
        ),
        (
            {"project": "p"},
            False,
            "https://aiplatform.googleapis.com/v1beta1/projects/p/locations/global/publishers/google/models/m:x",
        ),
        (
            {"project": "p", "location": "eu"},
            True,
            "https://aiplatform.eu.rep.googleapis.com/v1beta1/projects/p/locations/eu/publishers/google/models/m:x",
        ),
    ],
)
def test_the_options_say_where_the_api_is(options: dict[str, Any], video: bool, url: str) -> None:
    upstream = account(options)

    api = Api.of(upstream, video=video)

    assert api.method("m", "x") == url
    assert list(api.headers) == ["Authorization" if "project" in options else "x-goog-api-key"]


@pytest.mark.parametrize(
    ("options", "secret"),
    [({"api": "vertex"}, SECRET), ({"project": "a/b"}, SECRET), (BEARER, None), (AGENT, " "), (AGENT, "two\nlines")],
)
def test_an_account_that_makes_no_sense_is_denied(options: dict[str, Any], secret: str | None) -> None:
    with pytest.raises(UpstreamDenied) as caught:
        Api.of(account(options, secret), video=True)

    assert "lines" not in str(caught.value)


def test_a_model_id_cannot_leave_its_segment() -> None:
    assert Api.of(account(AGENT), video=False).method("../x?y", "z").endswith("/models/..%2Fx%3Fy:z")


@pytest.mark.parametrize(
    ("name", "is_good"),
    [
        ("models/veo/operations/abc-1", True),
        ("projects/1/locations/us/publishers/google/models/veo-3.1/operations/9f", True),
        ("models/../operations/x", False),
        ("models/veo/operations/x?key=1", False),
        ("/models/veo", False),
        ("https://evil.example/x", False),
        ("abc", False),
        ("a/" * 300 + "a", False),
        (None, False),
    ],
)
def test_only_a_resource_name_may_stand_in_a_url(name: Any, is_good: bool) -> None:
    assert is_operation_name(name) is is_good


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Bad size.", "Bad size."),
        (f"Key {SECRET} is bad", "Key ... is bad"),
        ("See https://ai.google.dev/errors for more", "See ... for more"),
        ("generativelanguage.googleapis.com is down", "... is down"),
        ("models/veo-3.1 in projects/acme-1 failed", "... in ... failed"),
        ("No celebrities. Support codes: 29310472, 15236754", "No celebrities."),
        ("AIzaSyD-abcdefghijk is no key", "... is no key"),
        ("at 10.0.0.7:8080 now", "at ... now"),
        ("", ""),
    ],
)
def test_the_upstreams_words_are_cleaned(said: str, shown: str) -> None:
    assert cleaned(said, SECRET) == shown


def test_a_key_of_any_form_is_cleaned_away() -> None:
    assert cleaned("Key hunter is bad", "hunter") == "Key ... is bad"


@pytest.mark.parametrize("options", [AGENT, GEMINI], ids=["agent", "gemini"])
@pytest.mark.parametrize("word", [*SUBMIT_BEHAVIOURS, *POLL_BEHAVIOURS])
async def test_the_harness_knows_every_behaviour(word: str, options: Mapping[str, Any], tmp_path: Path) -> None:
    """Each is a refusal or a wait somewhere between submit and result, and the next job works again."""
    async with Desk.opened(tmp_path) as desk:
        made = GoogleHarness(options)
        made.fake = desk.fake
        if made.lacks(word):
            return
        made.will(word)

        outcome = await one_video(desk, options)
        desk.fake.refuse_downloads = False
        following = await one_video(desk, options)

    assert outcome == ("waits" if word in ("pending", "running") else "fails")
    assert following == "made"


async def one_video(desk: Desk, options: Mapping[str, Any]) -> str:
    google = desk.google
    try:
        job = await google.submit_video(video_request(), desk.video_call(options))
        if isinstance(await google.poll_video(job, desk.video_call(options)), Progress):
            return "waits"
        await google.fetch_video(job, desk.video_call(options))
    except UpstreamError:
        return "fails"
    return "made"


def test_the_upstreams_words_are_short() -> None:
    assert len(cleaned("no " * 500)) <= wording.MAX_CHARS
