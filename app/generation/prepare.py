"""Judges a request before anything is promised: fields, references, files, price. Nothing here costs a credit.

The order is from cheap to dear: the fields first, then fetching, then looking into the files, then the price.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.accounts.keys import Principal
from app.catalog.load import Catalog
from app.catalog.model import Choice, Model
from app.catalog.pricing import Quote
from app.errors import InvalidRequest, ModelNotAllowed, PriceAboveMax
from app.fetch.client import SafeFetcher
from app.generation.admission import Admission, Place
from app.generation.build import image_request, video_request
from app.generation.route import Router
from app.generation.turns import resting
from app.intake import Intake, MediaRef, Upload
from app.media.checks import Checker
from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.settings import Settings
from app.upstreams.registry import Registry, RouteEntry

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp"})
MASK_TYPES = frozenset({"image/png"})
VIDEO_TYPES = frozenset({"video/mp4", "video/quicktime", "video/webm", "video/x-matroska"})
AUDIO_TYPES = frozenset({"audio/wav", "audio/x-wav", "audio/mpeg", "audio/mp3", "audio/mp4"})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that may be promised: it is valid, its files are ours, its price is known."""

    model: Model
    choice: Choice
    quote: Quote
    inputs: tuple[MediaFile, ...]
    route: RouteEntry
    provider: str
    slots: int
    """Tasks of this pool that may be with the upstream at once."""

    @property
    def pool(self) -> str:
        return self.route.pool

    def as_request(self, *, source: Mapping[str, Any] | None = None, request_id: str | None = None) -> dict[str, Any]:
        """Return what the task row remembers: enough for any worker to do the work, and to bill it."""
        return {
            "operation": self.choice.operation.value,
            "prompt": self.choice.prompt,
            "params": self.choice.params,
            "quote": self.quote.frozen(),
            "warnings": list(self.choice.warnings),
            "metadata": self.choice.options.metadata,
            **({"webhook_url": self.choice.options.webhook_url} if self.choice.options.webhook_url else {}),
            **({"request_id": request_id} if request_id else {}),
            **({"source": dict(source), "source_task": source["task"]} if source else {}),
        }


class Preparer:
    """Turns an `Intake` into a `Prepared`. Holds no state of its own."""

    def __init__(
        self,
        *,
        settings: Settings,
        catalog: Callable[[], Catalog],
        registry: Registry,
        router: Router,
        admission: Admission,
        fetcher: SafeFetcher,
        checker: Checker,
    ) -> None:
        """``catalog`` returns the one in force: a request asks once, so that what is quoted is what is held."""
        self._settings = settings
        self._catalog = catalog
        self._registry = registry
        self._router = router
        self._admission = admission
        self._fetcher = fetcher
        self._checker = checker

    async def prepare(
        self,
        principal: Principal,
        intake: Intake,
        operation: Operation,
        *,
        defaults: Mapping[str, Any] | None = None,
        upstream: str | None = None,
        source: MediaFile | None = None,
        is_quote: bool = False,
    ) -> Prepared:
        """Judge everything and return what may be promised.

        ``operation`` is the endpoint's (an input may make it an edit); ``defaults`` stand in for the model's own, such
        as those of a remix's source; ``upstream`` pins the route, ``source`` is its video. A quote needs no room in a
        queue. Raises: any error of the 400 family, ModelNotFound, ModelNotAllowed, ProviderUnavailable, QueueFull.
        """
        model = self._catalog().pick(intake.fields, operation)
        if not principal.may_use(model.id):
            raise ModelNotAllowed(f"This API key may not use the model '{model.id}'.", param="model")
        choice = model.choose(intake.fields, operation=operation, defaults=defaults)
        if choice.options.webhook_url is not None:
            self._fetcher.check(choice.options.webhook_url, param="webhook_url")
        with resting():  # for whoever sends the references, and for the children that look into them
            inputs = await self._inputs(principal, choice, intake.spool)
        sized = next((file for file in sorted(inputs, key=_leads) if file.width and file.height), None)
        shape = (sized.width, sized.height) if sized else (None, None)
        params = model.with_input_shape(choice.params, *shape)
        quote = model.quote(choice, input_seconds=_input_seconds(model, choice, inputs))
        if choice.operation is Operation.VIDEO_EDIT:
            params["duration"] = quote.quantity
        limit = choice.options.max_credits
        if limit is not None and quote.credits > limit:
            raise PriceAboveMax(credits=quote.credits, max_credits=limit)
        warnings = [*choice.warnings, *_length_warnings(quote)]
        if choice.options.partial_images:
            params["partial_images"] = choice.options.partial_images
        choice = replace(choice, params=params, warnings=warnings)
        request = neutral_request(choice, inputs, source)
        routes = await self._router.choices(model.id, request, params, upstream=upstream)
        route = routes[0] if is_quote else await self._with_room(principal, routes, choice.operation.kind)
        account = self._registry.account(route.upstream)
        return Prepared(model, choice, quote, inputs, route, account.provider, account.concurrency)

    async def _with_room(self, principal: Principal, routes: Sequence[RouteEntry], kind: str) -> RouteEntry:
        """Return the first route whose queue is not full. Raises: QueueFull."""
        settings = self._settings
        return await self._admission.admit(
            [Place(route, self._registry.account(route.upstream).concurrency) for route in routes],
            account_id=principal.account_id,
            max_wait_s=settings.queue_wait_image_s if kind == "image" else settings.queue_wait_video_s,
        )

    async def _inputs(self, principal: Principal, choice: Choice, spool: Path) -> tuple[MediaFile, ...]:
        wanted = [(field, ref, index) for field, refs in choice.media.items() for index, ref in enumerate(refs)]
        media = await _all(self._one(principal, choice, f, ref, i, spool) for f, ref, i in wanted)
        mask = next((file for file in media if file.field == "mask"), None)
        if mask is not None:
            first = next(file for file in media if file.field == "image_urls")
            await self._checker.check_mask(
                mask.path,
                param="mask",
                size=(first.width or 0, first.height or 0),
                max_bytes=self._settings.mask_bytes,
            )
            media[media.index(mask)] = replace(mask, width=first.width, height=first.height)
        return tuple(media)

    async def _one(
        self, principal: Principal, choice: Choice, field: str, ref: MediaRef, index: int, spool: Path
    ) -> MediaFile:
        """Have one file, and look into it. An error's message says where it stood, its ``param`` is the field."""
        place = choice.places[field][index]
        try:
            return await self._looked_into(principal, field, ref, place, spool / f"fetched-{field}-{index}")
        except InvalidRequest as error:
            error.param = place.partition("[")[0]
            raise

    async def _looked_into(
        self, principal: Principal, field: str, ref: MediaRef, place: str, fetched_path: Path
    ) -> MediaFile:
        family = _family(field)
        if isinstance(ref, Upload):
            path, size, digest = ref.path, ref.size_bytes, ref.sha256
        else:
            limits = {
                "image": (self._settings.fetch_image_bytes, IMAGE_TYPES),
                "video": (self._settings.fetch_video_bytes, VIDEO_TYPES),
                "audio": (self._settings.fetch_audio_bytes, AUDIO_TYPES),
            }
            max_bytes, types = limits[family]
            if field == "mask":
                types = MASK_TYPES
            fetched = await self._fetcher.fetch(
                ref,
                fetched_path,
                param=place,
                max_bytes=max_bytes,
                allowed_types=types,
                owner=principal.account_id,
            )
            path, size, digest = fetched.path, fetched.size_bytes, fetched.sha256
        if field == "mask":  # judged beside the first image, when that is known
            return MediaFile(path, "image/png", size, digest, field)
        if family == "image":
            image = await self._checker.check_image(path, param=place)
            return MediaFile(path, image.mime, size, digest, field, image.width, image.height)
        if family == "audio":
            audio = await self._checker.probe_audio(path, param=place)
            return MediaFile(path, audio.mime, size, digest, field, duration_s=audio.duration_s)
        video = await self._checker.probe_video(path, param=place)
        return MediaFile(path, video.mime, size, digest, field, video.width, video.height, video.duration_s)


def neutral_request(
    choice: Choice, inputs: tuple[MediaFile, ...], source: MediaFile | None
) -> ImageRequest | VideoRequest:
    """Return the request as a provider will see it, for the question whether it can serve it."""
    request = {"operation": choice.operation.value, "prompt": choice.prompt, "params": choice.params}
    if choice.operation.kind == "image":
        return image_request(request, inputs)
    return video_request(request, inputs, source)


async def _all(coroutines: Any) -> list[MediaFile]:
    """Run side by side; the first failure cancels the others and is raised as it is."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _family(field: str) -> str:
    if field.startswith("video"):
        return "video"
    return "audio" if field.startswith("audio") else "image"


def _leads(file: MediaFile) -> int:
    """Whose shape a result takes: the source of an edit, then a first frame, then the first reference."""
    return {"video_url": 0, "first_frame_image": 1}.get(file.field, 2)


def _length_warnings(quote: Quote) -> list[str]:
    """Say what becomes of an edit's source that is longer or shorter than what is made and billed."""
    source, billed = quote.source_seconds, quote.quantity
    if source is None or billed - 1 < source <= billed:
        return []
    if source > billed:
        return [f"The source is {source:g} s long: only its first {billed} s are used, and billed."]
    return [f"The source is {source:g} s long: {billed} s are billed, the least there is."]


def _input_seconds(model: Model, choice: Choice, inputs: tuple[MediaFile, ...]) -> float | None:
    """Seconds of video that came along and are billed: the source of an edit, or all references together."""
    if not model.needs_input_seconds(choice):
        return None
    return sum(file.duration_s or 0.0 for file in inputs if _family(file.field) == "video")
