"""The READMEs: every example runs against a real gateway, the prices are the catalogue's, links lead somewhere."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from app.catalog.load import load_catalog
from app.credits.ledger import Ledger
from app.providers.demo.script import parse_script
from app.settings import write_private
from app.upstreams.registry import discover
from tests.factories import PEPPER, engine_of, make_account, make_key
from tests.plugins.gateway import LINK_SECRET, Gateway

ROOT = Path(__file__).resolve().parents[2]
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [
    *READMES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *ROOT.glob("docs/**/*.md"),
]
RUN = {"bash", "python", "javascript"}
NOT_RUN = {
    "python3 dev.py up": "never ends by itself: it is started, used and stopped in the tests of dev.py",
    "python3 dev.py test": "would run this test again",
}
"""Shell examples that are not run here, and why. Whether these commands exist is checked instead."""
UNITS = {"image": "image", "second": "second", "video": "call", "每张": "image", "每秒": "second", "每段": "call"}
START_CREDITS = 10_000
TOUR_CREDITS = 1 + 1 + 73 + 73  # image, edit, video, remix
REPEATED_CREDITS = 1  # an image that is asked for twice with one key
EXAMPLE_S = 90

each_readme = pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    language: str
    code: str


def blocks(readme: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(language, code) for language, code in found]


def code_of(readme: Path, language: str) -> list[str]:
    """Return the examples of one language that are run."""
    return [block.code for block in blocks(readme) if block.language == language and block.code.strip() not in NOT_RUN]


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder that looks like a checkout whose gateway runs, with an account of its own for the demo key."""

    folder: Path
    gateway: Gateway
    account_id: int

    def run(self, command: str) -> str:
        """Run a command line as a reader would in that folder; return what it printed."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MEDIAGATE_", "PYTHON"))}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=EXAMPLE_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n\n{done.stdout}"
        return done.stdout

    def spent(self) -> int:
        async def balance() -> int:
            async with engine_of(self.gateway.database_url) as engine:
                found = await Ledger(engine).balance(self.account_id)
            assert found.held == 0
            return found.credits

        return START_CREDITS - asyncio.run(balance())

    def assert_toured(self, *, and_spent: int = 0) -> None:
        """Both pictures and both videos are there, none like another, and cost what the price table says."""
        for name in ("fox.png", "scarf.png"):
            with Image.open(self.folder / name) as image:
                image.load()
                assert (image.format, image.size) == ("PNG", (1024, 1024))
        for name in ("fox.mp4", "lantern.mp4"):
            assert (self.folder / name).read_bytes()[4:8] == b"ftyp"
        made = {(self.folder / name).read_bytes() for name in ("fox.png", "scarf.png", "fox.mp4", "lantern.mp4")}
        assert len(made) == 4
        assert self.spent() == TOUR_CREDITS + and_spent


@pytest.fixture
def checkout(gateway: Gateway, tmp_path: Path) -> Checkout:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "config").symlink_to(ROOT / "config")
    data = tmp_path / "data"
    data.mkdir()
    (data / "files").symlink_to(gateway.settings.storage_dir)
    redis_url = gateway.settings.redis_url
    assert redis_url is not None
    addresses = {"database_url": gateway.database_url, "redis_url": redis_url.get_secret_value()}
    write_private(data / "instance.json", {**addresses, "public_url": gateway.base_url, "pid": gateway.api.pid})
    write_private(data / "secrets.json", {"key_pepper": PEPPER.get_secret_value(), "link_secret": LINK_SECRET})
    account_id, key = asyncio.run(_new_account(gateway))
    write_private(data / "credentials.json", {"base_url": gateway.base_url, "admin_key": key, "demo_key": key})
    return Checkout(tmp_path, gateway, account_id)


async def _new_account(gateway: Gateway) -> tuple[int, str]:
    account = await make_account(gateway.database_url, credits=START_CREDITS)
    return account.id, (await make_key(gateway.database_url, account)).secret


def make_mask(folder: Path) -> None:
    """Make the mask that the shell's examples made."""
    mask = Image.new("RGBA", (1024, 1024), "black")
    mask.paste((0, 0, 0, 0), (256, 256, 768, 768))
    mask.save(folder / "mask.png")


# --- the examples run -----------------------------------------------------------------------------------------------


@each_readme
def test_the_shell_examples_run_in_one_terminal(readme: Path, checkout: Checkout):
    examples = code_of(readme, "bash")

    output = checkout.run("\n".join(examples))

    checkout.assert_toured(and_spent=REPEATED_CREDITS)
    assert output.count("idempotent-replayed: true") == 1
    assert "1500 credits, 0 held" in output
    assert "No credits were charged" in output
    assert "VIOLATIONS" not in output


def test_the_python_example_runs(checkout: Checkout):
    readme = READMES[0]  # the other one's is the same but for its prompts, says a test below
    variables, (example,) = code_of(readme, "bash")[0], code_of(readme, "python")
    (checkout.folder / "tour.py").write_text(example)
    make_mask(checkout.folder)

    output = checkout.run(f"{variables}\n.venv/bin/python tour.py")

    checkout.assert_toured()
    assert output == ""


def test_the_node_example_runs(checkout: Checkout):
    readme = READMES[0]  # as above
    if shutil.which("node") is None or not NODE_MODULES.exists():
        pytest.skip("needs Node and its SDK: npm ci --prefix tests/node")
    variables, (example,) = code_of(readme, "bash")[0], code_of(readme, "javascript")
    (checkout.folder / "tour.mjs").write_text(example)
    (checkout.folder / "node_modules").symlink_to(NODE_MODULES)
    make_mask(checkout.folder)

    output = checkout.run(f"{variables}\nnode tour.mjs")

    checkout.assert_toured()
    assert output == ""


@each_readme
def test_no_example_is_forgotten(readme: Path):
    languages = {block.language for block in blocks(readme)}
    not_run = {block.code.strip() for block in blocks(readme)} & NOT_RUN.keys()

    assert languages == RUN | {"text"}  # text: the layout of the code
    assert not_run == NOT_RUN.keys()


@pytest.mark.parametrize("command", NOT_RUN)
def test_a_command_that_is_not_run_here_exists(command: str):
    python, script, name = command.split()

    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True)

    assert python == "python3"
    assert re.search(rf"^ +{name} ", done.stdout, re.MULTILINE)


def test_both_readmes_show_the_same_code():
    english, chinese = (
        [(block.language, without_wording(block.code)) for block in blocks(readme) if block.language != "text"]
        for readme in READMES
    )

    assert chinese == english


def without_wording(code: str) -> str:
    """Return code without its comments, its prompts, and what must differ to run twice: the account, the invoice."""
    code = re.sub(r"""(\bprompt["']?\s*[:=]\s*)(["'])[^"']*\2""", r"\1PROMPT", code)
    return re.sub(r"^ *(#|//).*\n", "", code, flags=re.MULTILINE).replace("xiaoming@", "ada@").replace("-18", "-17")


# --- what is said is so ---------------------------------------------------------------------------------------------


@each_readme
def test_the_price_table_is_the_catalogues(readme: Path):
    capabilities = {name: provider.capabilities for name, provider in discover().items()}
    catalog = load_catalog(ROOT / "config", providers=capabilities)
    summaries = {name: model.price_summary() for name, model in catalog.models.items()}

    shown = price_table(readme.read_text())

    assert shown == {name: (price["unit"], price["credits"]) for name, price in summaries.items()}


def price_table(text: str) -> dict[str, tuple[str, int | dict[str, int]]]:
    """Read the rows ``| `model`, `model` | tier 1, tier 2 | unit |``."""
    found: dict[str, tuple[str, int | dict[str, int]]] = {}
    for names, credits, unit in re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE):
        tiers = {tier: int(price) for tier, price in re.findall(r"(\w+) (\d+)", credits)}
        for name in re.findall(r"`(.*?)`", names):
            assert name not in found
            found[name] = UNITS[unit], tiers or int(credits)
    return found


@each_readme
def test_the_stage_directions_are_the_demo_providers(readme: Path):
    marks = set(re.findall(r"\[\[\w+(?:=\d+)?\]\]", readme.read_text()))

    assert len(marks) == 6
    assert {parse_script(mark).text for mark in marks} == {""}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_within_the_project_leads_somewhere(page: Path):
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if "://" not in target]

    missing = [target for target in targets if not (page.parent / target).exists()]

    assert missing == []
