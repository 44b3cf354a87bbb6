"""A sync image, step by step: what each answer of the upstream does to the task and to the credits."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from PIL import Image

from app.errors import (
    ContentPolicyViolation,
    InsufficientCredits,
    InvalidParameter,
    ProviderUnavailable,
    ResultUnavailable,
    SyncWaitExceeded,
    UpstreamErrorPublic,
)
from app.intake import Intake, Upload
from app.requests import ImageRequest, Operation
from app.upstreams.protocols import (
    SubmitSafety,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
)
from app.wiring import Services
from tests.fakes import FakeProvider
from tests.workers.conftest import Caller, assert_books_balance


async def test_an_image_costs_its_price_and_nothing_stays_held(caller: Caller, services: Services) -> None:
    view = await caller.image(quality="hd")

    assert (view.public_status, view.charge) == ("completed", 2)
    assert await caller.balance() == (998, 0)
    assert await caller.attempts(view) == ["done"]
    stored = view.files_of("result")[0]
    assert services.storage.path_of(stored.storage_key).stat().st_size == stored.size_bytes
    await assert_books_balance(services)


@pytest.mark.parametrize(
    ("raised", "error", "attempt"),
    [
        (UpstreamFailed("boom"), UpstreamErrorPublic, "failed"),
        (UpstreamModerated(), ContentPolicyViolation, "failed"),
        (UpstreamRejected(), InvalidParameter, "refused"),
    ],
)
async def test_a_definite_failure_gives_the_whole_hold_back(
    caller: Caller, services: Services, fake: FakeProvider, raised: Exception, error: type[Exception], attempt: str
) -> None:
    fake.submits.append(raised)

    with pytest.raises(error, match="No credits were charged") as caught:
        await caller.image()

    assert await caller.balance() == (1000, 0)
    view = await services.tasks.get(caller.principal, caught.value.task_id)
    assert await caller.attempts(view) == [attempt]
    assert (await services.statements.ledger(caller.account_id)).entries[0].kind == "topup"
    await assert_books_balance(services)


async def test_a_busy_upstream_is_asked_again_under_a_new_attempt(caller: Caller, fake: FakeProvider) -> None:
    fake.submits.extend([UpstreamBusy(retry_after_s=0.05), UpstreamBusy(retry_after_s=0.05)])

    view = await caller.image()

    assert await caller.attempts(view) == ["refused", "refused", "done"]
    assert sorted(fake.accepted.values()) == [1, 1, 1]
    assert await caller.balance() == (999, 0)


async def test_an_upstream_that_stays_busy_is_given_up_after_the_queue_wait(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    services.settings.queue_wait_image_s = 0.4
    fake.submits.extend(UpstreamBusy(retry_after_s=0.1) for _ in range(50))

    with pytest.raises(ProviderUnavailable, match="No credits were charged"):
        await caller.image()

    assert await caller.balance() == (1000, 0)
    await assert_books_balance(services)


async def test_a_lost_answer_of_an_idempotent_upstream_is_found_with_the_same_token(
    caller: Caller, fake: FakeProvider
) -> None:
    fake.submits.append(UpstreamOutcomeUnknown("cut"))

    view = await caller.image()

    assert list(fake.accepted.values()) == [2]  # one token, sent twice: the upstream makes one image of it
    assert await caller.attempts(view) == ["done"]
    assert await caller.balance() == (999, 0)


@pytest.mark.parametrize("raised", [UpstreamOutcomeUnknown("cut"), RuntimeError("a provider's own bug")])
async def test_a_lost_answer_of_a_blind_upstream_is_never_sent_again(
    caller: Caller, services: Services, fake: FakeProvider, raised: Exception
) -> None:
    fake.submit = SubmitSafety.BLIND
    fake.submits.append(raised)

    with pytest.raises(UpstreamErrorPublic) as caught:
        await caller.image()

    assert list(fake.accepted.values()) == [1]
    assert await caller.attempts(await services.tasks.get(caller.principal, caught.value.task_id)) == ["lost"]
    assert await caller.balance() == (1000, 0)


async def test_busy_after_a_lost_answer_is_no_proof_that_nothing_was_made(caller: Caller, fake: FakeProvider) -> None:
    fake.submits.extend([UpstreamOutcomeUnknown("cut"), UpstreamBusy(retry_after_s=0.05)])

    view = await caller.image()

    assert list(fake.accepted.values()) == [3]  # the same token to the end
    assert await caller.attempts(view) == ["done"]


async def test_an_unreadable_image_is_not_charged(caller: Caller, fake: FakeProvider, monkeypatch: object) -> None:
    async def not_an_image(request: object, call: object, on_partial: object = None) -> object:
        from app.upstreams.protocols import ImageResult

        path = call.out_dir / "image"  # type: ignore[attr-defined]
        path.write_bytes(b"<html>sorry</html>")
        return ImageResult(path)

    fake.generate_image = not_an_image  # type: ignore[method-assign]

    with pytest.raises(ResultUnavailable):
        await caller.image()

    assert await caller.balance() == (1000, 0)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
async def test_an_image_that_was_cut_off_on_its_way_is_not_charged(
    caller: Caller, services: Services, fake: FakeProvider, tmp_path: Path, name: str
) -> None:
    async def cut() -> None:
        [written] = services.settings.spool_dir.glob("step-*/image")
        Image.effect_noise((64, 64), 90).convert("RGB").save(written, name)
        written.write_bytes(written.read_bytes()[: -written.stat().st_size // 3])

    fake.after_write = cut

    with pytest.raises(ResultUnavailable, match="No credits were charged"):
        await caller.image(output_format=name)

    assert await caller.balance() == (1000, 0)


async def test_an_upstream_without_the_asked_format_has_its_image_transcoded(caller: Caller) -> None:
    view = await caller.image(output_format="webp")  # the fake makes PNG only

    stored = view.files_of("result")[0]
    assert (stored.mime, stored.width, stored.height) == ("image/webp", 1024, 1024)


async def test_a_caller_who_hangs_up_pays_once_and_finds_the_image(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        arrived.set()
        await go.wait()

    fake.submits.append(slow)
    request = asyncio.create_task(caller.image())
    await arrived.wait()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)

    go.set()
    [view] = (await services.queries.page(_any(), account_id=caller.account_id)).items
    view = await services.tasks.wait(caller.principal, view.public_id, 10)

    assert view.public_status == "completed"
    assert await caller.balance() == (999, 0)
    assert list(fake.accepted.values()) == [1]


async def test_a_wait_that_is_too_long_answers_with_the_task_and_lets_it_go_on(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    services.settings.sync_wait_max_s = 0.05
    go = asyncio.Event()

    async def slow() -> None:
        await go.wait()

    fake.submits.append(slow)

    with pytest.raises(SyncWaitExceeded) as caught:
        await caller.image()

    assert await caller.balance() == (999, 1)
    go.set()
    view = await services.tasks.wait(caller.principal, caught.value.task_id, 10)
    assert view.public_status == "completed"


async def test_without_credit_nothing_is_sent_and_no_file_stays(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    from app.values import Credits

    await services.ledger.adjust(caller.account_id, Credits(-1000), ref=f"zero:{caller.account_id}", actor="test")

    with pytest.raises(InsufficientCredits):
        await caller.image()

    assert fake.accepted == {}
    assert list(services.storage.walk()) == []
    assert await caller.balance() == (0, 0)


def _any() -> object:
    from app.tasks.queries import TaskFilter

    return TaskFilter()


async def test_sync_images_wait_for_a_place_like_everybody(
    caller: Caller, services: Services, fake: FakeProvider
) -> None:
    go, inside, peak = asyncio.Event(), 0, 0

    async def slow() -> None:
        nonlocal inside, peak
        inside += 1
        peak = max(peak, inside)
        if inside == 8:
            go.set()
        await go.wait()
        inside -= 1

    fake.submits.extend(slow for _ in range(12))  # the upstream takes 8 at once

    views = await asyncio.gather(*(caller.image() for _ in range(12)))

    assert peak == 8
    assert [view.public_status for view in views] == ["completed"] * 12
    assert await caller.balance() == (988, 0)


async def test_a_mask_reaches_the_provider_with_the_size_that_was_checked(
    caller: Caller, services: Services, fake: FakeProvider, tmp_path: Path
) -> None:
    Image.new("RGB", (96, 64), "white").save(tmp_path / "image.png")
    Image.new("RGBA", (96, 64), (0, 0, 0, 0)).save(tmp_path / "mask.png")
    files = {
        name: Upload(path := tmp_path / f"{name}.png", path.stat().st_size, hashlib.sha256(path.read_bytes()).digest())
        for name in ("image", "mask")
    }

    intake = Intake({"prompt": "a hat", "image": [files["image"]], "mask": files["mask"]}, caller.spool)
    await services.images.run(caller.principal, intake, operation=Operation.IMAGE_EDIT)

    [request] = fake.requests
    assert isinstance(request, ImageRequest)
    assert request.mask is not None
    assert (request.mask.width, request.mask.height) == (request.images[0].width, request.images[0].height) == (96, 64)
