"""The checks themselves. ``CHECKS`` holds each with its name and its sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from yarl import URL

from app.upstreams.contract.bench import Bench, CheckFailed, Classes, Kind, error_of, expect, expect_image
from app.upstreams.contract.meddler import SPOILT
from app.upstreams.protocols import (
    ImageGenerator,
    Picky,
    Progress,
    Provider,
    SubmitFinder,
    SubmitSafety,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamFailed,
    UpstreamJob,
    UpstreamModerated,
    UpstreamOutcomeUnknown,
    UpstreamRejected,
    VideoSubmitter,
)

Ability = Literal["image", "video", "list"]
KINDS: tuple[Kind, ...] = ("image", "video")
UNKNOWN: Classes = (UpstreamOutcomeUnknown,)
REFUSALS: dict[str, Classes] = {
    "busy": (UpstreamBusy,),
    "busy 2": (UpstreamBusy,),
    "unauthorized": (UpstreamDenied,),
    "quota": (UpstreamDenied,),
    "bad_request": (UpstreamRejected,),
    "moderated": (UpstreamModerated,),
    "retired": (UpstreamDenied,),
}
LOST: dict[str, Classes] = {
    "error 500": UNKNOWN,
    "error 502": UNKNOWN,
    "error 503": (UpstreamOutcomeUnknown, UpstreamBusy),  # where the vendor says that a 503 made nothing
    "cut": UNKNOWN,
    "garbage": UNKNOWN,
    "no_id": UNKNOWN,
}
ANSWERED: Classes = (UpstreamOutcomeUnknown, UpstreamFailed)
"""An image without an image in a whole answer: made or not, there is nothing to come."""
WHOLE = frozenset({"garbage", "no_id", "empty", "text", "null", "list"})
ASK_AGAIN: Classes = (UpstreamError, UpstreamBusy)
ENDS: dict[str, Classes] = {
    "failed": (UpstreamFailed,),
    "moderated_late": (UpstreamModerated,),
    "expired": (UpstreamFailed,),
    "no_result": (UpstreamFailed,),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One rule that a provider must keep."""

    name: str
    """``image.refused.busy-2``"""
    title: str
    """A sentence."""
    needs: Ability | None
    """Only for providers that can do this; None: for all."""
    run: Callable[[Bench], Awaitable[None]]
    """Raises: CheckFailed, NotApplicable."""


def can(provider: Provider, ability: Ability) -> bool:
    match ability:
        case "image":
            return isinstance(provider, ImageGenerator)
        case "video":
            return isinstance(provider, VideoSubmitter)
        case "list":
            return isinstance(provider, SubmitFinder)


# --- what goes well ---------------------------------------------------------------------------------------------------


async def capabilities_are_true(bench: Bench) -> None:
    provider, models = bench.vendor.provider, (bench.vendor.image_model, bench.vendor.video_model)
    for kind, model in zip(KINDS, models, strict=True):
        is_able = can(provider, kind)
        declared = any(operation.kind == kind for operation in provider.capabilities.operations)
        expect(is_able == declared, f"its methods and its capabilities disagree on {kind}s")
        expect(is_able == (model is not None), f"{kind}_model must be named exactly if the provider makes {kind}s")
    is_listable = provider.capabilities.submit is SubmitSafety.LISTABLE
    expect(can(provider, "list") == is_listable, "find_submitted and SubmitSafety.LISTABLE go together")
    expect(bench.vendor.upstream.provider == provider.name, "the harness's upstream names another provider")


async def it_is_made(bench: Bench, kind: Kind) -> None:
    call = bench.call(kind)
    if isinstance(bench.vendor.provider, Picky):
        reason = bench.vendor.provider.why_not(bench.request(kind), call.model, call.upstream)
        expect(reason is None, f"why_not refuses a plain request: {reason}")
    if kind == "image":
        expect_image(await bench.submit(kind, call), call)
    else:
        bench.vendor.will(*(word for word in ("pending", "running") if not bench.vendor.lacks(word)))
        await bench.finish(await bench.submit(kind, call))
    bench.expect_accepted(1)


# --- submits ----------------------------------------------------------------------------------------------------------


async def a_refused_submit_made_nothing(bench: Bench, kind: Kind, word: str) -> None:
    bench.need(word)
    bench.vendor.will(word)

    error = await error_of(bench.submit(kind, bench.call(kind)), REFUSALS[word])

    if word != "moderated":
        bench.expect_accepted(0)
    if isinstance(error, UpstreamBusy):
        wanted = 2.0 if word == "busy 2" else None
        expect(error.retry_after_s == wanted, f"retry_after_s is {error.retry_after_s}, must be {wanted}")


async def a_lost_submit_is_not_made_twice(bench: Bench, kind: Kind, word: str) -> None:
    bench.need(word)
    bench.vendor.will(word)
    expected = ANSWERED if kind == "image" and word in WHOLE else LOST[word]

    await error_of(bench.submit(kind, bench.call(kind)), expected)
    accepted = bench.vendor.accepted
    if word == "cut":
        bench.expect_accepted(1)
    found = await bench.resolve(kind)

    if bench.safety is SubmitSafety.IDEMPOTENT:
        expect(found is not None, "the same token did not lead to the result")
        bench.expect_accepted(1)
    else:
        bench.expect_accepted(accepted)
        if word == "cut":
            expect((found is not None) == _is_found(bench, kind), "the list did not show the submit that was accepted")
    if isinstance(found, UpstreamJob):
        await bench.finish(found)


async def a_spoilt_answer_leaves_the_outcome_open(bench: Bench, kind: Kind, word: str) -> None:
    expected = ANSWERED if kind == "image" and word in WHOLE else UNKNOWN
    async with bench.spoilt(word, "submit") as upstream:
        await error_of(bench.submit(kind, bench.call(kind, upstream=upstream)), expected)
    bench.expect_accepted(1)

    found = await bench.resolve(kind)

    bench.expect_accepted(1)
    is_found = bench.safety is SubmitSafety.IDEMPOTENT or _is_found(bench, kind)
    expect((found is not None) == is_found, "what was accepted was not found again")


async def without_a_server_nothing_was_accepted(bench: Bench, kind: Kind) -> None:
    closed = str(URL(bench.vendor.upstream.base_url or "").with_port(9))
    call = bench.call(kind, upstream=replace(bench.vendor.upstream, base_url=closed))
    await error_of(bench.submit(kind, call), (UpstreamBusy,))


async def a_list_that_cannot_be_read_proves_nothing(bench: Bench, word: str) -> None:
    await bench.submit("video", bench.call("video"))

    async with bench.spoilt(word, "later") as upstream:
        await error_of(bench.find(upstream=upstream), ASK_AGAIN)


def _is_found(bench: Bench, kind: Kind) -> bool:
    return bench.safety is SubmitSafety.LISTABLE and kind == "video"


# --- polls ------------------------------------------------------------------------------------------------------------


async def a_job_that_goes_on_is_not_done(bench: Bench, word: str) -> None:
    bench.need(word)
    job = await bench.submit("video", bench.call("video"))
    bench.vendor.will(word)

    state = await bench.poll(job)

    if not isinstance(state, Progress):
        raise CheckFailed("the job counts as done")
    expect(state.percent is None or 0 <= state.percent <= 99, f"its progress is {state.percent} percent")
    bench.expect_accepted(1)


async def a_poll_that_went_wrong_is_asked_again(bench: Bench, word: str) -> None:
    bench.need(word)
    job = await bench.submit("video", bench.call("video"))
    bench.vendor.will(word)

    await error_of(bench.poll(job), ASK_AGAIN)

    await bench.finish(job)
    bench.expect_accepted(1)


async def a_spoilt_answer_to_a_poll_is_asked_for_again(bench: Bench, word: str) -> None:
    job = await bench.submit("video", bench.call("video"))
    async with bench.spoilt(word, "later") as upstream:
        await error_of(bench.poll(job, upstream=upstream), ASK_AGAIN)

    await bench.finish(job)
    bench.expect_accepted(1)


async def a_job_that_ended_badly_is_never_completed(bench: Bench, word: str) -> None:
    bench.need(word)
    job = await bench.submit("video", bench.call("video"))
    bench.vendor.will(word)

    await error_of(bench.finish(job, polls=1), ENDS[word])


async def a_result_that_is_refused_is_an_error(bench: Bench) -> None:
    bench.need("result 403")
    job = await bench.submit("video", bench.call("video"))
    bench.vendor.will("result 403")

    await error_of(bench.finish(job), (UpstreamError, UpstreamFailed, UpstreamDenied))


# --- all of them ------------------------------------------------------------------------------------------------------


def _every() -> Iterator[Check]:
    yield Check("provider", "Methods, capabilities and models agree.", None, capabilities_are_true)
    for kind in KINDS:
        yield _check(f"{kind}.made", f"A plain {kind} is made, once.", kind, it_is_made, kind=kind)
        for word in REFUSALS:
            title = f"A refused submit ({word}) made nothing."
            yield _check(f"{kind}.refused.{word}", title, kind, a_refused_submit_made_nothing, kind=kind, word=word)
        for word in LOST:
            title = f"A submit whose answer is lost ({word}) is not made twice."
            yield _check(f"{kind}.lost.{word}", title, kind, a_lost_submit_is_not_made_twice, kind=kind, word=word)
        for word in SPOILT:
            title = f"A spoilt answer ({word}) to a submit leaves the outcome open."
            run = a_spoilt_answer_leaves_the_outcome_open
            yield _check(f"{kind}.spoilt.{word}", title, kind, run, kind=kind, word=word)
        title = "Without a server nothing was accepted."
        yield _check(f"{kind}.unreachable", title, kind, without_a_server_nothing_was_accepted, kind=kind)
    for word in SPOILT:
        title = f"A list that cannot be read ({word}) proves nothing."
        yield _check(f"list.spoilt.{word}", title, "list", a_list_that_cannot_be_read_proves_nothing, word=word)
    for word in ("pending", "running", "unknown_word"):
        title = f"A job that goes on ({word}) is not done."
        yield _check(f"poll.{word}", title, "video", a_job_that_goes_on_is_not_done, word=word)
    for word in ("poll 500", "poll cut"):
        title = f"A poll that went wrong ({word}) is asked again."
        yield _check(word.replace(" ", "."), title, "video", a_poll_that_went_wrong_is_asked_again, word=word)
    for word in SPOILT:
        title = f"A spoilt answer ({word}) to a poll is asked for again."
        yield _check(f"poll.spoilt.{word}", title, "video", a_spoilt_answer_to_a_poll_is_asked_for_again, word=word)
    for word in ENDS:
        title = f"A job that ended badly ({word}) is never completed."
        yield _check(f"poll.{word}", title, "video", a_job_that_ended_badly_is_never_completed, word=word)
    title = "A result that is refused (result 403) is an error."
    yield _check("result.403", title, "video", a_result_that_is_refused_is_an_error)


def _check(name: str, title: str, needs: Ability, run: Callable[..., Awaitable[None]], /, **arguments: str) -> Check:
    return Check(name.replace(" ", "-"), title, needs, partial(run, **arguments))


CHECKS: tuple[Check, ...] = tuple(_every())
