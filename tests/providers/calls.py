"""Builds what a provider's tests hand to a provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.requests import MediaFile
from app.upstreams.http import UpstreamHttp
from app.upstreams.protocols import Call, PublicUrl, Upstream, UpstreamRejected


def no_public_url(file: MediaFile) -> str:
    raise UpstreamRejected(public=f"'{file.field}' needs a public address of this server, and it has none.")


def make_call(
    provider_upstream: Upstream,
    model: str,
    out_dir: Path,
    http: UpstreamHttp,
    token: str = "task:1",  # noqa: S107 - no secret
    public_url: PublicUrl = no_public_url,
    options: Mapping[str, Any] | None = None,
) -> Call:
    out_dir.mkdir(parents=True, exist_ok=True)
    return Call(
        upstream=provider_upstream,
        model=model,
        client_token=token,
        attempt_no=1,
        out_dir=out_dir,
        http=http,
        public_url=public_url,
        options=options or {},
    )
