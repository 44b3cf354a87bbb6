"""What a provider is: small protocols, their values, and the failures sorted by what we may do next.

A provider is pure translation between the neutral requests of ``app.requests`` and one vendor. It sees no session,
price, account or task; what it cannot do, it does not have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import SecretStr

from app.requests import ImageRequest, MediaFile, Operation, VideoRequest

if TYPE_CHECKING:
    from app.upstreams.http import UpstreamHttp


class SubmitSafety(StrEnum):
    """What may be done after a submit whose outcome is unknown."""

    IDEMPOTENT = "idempotent"  # the same client token may be sent again: nothing is made twice
    LISTABLE = "list"  # the upstream's list tells whether it arrived
    BLIND = "blind"  # nobody can tell: give up, release the hold


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, declared once."""

    operations: frozenset[Operation]
    submit: SubmitSafety
    cancel: bool = False
    result_lifetime: timedelta | None = None
    """How long the upstream keeps a result; None: it is handed over with the answer."""
    fetches: frozenset[str] = frozenset()
    """Inputs that the upstream reads by URL, ``videos`` or ``audios``: they need a public address of this gateway."""
    poll_s: float | None = None
    """How often a running video may be asked for; None: the gateway's own pace."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One account at a vendor: where it is, and its secret."""

    name: str
    provider: str
    base_url: str | None = None
    secret: SecretStr | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    work_dir: Path = Path()
    """A folder of this upstream's own on our disk, for providers that work locally."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the upstream says it charged us: millionths of ``currency``."""

    micros: int
    currency: str = "USD"


PublicUrl = Callable[[MediaFile], str]
"""Returns a signed URL of ours under which an upstream can read an input. Raises: UpstreamRejected when we have no
public address."""

PartialSink = Callable[[int, Path], Awaitable[None]]
"""Called with the index (from 0) and the file of an interim image."""


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at one upstream."""

    upstream: Upstream
    model: str
    """The upstream's own model id."""
    client_token: str
    """``<task>:<n>``: unique to the attempt; sent where the upstream understands such a token."""
    attempt_no: int
    out_dir: Path
    """An empty folder where the provider writes what it received. The caller moves the files away and removes it."""
    http: UpstreamHttp
    """The one way out: deadlines, limits, and which failures mean that nothing was accepted."""
    public_url: PublicUrl
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the route; the account's are ``upstream.options``."""


@dataclass(frozen=True, slots=True)
class ImageResult:
    path: Path
    """Raw bytes of the image, complete and flushed."""
    revised_prompt: str | None = None
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class UpstreamJob:
    """The upstream's handle of an accepted video."""

    id: str


@dataclass(frozen=True, slots=True)
class Progress:
    percent: int | None = None
    """0..99, or None when the upstream does not tell."""
    started: bool = True


@dataclass(frozen=True, slots=True)
class Finished:
    """The result lies ready: ``fetch_video`` may be called."""


@dataclass(frozen=True, slots=True)
class VideoResult:
    video: Path
    thumbnail: Path | None = None
    gif: Path | None = None
    cost: Cost | None = None


@runtime_checkable
class Provider(Protocol):
    """Code for one vendor. ``name`` is the word in upstreams.yaml."""

    name: str
    capabilities: Capabilities


@runtime_checkable
class Picky(Protocol):
    """A provider that cannot serve every request of its operations."""

    def why_not(self, request: ImageRequest | VideoRequest, model: str, upstream: Upstream) -> str | None:
        """Return why this request cannot be served with the upstream's ``model``, as a sentence for the caller.

        Pure: asked before anything is promised, and nothing is sent. None: it can.
        """


@runtime_checkable
class SubmitFinder(Protocol):
    """For ``SubmitSafety.LISTABLE``: tells whether a submit of unknown outcome arrived."""

    async def find_submitted(self, request: VideoRequest, call: Call, sent_at: datetime) -> UpstreamJob | None:
        """Return the job that this attempt made; None when the list proves that there is none so far.

        Matches the client token where it was sent, else model, prompt and a creation time within 2 minutes of
        ``sent_at``. None, repeated until it can no longer appear, lets the task be sent anew. Raises: UpstreamError
        when the list could not be read, when several jobs fit, or when a record does not tell yet whether it fits.
        """


class Verdict(StrEnum):
    """What a vendor made of an account's secret when it was asked something free. A refusal is an UpstreamError."""

    ACCEPTED = "accepted"
    OPEN = "open"  # it answers anybody: the secret was not judged, or there is none
    LOCAL = "local"  # there is no vendor to ask


@dataclass(frozen=True, slots=True)
class Probed:
    verdict: Verdict
    missing: tuple[str, ...] | None = None
    """Of the models asked about, those that the vendor's own list lacks; None: no list of its tells."""
    balance: str | None = None
    """What is left at the vendor, such as ``12.50 USD``, where the answer tells."""


@runtime_checkable
class Probe(Protocol):
    """A provider that can ask its vendor something free that changes nothing: does it take this secret?"""

    def needs_secret(self, upstream: Upstream) -> bool:
        """Whether this account cannot be used without a secret."""

    async def probe(self, call: Call, models: Collection[str]) -> Probed:
        """Ask, within seconds (`PROBE`), what costs nothing and is no task. ``call`` has no model and no folder.

        Raises: UpstreamDenied when the vendor refuses the secret (``is_spent``: knows it, but nothing is left);
        UpstreamBusy; UpstreamError when nobody can tell, with ``http_status`` 404 or 405 where it lacks the call.
        """


@runtime_checkable
class ImageGenerator(Protocol):
    async def generate_image(
        self, request: ImageRequest, call: Call, on_partial: PartialSink | None = None
    ) -> ImageResult:
        """Make or edit one image and write it under ``call.out_dir``.

        Raises: UpstreamError, and of its kinds UpstreamOutcomeUnknown if the request may have arrived.
        """


@runtime_checkable
class VideoSubmitter(Protocol):
    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        """Start a video and return the upstream's handle; must not wait for the result.

        Raises: UpstreamError, and of its kinds UpstreamOutcomeUnknown if the request may have arrived.
        """

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        """Ask once. Raises: UpstreamRejected (moderation), UpstreamFailed (ended badly), UpstreamError (ask again)."""

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        """Write the finished result under ``call.out_dir``. May be repeated. Raises: UpstreamError."""


@runtime_checkable
class VideoCanceller(Protocol):
    async def cancel_video(self, job: UpstreamJob, call: Call) -> bool:
        """Ask the upstream to stop. Returns True when it stopped and does not bill; False when it goes on."""


class UpstreamError(Exception):
    """Base. Never shown as it is: messages may hold keys or URLs. ``public`` is safe to show."""

    public: str = "The upstream failed."

    def __init__(
        self,
        message: str = "",
        *,
        public: str | None = None,
        http_status: int | None = None,
        cost: Cost | None = None,
    ) -> None:
        super().__init__(message or self.public)
        if public is not None:
            self.public = public
        self.http_status = http_status
        self.cost = cost
        """What the failure cost us, where the upstream says so."""


class UpstreamRejected(UpstreamError):
    """The caller's input cannot be served: do not retry, tell the caller."""

    public = "The upstream refused this request."


class UpstreamModerated(UpstreamRejected):
    """A safety system blocked it, on the way in or out."""

    public = "The request was refused by the content policy."


class UpstreamBusy(UpstreamError):
    """429, no capacity, connection refused: certainly not accepted; later, or at the next route."""

    public = "The upstream is busy."

    def __init__(
        self, message: str = "", *, retry_after_s: float | None = None, http_status: int | None = None
    ) -> None:
        super().__init__(message, http_status=http_status)
        self.retry_after_s = retry_after_s


class UpstreamDenied(UpstreamError):
    """Our key, our quota or our configuration: certainly not accepted; the operator must look."""

    public = "The upstream is not available."

    def __init__(
        self,
        message: str = "",
        *,
        is_spent: bool = False,
        public: str | None = None,
        http_status: int | None = None,
        cost: Cost | None = None,
    ) -> None:
        super().__init__(message, public=public, http_status=http_status, cost=cost)
        self.is_spent = is_spent
        """The secret is good, but our balance or quota there is used up."""


class UpstreamFailed(UpstreamError):
    """A definite failure: nothing was made."""


class UpstreamOutcomeUnknown(UpstreamError):
    """Sent, no answer: NEVER resubmit without the same client token."""
