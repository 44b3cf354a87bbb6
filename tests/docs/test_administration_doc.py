"""docs/administration.md: its calls are taken as they stand, from the first to the last, and its commands exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from click import Group

from app.cli import main
from tests.administrator import Administrator

PAGE = (Path(__file__).parents[2] / "docs" / "administration.md").read_text()
IDS = {"key": "key_7", "redeem_code": "code_7"}
"""What the page calls an object that its calls have made."""


def calls() -> list[list[str]]:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("curl ")]


async def test_each_call_of_the_page_does_what_it_says(client, services):
    admin = await Administrator.make(client, services)
    done, made = 0, dict.fromkeys(IDS, "")
    for words in calls():
        options = {name: words[words.index(name) + 1] for name in ("-X", "-d") if name in words}
        [url] = [word for word in words if word.startswith("$MEDIAGATE_URL/")]
        for kind, name in IDS.items():
            url = url.replace(name, made[kind])
        accepts = {"accept": "text/csv"} if "Accept: text/csv" in words else {}
        answer = await client.request(
            options.get("-X", "POST" if "-d" in options else "GET"),
            url.removeprefix("$MEDIAGATE_URL"),
            content=options.get("-d"),
            headers=admin.headers | accepts,
        )

        assert answer.status_code in (200, 201), (url, answer.text)
        if accepts:
            assert answer.headers["content-type"].startswith("text/csv")
        else:
            body = json.loads(answer.content)
            for found in [body, *body.get("data", [])]:
                if isinstance(found, dict) and found.get("object") in made:
                    made[found["object"]] = found["id"]
        done += 1
    assert done > 15


def test_each_command_of_the_table_exists():
    for line in re.findall(r"^\| `mediagate ([^|]*) \|", PAGE, re.MULTILINE):
        name, *commands = re.findall(r"(?<![\w-])[a-z][a-z-]*", line)
        group = main.get_command(None, name)  # type: ignore[arg-type]  # ours needs none
        assert isinstance(group, Group)
        assert set(commands) <= set(group.commands)
