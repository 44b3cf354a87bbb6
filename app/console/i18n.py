"""The console's languages: gettext catalogues read as they stand, and how numbers and times are written.

English is in the code. The other catalogue is ``locales/zh_CN/LC_MESSAGES/messages.po``; a test fails on a text that it
lacks. Scripts get those of its messages that a ``.js`` file uses.
"""

from __future__ import annotations

import gettext
import io
import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

from babel import Locale, dates, negotiate_locale, numbers
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from app.values import utcnow

FOLDER = Path(__file__).parent / "locales"
LANGUAGES: Mapping[str, str] = {"en": "English", "zh_CN": "简体中文"}
DEFAULT = "en"
COOKIE = "mg_language"


@cache
def catalog(language: str) -> Catalog:
    """Return the messages of a language; none for English."""
    path = FOLDER / language / "LC_MESSAGES" / "messages.po"
    if not path.exists():
        return Catalog(locale=language)
    with path.open("rb") as file:
        return read_po(file, locale=language)


@cache
def translations(language: str) -> gettext.NullTranslations:
    compiled = io.BytesIO()
    write_mo(compiled, catalog(language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def script(language: str) -> str:
    """Return the module that gives scripts their texts: ``{English: translation}``."""
    texts = {
        message.id: message.string
        for message in catalog(language)
        if isinstance(message.id, str)
        and message.id
        and message.string
        and any(str(path).endswith(".js") for path, _line in message.locations)
    }
    return f"export default {json.dumps(texts, ensure_ascii=False, sort_keys=True)};\n"


def chosen(account: str | None, cookie: str | None, accept: str) -> str:
    """Return the language of a page: the account's, the cookie's, or the first of the browser's that we have."""
    for wish in (account, cookie):
        if wish is not None and wish in LANGUAGES:
            return wish
    wished = [part.partition(";")[0].strip().replace("-", "_") for part in accept.split(",")][:20]
    spelt = [_ours(wish) for wish in wished if wish]
    return negotiate_locale(spelt, list(LANGUAGES)) or DEFAULT


def _ours(wish: str) -> str:
    """Every Chinese reader is better served with ours than with English."""
    return "zh_CN" if wish.lower().startswith("zh") else wish.partition("_")[0].lower()


class Texts:
    """What one page says, in one language. Times are UTC here; the page's script shows them in the reader's zone."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.tag = language.replace("_", "-")
        self._locale = Locale.parse(language)
        self._translations = translations(language)

    def gettext(self, message: str) -> str:
        return self._translations.gettext(message)

    def ngettext(self, one: str, many: str, number: int) -> str:
        return self._translations.ngettext(one, many, number)

    def number(self, value: float, digits: int = 0) -> str:
        """1234567 -> 1,234,567"""
        pattern = "#,##0" + ("." + "#" * digits if digits else "")
        return numbers.format_decimal(value, format=pattern, locale=self._locale)

    def percent(self, value: float) -> str:
        """0.984 -> 98.4%"""
        return numbers.format_percent(value, format="#,##0.#%", locale=self._locale)

    def moment(self, value: datetime) -> str:
        return dates.format_datetime(value, "yyyy-MM-dd HH:mm:ss", tzinfo=UTC, locale=self._locale)

    def day(self, value: date) -> str:
        return dates.format_date(value, "yyyy-MM-dd", locale=self._locale)

    def ago(self, value: datetime, now: datetime | None = None) -> str:
        """3 minutes ago"""
        return _spaced(dates.format_timedelta(value - (now or utcnow()), add_direction=True, locale=self._locale))

    def duration(self, value: timedelta) -> str:
        seconds = value.total_seconds()
        if seconds < 60:
            return self.gettext("%(seconds)s s") % {"seconds": self.number(seconds, 2 if seconds < 10 else 1)}
        return _spaced(dates.format_timedelta(value, threshold=1.5, format="short", locale=self._locale))

    def size(self, size_bytes: int) -> str:
        """1536 -> 1.5 KiB"""
        value = float(size_bytes)
        for unit in ("B", "KiB", "MiB", "GiB"):
            if value < 1024:
                return f"{self.number(value, 0 if unit == 'B' else 1)} {unit}"
            value /= 1024
        return f"{self.number(value, 1)} TiB"


def _spaced(text: str) -> str:
    """3天前 -> 3 天前, as all our texts are written"""
    return re.sub(r"(?<=\d)(?=[\u4e00-\u9fff])", " ", text)


@cache
def texts(language: str) -> Texts:
    return Texts(language)
