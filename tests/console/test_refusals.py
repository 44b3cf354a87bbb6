"""What an error says to a reader: every error of the code has its words, values and labels, in both languages."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import app
import app.main  # all error classes of the code
from app.console import i18n, refusals
from app.console.refusals import LABELS, of_error, pattern, said
from app.console.sentences import FORMS, PHRASES, REQUESTS, WARNINGS
from app.console.wording import ERRORS
from app.errors import (
    NOT_CHARGED,
    AccountBusy,
    ContentPolicyViolation,
    InputUrlUnreachable,
    InsufficientCredits,
    InvalidMedia,
    InvalidParameter,
    MediagateError,
    MissingParameter,
    ModelNotFound,
    PriceAboveMax,
    TooManyTries,
    UnsupportedParameter,
    UpstreamErrorPublic,
)
from app.values import Credits

CODE = Path(app.__file__).parent
ENGLISH, CHINESE = i18n.texts("en"), i18n.texts("zh_CN")
PROGRAMS = (
    "api/admin/bodies.py",
    "api/admin/deps.py",
    "api/admin/links.py",
    "api/admin/models.py",
    "api/admin/queries.py",
    "api/admin/repeats.py",
    "api/body.py",
    "api/form.py",
    "api/media_fields.py",
    "api/middleware.py",
    "api/multipart.py",
    "api/protocol.py",
    "api/v1/",
    "cli/",
)
"""Refuse what only a program can send: a page does not write malformed JSON, or a part without a name."""
COMPOSED = (
    "Unsupported parameter: '7'. The model '7' does not have it. 7.",
    "7 is not possible for '7' with '7' 7. Allowed: '7' 7.",
    "The URL in '7' 7.",
    "7 is 7 bytes; at most 7 are allowed.",
    "7 is 7. Allowed: PNG with an alpha channel.",
    "7 They must be equal.",
    "7 7. Allowed: 7.",
)
"""Put together of parts that are sentences themselves: they are tried as they come out, below."""


def every_class(base: type[MediagateError] = MediagateError) -> Iterator[type[MediagateError]]:
    yield base
    for child in base.__subclasses__():
        yield from every_class(child)


CLASSES = {kind.__name__: kind for kind in every_class() if kind.__module__.startswith("app.")}


def sample(node: ast.expr) -> str | None:
    """Return a message as it could be, each value a number that also reads as a word; None: it is made elsewhere."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_part(part) for part in values)
    return None


def _part(part: ast.expr) -> str:
    match part:
        case ast.Constant(value=str(text)):
            return text
        case ast.FormattedValue(value=ast.Name(id="NOT_CHARGED")):
            return NOT_CHARGED
    return "7"


def says_itself(kind: type[MediagateError]) -> bool:
    """Whether a class makes its sentence from what it is given."""
    return kind.__init__ is not MediagateError.__init__


def made() -> Iterator[tuple[str, type[MediagateError], str]]:
    """Yield where an error is made, its class and its sentence."""
    for path in sorted(CODE.rglob("*.py")):
        where = path.relative_to(CODE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES:
                kind = CLASSES[node.func.id]
                if node.args and (not says_itself(kind) or len(node.args) > 1):
                    message = sample(node.args[-1])
                    if message is not None and not where.startswith(PROGRAMS):
                        yield f"{where}:{node.lineno}", kind, message


def example(kind: type[MediagateError]) -> MediagateError:
    """Return an error of a class that makes its sentence itself."""
    given: dict[str, Any] = {"int": 7, "str": "x", "Credits": 7, "Credits | None": 7, "Iterable[str]": ("x",)}
    wanted = list(inspect.signature(kind).parameters.values())
    positional = [
        given[str(one.annotation)]
        for one in wanted
        if one.kind is one.POSITIONAL_OR_KEYWORD and one.default is one.empty
    ]
    named = {one.name: given[str(one.annotation)] for one in wanted if one.kind is one.KEYWORD_ONLY}
    return kind(*positional, **named)


def is_chinese(text: str) -> bool:
    return re.search("[\u4e00-\u9fff]", text) is not None


def test_every_sentence_of_an_error_that_a_page_can_meet_is_said_in_the_readers_language() -> None:
    found = list(made())
    unsaid = [
        f"{where}: {message}"
        for where, kind, message in found
        if kind.reason not in ERRORS and message not in COMPOSED and said(message, CHINESE) is None
    ]

    assert len(found) > 150
    assert unsaid == [], "add it to app/console/sentences.py"
    assert {message for _, _, message in found} >= set(COMPOSED)


def test_every_class_of_errors_reads_in_chinese() -> None:
    own = [kind for kind in CLASSES.values() if says_itself(kind)]

    english = [kind.__name__ for kind in own if not is_chinese(of_error(example(kind), CHINESE))]

    assert len(own) > 40
    assert english == [], "add its sentence to app/console/sentences.py, or its reason to app/console/wording.py"


def test_no_sentence_hides_another_one() -> None:
    """What says more stands above what says less: each is found as itself."""
    shapes = [(re.compile(pattern(one)), one) for one in (*REQUESTS, *FORMS, *WARNINGS)]
    filled = {one: re.sub(r"%\((\w+)\)s", "7", one) for _shape, one in shapes}
    found = {one: next(other for shape, other in shapes if shape.fullmatch(text)) for one, text in filled.items()}

    assert {one: other for one, other in found.items() if one != other} == {}
    assert len(set(REQUESTS) | set(FORMS)) == len(REQUESTS) + len(FORMS)
    assert len(set(PHRASES)) == len(PHRASES)


TOLD = [
    (InsufficientCredits(needed=Credits(1200)), "积分不足：此请求需要 1,200 积分。未扣积分。"),
    (PriceAboveMax(credits=Credits(40), max_credits=5), "此请求需要 40 积分，超过 max_credits（5）。未扣积分。"),
    (TooManyTries(30), "尝试次数过多，请 30 秒后再试。"),
    (ModelNotFound("2024", ["a"]), "没有名为 2024 的模型。可用：a。"),
    (
        AccountBusy(in_flight=2, held=80),
        "此账号有 2 个任务正在进行，冻结了 80 积分。请先停用账号，待任务结束后再关闭；或取消这些任务。",
    ),
    (
        InvalidParameter("'rpm' may be at most 6000 here. An administrator can raise it."),
        "“每分钟请求数”在这里最多为 6,000，管理员可以调高。",
    ),
    (
        InvalidParameter("Invalid value for 'duration': 99. Allowed for 'm': an integer from 4 to 15."),
        "“时长”的值 99 无效。m 可用：4 到 15 的整数。",
    ),
    (
        MissingParameter(
            "prompt", "Missing required parameter: 'prompt'. Allowed for 'm': text of 1 to 32,000 characters."
        ),
        "请填写“提示词”。m 可用：1 到 32,000 个字符的文本。",
    ),
    (
        UnsupportedParameter("Unsupported parameter: 'style'. The model 'm' does not have it. No model here has it."),
        "m 不支持“风格”，这里的模型都不支持。",
    ),
    (
        InvalidParameter("'mask' cannot be used alone for 'm'. Allowed: together with 'image_urls' or 'video_url'."),
        "m 不能单独使用“蒙版”，请与“图片”或“要编辑的视频”一起使用。",
    ),
    (
        InvalidParameter(
            "'enable_gif' true is not possible for 'm' with 'resolution' \"1080p\". Allowed: 'resolution' \"720p\"."
        ),
        '“分辨率”为 "1080p" 时，m 的“同时生成 GIF”不能是 true。请将“分辨率”改为 "720p"。',
    ),
    (
        InvalidMedia("'image_urls[1]' is text. Allowed: PNG, JPEG, WebP."),
        "“图片 2”是文本。可用格式：PNG, JPEG, WebP。",
    ),
    (
        InvalidMedia("'mask' is 8x8, the first image is 9x9. They must be equal."),
        "“蒙版”为 8x8，第一张图片为 9x9，尺寸须相同。",
    ),
    (
        InputUrlUnreachable("The URL in 'video_url' could not be read."),
        "无法读取“要编辑的视频”的 URL，请检查后重试。",
    ),
    (
        UpstreamErrorPublic(f"The upstream did not finish in time. {NOT_CHARGED}"),
        "上游未能按时完成。未扣积分，请重试。",
    ),
    (ContentPolicyViolation(f"Blocked. {NOT_CHARGED}"), "内容审核拒绝了此请求，请修改提示词或图片。"),
    (InvalidParameter(f"Face not found. {NOT_CHARGED}"), "Face not found. 未扣积分。"),
    (InvalidParameter("Words that nobody knows."), "Words that nobody knows."),
]


def test_a_reader_is_told_in_chinese_with_values_and_labels() -> None:
    assert [of_error(error, CHINESE) for error, _ in TOLD] == [chinese for _, chinese in TOLD]


def test_what_an_upstream_said_in_words_of_its_own_is_told_once() -> None:
    theirs = ContentPolicyViolation(f"A face. {NOT_CHARGED}")
    ours = UpstreamErrorPublic(f"The upstream did not finish in time. {NOT_CHARGED}")

    assert [refusals.foreign(error, CHINESE) for error in (theirs, ours)] == ["A face.", None]


def test_a_warning_is_told_in_chinese() -> None:
    assert said("'size' was ignored: with 'video_url' the shape is that of the source.", CHINESE) == (
        "已忽略“画面比例”：使用“要编辑的视频”时，画面比例与源视频相同。"
    )


def test_in_english_fields_have_their_labels_too() -> None:
    error = InvalidParameter("'max_in_flight' must be between 0 and 100000.")

    assert of_error(error, ENGLISH) == "'Tasks at once' must be between 0 and 100,000."


def test_scripts_get_the_sentences_as_javascript_reads_them() -> None:
    module = refusals.script("zh_CN")

    assert "(?P" not in module
    assert all(f'"{LABELS[name]}"' not in module for name in ("rpm", "prompt"))
    assert all(is_chinese(CHINESE.gettext(text)) for text in ERRORS.values())
