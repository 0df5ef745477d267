"""The load: one Chat Completions request and its streamed answer, known byte by byte to the provider who sends and the client who checks.

Every request is the first of a conversation of its own. The provider tells in the answer's head what it received, by its SHA-256, so each
answer proves both directions. Content deltas carry two times of the provider (monotonic nanoseconds, the same clock in every process of a
machine): when the request was there, and when this delta was sent. Both have a fixed width, zero where nothing is timed.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

WHOLE = "bench"
"""The model that answers in one write, for throughput."""
FIRST = "bench-first"
"""The model whose first delta is sent after a delay, and the rest a little later: for the time to the first token."""
PACED = "bench-paced"
"""The model that sends its content delta by delta, for the time that a delta takes."""
MODELS = (WHOLE, FIRST, PACED)

IDENTICAL, REFRAMED, SAME = "identical", "reframed", "same stream"
"""What an answer can be besides wrong: every byte the same; the same but for where the transfer chunks begin and end; another text that
carries the same content and tool call."""

DIGITS = 19
STAMP = re.compile(rb"@(\d{19})#(\d{19})")
UNTIMED = b"@" + b"0" * DIGITS + b"#" + b"0" * DIGITS
END = b"\r\n0\r\n\r\n"

_HOST = re.compile(rb"\r\nhost:[^\r]*", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)

_CODE = """import pandas as pd
import matplotlib.pyplot as plt

sales = pd.read_csv("sales.csv", parse_dates=["day"])
monthly = sales.groupby(sales["day"].dt.to_period("M"))["amount"].agg(["sum", "mean", "count"])
print(monthly.sort_values("sum", ascending=False).head(12))
monthly["sum"].plot(kind="bar", figsize=(10, 4), title="Revenue by month")
plt.tight_layout()
plt.savefig("revenue.png", dpi=120)
"""
_WORDS = ("I'll", "load", "the", "file,", "group", "it", "by", "month", "and", "draw", "the", "revenue", "as", "bars.", "First", "a", "look", "at", "the", "data.")
_PIECE = 24
"""Characters of the tool call's arguments in one delta."""

_ANSWER_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 01 Nov 2026 12:00:00 GMT\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: keep-alive\r\nopenai-processing-ms: 137\r\nopenai-version: 2020-10-01\r\nx-request-id: req_8f14e45fceea167a5a36dedd4bea2543\r\n"
    b"X-Request-SHA256: %s\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n\r\n"
)


# ------------------------------------------------------------------------------------------------------- requests


class Requests:
    """Requests for ``model`` to the server at ``port`` of 127.0.0.1. ``series`` tells those of one client from those of another; ``timed``:
    whether the answers' deltas carry times."""

    def __init__(self, model: str, port: int, series: int):
        body = json.dumps(_question(model), separators=(",", ":")).encode()
        before, after = body.split(b"NUMBER")
        length = len(before) + len(after) + 20
        self._head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
            b"Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 3.54.0\r\nX-Stainless-Lang: python\r\n"
            b"X-Stainless-Async: async:asyncio\r\nAuthorization: Bearer sk-bench\r\nx-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n"
            b"Content-Length: %d\r\n\r\n" % (port, length)
        ) + before
        self._after = after
        self.timed = model != WHOLE
        self._series = series
        self._count = 0

    def next(self) -> tuple[bytes, bytes]:
        """A request that was never sent before, and its digest."""
        self._count += 1
        request = self._head + b"%010d%010d" % (self._series, self._count) + self._after
        return request, digest(request)


def digest(request: bytes) -> bytes:
    """SHA-256 of every byte of a request, in hexadecimal, but for the Host header: that names the server that was asked."""
    return hashlib.sha256(_HOST.sub(b"", request, count=1)).hexdigest().encode()


def request_length(received: bytes | bytearray) -> int | None:
    """How long the request is that ``received`` begins with; None while its head is not complete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _LENGTH.search(received, 0, end)
    return end + 4 + (int(length[1]) if length else 0)


def _question(model: str) -> dict[str, Any]:
    parameters = {
        "type": "object", "required": ["code"],
        "properties": {"code": {"type": "string", "description": "Python source. Files of earlier calls are still there."}},
    }
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a careful data analyst. Use the tool to run Python whenever a number has to be right."},
            {"role": "user", "content": "Conversation NUMBER. Here is sales.csv with the columns day, shop and amount: show me the revenue by month as bars."},
        ],
        "stream": True,
        "tools": [{"type": "function", "function": {"name": "execute_code", "description": "Runs Python and returns its output.", "parameters": parameters}}],
    }


# -------------------------------------------------------------------------------------------------------- answers


def answer_head(digest: bytes) -> bytes:
    """Status line and headers of the answer to the request with this digest."""
    return _ANSWER_HEAD % digest


def stamped(piece: bytes, arrived: int, now: int) -> bytes:
    """A piece of the answer with its times."""
    return piece.replace(UNTIMED, b"@%0*d#%0*d" % (DIGITS, arrived, DIGITS, now), 1)


def _chunk(event: str) -> bytes:
    data = f"data: {event}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def _delta(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _chunk(json.dumps({
        "id": "chatcmpl-C7tYk2pXq0a9VbZ1mN4rS6uW8xE3d", "object": "chat.completion.chunk", "created": 1793534400, "model": "bench",
        "service_tier": "default", "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }, separators=(",", ":")))


def _call(**function: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": function}]}


_ARGUMENTS = json.dumps({"code": _CODE})
ROLE = _delta({"role": "assistant", "content": "", "refusal": None})
CONTENT = tuple(_delta({"content": f"{UNTIMED.decode()} {word} "}) for word in _WORDS)
TOOL_CALL = b"".join((
    _delta({"tool_calls": [{"index": 0, "id": "call_Nq3vT8sLw1", "type": "function", "function": {"name": "execute_code", "arguments": ""}}]}),
    *(_delta(_call(arguments=_ARGUMENTS[at:at + _PIECE])) for at in range(0, len(_ARGUMENTS), _PIECE)),
    _delta({}, "tool_calls"), _chunk("[DONE]"), b"0\r\n\r\n",
))
BODY = b"".join((ROLE, *CONTENT, TOOL_CALL))
"""The answer below its head, in its transfer chunks, untimed."""


def complete(raw: bytes | bytearray) -> bool:
    """Whether ``raw`` is an answer up to its end. The data of ours nowhere looks like the end of a chunked body."""
    if raw.endswith(END):
        return True
    end = raw.find(b"\r\n\r\n")
    length = _LENGTH.search(raw, 0, end) if end >= 0 else None
    return length is not None and len(raw) >= end + 4 + int(length[1])


def judge(raw: bytes, digest: bytes) -> str:
    """``identical``, ``reframed`` or ``same stream``; else what is wrong with this answer to the request with ``digest``."""
    head = answer_head(digest)
    if raw == head + BODY:
        return IDENTICAL
    raw = STAMP.sub(UNTIMED, raw)
    if raw == head + BODY:
        return IDENTICAL
    own_head, _, body = raw.partition(b"\r\n\r\n")
    status = own_head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        return f"status {b''.join(status).decode('ascii', 'replace') or 'none'}"
    try:
        data = dechunked(body)
        if own_head + b"\r\n\r\n" == head and data == _DATA:
            return REFRAMED
        return SAME if meaning(data) == _MEANING else "another stream"
    except (ValueError, LookupError, TypeError, AttributeError):
        return "no stream"


def dechunked(body: bytes) -> bytes:
    """The data of a chunked body. Raises ValueError for what is none."""
    data: list[bytes] = []
    at = 0
    while True:
        line = body.index(b"\r\n", at)
        size = int(body[at:line].partition(b";")[0], 16)
        if not size:
            return b"".join(data)
        data.append(body[line + 2:line + 2 + size])
        at = line + 2 + size + 2


def meaning(data: bytes) -> tuple[str, str, str, bool]:
    """What a client makes of a stream: its content, the tool's name and arguments, and whether it came to its end."""
    content, name, arguments, done = "", "", "", False
    for line in data.splitlines():
        event = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:"):
            continue
        if event == b"[DONE]":
            done = True
            continue
        for choice in json.loads(event)["choices"]:
            delta = choice["delta"]
            content += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                name += call["function"].get("name") or ""
                arguments += call["function"].get("arguments") or ""
    return content, name, arguments, done


_DATA = dechunked(BODY)
_MEANING = meaning(_DATA)
