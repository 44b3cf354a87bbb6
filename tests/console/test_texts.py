"""The catalogue holds every text of the console, whole: nothing missing, nothing left over, nothing guessed."""

from __future__ import annotations

import json

from babel.messages.catalog import Message

from app.console import i18n
from tests.console import texts

BRING_UP_TO_DATE = "run: .venv/bin/python -m tests.console.texts"


def catalogued() -> dict[str, Message]:
    """Return the messages of the catalogue by their English singular."""
    return {
        (message.id[0] if isinstance(message.id, tuple) else message.id): message
        for message in i18n.catalog(texts.LANGUAGE)
        if message.id
    }


def test_every_text_is_translated_and_no_translation_is_left_over():
    wanted, held = texts.found(), catalogued()

    assert len(wanted) > 200
    assert wanted.keys() - held.keys() == set(), BRING_UP_TO_DATE
    assert held.keys() - wanted.keys() == set(), BRING_UP_TO_DATE
    assert [key for key, message in held.items() if not all(texts.strings(message))] == []
    assert [key for key, text in wanted.items() if isinstance(text.id, tuple) != isinstance(held[key].id, tuple)] == []


def test_no_translation_is_a_guess():
    catalog = i18n.catalog(texts.LANGUAGE)

    assert [message.id for message in catalog if message.id and message.fuzzy] == []
    assert list(catalog.obsolete) == []


def test_a_translation_has_the_placeholders_of_its_text():
    wrong = {}
    for key, message in catalogued().items():
        wanted = texts.placeholders(" ".join(message.id) if isinstance(message.id, tuple) else message.id)
        for string in texts.strings(message):
            if texts.placeholders(string) != wanted:
                wrong[key] = string

    assert wrong == {}


def test_every_translation_can_be_filled_in():
    """Templates fill in every text: a bare percent sign in one would break its page."""
    wrong = []
    for key, message in catalogued().items():
        wanted = texts.placeholders(" ".join(message.id) if isinstance(message.id, tuple) else message.id)
        values = {name[2:-2]: "1" for name in wanted if name.startswith("%")}
        for string in texts.strings(message):
            try:
                string % values
            except (ValueError, TypeError, KeyError):
                if any(not str(path).endswith(".js") for path, _line in message.locations):
                    wrong.append(key)

    assert wrong == []


def test_scripts_get_the_texts_that_they_use_and_no_others():
    used = {key for key, text in texts.found().items() if any(name.endswith(".js") for name in text.files)}

    module = i18n.script(texts.LANGUAGE)

    assert used
    assert json.loads(module.removeprefix("export default ").removesuffix(";\n")).keys() == used


def test_the_file_is_what_the_command_would_write():
    assert texts.merge()[0] == texts.PO.read_text(encoding="utf-8"), BRING_UP_TO_DATE
