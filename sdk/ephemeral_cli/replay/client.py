"""The program that talks: an ordinary one, in a process of its own, that knows nothing of us.

It holds conversations with the official ``openai`` client (its address from ``OPENAI_BASE_URL``) and runs the model's code
with the official MCP client. Reads one order a line from standard input, writes one outcome a line to standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from openai import AsyncOpenAI

import ephemeral
from ephemeral_cli.replay.orders import Order, Outcome

MAX_TURNS = 6
TOOL_TIMEOUT_SECONDS = 600.0
SESSION_HEADER = "X-Ephemeral-Session-Id"


async def converse(order: Order, openai: AsyncOpenAI) -> Outcome:
    """Hold one conversation to its end. What goes wrong is in ``error``."""
    outcome = Outcome(id=order.id)
    messages = list(order.messages)
    started = time.perf_counter()
    try:
        async with AsyncExitStack() as stack:
            tools = await _connect(stack, order)
            declared = await _declare(tools)
            started = time.perf_counter()
            for _ in range(MAX_TURNS):
                text = ""
                calls: dict[int, dict[str, str]] = {}
                async for said, pieces in _answer(order, openai, messages, declared):
                    if outcome.first_ms is None:
                        outcome.first_ms = (time.perf_counter() - started) * 1000
                    text += said or ""
                    for index, piece in pieces:
                        _join(calls, index, piece)
                messages.append(_said(text, calls))
                if not calls:
                    outcome.final = text
                    break
                for call in calls.values():
                    code = _code(call["arguments"])
                    answer = await tools.call_tool(call["name"], {"code": code}, read_timeout_seconds=TOOL_TIMEOUT_SECONDS)
                    words = "\n".join(part.text for part in answer.content if part.type == "text")
                    outcome.codes.append(code)
                    outcome.outputs.append(words)
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": words or "(no output)"})
    except Exception as problem:  # one conversation that breaks must not take the others with it
        outcome.error = _words(problem)
    return outcome


async def _answer(order: Order, openai: AsyncOpenAI, messages: list[dict[str, Any]],
                  declared: list[dict[str, Any]]) -> AsyncIterator[tuple[str | None, list[tuple[int, Any]]]]:
    """The model's answer in pieces: text, and parts of tool calls with their call's place. One piece when it is not streamed."""
    request: dict[str, Any] = {"model": order.model, "messages": messages, "tools": declared}
    if not order.streamed:
        whole = await openai.chat.completions.create(**request)
        for choice in whole.choices:
            yield choice.message.content, list(enumerate(choice.message.tool_calls or []))
        return
    async for chunk in await openai.chat.completions.create(**request, stream=True):
        for choice in chunk.choices:
            yield choice.delta.content, [(piece.index, piece) for piece in choice.delta.tool_calls or []]


async def _connect(stack: AsyncExitStack, order: Order) -> Client:
    headers = {SESSION_HEADER: order.session} if order.session else None
    http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(TOOL_TIMEOUT_SECONDS, connect=5)))
    return await stack.enter_async_context(Client(streamable_http_client(order.mcp, http_client=http)))


async def _declare(tools: Client) -> list[dict[str, Any]]:
    """The server's tools as the model wants them declared."""
    listed = await tools.list_tools()
    return [
        {"type": "function", "function": {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}}
        for tool in listed.tools
    ]


def _join(calls: dict[int, dict[str, str]], index: int, piece: Any) -> None:
    call = calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
    call["id"] = piece.id or call["id"]
    call["name"] += piece.function.name or ""
    call["arguments"] += piece.function.arguments or ""


def _said(text: str, calls: dict[int, dict[str, str]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}} for call in calls.values()
        ]
    return message


def _code(arguments: str) -> str:
    return str(json.loads(arguments)["code"])


def _words(problem: BaseException) -> str:
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return f"{type(problem).__name__}: {problem}"[:500]


def _openai(order: Order) -> AsyncOpenAI:
    if order.wrapped_base_url:
        return ephemeral.wrap(AsyncOpenAI(base_url=order.wrapped_base_url, max_retries=0))
    headers = {SESSION_HEADER: order.session} if order.session else None
    return AsyncOpenAI(max_retries=0, default_headers=headers)


async def serve() -> None:
    """Take orders until standard input ends; each is a conversation of its own, at once."""
    reader = asyncio.StreamReader(limit=64 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def hold(line: bytes) -> None:
        order = Order.model_validate_json(line)
        async with _openai(order) as client:
            outcome = await converse(order, client)
        sys.stdout.write(outcome.model_dump_json() + "\n")
        sys.stdout.flush()

    async with asyncio.TaskGroup() as conversations:
        while line := await reader.readline():
            conversations.create_task(hold(line))


if __name__ == "__main__":
    asyncio.run(serve())
