"""A stand-in for K2: a real HTTP server that streams answers as the hosted service does, good days and bad.

Behaviours are queued with ``will``; the last one stays. A request chooses its own behaviour with the header ``X-K2-Behaviour``, or with
what follows its model's name: ``MBZUAI-IFM/K2-Think-v2?reasoning_in=tagged&status=429&retry_after=2``. Also a program:
``python tests/fakes/k2.py --port 0 --answer TEXT`` prints its base URL and serves until it is ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal
from urllib.parse import parse_qsl

from aiohttp import web

MODEL = "MBZUAI-IFM/K2-Think-v2"
TOKENS_PER_SECOND = 73.0
REASONING_TOKENS = {"high": 4547, "medium": 841, "low": 22}
ERRORS = {
    400: "token model is not configured for this deployment",
    401: "invalid api key",
    403: "this key may not use this model",
    404: "not found",
    410: "the model has been sunset",
    422: "unknown parameter",
    429: "rate limit exceeded",
    500: "internal error",
    503: "no worker is ready",
    529: "overloaded",
}
_CHARACTERS = 4  # of a token


@dataclass(frozen=True)
class Behaviour:
    """One answer; None names the packages that the conversation names. ``reasoning_in``: ``inline`` (ended by ``</think>``, no opening tag), ``tagged`` (with it), or the name
    of the field; ``reasoning`` None thinks as many tokens as the request's effort takes. ``broken`` spoils the answer.

    ``stall_after`` stops for ever after so many pieces, ``break_after`` cuts the connection there, ``length_after`` ends there
    as at a limit. ``garbage`` is sent instead of it all, as ``garbage_type``. ``error_after`` sends an error with ``status``
    within the stream; ``unknown`` is a parameter that the server refuses. ``whole`` answers in one piece, not streamed."""

    answer: str | None = "done\n"
    reasoning: str | None = "The user wants numbers.\npackage wrong-guess\nSo that is settled."
    reasoning_in: Literal["inline", "tagged", "reasoning", "reasoning_content", "none"] = "inline"
    broken: Literal["", "fenced", "markdown", "json", "cut", "chatty", "listed"] = ""
    tokens_per_second: float = 2000.0
    first_token_seconds: float = 0.0
    status: int = 200
    message: str = ""
    retry_after: str | None = None
    stall_after: int | None = None
    break_after: int | None = None
    length_after: int | None = None
    error_after: int | None = None
    garbage: str | None = None
    garbage_type: str = "text/event-stream"
    unknown: str = ""
    whole: bool = False

    def chosen(self, text: str) -> Behaviour:
        """This one, with the fields that ``text`` sets: ``status=429&retry_after=2``."""
        kinds = {each.name: each.type for each in fields(self)}
        changes: dict[str, object] = {}
        for name, value in parse_qsl(text):
            kind = str(kinds.get(name, ""))
            if kind.startswith("int"):
                changes[name] = int(value)
            elif kind.startswith("float"):
                changes[name] = float(value)
            elif kind == "bool":
                changes[name] = value in ("1", "true")
            elif kind:
                changes[name] = value
        return replace(self, **changes)  # type: ignore[arg-type]


class K2:
    """The server. ``requests`` holds the bodies of all requests, ``cut`` counts answers whose reader left early. ``models`` are
    what it serves; ``listing`` is the status of ``GET /models``. Every ``broken_every``-th answer is broken, each time in
    another way; 0: none but those that are told to be."""

    def __init__(self, key: str = "k2-test-key", models: tuple[str, ...] = (MODEL,), broken_every: int = 0) -> None:
        self.key = key
        self.models = models
        self.listing = 200
        self.requests: list[dict[str, object]] = []
        self.cut = 0
        self.broken_every = broken_every
        self._answered = 0
        self._behaviours: deque[Behaviour] = deque([Behaviour()])
        self._closing = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self.base_url = ""

    def will(self, *behaviours: Behaviour) -> None:
        """Behave like this, one behaviour a request."""
        self._behaviours = deque(behaviours)

    async def start(self, port: int = 0) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401)
        if self.listing != 200:
            return _error(self.listing)
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "k2"} for name in self.models]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        behaviour = self._behaviours[0]
        if len(self._behaviours) > 1:
            self._behaviours.popleft()
        model, _, chosen = str(body.get("model")).partition("?")
        behaviour = behaviour.chosen(request.headers.get("X-K2-Behaviour", "")).chosen(chosen)
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401)
        if model not in self.models:
            return _error(400)
        if behaviour.unknown and behaviour.unknown in body:
            return _error(400, message=f"Unrecognized request argument supplied: {behaviour.unknown}")
        if behaviour.status != 200 and behaviour.error_after is None:
            return _error(behaviour.status, behaviour.retry_after, behaviour.message)
        if behaviour.garbage is not None:
            return web.Response(text=behaviour.garbage, content_type=behaviour.garbage_type)
        self._answered += 1
        if self.broken_every and self._answered % self.broken_every == 0:
            kinds = ("fenced", "markdown", "json", "cut", "chatty", "listed")
            behaviour = replace(behaviour, broken=kinds[self._answered // self.broken_every % len(kinds)])
        if behaviour.answer is None:
            behaviour = replace(behaviour, answer=_sensible(str(body["messages"])))
        if behaviour.reasoning is None:
            tokens = REASONING_TOKENS.get(str(body.get("reasoning_effort", "medium")), REASONING_TOKENS["medium"])
            behaviour = replace(behaviour, reasoning=("so be it " * tokens)[: tokens * _CHARACTERS])
        if behaviour.whole:
            message = {"role": "assistant", "content": "".join(delta.get("content", "") for delta in _deltas(behaviour))}
            return web.json_response({"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        return await self._stream(request, behaviour)

    async def _stream(self, request: web.Request, behaviour: Behaviour) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await asyncio.sleep(behaviour.first_token_seconds)
            for count, delta in enumerate(_deltas(behaviour)):
                if count == behaviour.break_after:
                    assert request.transport
                    request.transport.abort()
                    return response
                if count == behaviour.stall_after:
                    await self._closing.wait()
                    return response
                if count == behaviour.error_after:
                    error = {"message": ERRORS.get(behaviour.status, "error"), "code": behaviour.status}
                    await response.write(f"data: {json.dumps({'error': error})}\n\n".encode())
                    return response
                if count == behaviour.length_after:
                    await response.write(_chunk({}, "length"))
                    break
                await response.write(_chunk(delta))
                await asyncio.sleep(1 / behaviour.tokens_per_second)
            else:
                await response.write(_chunk({}, "stop"))
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError) as error:
            self.cut += 1
            if isinstance(error, asyncio.CancelledError):
                raise
        return response


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-k2", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }  # fmt: skip
    return f"data: {json.dumps(chunk)}\n\n".encode()


def _deltas(behaviour: Behaviour) -> Iterator[dict[str, str]]:
    reasoning, answer = behaviour.reasoning or "", _spoiled(behaviour.answer or "", behaviour.broken)
    if behaviour.reasoning_in in ("inline", "tagged"):
        opening = "<think>" if behaviour.reasoning_in == "tagged" else ""
        answer = f"{opening}{reasoning}</think>\n{answer}"
    elif behaviour.reasoning_in != "none":
        for piece in _pieces(reasoning):
            yield {behaviour.reasoning_in: piece}
    for piece in _pieces(answer):
        yield {"content": piece}


def _sensible(asked: str) -> str:
    """What anybody would answer: the packages that the conversation names, and nothing when it speaks of no work."""
    conversation = asked.partition("<conversation>")[2].partition("</conversation>")[0].lower()
    named = [name for name in ("pandas", "scipy", "matplotlib", "sympy", "networkx", "requests") if name in conversation]
    if not named and "code" not in conversation:
        return "nothing\ndone\n"
    return "".join(f"package {name}\nimport {name}\n" for name in named) + "done\n"


def _spoiled(answer: str, how: str) -> str:
    """``answer`` as one in five comes: the same said in a form that nobody asked for."""
    lines = [line for line in answer.splitlines() if line and line != "done"]
    if how == "fenced":
        return "Here is what the code will need:\n```text\n" + "\n".join(lines) + "\n```\n"
    if how == "markdown":
        return "".join(f"{number}. **{line.partition(' ')[0]}**: `{line.partition(' ')[2]}`\n" for number, line in enumerate(lines, 1))
    if how == "json":
        said: dict[str, list[str]] = {}
        for line in lines:
            said.setdefault(line.partition(" ")[0] + "s", []).append(line.partition(" ")[2])
        return "```json\n" + json.dumps(said, indent=2) + "\n```"
    if how == "cut":  # in the middle of a line that follows
        return "\n".join(lines) + "\nimport sk"
    if how == "chatty":
        return "Sure! I think that\n" + "".join(f"- {line}  # likely\n" for line in lines) + "\nLet me know if you need more.\n"
    if how == "listed":
        return "packages: " + ", ".join(line.partition(" ")[2] for line in lines if line.startswith("package ")) + "\n" + "".join(
            f"{line}\n" for line in lines if not line.startswith("package "))
    return answer


def _pieces(text: str) -> list[str]:
    return [text[start : start + _CHARACTERS] for start in range(0, len(text), _CHARACTERS)]


def _error(status: int, retry_after: str | None = None, message: str = "") -> web.Response:
    headers = {"Retry-After": retry_after} if retry_after else None
    return web.json_response({"error": {"message": message or ERRORS.get(status, "error"), "code": status}}, status=status, headers=headers)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="k2-test-key")
    parser.add_argument("--answer", help="default: the packages that the conversation names")
    parser.add_argument("--reasoning-in", default="inline")
    parser.add_argument("--tokens-per-second", type=float, default=TOKENS_PER_SECOND)
    parser.add_argument("--broken-every", type=int, default=0, help="5: as the hosted service")
    parser.add_argument("--thinks", action="store_true", help="as long as the effort takes, not a fixed text")
    arguments = parser.parse_args()
    server = K2(arguments.key, broken_every=arguments.broken_every)
    behaviour = Behaviour(
        answer=arguments.answer and arguments.answer.replace("\\n", "\n") + "\n",
        reasoning_in=arguments.reasoning_in,
        tokens_per_second=arguments.tokens_per_second,
    )
    server.will(replace(behaviour, reasoning=None) if arguments.thinks else behaviour)
    await server.start(arguments.port)
    print(server.base_url, flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop()


if __name__ == "__main__":
    try:
        asyncio.run(_main())
    except KeyboardInterrupt:
        pass
