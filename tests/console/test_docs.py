"""The docs page, and that what it shows for copying is whole and ours."""

from __future__ import annotations

import ast
import json
import re

import pytest

from app.console import snippets
from app.console.i18n import texts
from app.console.user.docs import CALLS, PARTS
from tests.console.pages import sign_in


@pytest.fixture
async def tab(client, services):
    return await sign_in(client, services)


async def test_each_part_is_there_with_its_programs_in_three_languages(tab, services):
    page = await tab.get("/console/docs")

    assert {section["id"] for section in page.root.all("section")} >= set(PARTS)
    panels = page.root.all(role="tabpanel")
    assert len(panels) == len(CALLS) * len(snippets.LANGUAGES)
    for panel in panels:
        code = panel.one("code").raw
        assert "@" not in re.sub(r"=@\w+\.png", "", code)
        assert all(url.startswith("http://gateway.test/v1") for url in re.findall(r"https?://[^\s\"'`]+", code))
    assert [row.split()[0] for row in page.rows[-len(services.catalog.models) :]] == list(services.catalog.models)
    assert "/docs" in page.links


async def test_the_python_programs_joined_are_one_and_the_json_of_the_curl_lines_is_json(tab):
    page = await tab.get("/console/docs")
    shown = {
        language: [panel.one("code").raw for panel in page.root.all(role="tabpanel", data_language=language)]
        for language in snippets.LANGUAGES
    }

    ast.parse("\n".join(shown["python"]))
    bodies = re.findall(r"-d '(.+?)'", "\n".join(shown["curl"]))
    assert len(bodies) == 4
    assert all(json.loads(body)["prompt"] for body in bodies)


async def test_in_chinese_the_programs_ask_in_chinese_and_are_as_whole(tab, services):
    await services.logins.set_preferences(tab.account.id, "zh_CN", "system")
    page = await tab.get("/console/docs")
    shown = {
        language: "\n".join(panel.one("code").raw for panel in page.root.all(role="tabpanel", data_language=language))
        for language in snippets.LANGUAGES
    }

    ast.parse(shown["python"])
    bodies = [json.loads(body) for body in re.findall(r"-d '(.+?)'", shown["curl"])]
    assert {body["prompt"] for body in bodies} == {"雪地里的一只红狐狸", "红狐狸在雪地里奔跑"}
    assert all("fox " not in text and "雪地里的一只红狐狸" in text for text in shown.values())
    chinese = texts("zh_CN").gettext
    assert not any(re.search("['\"`\\\\$]", chinese(words)) for words in snippets.WORDS)


@pytest.mark.parametrize(
    ("scopes", "models", "calls"),
    [
        ((), None, "images/generations"),
        (("videos:write",), None, "videos/generations"),
        (("images:write",), ("gemini-3-pro-image-preview",), "gemini-3-pro-image-preview"),
        (("images:write", "videos:write"), ("veo3.1-fast",), "veo3.1-fast"),
        (("tasks:read",), None, "/v1/models"),
        (("images:write",), ("veo3.1-fast",), "/v1/models"),
    ],
)
async def test_the_first_call_of_a_key_is_one_that_it_may_make(services, scopes, models, calls):
    found = snippets.first_call(services.catalog, "https://media.example.com", "sk-mg_x", scopes, models)

    assert [one.language for one in found] == list(snippets.LANGUAGES)
    assert calls in found[0].text
    assert all("sk-mg_x" in one.text and "https://media.example.com/v1" in one.text for one in found)
    assert all(snippets.VARIABLE not in one.text for one in found)


async def test_the_root_leads_browsers_to_the_console_and_programs_to_the_reference(client):
    browser = await client.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    program = await client.get("/")

    assert (browser.status_code, browser.headers["location"]) == (302, "/console")
    assert (program.status_code, program.headers["location"]) == (302, "/docs")
