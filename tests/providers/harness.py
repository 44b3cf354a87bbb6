"""What the contract suite asks of a provider's own tests: a fake upstream that can be told how to behave."""

from __future__ import annotations

from typing import Protocol

from app.upstreams.protocols import Provider, Upstream

SUBMIT_BEHAVIOURS = (
    "busy",  # 429 without Retry-After
    "busy 2",  # 429 with Retry-After: 2
    "unauthorized",
    "quota",  # our balance is used up
    "bad_request",  # the caller's input cannot be served
    "moderated",
    "retired",  # the model is gone
    "error 500",
    "error 502",  # an HTML page
    "error 503",
    "cut",  # accepted, then the connection is cut before the answer
    "garbage",  # 200 with something that is not the answer's form
    "no_id",  # 200 without a handle or a result
)
POLL_BEHAVIOURS = (
    "pending",
    "running",  # with a progress where the vendor has one
    "unknown_word",  # a status nobody has heard of
    "poll 500",
    "poll cut",
    "failed",
    "moderated_late",
    "expired",  # the record is gone
    "no_result",  # done, without a URL or bytes
    "result 403",  # done, but the result's URL is refused
)


class Harness(Protocol):
    """One fake upstream, running on loopback. Everything not told otherwise works at once."""

    provider: Provider
    upstream: Upstream
    """Its base_url leads to the fake; its secret is SECRET."""
    image_model: str | None
    video_model: str | None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def will(self, *behaviours: str) -> None:
        """The next calls of the kind each word belongs to (submit or poll) behave like this, in order."""

    @property
    def accepted(self) -> int:
        """How many submits the fake accepted; a repeat it recognised as the same does not count again."""

    def lacks(self, behaviour: str) -> bool:
        """Whether this vendor's wire has no such case."""


SECRET = "sk-upstream-canary-0123456789abcdef"
