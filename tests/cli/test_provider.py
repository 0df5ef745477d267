"""The replaying provider, asked by the official client."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from aiohttp.test_utils import TestServer

from ephemeral_cli.replay.provider import Provider, tokens
from ephemeral_cli.replay.tasks import Task

CODE = 'import pandas as pd\n\nprint("größer", {"a": [1, 2]}, \'\\n\')\n'
WITH_CODE = Task(id="a", messages=[{"role": "user", "content": "sum it up"}], code=CODE, prose="Let me see.", final="It is 3.")
TALK = Task(id="b", messages=[{"role": "user", "content": "hello"}], final="Hello to you.")
TOOLS: Any = [{"type": "function", "function": {"name": "execute_code", "parameters": {"type": "object"}}}]


@asynccontextmanager
async def provider(ttft: float = 0, pace: float = 10_000) -> AsyncIterator[openai.AsyncOpenAI]:
    async with TestServer(Provider([WITH_CODE, TALK], ttft, pace).app()) as server:
        async with openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="x", max_retries=0) as client:
            yield client


async def streamed(client: openai.AsyncOpenAI, messages: Any, **more: Any) -> tuple[str, str, str, int]:
    """(text, arguments, finish reason, number of deltas)"""
    text = arguments = finish = ""
    count = 0
    async for chunk in await client.chat.completions.create(model="m", messages=messages, stream=True, **more):
        for choice in chunk.choices:
            count += 1
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                arguments += call.function.arguments or ""
    return text, arguments, finish, count


async def test_a_streamed_tool_call_parses_back_to_the_same_code() -> None:
    async with provider() as client:
        text, arguments, finish, count = await streamed(client, WITH_CODE.messages, tools=TOOLS)
    assert text == "Let me see."
    assert json.loads(arguments) == {"code": CODE}
    assert finish == "tool_calls"
    assert count >= len(tokens(text)) + len(tokens(arguments))  # one delta a token


async def test_an_answer_that_is_not_streamed_holds_the_same_call() -> None:
    async with provider() as client:
        answer = await client.chat.completions.create(model="m", messages=WITH_CODE.messages, tools=TOOLS)  # type: ignore[arg-type]
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "execute_code"
    assert json.loads(call.function.arguments) == {"code": CODE}
    assert answer.usage.completion_tokens > 10


async def test_after_the_tools_result_comes_the_final_answer() -> None:
    messages = [*WITH_CODE.messages, {"role": "assistant", "content": "Let me see."}, {"role": "tool", "tool_call_id": "c", "content": "3"}]
    async with provider() as client:
        text, arguments, finish, _ = await streamed(client, messages, tools=TOOLS)
    assert (text, arguments, finish) == ("It is 3.", "", "stop")


async def test_without_a_tool_the_code_is_fenced_in_the_prose() -> None:
    async with provider() as client:
        text, _, finish, _ = await streamed(client, WITH_CODE.messages)
    assert f"```python\n{CODE}\n```" in text
    assert finish == "stop"


async def test_a_conversation_that_needs_no_code_is_answered_in_words() -> None:
    async with provider() as client:
        text, arguments, _, _ = await streamed(client, TALK.messages, tools=TOOLS)
    assert (text, arguments) == ("Hello to you.", "")


async def test_usage_is_told_when_asked_for() -> None:
    async with provider() as client:
        stream = await client.chat.completions.create(model="m", messages=TALK.messages, stream=True, stream_options={"include_usage": True})  # type: ignore[arg-type]
        usages = [chunk.usage async for chunk in stream if chunk.usage]
    assert usages[0].completion_tokens == len(tokens("Hello to you."))


async def test_an_unknown_conversation_is_refused_in_openais_words() -> None:
    async with provider() as client:
        with pytest.raises(openai.NotFoundError, match="no recorded task"):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "who are you"}])


async def test_a_body_that_is_no_request_is_a_400() -> None:
    async with provider() as client:
        for body in (b"{", b"[]", b'{"messages": 3}'):
            async with httpx.AsyncClient() as raw:
                answer = await raw.post(f"{client.base_url}chat/completions", content=body)
            assert answer.status_code in (400, 404)
            assert "message" in answer.json()["error"]


async def test_pace_and_first_token_are_kept() -> None:
    # Lower bounds only: the pace is promised not to be faster.
    import time

    async with provider(ttft=0.3, pace=20) as client:
        started = time.monotonic()
        stream = await client.chat.completions.create(model="m", messages=TALK.messages, stream=True)  # type: ignore[arg-type]
        arrivals = [time.monotonic() - started async for chunk in stream]
    assert arrivals[0] >= 0.3
    assert arrivals[-1] >= 0.3 + (len(tokens("Hello to you.")) - 1) / 20


def test_tokens_join_back_to_the_text() -> None:
    assert "".join(tokens("ab\ncdefg\n\nh")) == "ab\ncdefg\n\nh"
    assert all(len(token) <= 4 for token in tokens("x" * 99))
