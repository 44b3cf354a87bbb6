"""Brings the console's catalogue up to date: finds every text of code, templates and scripts, keeps translations.

    .venv/bin/python -m tests.console.texts

rewrites ``app/console/locales/zh_CN/LC_MESSAGES/messages.po``: texts that went are dropped, new ones stand there empty,
and files in ``locales/parts/`` (``msgid`` and ``msgstr``, nothing else) are merged in. What has no translation yet is
printed, and the exit is 1. The same sources give the same file.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from app.console import i18n

CONSOLE = i18n.FOLDER.parent
LANGUAGE = "zh_CN"
PO = i18n.FOLDER / LANGUAGE / "LC_MESSAGES" / "messages.po"
PARTS = i18n.FOLDER / "parts"
METHODS = [
    ("static/vendor/**", "ignore"),
    ("**.py", "python"),
    ("templates/**.html", "jinja2.ext:babel_extract"),
    ("static/**.js", "javascript"),
]
OPTIONS = {"templates/**.html": {"extensions": "jinja2.ext.do", "silent": "false"}}
PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|\{\w+\}")
HEADER = """\
# The console in Simplified Chinese. English is in the code: `python -m tests.console.texts` brings this up to date.
#
# Words, one for each thing:
#   account 账号            API key, secret 密钥       credits 积分            ledger 账本
#   hold 冻结, release 解冻   charge 扣费              refund 退款, 退还        spend 消耗
#   top-up 充值             grant 赠送              correction 更正         redeem code 兑换码
#   upstream 上游           vendor 厂商             provider 提供方         route 路由
#   task 任务               accepted 已受理          running 进行中          result 结果
#   image, picture 图片      prompt 提示词            mask 蒙版              remix 续拍
#   playground 创作台        gallery 作品            revoke 吊销             suspend, disable 停用
#   endpoint 端点           delivery 投递           check the books 对账     reference 参考号
#   answer, response 响应    moderation 内容审核      idempotency key 标识     sign out 退出登录
#   offered 提供中           withdraw 下架           resolve (a task) 强制结束  pool 账号池
# The reader is 你. ID, URL, Base URL, Webhook, worker, YAML and JSON stay as they are. Chinese punctuation (，。：、),
# and a space between Chinese and Latin letters or digits.
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Language: zh_CN\\n"
"Plural-Forms: nplurals=1; plural=0;\\n"

"""

Id = str | tuple[str, str]


@dataclass(slots=True)
class Text:
    """One text and where it is used."""

    id: Id
    files: set[str] = field(default_factory=set)


def found() -> dict[str, Text]:
    """Return every text of the console, by its English singular."""
    texts: dict[str, Text] = {}
    for name, line, message, _comments, context in extract_from_dir(CONSOLE, METHODS, OPTIONS):
        assert context is None, f"{name}:{line}: no contexts here"
        assert message, f"{name}:{line}: an empty text"
        key = message[0] if isinstance(message, tuple) else message
        known = texts.setdefault(key, Text(message))
        if isinstance(message, tuple):
            assert known.id in (message, key), f"{name}:{line}: two plurals of {key!r}"
            known.id = message
        known.files.add(name.replace("\\", "/"))
    return texts


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=LANGUAGE, abort_invalid=True)


def translations(catalog: Catalog) -> Iterator[tuple[str, Message]]:
    """Yield what is translated, by its English singular."""
    for message in catalog:
        if message.id and any(strings(message)):
            yield message.id[0] if isinstance(message.id, tuple) else message.id, message


def strings(message: Message) -> tuple[str, ...]:
    return tuple(message.string) if isinstance(message.string, (tuple, list)) else (message.string or "",)


def placeholders(text: str) -> set[str]:
    return set(PLACEHOLDER.findall(text))


def merge() -> tuple[str, list[str]]:
    """Return the new file, and the texts that nobody has translated."""
    known: dict[str, tuple[str, ...]] = {}
    for path in sorted(PARTS.glob("*.po")) + [PO] * PO.exists():
        known.update((key, strings(message)) for key, message in translations(read(path)))
    catalog, missing = Catalog(locale=LANGUAGE), []
    for key, text in sorted(found().items()):
        string = known.get(key, ("",))
        missing += [key] if not all(string) else []
        is_plural = isinstance(text.id, tuple)
        locations = [(name, 0) for name in sorted(text.files)]
        catalog.add(text.id, string[:1] if is_plural else string[0], locations=locations)
    body = io.BytesIO()
    write_po(body, catalog, omit_header=True, include_lineno=False, width=120, sort_output=False)
    return HEADER + body.getvalue().decode().replace("#, python-format\n", ""), missing


def main() -> int:
    text, missing = merge()
    PO.parent.mkdir(parents=True, exist_ok=True)
    PO.write_text(text, encoding="utf-8")
    sys.stdout.write(
        f"{PO.relative_to(CONSOLE.parents[1])}: {len(found())} texts, {len(missing)} without translation\n"
    )
    for one in missing:
        sys.stdout.write(f"  {one}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
