"""Programs that readers copy: the same calls as curl, Python and JavaScript, with the reader's own base URL.

A new key's snippets run as they stand. Those of the docs page go on from each other: joined they are one program, and
the tests run it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.accounts.principal import USER_SCOPES
from app.catalog.load import Catalog
from app.console.wording import _
from app.requests import Operation

VARIABLE = "MEDIAGATE_KEY"
LANGUAGES: Mapping[str, str] = {"curl": "curl", "python": "Python", "node": "JavaScript"}
FROM_ENVIRONMENT = {
    "curl": f"${VARIABLE}",
    "python": f'os.environ["{VARIABLE}"]',
    "node": f"process.env.{VARIABLE}",
}
WORDS = (
    _("A red fox in fresh snow"),
    _("A red fox runs through fresh snow"),
    _("The fox wears a blue scarf"),
    _("pick takes one value out of a JSON answer."),
    _("OpenAI closed its own video service, so its SDK warns; the calls work here."),
    _("Waits 60 seconds at most: ask again while the status is queued or in_progress."),
)
"""Prompts and remarks, in the reader's language. They stand within quotes of every kind, and so hold none."""


@dataclass(frozen=True, slots=True)
class Snippet:
    language: str
    """Of `LANGUAGES`."""
    text: str

    @property
    def title(self) -> str:
        return LANGUAGES[self.language]


def snippets(
    name: str, base_url: str, *, model: str = "", key: str | None = None, gettext: Callable[[str], str] = str
) -> list[Snippet]:
    """Return one call in all languages. Without a key it is read from the environment, where it is better kept."""
    return [
        Snippet(language, _filled(_said(text, gettext), language, base_url, model, key))
        for language, text in zip(LANGUAGES, CALLS[name], strict=True)
    ]


def first_call(
    catalog: Catalog,
    base_url: str,
    key: str,
    scopes: Sequence[str],
    models: Sequence[str] | None,
    gettext: Callable[[str], str] = str,
) -> list[Snippet]:
    """Return what a new key can do at once: an image, a video where it may make no image, or a look at the models."""
    for scope, name, operation, wish in (
        ("images:write", "first_image", Operation.IMAGE_GENERATE, catalog.default_image_model),
        ("videos:write", "first_video", Operation.VIDEO_GENERATE, catalog.default_video_model),
    ):
        fit = [
            model.id
            for model in catalog.models.values()
            if operation in model.operations and (models is None or model.id in models)
        ]
        if scope in (scopes or USER_SCOPES) and fit:
            return snippets(name, base_url, model=wish if wish in fit else fit[0], key=key, gettext=gettext)
    return snippets("models", base_url, key=key, gettext=gettext)


def _said(text: str, gettext: Callable[[str], str]) -> str:
    for words in WORDS:
        text = text.replace(words, gettext(words))
    return text


def _filled(text: str, language: str, base_url: str, model: str, key: str | None) -> str:
    shown = FROM_ENVIRONMENT[language]
    if key is not None:
        shown = key if language == "curl" else f'"{key}"'
        text = text.replace("import os\n", "")
    return text.strip("\n").replace("@BASE@", base_url).replace("@MODEL@", model).replace("@KEY@", shown)


MODELS = (
    """
curl -sS @BASE@/v1/models -H "Authorization: Bearer @KEY@"
""",
    """
import os

from openai import OpenAI  # pip install openai

client = OpenAI(base_url="@BASE@/v1", api_key=@KEY@)
for model in client.models.list():
    print(model.id)
""",
    """
import OpenAI from "openai"; // npm install openai

const client = new OpenAI({ baseURL: "@BASE@/v1", apiKey: @KEY@ });
for await (const model of client.models.list()) console.log(model.id);
""",
)

IMAGE = (
    """
# pick takes one value out of a JSON answer.
pick() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

url=$(curl -sS @BASE@/v1/images/generations \\
  -H "Authorization: Bearer @KEY@" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "@MODEL@", "prompt": "A red fox in fresh snow", "response_format": "url"}' \\
  | pick "['data'][0]['url']")
curl -sS "$url" -o fox.png
""",
    """
import base64
import os
from pathlib import Path

from openai import OpenAI  # pip install openai

client = OpenAI(base_url="@BASE@/v1", api_key=@KEY@)

image = client.images.generate(model="@MODEL@", prompt="A red fox in fresh snow")
Path("fox.png").write_bytes(base64.b64decode(image.data[0].b64_json))
""",
    """
import fs from "node:fs";
import OpenAI from "openai"; // npm install openai

const client = new OpenAI({ baseURL: "@BASE@/v1", apiKey: @KEY@ });

const image = await client.images.generate({ model: "@MODEL@", prompt: "A red fox in fresh snow" });
fs.writeFileSync("fox.png", Buffer.from(image.data[0].b64_json, "base64"));
""",
)

FIRST_IMAGE = IMAGE

FIRST_VIDEO = (
    """
# pick takes one value out of a JSON answer.
pick() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

id=$(curl -sS @BASE@/v1/videos/generations \\
  -H "Authorization: Bearer @KEY@" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "@MODEL@", "prompt": "A red fox runs through fresh snow"}' | pick "['id']")

while true; do
  task=$(curl -sS "@BASE@/v1/tasks/$id?wait=60" -H "Authorization: Bearer @KEY@")
  case "$task" in *'"status":"queued"'*|*'"status":"in_progress"'*) ;; *) break ;; esac
done
curl -sS "$(printf '%s' "$task" | pick "['video_url']")" -o fox.mp4
""",
    """
import os
import warnings

from openai import OpenAI  # pip install openai

# OpenAI closed its own video service, so its SDK warns; the calls work here.
warnings.simplefilter("ignore", DeprecationWarning)
client = OpenAI(base_url="@BASE@/v1", api_key=@KEY@)

video = client.videos.create_and_poll(model="@MODEL@", prompt="A red fox runs through fresh snow")
client.videos.download_content(video.id).write_to_file("fox.mp4")
""",
    """
import fs from "node:fs";
import OpenAI from "openai"; // npm install openai

const client = new OpenAI({ baseURL: "@BASE@/v1", apiKey: @KEY@ });

let video = await client.videos.create({ model: "@MODEL@", prompt: "A red fox runs through fresh snow" });
while (video.status === "queued" || video.status === "in_progress") {
  await new Promise((resolve) => setTimeout(resolve, 1000));
  video = await client.videos.retrieve(video.id);
}
const content = await client.videos.downloadContent(video.id);
fs.writeFileSync("fox.mp4", Buffer.from(await content.arrayBuffer()));
""",
)

EDIT = (
    """
url=$(curl -sS @BASE@/v1/images/edits \\
  -H "Authorization: Bearer @KEY@" \\
  -F model=@MODEL@ -F image=@fox.png -F mask=@mask.png \\
  -F prompt="The fox wears a blue scarf" -F response_format=url \\
  | pick "['data'][0]['url']")
curl -sS "$url" -o scarf.png
""",
    """
edit = client.images.edit(
    model="@MODEL@",
    image=Path("fox.png"),
    mask=Path("mask.png"),
    prompt="The fox wears a blue scarf",
)
Path("scarf.png").write_bytes(base64.b64decode(edit.data[0].b64_json))
""",
    """
const edit = await client.images.edit({
  model: "@MODEL@",
  image: fs.createReadStream("fox.png"),
  mask: fs.createReadStream("mask.png"),
  prompt: "The fox wears a blue scarf",
});
fs.writeFileSync("scarf.png", Buffer.from(edit.data[0].b64_json, "base64"));
""",
)

VIDEO = (
    """
id=$(curl -sS @BASE@/v1/videos/generations \\
  -H "Authorization: Bearer @KEY@" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "@MODEL@", "prompt": "A red fox runs through fresh snow"}' | pick "['id']")

# Waits 60 seconds at most: ask again while the status is queued or in_progress.
url=$(curl -sS "@BASE@/v1/tasks/$id?wait=60" -H "Authorization: Bearer @KEY@" | pick "['video_url']")
curl -sS "$url" -o fox.mp4
""",
    """
import warnings

# OpenAI closed its own video service, so its SDK warns; the calls work here.
warnings.simplefilter("ignore", DeprecationWarning)

video = client.videos.create_and_poll(model="@MODEL@", prompt="A red fox runs through fresh snow")
client.videos.download_content(video.id).write_to_file("fox.mp4")
""",
    """
let video = await client.videos.create({ model: "@MODEL@", prompt: "A red fox runs through fresh snow" });
while (video.status === "queued" || video.status === "in_progress") {
  await new Promise((resolve) => setTimeout(resolve, 1000));
  video = await client.videos.retrieve(video.id);
}
const content = await client.videos.downloadContent(video.id);
fs.writeFileSync("fox.mp4", Buffer.from(await content.arrayBuffer()));
""",
)

TASKS = (
    """
curl -sS @BASE@/v1/tasks/$id -H "Authorization: Bearer @KEY@"
curl -sS "@BASE@/v1/tasks?limit=5" -H "Authorization: Bearer @KEY@"
""",
    """
task = client.get(f"/tasks/{video.id}", cast_to=object)
print(task["status"])
""",
    """
const task = await client.get(`/tasks/${video.id}`);
console.log(task.status);
""",
)

IDEMPOTENCY = (
    """
curl -sS @BASE@/v1/images/generations \\
  -H "Authorization: Bearer @KEY@" \\
  -H "Content-Type: application/json" \\
  -H "Idempotency-Key: order-1042" \\
  -d '{"model": "@MODEL@", "prompt": "A red fox in fresh snow", "response_format": "url"}'
""",
    """
image = client.images.generate(
    model="@MODEL@",
    prompt="A red fox in fresh snow",
    extra_headers={"Idempotency-Key": "order-1042"},
)
""",
    """
await client.images.generate(
  { model: "@MODEL@", prompt: "A red fox in fresh snow" },
  { headers: { "Idempotency-Key": "order-1042" } },
);
""",
)

ERRORS = (
    """
curl -sS @BASE@/v1/images/generations \\
  -H "Authorization: Bearer @KEY@" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "no-such-model", "prompt": "A red fox in fresh snow"}'
""",
    """
from openai import APIStatusError

try:
    client.images.generate(model="no-such-model", prompt="A red fox in fresh snow")
except APIStatusError as error:
    print(error.status_code, error.body["reason"], error.body["request_id"])
""",
    """
try {
  await client.images.generate({ model: "no-such-model", prompt: "A red fox in fresh snow" });
} catch (error) {
  console.log(error.status, error.error.reason, error.error.request_id);
}
""",
)

CALLS: Mapping[str, tuple[str, ...]] = {
    "models": MODELS,
    "first_image": FIRST_IMAGE,
    "first_video": FIRST_VIDEO,
    "image": IMAGE,
    "edit": EDIT,
    "video": VIDEO,
    "tasks": TASKS,
    "idempotency": IDEMPOTENCY,
    "errors": ERRORS,
}
