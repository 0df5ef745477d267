"""A stand-in for K2: a real HTTP server that streams answers as the hosted service does, good days and bad.

Behaviours are queued with ``will``; the last one stays. Also a program: ``python tests/fakes/k2.py --port 0 --answer TEXT``
prints its base URL and serves until it is ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

MODEL = "MBZUAI-IFM/K2-Think-v2"
ERRORS = {
    400: "token model is not configured for this deployment",
    401: "invalid api key",
    410: "the model has been sunset",
    429: "rate limit exceeded",
    500: "internal error",
    529: "overloaded",
}


@dataclass(frozen=True)
class Behaviour:
    """One answer. ``reasoning_in``: ``inline`` (ended by ``</think>``, no opening tag), ``tagged`` (with it), or the name
    of the field. ``stall_after`` stops for ever after so many pieces, ``break_after`` cuts the connection there."""

    answer: str = "done\n"
    reasoning: str = "The user wants numbers.\npackage wrong-guess\nSo that is settled."
    reasoning_in: Literal["inline", "tagged", "reasoning", "reasoning_content", "none"] = "inline"
    tokens_per_second: float = 2000.0
    first_token_seconds: float = 0.0
    status: int = 200
    retry_after: str | None = None
    stall_after: int | None = None
    break_after: int | None = None


class K2:
    """The server. ``requests`` holds the bodies of all requests, ``cut`` counts answers whose reader left early."""

    def __init__(self, key: str = "k2-test-key") -> None:
        self.key = key
        self.requests: list[dict[str, object]] = []
        self.cut = 0
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
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "k2"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        behaviour = self._behaviours[0]
        if len(self._behaviours) > 1:
            self._behaviours.popleft()
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401)
        if body.get("model") != MODEL:
            return _error(400)
        if behaviour.status != 200:
            return _error(behaviour.status, behaviour.retry_after)
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
                chunk = {
                    "id": "chatcmpl-k2", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
                    "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
                }  # fmt: skip
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
                await asyncio.sleep(1 / behaviour.tokens_per_second)
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError) as error:
            self.cut += 1
            if isinstance(error, asyncio.CancelledError):
                raise
        return response


def _deltas(behaviour: Behaviour) -> list[dict[str, str]]:
    reasoning, answer = behaviour.reasoning, behaviour.answer
    if behaviour.reasoning_in in ("inline", "tagged"):
        opening = "<think>" if behaviour.reasoning_in == "tagged" else ""
        return [{"content": piece} for piece in _pieces(f"{opening}{reasoning}</think>\n{answer}")]
    if behaviour.reasoning_in == "none":
        return [{"content": piece} for piece in _pieces(answer)]
    return [{behaviour.reasoning_in: piece} for piece in _pieces(reasoning)] + [{"content": p} for p in _pieces(answer)]


def _pieces(text: str) -> list[str]:
    return [text[start : start + 4] for start in range(0, len(text), 4)]


def _error(status: int, retry_after: str | None = None) -> web.Response:
    headers = {"Retry-After": retry_after} if retry_after else None
    return web.json_response({"error": {"message": ERRORS[status], "code": status}}, status=status, headers=headers)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="k2-test-key")
    parser.add_argument("--answer", default="done")
    parser.add_argument("--reasoning-in", default="inline")
    parser.add_argument("--tokens-per-second", type=float, default=73.0)
    arguments = parser.parse_args()
    server = K2(arguments.key)
    answer = arguments.answer.replace("\\n", "\n") + "\n"
    server.will(
        Behaviour(answer=answer, reasoning_in=arguments.reasoning_in, tokens_per_second=arguments.tokens_per_second)
    )
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
