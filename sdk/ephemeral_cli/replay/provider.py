"""A provider that replays: a real HTTP server that speaks OpenAI's Chat Completions and answers from recorded tasks.

It knows a conversation by its first user message, waits ``ttft`` seconds, and then sends tokens (four characters each)
at a steady pace. ``python -m ephemeral_cli.replay.provider FILE PORT TTFT TOKENS_PER_SECOND`` serves until told to stop.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ephemeral_cli.replay.tasks import Task, load, opening

TOOL = "execute_code"
CHARACTERS_PER_TOKEN = 4
MAX_REQUEST_BYTES = 32 << 20

_TOKEN = re.compile(rf".{{1,{CHARACTERS_PER_TOKEN}}}", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """What the model says next: ``text``, then a call of the tool with ``code`` if there is one."""

    text: str
    code: str | None = None

    @property
    def arguments(self) -> str:
        return json.dumps({"code": self.code}, ensure_ascii=False)

    @property
    def finish(self) -> str:
        return "tool_calls" if self.code is not None else "stop"

    @property
    def tokens(self) -> int:
        return len(tokens(self.text)) + (len(tokens(self.arguments)) if self.code is not None else 0)


def tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


class Provider:
    """Answers from ``tasks``. ``ttft``: seconds until the first token; ``pace``: tokens a second after it."""

    def __init__(self, tasks: Iterable[Task], ttft: float, pace: float):
        self._tasks = {task.opening: task for task in tasks}
        self._ttft = ttft
        self._gap = 1 / pace

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/healthz", self._health)
        return app

    def answer(self, messages: list[dict[str, Any]], tools: list[Any]) -> Answer | None:
        """The next answer of the conversation that ``messages`` is; None when it is none of ours.

        Offered no tool, it writes the code into the prose, fenced, as models do.
        """
        task = self._tasks.get(opening(messages))
        if task is None:
            return None
        if task.code is None or any(message.get("role") == "tool" for message in messages):
            return Answer(task.final)
        if not tools:
            return Answer(f"{task.prose}\n\n```python\n{task.code}\n```\n".lstrip())
        return Answer(task.prose, task.code)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
            messages, tools, model = body["messages"], body.get("tools") or [], str(body.get("model", ""))
            answer = self.answer(messages, tools)
        except (ValueError, KeyError, TypeError, AttributeError):
            return _error(400, "the body must be a JSON object with messages")
        if answer is None:
            return _error(404, "no recorded task begins with this conversation's first user message")
        identity = f"chatcmpl-{secrets.token_hex(12)}"
        if body.get("stream"):
            return await self._stream(request, answer, identity, model, bool((body.get("stream_options") or {}).get("include_usage")))
        await asyncio.sleep(self._ttft + answer.tokens * self._gap)
        return web.json_response(_whole(answer, identity, model))

    async def _stream(self, request: web.Request, answer: Answer, identity: str, model: str, usage: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"})
        await response.prepare(request)
        frame = {"id": identity, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            text = json.dumps({**frame, "choices": choices, **more}, ensure_ascii=False)
            await response.write(f"data: {text}\n\n".encode())

        try:
            async for delta in self._paced(_deltas(answer)):
                await send([{"index": 0, "delta": delta, "finish_reason": None}])
            await send([{"index": 0, "delta": {}, "finish_reason": answer.finish}])
            if usage:
                await send([], usage=_usage(answer))
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        except ConnectionResetError:
            pass  # the client has gone: nobody to tell
        return response

    async def _paced(self, deltas: Iterable[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """One delta at a time, each at its own moment: a late one does not delay those after it."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._ttft
        for delta in deltas:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due += self._gap
            yield delta

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "replay", "object": "model", "created": 0, "owned_by": "ephemeral"}]})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})


def _deltas(answer: Answer) -> Iterable[dict[str, Any]]:
    role: dict[str, Any] = {"role": "assistant"}  # the first delta carries it
    for token in tokens(answer.text):
        yield {**role, "content": token}
        role = {}
    if answer.code is not None:
        call = {"index": 0, "id": f"call_{secrets.token_hex(12)}", "type": "function", "function": {"name": TOOL, "arguments": ""}}
        yield {**role, "tool_calls": [call]}
        for token in tokens(answer.arguments):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}


def _whole(answer: Answer, identity: str, model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.code is not None:
        function = {"name": TOOL, "arguments": answer.arguments}
        message["tool_calls"] = [{"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}]
    return {
        "id": identity, "object": "chat.completion", "created": int(time.time()), "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish}], "usage": _usage(answer),
    }


def _usage(answer: Answer) -> dict[str, int]:
    return {"prompt_tokens": 0, "completion_tokens": answer.tokens, "total_tokens": answer.tokens}


def _error(status: int, words: str) -> web.Response:
    return web.json_response({"error": {"message": words, "type": "invalid_request_error", "param": None, "code": None}}, status=status)


def main(arguments: list[str]) -> None:
    file, port, ttft, pace = arguments
    provider = Provider(load(Path(file)), float(ttft), float(pace))
    web.run_app(provider.app(), host="127.0.0.1", port=int(port), print=None, access_log=None, handler_cancellation=True)


if __name__ == "__main__":
    main(sys.argv[1:])
