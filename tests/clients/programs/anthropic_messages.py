"""Messages with the anthropic client: sync and async, streamed, raw, tools, thinking, errors, token counts."""

from __future__ import annotations

import anthropic
from record import KEY, drained, headers, prompt, step, url

TOOL = {
    "name": "execute_code",
    "description": "Runs Python.",
    "input_schema": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
}
THINKING = {"type": "enabled", "budget_tokens": 1024}
client = anthropic.Anthropic(base_url=url("anthropic"), api_key=KEY, max_retries=0)


def asynchronous() -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=url("anthropic"), api_key=KEY, max_retries=0)


def ask(text: str, model: str = "fake", **more: object) -> dict:
    return {"model": model, "max_tokens": 2048, "messages": [{"role": "user", "content": text}], **more}


def answered(said: dict, answer: anthropic.types.Message) -> dict:
    """The next turn: the whole history, and what the tool said."""
    result = {"type": "tool_result", "tool_use_id": answer.content[-1].id, "content": "héllo 🐍"}
    content = [block.model_dump(exclude_none=True) for block in answer.content]
    history = [*said["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    return {**said, "messages": history}


@step
def plain():
    return client.messages.create(**ask("Grüße 🐍"))


@step
def every_coding():
    models = ("fake-gzip", "fake-br", "fake-zstd", "fake-deflate", "fake-identity")
    raw = [client.messages.with_raw_response.create(**ask("hello", model)) for model in models]
    return [[headers(one.headers), one.parse()] for one in raw]


@step
def conversation():
    """Streamed, with thinking, a tool, and its result."""
    said = ask(prompt("messages"), tools=[TOOL], thinking=THINKING, system="You compute.")
    with client.messages.stream(**said) as stream:
        first = [list(stream), stream.get_final_message()]
    return [first, list(client.messages.create(**answered(said, first[1]), stream=True))]


@step
def whole_conversation():
    """Nothing streamed, answers compressed."""
    said = ask(prompt("whole"), "fake-gzip", tools=[TOOL])
    first = client.messages.create(**said)
    return [first, client.messages.create(**answered(said, first))]


@step
def streamed_in_every_coding():
    models = ("fake-gzip", "fake-br-shreds", "fake-zstd", "fake-deflate-shreds", "fake-shreds")
    return [list(client.messages.create(**ask("go", model, tools=[TOOL], stream=True))) for model in models]


@step
def streaming_response():
    with client.messages.with_streaming_response.create(**ask("go", stream=True)) as response:
        return [response.status_code, headers(response.headers), list(response.iter_lines())]


@step
async def async_streamed():
    async with asynchronous() as client:
        async with client.messages.stream(**ask("go", tools=[TOOL], thinking=THINKING)) as stream:
            return [[event async for event in stream], await stream.get_final_message()]


@step
async def bearer_token():
    async with anthropic.AsyncAnthropic(base_url=url("anthropic"), auth_token=KEY) as client:
        return await client.messages.create(**ask("hello"))


@step
def left_early():
    stream = client.messages.create(**ask("go", "fake-slow", tools=[TOOL], stream=True))
    seen = [next(stream) for _ in range(3)]
    stream.close()
    return seen


@step
def errors():
    raised = []
    for model in ("fake-400", "fake-429", "fake-500", "fake-529-br"):
        for stream in (False, True):
            try:
                client.messages.create(**ask("go", model, stream=stream))
            except anthropic.APIStatusError as error:
                raised.append(error)
    return raised


@step
def wrong_key():
    return client.with_options(api_key="sk-wrong").messages.create(**ask("go"))


@step
def error_in_the_stream():
    return drained(client.messages.create(**ask("go", "fake-error", tools=[TOOL], stream=True)))


@step
def connection_lost_in_the_stream():
    return drained(client.messages.create(**ask("go", "fake-cut", tools=[TOOL], stream=True)))


@step
def tokens():
    return client.messages.count_tokens(model="fake", messages=ask("how many?")["messages"])


@step
def models():
    return list(client.models.list())


@step
def unknown_path():
    return client.post("/v1/nothing?b=%2F", cast_to=object, body={"x": 1})
