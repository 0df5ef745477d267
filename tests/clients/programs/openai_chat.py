"""Chat Completions and legacy completions with the openai client: sync and async, streamed, raw, tools, errors."""

from __future__ import annotations

import openai
from record import KEY, drained, headers, prompt, step, url

TOOL = {
    "type": "function",
    "function": {
        "name": "execute_code",
        "description": "Runs Python.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}
CUSTOM = {"type": "custom", "custom": {"name": "execute_code", "description": "Runs Python."}}
client = openai.OpenAI(base_url=f"{url('openai')}/v1", api_key=KEY, max_retries=0)


def asynchronous() -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url('openai')}/v1", api_key=KEY, max_retries=0)


def ask(text: str, model: str = "fake", **more: object) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@step
def plain():
    return client.chat.completions.create(**ask("Grüße 🐍"))


@step
def every_coding():
    models = ("fake-gzip", "fake-br", "fake-zstd", "fake-deflate", "fake-identity")
    raw = [client.chat.completions.with_raw_response.create(**ask("hello", model)) for model in models]
    return [[headers(one.headers), one.parse()] for one in raw]


@step
def tool_called():
    return client.chat.completions.create(**ask("compute", tools=[TOOL], reasoning_effort="low"))


@step
def conversation():
    """Streamed, with a tool's result in the second turn."""
    messages = [{"role": "system", "content": "You compute."}, {"role": "user", "content": prompt("chat")}]
    options = {"model": "fake", "tools": [TOOL], "stream": True, "stream_options": {"include_usage": True}}
    first = list(client.chat.completions.create(messages=messages, **options))
    deltas = [chunk.choices[0].delta for chunk in first if chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    function = {"name": calls[0].function.name, "arguments": "".join(call.function.arguments for call in calls)}
    text = "".join(delta.content or "" for delta in deltas)
    call = {"id": calls[0].id, "type": "function", "function": function}
    messages.append({"role": "assistant", "content": text, "tool_calls": [call]})
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": "héllo 🐍"})
    return [first, list(client.chat.completions.create(messages=messages, **options))]


@step
def streamed_in_every_coding():
    models = ("fake-gzip", "fake-br-shreds", "fake-zstd", "fake-deflate-shreds", "fake-shreds")
    return [list(client.chat.completions.create(**ask("go", model, tools=[TOOL], stream=True))) for model in models]


@step
def custom_tool_streamed():
    return list(client.chat.completions.create(**ask("go", tools=[CUSTOM], stream=True)))


@step
def stream_helper():
    with client.chat.completions.stream(**ask("go", tools=[TOOL])) as stream:
        return [[event.type for event in stream], stream.get_final_completion()]


@step
def streaming_response():
    with client.chat.completions.with_streaming_response.create(**ask("go", stream=True)) as response:
        return [response.status_code, headers(response.headers), list(response.iter_lines())]


@step
async def many_at_once():
    import asyncio

    async with asynchronous() as client:
        return await asyncio.gather(*(client.chat.completions.create(**ask(f"number {n}")) for n in range(3)))


@step
async def async_streamed():
    async with asynchronous() as client:
        stream = await client.chat.completions.create(**ask("go", tools=[TOOL], stream=True, reasoning_effort="low"))
        return [chunk async for chunk in stream]


@step
async def left_early():
    async with asynchronous() as client:
        stream = await client.chat.completions.create(**ask("go", "fake-slow", stream=True))
        seen = [await anext(stream), await anext(stream)]
        await stream.close()
        return seen


@step
def errors():
    raised = []
    for model in ("fake-400", "fake-429", "fake-500", "fake-503-br"):
        for stream in (False, True):
            try:
                client.chat.completions.create(**ask("go", model, stream=stream))
            except openai.APIStatusError as error:
                raised.append(error)
    return raised


@step
def wrong_key():
    return client.with_options(api_key="sk-wrong").chat.completions.create(**ask("go"))


@step
def retried_by_the_client():
    return client.with_options(max_retries=1).chat.completions.create(**ask("go", "fake-429"))


@step
def error_in_the_stream():
    return drained(client.chat.completions.create(**ask("go", "fake-error", stream=True)))


@step
def connection_lost_in_the_stream():
    return drained(client.chat.completions.create(**ask("go", "fake-cut", stream=True)))


@step
def legacy_completions():
    whole = client.completions.create(model="fake", prompt="Once")
    return [whole, list(client.completions.create(model="fake", prompt="Once", stream=True))]
