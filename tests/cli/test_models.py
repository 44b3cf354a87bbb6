"""``mediagate models``: a price is looked at, tried, changed and taken back without a shell script."""

from __future__ import annotations

from pathlib import Path

from tests.cli.test_upstreams import Cli, answer_of, cli, refusal_of

__all__ = ["cli"]  # a fixture


def test_a_price_is_tried_changed_and_given_back_to_the_file(cli: Cli):
    tried = answer_of(cli("models", "price", "gpt-image-2", "credits.hd=4", "--dry-run", "--json"))
    silent = refusal_of(cli("models", "price", "gpt-image-2", "credits.hd=4"))
    changed = answer_of(cli("models", "price", "gpt-image-2", "credits.hd=4", "--note", "Dearer.", "--json"))
    later = cli("models", "price", "gpt-image-2", "credits.hd=5", "--note", "Dearer yet.", "--from", "2031-01-01")
    listed = {model["id"]: model for model in answer_of(cli("models", "list", "--json"))}
    [differing] = answer_of(cli("models", "diff", "--json"), code=1)
    shown = cli("models", "show", "gpt-image-2")
    cancelled = answer_of(cli("models", "cancel", "gpt-image-2", 2, "--json"))
    answer_of(cli("models", "use-file", "gpt-image-2", "--note", "A mistake.", "--json"))

    assert {row["difference"] for row in tried if row["quality"] == "hd"} == {2}
    assert "--note" in silent
    assert (changed["name"], changed["state"], changed["created_by"][:4]) == ("gpt-image-2@1", "in_force", "cli:")
    assert "gpt-image-2@2 begins 2031-01-01 00:00:00Z: Dearer yet." in later.stdout
    assert (listed["gpt-image-2"]["price_version"], listed["gpt-image-2"]["next"]["number"]) == ("gpt-image-2@1", 2)
    assert [(price["before"], price["after"]) for price in differing["prices"]] == [(2, 4)]
    assert "Dearer yet." in shown.stdout
    assert cancelled["state"] == "cancelled"
    assert cli("models", "diff").stdout == "The file holds everywhere.\n"
    assert refusal_of(cli("models", "price", "gpt-image-2", "credits.hd")).endswith("must look like credits.hd=3")


def test_models_leave_as_a_file_and_come_back_from_one(cli: Cli, tmp_path: Path):
    file = tmp_path / "exported.yaml"
    cli("models", "export", file)
    entry = cli("models", "show", "veo3.1-lite", "--yaml").stdout.replace("720p: 36", "720p: 40")
    answer_of(cli("models", "set", "veo3.1-lite", "-", "--note", "New prices.", "--json", input=entry))

    seen = cli("models", "import", file, "--dry-run")
    made = answer_of(cli("models", "import", file, "--note", "As it was.", "--json"))
    wrong = refusal_of(
        cli("models", "set", "veo3.1-lite", "-", "--note", "x", input=entry.replace("720p: 40", "720p: 0"))
    )

    assert "credits.720p 40 -> 36" in seen.stdout
    assert made["versions"] == ["veo3.1-lite@2"]
    assert "models.veo3.1-lite.price.call.credits" in wrong or "models.veo3.1-lite.price.credits" in wrong
    assert cli("models", "diff").exit_code == 0
