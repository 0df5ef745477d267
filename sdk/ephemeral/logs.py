"""Logging for every room: lines for people or JSON objects, on stderr, with credentials taken out wherever they came from.

`begin()` is the first line of a process. Settings: EPHEMERAL_LOG (level), EPHEMERAL_LOG_FORMAT (text or json). Standard
library only; a JSON line is small enough to be written by hand, and every room has to be able to import this.

    {"time": "2026-09-21T14:13:20.250Z", "level": "warning", "logger": "ephemeral_sandboxd.daemon", "message": "…", "session": "s1"}

Whatever a call passes as `extra` becomes a field; `exception` holds a traceback.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from ephemeral import settings

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("text", "json")

HIDDEN = "[redacted]"

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Authorization: Bearer x, 'authorization': 'Basic x', Proxy-Authorization=x, X-API-Key: x, Cookie: a=b
    (
        re.compile(
            r"""((?:proxy-)?authorization|x-api-key|api-key|set-cookie|cookie)((?:["']\s*,|["']?\s*[:=])\s*(?:[bB](?=["']))?["']?)(?:(?:bearer|basic|digest|token)\s+)?[^\s"',;]+""",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    # Bearer x, but not "the bearer of bad news"
    (re.compile(r"\b(bearer|basic)(\s+)(?=[^\s\"',;]*\d|[^\s\"',;]{20})[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"\b(?:sk[-_]|[pr]k_|key-(?=[A-Za-z0-9_-]*\d)|gh[a-z]_|github_pat_|glpat-|xox[a-z]-|hf_|gsk_|npm_|pypi-Ag)[A-Za-z0-9_-]{8,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{30,}"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"), HIDDEN),  # a JSON web token
    # user:password@ in an address; the last @ before the path ends it
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#\"'<>]*@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    # ?token=x&api_key=y, token='x', "password": "x"
    (
        re.compile(
            r"""((?:^|[^A-Za-z])(?:[a-z0-9]+[_-])*(?:token|api[_-]?key|apikey|secret|password|passwd)["']?\s*[=:]\s*["']?)(?!\[redacted\])[^\s"'&,;)}\]]+""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
"""What every record has; all else came with `extra`."""

_SAFE = (bool, int, float, type(None))


def redact(text: str) -> str:
    """`text` without what looks like a credential: Authorization values, bearer tokens, keys by their prefix, JSON web
    tokens, the user part of addresses, and what is assigned to names like token, api_key, secret, password."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class Text(logging.Formatter):
    """`2026-09-21 14:13:20,250 WARNING ephemeral_sandboxd.daemon: message`, tracebacks below; redacted as a whole."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class Json(logging.Formatter):
    """One object a line, whatever the message holds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        line |= {name: _redacted(value, name) for name, value in vars(record).items() if name not in _OWN and name not in line}
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = redact(record.stack_info)
        return json.dumps(line, ensure_ascii=False, default=str).encode(errors="backslashreplace").decode()


def _redacted(value: object, name: str) -> object:
    """A field of any shape. With its name before it, so that `token` is hidden whatever the token looks like."""
    if isinstance(value, _SAFE):
        return value
    if isinstance(value, Mapping):
        return {str(key): _redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(item, name) for item in value]
    before = f"{name}: "
    return redact(before + str(value)).removeprefix(before)


def begin(least: str | None = None, *, quiet: tuple[str, ...] = ()) -> None:
    """Have every logger of this process write to stderr, as the settings say. Replaces handlers there were.

    `least`: level of libraries (`warning`), where it is above EPHEMERAL_LOG; our own loggers keep that one. `quiet`: loggers
    that only warn. Raises settings.SettingError for a level or a format that is none.
    """
    level = _one_of("log", LEVELS).upper()
    formatter = Json() if _one_of("log_format", FORMATS) == "json" else Text()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    numbers = logging.getLevelNamesMapping()
    root = max(numbers[level], numbers[least.upper()]) if least else numbers[level]
    logging.basicConfig(level=root, handlers=[handler], force=True)
    for name in ("ephemeral", "ephemeral_sandboxd", "ephemeral_predictor", "ephemeral_proxy", "ephemeral_mcp"):
        logging.getLogger(name).setLevel(level)
    for name in quiet:
        logging.getLogger(name).setLevel(max(numbers[level], logging.WARNING))
    logging.captureWarnings(True)


def _one_of(name: str, words: tuple[str, ...]) -> str:
    value = settings.get(name).lower()
    if value not in words:
        raise settings.SettingError(f"EPHEMERAL_{name.upper()} is {value!r}: write {', '.join(words[:-1])} or {words[-1]}")
    return value
