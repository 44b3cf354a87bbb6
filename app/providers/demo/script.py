"""What a prompt may script: ``[[delay=3]] [[fail]] [[policy]] [[busy]] [[lose]] [[short=4]]``; see docs/demo.md."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_DELAY_S = 3600.0
DEFAULT_DELAY_S = 3.0
ALWAYS = -1

_MARK = re.compile(
    r"\[\[\s*(delay|fail|policy|busy|lose|short)\s*(?:=\s*(\d{1,6}(?:\.\d{1,3})?)\s*)?\]\]", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Script:
    """How one request shall go wrong, and the prompt without the marks."""

    text: str
    delay_s: float = 0.0
    fail: bool = False
    policy: bool = False
    busy: int = 0
    """How many first attempts find us busy; ALWAYS: each of them."""
    lose: bool = False
    short_s: int | None = None


def parse_script(prompt: str) -> Script:
    """Read the marks of a prompt. A mark we do not know stays in the text."""
    marks = {name.lower(): value for name, value in _MARK.findall(prompt)}
    delay = float(marks["delay"] or DEFAULT_DELAY_S) if "delay" in marks else 0.0
    return Script(
        text=re.sub(r"[ \t]{2,}", " ", _MARK.sub(" ", prompt)).strip() if marks else prompt,
        delay_s=min(delay, MAX_DELAY_S),
        fail="fail" in marks,
        policy="policy" in marks,
        busy=(int(float(marks["busy"])) if marks["busy"] else ALWAYS) if "busy" in marks else 0,
        lose="lose" in marks,
        short_s=max(1, int(float(marks["short"] or 1))) if "short" in marks else None,
    )
