"""What can be asked without a key is a list, kept in docs/security.md; everything else asks for one first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

DOC = Path(__file__).resolve().parents[2] / "docs" / "security.md"
CONSOLE = "/console"
FILL = {"public_id": "task_01a20d93134c7615a7b08a2ddc2f2f0a", "kind": "image", "name": "0" * 32}


def listed() -> dict[str, str]:
    """Return the table of the document: what is asked, and what protects it instead of a key."""
    rows = re.findall(r"^\| `((?:GET|POST|HEAD)[^`]*)` \| (.+) \|$", DOC.read_text(), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a surface is listed twice"
    return dict(rows)


def flat(routes: list[BaseRoute]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for route in routes:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if isinstance(route, Mount):
            found.append(("GET", f"{route.path}/*"))
        elif isinstance(route, (Route, APIRoute)):
            found += [(method, route.path) for method in sorted(route.methods or ()) if method != "HEAD"]
        elif inner:
            found += flat(list(inner))
        else:
            raise AssertionError(f"a kind of route that this test does not know: {route!r}")
    return found


async def test_what_answers_without_a_key_is_exactly_what_the_document_lists(app, client) -> None:
    open_to_all: dict[str, int] = {}
    routes = [(method, path) for method, path in flat(list(app.routes)) if not path.startswith(CONSOLE)]
    assert len(routes) > 30
    for method, path in routes:
        url = re.sub(r"\{([^}:]+)(:[^}]+)?\}", lambda match: FILL.get(match[1], "1"), path)
        answer = await client.request(method, url.replace("/*", "/nothing"))
        if answer.status_code != 401:
            open_to_all[f"{method} {path}"] = answer.status_code

    assert open_to_all.keys() == {name for name in listed() if CONSOLE not in name}


async def test_every_page_but_those_that_the_document_lists_leads_to_the_sign_in(app, client) -> None:
    open_to_all: dict[str, int] = {}
    for method, path in flat(list(app.routes)):
        if not path.startswith(CONSOLE):
            continue
        url = re.sub(r"\{([^}:]+)(:[^}]+)?\}", lambda match: FILL.get(match[1], "1"), path).replace("/*", "/nothing")
        form = {} if method == "GET" else {"data": {"csrf": "x"}}
        answer = await client.request(method, url, headers={"sec-fetch-site": "same-origin"}, **form)
        if not (answer.status_code == 303 and answer.headers["location"].startswith("/console/login")):
            open_to_all[f"{method} {path}"] = answer.status_code

    assert open_to_all.keys() == {name for name in listed() if CONSOLE in name}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic dTpw", "Bearer sk-mg_" + "a" * 46])
async def test_everything_else_is_refused_before_it_is_looked_at(app, client, header: str) -> None:
    wrong = {}
    for method, path in flat(list(app.routes)):
        if f"{method} {path}" in listed() or path.startswith(CONSOLE):
            continue
        url = re.sub(r"\{([^}:]+)(:[^}]+)?\}", lambda match: FILL.get(match[1], "1"), path)
        headers = {"authorization": header, "content-type": "application/json"} if header else {}
        answer = await client.request(
            method, url, content=b"not even json" if method != "GET" else None, headers=headers
        )
        if (answer.status_code, answer.json()["error"]["type"]) != (401, "unauthorized"):
            wrong[f"{method} {path}"] = answer.text[:200]

    assert wrong == {}
