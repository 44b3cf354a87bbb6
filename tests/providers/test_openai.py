"""The fake satisfies OpenAI's own client, and so the provider's tests mean something."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from app.providers.openai import provider
from app.requests import Operation
from app.upstreams.contract.harness import SECRET, Harness
from app.upstreams.protocols import ImageGenerator, Picky, SubmitSafety, VideoCanceller, VideoSubmitter
from tests.providers.fakes.openai import FakeOpenAI
from tests.providers.fakes.openai_data import MP4, PNG
from tests.providers.openai_calls import OpenAIHarness

# The SDK calls all of its Videos API deprecated: the hosted service has ended.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def harness() -> Harness:
    return OpenAIHarness()


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    fake = FakeOpenAI(SECRET)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def sdk(fake: FakeOpenAI) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=SECRET, base_url=fake.base_url, max_retries=0) as client:
        yield client


def test_the_factory_makes_a_blind_provider_of_images_and_videos() -> None:
    made = provider()

    assert made.name == "openai"
    assert made.capabilities.submit is SubmitSafety.BLIND
    assert Operation.VIDEO_EDIT not in made.capabilities.operations
    assert len(made.capabilities.operations) == 4
    for protocol in (ImageGenerator, VideoSubmitter, VideoCanceller, Picky):
        assert isinstance(made, protocol)


async def test_the_sdk_generates_an_image(sdk: openai.AsyncOpenAI) -> None:
    made = await sdk.images.generate(model="gpt-image-2", prompt="a fox", size="1536x864", quality="low", n=1)

    assert made.data is not None
    assert base64.b64decode(made.data[0].b64_json or "") == PNG
    assert made.usage is not None
    assert made.usage.output_tokens == 1000


@pytest.mark.parametrize("several", [False, True])
async def test_the_sdk_edits_images_with_a_mask(sdk: openai.AsyncOpenAI, fake: FakeOpenAI, several: bool) -> None:
    file = ("a.png", io.BytesIO(PNG), "image/png")
    images = [file, ("b.png", io.BytesIO(PNG), "image/png")] if several else file

    made = await sdk.images.edit(
        model="gpt-image-2", prompt="a fox", image=images, mask=("mask.png", io.BytesIO(PNG), "image/png")
    )

    assert made.data
    names = [name for name, *_ in fake.seen[0].files()]
    assert sorted(names) == (["image[]", "image[]", "mask"] if several else ["image", "mask"])


async def test_the_sdk_reads_the_stream(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.images.generate(model="gpt-image-2", prompt="a fox", stream=True, partial_images=2)

    kinds = [event.type async for event in stream]

    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("busy", openai.RateLimitError),
        ("unauthorized", openai.AuthenticationError),
        ("moderated", openai.BadRequestError),
        ("retired", openai.NotFoundError),
        ("error 500", openai.InternalServerError),
        ("cut", openai.APIConnectionError),
    ],
)
async def test_the_sdk_knows_the_errors(
    sdk: openai.AsyncOpenAI, fake: FakeOpenAI, behaviour: str, error: type[Exception]
) -> None:
    fake.submits.append(behaviour)

    with pytest.raises(error):
        await sdk.images.generate(model="gpt-image-2", prompt="a fox")


@pytest.mark.parametrize(
    "extra", [{"response_format": "url"}, {"input_fidelity": "high"}, {"size": "1000x1000"}, {"quality": "hd"}]
)
async def test_the_fake_refuses_what_the_vendor_refuses(sdk: openai.AsyncOpenAI, extra: dict[str, str]) -> None:
    with pytest.raises(openai.BadRequestError):
        await sdk.images.generate(model="gpt-image-2", prompt="a fox", extra_body=extra)


async def test_the_sdk_makes_fetches_remixes_and_deletes_a_video(
    sdk: openai.AsyncOpenAI, fake: FakeOpenAI, tmp_path: Path
) -> None:
    fake.poll_after_ms = 1
    fake.polls += ["pending", "running"]

    made = await sdk.videos.create_and_poll(model="sora-2", prompt="a fox", seconds="8", size="1280x720")
    content = await sdk.videos.download_content(made.id)
    remix = await sdk.videos.remix(made.id, prompt="at night")
    deleted = await sdk.videos.delete(made.id)

    assert (made.status, made.seconds, made.size) == ("completed", "8", "1280x720")
    assert content.content == MP4
    assert remix.remixed_from_video_id == made.id
    assert deleted.deleted
