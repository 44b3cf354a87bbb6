"""Asks a vendor, by one free call, whether it takes an account's secret; whatever comes of it is a sentence.

Nothing here counts for an account's health, costs anything, or is a task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from app.requests import MediaFile
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import (
    Call,
    Probe,
    Probed,
    Provider,
    Upstream,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamRejected,
    Verdict,
)
from app.upstreams.wording import cleaned

log = structlog.get_logger(__name__)

PROBE_S = 9.0
NO_SUCH_CALL = (404, 405, 410, 501)

ACCEPTED = "The vendor accepted the secret."
LEFT = "The vendor accepted the secret. Left there: %(balance)s."
ASKS_NONE = "It answers, and asks for no secret."
NOT_JUDGED = "It answers, but shows this to anybody: whether the secret is good was not judged."
LOCAL = "This provider works on this machine: there is no vendor to ask."
NOTHING_FREE = "This provider has no free call, so the vendor was not asked."
NO_CALL = "It answers, but has no such call (status %(status)s): the secret was not judged."
REFUSED = "The vendor refused the secret: %(words)s"
SPENT = "The vendor knows the secret, but the balance or quota there is used up: %(words)s"
UNFIT = "The account cannot be used as it is set up: %(words)s"
BUSY = "It answers, but is busy or limits how often we may ask (status %(status)s): the secret was not judged."
UNREACHABLE = "The vendor cannot be reached: %(words)s"
SLOW = "No answer within %(seconds)s s: nobody can tell."
UNCLEAR = "Its answer does not tell: %(words)s"
BROKEN = "The provider's own code failed (%(words)s)."
SENTENCES = (
    ACCEPTED, LEFT, ASKS_NONE, NOT_JUDGED, LOCAL, NOTHING_FREE, NO_CALL, REFUSED, SPENT, UNFIT, BUSY, UNREACHABLE, SLOW,
    UNCLEAR, BROKEN,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    is_good: bool
    """Nothing is wrong, as far as anybody can tell."""
    text: str
    """One of `SENTENCES`; ``%(name)s`` stands for ``values``."""
    values: Mapping[str, str] = field(default_factory=dict)
    is_sure: bool = True
    """False: the secret was not judged."""
    missing: tuple[str, ...] | None = None
    """Models that the vendor's list lacks; None: no list was told."""
    took_ms: int = 0


async def ask(
    provider: Provider, upstream: Upstream, models: Collection[str], http: UpstreamHttp, *, within_s: float = PROBE_S
) -> Finding:
    """Ask once and say what came of it; nothing is raised, and the sentence holds no secret."""
    started = time.monotonic()
    finding = await _asked(provider, upstream, models, http, within_s)
    return Finding(
        finding.is_good,
        finding.text,
        finding.values,
        is_sure=finding.is_sure,
        missing=finding.missing,
        took_ms=round((time.monotonic() - started) * 1000),
    )


async def _asked(
    provider: Provider, upstream: Upstream, models: Collection[str], http: UpstreamHttp, within_s: float
) -> Finding:
    if not isinstance(provider, Probe):
        return Finding(True, NOTHING_FREE, is_sure=False)
    try:
        async with asyncio.timeout(within_s):
            return _heard(await provider.probe(_call(upstream, http), models), upstream)
    except TimeoutError:
        return Finding(False, SLOW, {"seconds": f"{within_s:g}"}, is_sure=False)
    except UpstreamError as error:
        return _failed(error, upstream)
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything: that is a finding
        log.warning("upstream.probe_broke", provider=provider.name, error=type(error).__name__)
        return Finding(False, BROKEN, {"words": type(error).__name__}, is_sure=False)


def _heard(probed: Probed, upstream: Upstream) -> Finding:
    match probed.verdict:
        case Verdict.LOCAL:
            return Finding(True, LOCAL)
        case Verdict.OPEN if upstream.secret is None:
            return Finding(True, ASKS_NONE, missing=probed.missing)
        case Verdict.OPEN:
            return Finding(True, NOT_JUDGED, is_sure=False, missing=probed.missing)
        case Verdict.ACCEPTED if probed.balance is not None:
            return Finding(True, LEFT, {"balance": probed.balance}, missing=probed.missing)
        case Verdict.ACCEPTED:
            return Finding(True, ACCEPTED, missing=probed.missing)


def _failed(error: UpstreamError, upstream: Upstream) -> Finding:
    status = error.http_status
    words = {"words": _shown(error, upstream)}
    if isinstance(error, UpstreamDenied):
        return Finding(False, SPENT if error.is_spent else UNFIT if status is None else REFUSED, words)
    if isinstance(error, UpstreamBusy):
        if status is None:
            return Finding(False, UNREACHABLE, words)
        return Finding(True, BUSY, {"status": str(status)}, is_sure=False)
    if status in NO_SUCH_CALL:
        return Finding(True, NO_CALL, {"status": str(status)}, is_sure=False)
    return Finding(False, UNCLEAR, words, is_sure=False)


def _shown(error: UpstreamError, upstream: Upstream) -> str:
    """Return what the vendor said, for an administrator: without the secret, addresses and ids."""
    said = str(error)
    if upstream.secret is not None:
        said = said.replace(upstream.secret.get_secret_value(), "...")
    return cleaned(said) or type(error).__name__


def _call(upstream: Upstream, http: UpstreamHttp) -> Call:
    return Call(
        upstream=upstream,
        model="",
        client_token="probe",  # noqa: S106 - no secret
        attempt_no=0,
        out_dir=Path("/nonexistent"),
        http=http,
        public_url=_no_url,
    )


def _no_url(file: MediaFile) -> str:
    raise UpstreamRejected("nothing is sent")
