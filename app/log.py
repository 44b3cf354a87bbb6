"""The log: one event per line, readable in development and JSON in production, without any secret.

Modules call ``structlog.get_logger(__name__)`` and name events (``task.submitted``); what a whole request or step
shares (``request_id``, ``task_id``) is bound with ``bound``. Lines of libraries pass through the same processors.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.contextvars import bound_contextvars as bound
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["bound", "configure", "redact", "redact_text"]

REMOVED = "[removed]"
SECRET_NAMES = re.compile(
    r"(?i)(authorization|cookie|password|passwd|secret|pepper|signature|credential|api_?key|access_?key|private_?key)"
)
# Each pattern keeps its first group, so that a reader still sees what was there.
SECRET_TEXTS = (
    re.compile(r"(\bdata:)[^\s\"'<>]{0,200}?,[^\s\"'<>]*"),  # a file as a URL
    re.compile(r"(?i)(\bauthorization\b[\"']?\s*[:=]\s*[\"']?(?:[a-z]+\s+)?)[^\s\"',;]+"),
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(r"(\bsk-)[A-Za-z0-9_-]{6,}"),
    re.compile(r"(?i)([?&](?:s|sig|signature|token|key|api_key|x-amz-signature|x-amz-credential)=)[^&\s\"'<>]+"),
    re.compile(r"(?i)([?&](?:code|id_token|access_token)=)[^&\s\"'<>]+"),  # of a sign-in through a provider
    re.compile(r"(/console/join/)[A-Za-z0-9_-]{6,}"),  # a link that sets a password
    re.compile(r"(\bmg=)[A-Za-z0-9_-]{6,}"),  # the console's cookie
    re.compile(r"(?i)(\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@\"']*:)[^\s/@\"']+(?=@)"),  # the password of an address
)
NOISY = {name: logging.WARNING for name in ("alembic", "uvicorn.access", "uvicorn.error", "aiohttp.access", "arq")}
NOISY["python_multipart"] = logging.ERROR  # a line for each malformed form: the caller is told

_processors: list[Processor] = []
"""One list for good: a logger keeps the list it was first used with, and `configure` may be called again."""


def redact_text(text: str) -> str:
    """Return ``text`` without keys, credentials, signatures of URLs and embedded files."""
    for pattern in SECRET_TEXTS:
        text = pattern.sub(rf"\1{REMOVED}", text)
    return text


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove secrets from every value of an event, however deep: the one place that does it."""
    return {name: _clean(name, value) for name, value in event.items()}


def _clean(name: str, value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if value is None or isinstance(value, bool | int | float):
        return value
    if SECRET_NAMES.search(name):
        return REMOVED
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: _clean(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(name, inner) for inner in value]
    return redact_text(str(value))  # an exception, a path, an object: what would be printed


def configure(*, form: Literal["console", "json"], level: str = "info", stream: TextIO | None = None) -> None:
    """Set up the log of this process, for our modules and for libraries. ``stream`` is standard error by default."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso" if form == "json" else "%H:%M:%S", utc=form == "json"),
        structlog.processors.StackInfoRenderer(),
    ]
    stream = stream or sys.stderr
    renderer: Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        # Tracebacks are text before the secrets are removed, hence the plain formatter.
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=28
        )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in NOISY.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(True)
    _processors[:] = [
        structlog.stdlib.filter_by_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        *shared,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
