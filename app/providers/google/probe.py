"""Asks Google for its list of models: free, and with the secret.

Which of the two APIs an account uses depends on what it makes, so both may have to be asked.
"""

from __future__ import annotations

from collections.abc import Collection

from app.providers.google.api import Api
from app.providers.google.errors import Said, http_error
from app.providers.google.wire import objects, text
from app.upstreams.http import HASTY, PROBE, Answer, Limits
from app.upstreams.protocols import Call, Probed, UpstreamDenied, UpstreamError, Verdict

PAGE, PAGES = "1000", 5
NO_SUCH_CALL = (404, 405)
_WRONG_KEY = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED"})


async def probe(call: Call, models: Collection[str]) -> Probed:
    """Return what the lists tell. Only the Gemini API's is known to be whole.

    Raises: UpstreamError.
    """
    apis = [Api.of(call.upstream, video=False)]
    if (other := Api.of(call.upstream, video=True)).list_url != apis[0].list_url:
        apis.append(other)
    listed = await _listed(call, apis[0])
    lacking = [model for model in models if model not in listed]
    if len(apis) > 1 and lacking:
        await _heard(call, apis[1])
    is_whole = all(api.is_gemini for api in apis)
    return Probed(Verdict.ACCEPTED, missing=tuple(lacking) if is_whole else None)


async def _heard(call: Call, api: Api) -> None:
    """Let the second API refuse the secret. Raises: UpstreamError, but not where it has no such call for us."""
    try:
        await _listed(call, api, HASTY)
    except UpstreamError as error:
        if error.http_status not in NO_SUCH_CALL:
            raise


async def _listed(call: Call, api: Api, limits: Limits = PROBE) -> frozenset[str]:
    """Return the ids on the list. Raises: UpstreamError."""
    found: set[str] = set()
    token = ""
    for _ in range(PAGES):
        params = {"pageSize": PAGE, **({"pageToken": token} if token else {})}
        answer = await call.http.send(
            "GET", api.list_url, phase="read", headers=api.headers, params=params, limits=limits
        )
        if not answer.is_ok:
            raise _error(answer, api, call)
        key = "models" if api.is_gemini else "publisherModels"
        items = objects(answer.document, key)
        if not items:
            raise UpstreamError("a list without models")
        found |= {text(item, "name").rpartition("/")[2] for item in items}
        token = text(answer.document, "nextPageToken")
        if not token:
            break
    return frozenset(found)


def _error(answer: Answer, api: Api, call: Call) -> UpstreamError:
    secret = call.upstream.secret.get_secret_value() if call.upstream.secret else ""
    error = http_error(answer, "submit" if answer.status == 400 else "read", video=False, secret=secret)
    is_express = not api.is_gemini and "Authorization" not in api.headers
    if is_express and isinstance(error, UpstreamDenied) and not Said.of(answer.document, secret).reasons & _WRONG_KEY:
        # Express keys may call models, but nothing says that they may list them.
        return UpstreamError(f"the Agent Platform shows its list to no express key: {error}", http_status=405)
    return error
