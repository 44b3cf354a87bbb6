"""The box that seals upstream secrets: what opens where, and what a wrong key says."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr

from app.catalog.secrets import Place
from app.errors import SecretDamaged, WrongSecretsKey
from app.sealing import Sealed, SecretBox
from app.settings import SettingsError, load_settings
from tests.factories import SECRETS_KEY

PLACE = Place("demo", "main", "secret", 3)
OTHER_KEY = "another secrets key that only tests use.."


def test_what_was_sealed_opens_at_its_place_only():
    box = SecretBox(SECRETS_KEY)

    sealed = box.seal(b"sk-canary", PLACE)

    assert box.open(sealed, PLACE) == b"sk-canary"
    assert b"canary" not in sealed.ciphertext
    assert sealed != box.seal(b"sk-canary", PLACE)  # a nonce of its own


@pytest.mark.parametrize(
    "elsewhere",
    [
        Place("other", "main", "secret", 3),
        Place("demo", "other", "secret", 3),
        Place("demo", "main", "seed", 3),
        Place("demo", "main", "secret", 2),
    ],
)
def test_a_secret_that_was_moved_to_another_row_does_not_open(elsewhere: Place):
    box = SecretBox(SECRETS_KEY)
    sealed = box.seal(b"sk-canary", PLACE)

    with pytest.raises(SecretDamaged, match="rotate"):
        box.open(sealed, elsewhere)


def test_a_changed_byte_does_not_open():
    box = SecretBox(SECRETS_KEY)
    sealed = box.seal(b"sk-canary", PLACE)
    changed = bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:]

    with pytest.raises(SecretDamaged, match="'main' \\(version 3\\)"):
        box.open(Sealed(changed, sealed.nonce, sealed.key_id), PLACE)


def test_a_wrong_key_is_a_sentence_that_names_the_variable():
    sealed = SecretBox(SECRETS_KEY).seal(b"sk-canary", PLACE)

    with pytest.raises(WrongSecretsKey) as caught:
        SecretBox(SecretStr(OTHER_KEY)).open(sealed, PLACE)

    assert "MEDIAGATE_SECRETS_KEY is not the one" in caught.value.message
    assert sealed.key_id in caught.value.message


def test_the_first_of_several_keys_seals_and_all_open():
    old = SecretBox(SECRETS_KEY)
    both = SecretBox(SecretStr(f"{OTHER_KEY}, {SECRETS_KEY.get_secret_value()}"))

    sealed_before, sealed_now = old.seal(b"sk-canary", PLACE), both.seal(b"sk-canary", PLACE)

    assert both.open(sealed_before, PLACE) == both.open(sealed_now, PLACE) == b"sk-canary"
    assert sealed_now.key_id == SecretBox(SecretStr(OTHER_KEY)).key_id != sealed_before.key_id


def test_an_empty_key_among_several_is_refused():
    with pytest.raises(SettingsError, match="MEDIAGATE_SECRETS_KEY holds an empty key"):
        SecretBox(SecretStr("one,,two"))


def test_no_repr_shows_a_key():
    box = SecretBox(SECRETS_KEY)

    assert SECRETS_KEY.get_secret_value() not in f"{box!r} {vars(box)!r}"


def test_a_data_folder_of_an_older_version_gets_the_key_it_lacks_once(tmp_path, monkeypatch):
    for name in ("KEY_PEPPER", "LINK_SECRET", "SECRETS_KEY", "ENV"):
        monkeypatch.delenv(f"MEDIAGATE_{name}", raising=False)
    (tmp_path / "secrets.json").write_text(json.dumps({"key_pepper": "p" * 40, "link_secret": "l" * 40}))

    first, second = load_settings(data=tmp_path), load_settings(data=tmp_path)

    assert first.key_pepper == SecretStr("p" * 40)
    assert first.secrets_key is not None
    assert first.secrets_key == second.secrets_key
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("key", ["short", f"{'k' * 40},change-me-change-me-change-me-change-me", f"{'k' * 40},short"])
def test_production_refuses_a_sample_among_the_keys(key: str, monkeypatch):
    for name, value in {
        "ENV": "production",
        "DATABASE_URL": "postgresql://x@127.0.0.1/x",
        "REDIS_URL": "redis://127.0.0.1",
        "PUBLIC_URL": "https://gateway.test",
        "KEY_PEPPER": "p" * 40,
        "LINK_SECRET": "l" * 40,
        "SECRETS_KEY": key,
    }.items():
        monkeypatch.setenv(f"MEDIAGATE_{name}", value)

    with pytest.raises(SettingsError, match="MEDIAGATE_SECRETS_KEY is a sample"):
        load_settings()
