"""Hands inputs to DashScope: small pictures inside the request, all else through the vendor's own upload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from yarl import URL

from app.media.base64_stream import Base64Of
from app.providers.dashscope.errors import not_read
from app.requests import MediaFile
from app.upstreams.http import MIB, POLL, Limits, Part
from app.upstreams.protocols import Call, UpstreamBusy, UpstreamDenied, UpstreamError, UpstreamRejected

INLINE_BYTES = 4 * MIB
"""Of all the pictures of a request; beyond it they are uploaded."""
UPLOAD = Limits(read_s=60.0, total_s=300.0)
STORE_HOSTS = (".aliyuncs.com",)
_SUFFIX = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
}
_FIELDS = (
    ("OSSAccessKeyId", "oss_access_key_id"),
    ("Signature", "signature"),
    ("policy", "policy"),
    ("x-oss-object-acl", "x_oss_object_acl"),
    ("x-oss-forbid-overwrite", "x_oss_forbid_overwrite"),
)


async def addresses(
    files: Sequence[MediaFile], *, model: str, call: Call, url: str, headers: Mapping[str, str]
) -> list[str | Base64Of]:
    """Return what stands for each file in the request: a data: URL, ``oss://...``, or a URL of ours.

    ``model`` is the upstream's id: an upload is good for that one only. The account's option ``inputs: url`` gives our
    signed URLs in place of uploads. Nothing here is paid: whatever goes wrong, the video was not asked for.
    Raises: UpstreamRejected, UpstreamDenied, UpstreamBusy.
    """
    is_inline = sum(file.size_bytes for file in files if file.mime.startswith("image/")) <= INLINE_BYTES
    policy: Mapping[str, Any] | None = None
    found: list[str | Base64Of] = []
    for file in files:
        if is_inline and file.mime.startswith("image/"):
            found.append(Base64Of(file.path, file.size_bytes, prefix=f"data:{file.mime};base64,"))
        elif call.upstream.options.get("inputs") == "url":
            found.append(call.public_url(file))
        else:
            try:
                policy = policy or await _policy(model, call, url, headers)
                found.append(await _upload(file, policy, call, url))
            except (UpstreamRejected, UpstreamDenied, UpstreamBusy):
                raise
            except UpstreamError as error:
                raise UpstreamBusy(f"upload: {error}", http_status=error.http_status) from None
    return found


async def _policy(model: str, call: Call, url: str, headers: Mapping[str, str]) -> Mapping[str, Any]:
    answer = await call.http.send(
        "GET",
        f"{url}/uploads",
        phase="read",
        headers=headers,
        params={"action": "getPolicy", "model": model},
        limits=POLL,
    )
    if not answer.is_ok:
        raise not_read(answer)
    policy = answer.document.get("data") if isinstance(answer.document, dict) else None
    names = [name for _, name in _FIELDS] + ["upload_dir", "upload_host"]
    if not isinstance(policy, dict) or not all(isinstance(policy.get(name), str | bool) for name in names):
        raise UpstreamError("an upload policy of another form")
    return policy


async def _upload(file: MediaFile, policy: Mapping[str, Any], call: Call, url: str) -> str:
    most = policy.get("max_file_size_mb")
    if isinstance(most, int) and file.size_bytes > most * MIB:
        raise UpstreamRejected(public=f"'{file.field}' must not be larger than {most} MiB for this upstream.")
    host = _store(policy["upload_host"], url)
    suffix = _SUFFIX.get(file.mime, "bin")
    key = f"{policy['upload_dir']}/{uuid4().hex}.{suffix}"
    form = [
        *(Part(name, _text(policy[said])) for name, said in _FIELDS),
        Part("key", key),
        Part("success_action_status", "200"),
        Part("x-oss-content-type", file.mime),
        Part("file", file.path, filename=f"file.{suffix}", content_type=file.mime),
    ]
    async with call.http.stream("POST", host, phase="read", form=form, limits=UPLOAD) as response:  # its body is empty
        if response.status != 200:
            raise UpstreamError(f"status {response.status}", http_status=response.status)
    return f"oss://{key}"


def _store(host: str, url: str) -> str:
    """Return the upload's address if it is the vendor's store, or what the account's own address leads to."""
    try:
        target = URL(host)
        if target.origin() == URL(url).origin():
            return host
    except ValueError:
        raise UpstreamError("an upload to no address") from None
    if target.scheme != "https" or target.port != 443 or not f".{target.host}".endswith(STORE_HOSTS):
        raise UpstreamDenied("an upload to somebody else's host")
    return host


def _text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value
