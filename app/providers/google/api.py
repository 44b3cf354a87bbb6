"""Where one account's API is, and how it is called.

Options of the account:
    api       ``gemini`` or ``agent`` (the Agent Platform, formerly Vertex AI). Absent: videos and accounts with a
              ``project`` use the Agent Platform, images the Gemini API.
    project   of the Agent Platform: the secret is an OAuth access token then, else an express key.
    location  beside ``project``; absent: ``global`` for images, ``us-central1`` for videos.
    version   of the API; absent: ``v1beta`` (Gemini), ``v1beta1`` (Agent Platform).
    person_generation   sent with each video as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeGuard
from urllib.parse import quote

from yarl import URL

from app.upstreams.protocols import Upstream, UpstreamDenied

GEMINI_URL = "https://generativelanguage.googleapis.com"
_KINDS = ("gemini", "agent")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_OPERATION = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._~:-]*(/[A-Za-z0-9_-][A-Za-z0-9._~:-]*)+")
_MULTI_REGIONS = frozenset({"us", "eu"})


def is_gemini(upstream: Upstream, *, video: bool) -> bool:
    """Whether the account speaks the Gemini API. Raises: UpstreamDenied for an option nobody knows."""
    kind = upstream.options.get("api") or ("agent" if video or upstream.options.get("project") else "gemini")
    if kind not in _KINDS:
        raise UpstreamDenied(f"option 'api' must be one of {', '.join(_KINDS)}")
    return bool(kind == "gemini")


@dataclass(frozen=True, slots=True)
class Api:
    """One of the two APIs, seen with one account's key."""

    is_gemini: bool
    base: str
    """Scheme and host, maybe a path, without the version."""
    version: str
    parent: str
    """What stands before ``models/`` in a resource name; empty or with a slash at its end."""
    headers: dict[str, str]
    """With the secret: only for ``base``."""

    @classmethod
    def of(cls, upstream: Upstream, *, video: bool) -> Api:
        """Raises: UpstreamDenied when the account lacks a key, or an option makes no sense."""
        secret = upstream.secret.get_secret_value().strip() if upstream.secret else ""
        if not secret or not secret.isascii() or not secret.isprintable():
            raise UpstreamDenied("the account has no usable key")
        by_key = {"x-goog-api-key": secret}
        version = str(upstream.options.get("version") or "")
        base = (upstream.base_url or "").rstrip("/")
        if is_gemini(upstream, video=video):
            return cls(True, base or GEMINI_URL, version or "v1beta", "", by_key)
        project = str(upstream.options.get("project") or "")
        location = str(upstream.options.get("location") or ("us-central1" if video else "global"))
        if not project:
            return cls(False, base or _agent_url("global"), version or "v1beta1", "publishers/google/", by_key)
        if not (_WORD.fullmatch(project) and _WORD.fullmatch(location)):
            raise UpstreamDenied("option 'project' or 'location' is malformed")
        return cls(
            False,
            base or _agent_url(location),
            version or "v1beta1",
            f"projects/{project}/locations/{location}/publishers/google/",
            {"Authorization": f"Bearer {secret}"},
        )

    def method(self, model: str, name: str) -> str:
        """Return the URL of a method of a model."""
        return f"{self.base}/{self.version}/{self.parent}models/{quote(model, safe='')}:{name}"

    @property
    def list_url(self) -> str:
        """The URL of the list of models: the Agent Platform's belongs to no project."""
        parent = "" if self.is_gemini else "publishers/google/"
        return f"{self.base}/{self.version}/{parent}models"

    def serves(self, url: str) -> bool:
        """Whether the URL leads to this API's own origin, and may be called with its key."""
        try:
            return URL(url).origin() == URL(self.base).origin()
        except ValueError:
            return False

    def operation(self, name: str) -> str:
        """Return the URL of an operation (Gemini)."""
        return f"{self.base}/{self.version}/{name}"

    def fetch_operation(self, name: str, model: str) -> str:
        """Return the URL that tells of an operation (Agent Platform): a method of the model that the name holds."""
        resource, found, _ = name.rpartition("/operations/")
        if not found:
            return self.method(model, "fetchPredictOperation")
        return f"{self.base}/{self.version}/{resource}:fetchPredictOperation"


def is_operation_name(name: object) -> TypeGuard[str]:
    """Whether this may stand in a URL of ours: segments without ``..``, queries or escapes."""
    return isinstance(name, str) and len(name) <= 512 and _OPERATION.fullmatch(name) is not None


def _agent_url(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"
