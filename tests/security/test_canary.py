"""Secrets that were planted everywhere are looked for everywhere: no log line and no error or admin answer has one."""

from __future__ import annotations

import base64
import json
from urllib.parse import urlsplit

import pytest
from httpx2 import AsyncClient, Response
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.settings import Settings
from app.storage.links import Links
from app.values import utcnow
from tests.factories import make_account, make_key
from tests.plugins.gateway import FileServer
from tests.security.conftest import Process

UPSTREAM_KEY = "upstream-canary-Qb7dKq2mLx93"
PEPPER = "pepper-canary-0123456789-Jf6Hs2Vy7Ge1"
LINK_SECRET = "link-canary-0123456789-Lw3Ck9Xo5Tb8"
SECRETS_KEY = "sealing-canary-0123456789-Mh4Du7Ai2Sn"
DATA_URL = base64.b64encode(b"data canary " * 9).decode()
PROMPT = "a fox that nobody but its owner knows: prompt-canary-Vr8Pz"
BASIC = base64.b64encode(b"someone:basic-canary-Ke2Yj6").decode()
COOKIE = "cookie-canary-Ux9Fb3Og"
PATH_WORD = "path-canary-sk-mg_Nd5Tw1Qz8Ym3"


@pytest.fixture(scope="module", params=["json", "console"])
def log_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    """Those of every module, with canaries for secrets."""
    return settings.model_copy(
        update={
            "key_pepper": SecretStr(PEPPER),
            "link_secret": SecretStr(LINK_SECRET),
            "secrets_key": SecretStr(SECRETS_KEY),
            "log_level": "debug",
        }
    )


async def test_no_secret_is_logged_or_told(
    process: Process,
    outside: AsyncClient,
    engine: AsyncEngine,
    settings: Settings,
    file_server: FileServer,
    log_format: str,
) -> None:
    assert settings.database_url is not None
    password = urlsplit(settings.database_url.get_secret_value()).password
    assert password
    admin = await make_account(engine, is_admin=True)
    user = await make_account(engine, credits=100)
    admin_key = (await make_key(engine, admin, pepper=SecretStr(PEPPER), scopes=("admin:*",))).secret
    key = (await make_key(engine, user, pepper=SecretStr(PEPPER))).secret
    seen: list[Response] = []
    mine, theirs = {"authorization": f"Bearer {key}"}, {"authorization": f"Bearer {admin_key}"}

    async def ask(method: str, path: str, *, headers: dict[str, str] = mine, **more: object) -> Response:
        answer = await outside.request(method, path, headers=headers | {"cookie": f"mg={COOKIE}"}, **more)
        if answer.status_code >= 400 or path.startswith("/admin"):
            seen.append(answer)
        return answer

    # An administrator's day: an upstream with a secret, used, changed, refused.
    image = await ask("POST", "/v1/images/generations", json={"prompt": PROMPT})  # made by the demo, as yet
    name = f"canary-{log_format}"
    upstream = {"name": name, "provider": "openai", "base_url": "https://127.0.0.1:9/v1", "secret": UPSTREAM_KEY}
    made = await ask("POST", "/admin/v1/upstreams", headers=theirs, json=upstream)
    await ask("POST", "/admin/v1/upstreams", headers=theirs, json=upstream)
    await ask("POST", "/admin/v1/upstreams", headers=theirs, json=upstream | {"name": "x", "secrets": UPSTREAM_KEY})
    route = {"model": "gpt-image-2", "upstream": name, "upstream_model": "gpt-image-2"}
    routed = await ask("POST", "/admin/v1/routes", headers=theirs, json=route)
    await ask("POST", f"/admin/v1/upstreams/{name}/rotate", headers=theirs, json={"secret": UPSTREAM_KEY, "x": PROMPT})
    for path in ("/admin/v1/upstreams", f"/admin/v1/upstreams/{name}", "/admin/v1/routes", "/admin/v1/tasks"):
        await ask("GET", path, headers=theirs)
    await ask("GET", "/admin/v1/tasks")

    # A caller's day, and everything that can be wrong with it.
    await ask("POST", "/v1/images/generations", json={"prompt": PROMPT, "model": "gpt-image-2"})
    await ask("POST", "/v1/images/generations", json={"prompt": PROMPT + " [[fail]]"})
    await ask("POST", "/v1/images/generations", json={"prompt": PROMPT, "size": key})
    await ask("POST", "/v1/images/generations", json={"prompt": [PROMPT]})
    await ask("POST", "/v1/images/generations", json={"prompt": PROMPT, PROMPT: 1})
    await ask("POST", "/v1/images/generations", content=json.dumps({"prompt": PROMPT})[:-1])
    await ask("POST", "/v1/images/edits", json={"prompt": PROMPT, "image": f"data:image/png;base64,{DATA_URL}"})
    await ask("POST", "/v1/images/edits", json={"prompt": PROMPT, "image": f"data:text/html;base64,{DATA_URL}"})
    secret_url = file_server.url("x.png", b"no image") + "?signature=url-canary-Bq4"
    await ask("POST", "/v1/images/edits", json={"prompt": PROMPT, "image": secret_url})
    hook = await ask(
        "POST", "/v1/webhook_endpoints",
        json={"name": "c", "url": f"https://{file_server.host}/hook", "event_types": ["image.completed"]},
    )  # fmt: skip
    webhook_secret = hook.json().get("signing_secret") or (
        await ask("GET", "/v1/webhook_settings/signing_secret")
    ).json().get("signing_secret")
    await ask("GET", f"/v1/tasks/{PATH_WORD}")
    await ask("GET", f"/{PATH_WORD}?token={key}")
    for header in (f"Basic {BASIC}", f"Bearer {key[:-1]}", f"Token {key}", key):
        await ask("GET", "/v1/me", headers={"authorization": header})

    await ask("DELETE", f"/admin/v1/routes/{routed.json().get('id')}", headers=theirs)

    # Links, whole and broken.
    links = Links(SecretStr(LINK_SECRET), process.base_url)
    url = links.sign(image.json()["id"], "image", utcnow().replace(year=utcnow().year + 1))
    signature = url.rpartition("=")[2]
    assert (await ask("GET", url, headers={})).status_code == 200
    await ask("GET", url.replace("/image?", "/thumbnail?"), headers={})

    assert (made.status_code, routed.status_code) == (201, 201), (made.text, routed.text)
    assert image.status_code == 200, image.text
    assert len([answer for answer in seen if answer.status_code >= 400]) > 15
    canaries = {
        "API key": key, "administrator's key": admin_key, "upstream key": UPSTREAM_KEY, "pepper": PEPPER,
        "database password": password, "link secret": LINK_SECRET, "sealing key": SECRETS_KEY,
        "signature": signature, "data URL": DATA_URL, "prompt": "prompt-canary", "Basic": BASIC, "cookie": COOKIE,
        "webhook secret": webhook_secret, "signed reference": "url-canary",
    }  # fmt: skip
    log = process.log.read_text()
    assert len(log.splitlines()) > 8
    assert (log.lstrip()[0] == "{") == (log_format == "json")
    assert {name for name, canary in canaries.items() if canary in log} == set()
    told = "\n".join(f"{answer.request.url.path} {answer.text} {dict(answer.headers)}" for answer in seen)
    # A caller's own words may come back to the caller: an unknown field or a bad value is named.
    own = {"prompt"}
    assert {name for name, canary in canaries.items() if canary in told} - own == set()
    admin_told = "\n".join(answer.text for answer in seen if "/admin/" in str(answer.request.url))
    rows = await db.once(engine, "SELECT before::text || after::text AS text FROM audit WHERE before IS NOT NULL")
    assert UPSTREAM_KEY not in admin_told + str([row["text"] for row in rows])
