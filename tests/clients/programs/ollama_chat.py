"""Chat and generate with the ollama client: sync and async, streamed, tools, thinking, errors, embeddings."""

from __future__ import annotations

import ollama
from record import drained, prompt, step, url

TOOL = {
    "type": "function",
    "function": {
        "name": "execute_code",
        "description": "Runs Python.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}
client = ollama.Client(host=url("ollama"))


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


@step
def plain():
    return client.chat("fake", user("Grüße 🐍"))


@step
def tool_called():
    return client.chat("fake-gzip", user("compute"), tools=[TOOL], think=True)


@step
def conversation():
    """Streamed, with a tool's result in the second turn."""
    messages = user(prompt("chat"))
    first = list(client.chat("fake", messages, tools=[TOOL], think=True, stream=True))
    calls = [call.model_dump() for line in first for call in line.message.tool_calls or []]
    text = "".join(line.message.content or "" for line in first)
    messages.append({"role": "assistant", "content": text, "tool_calls": calls})
    messages.append({"role": "tool", "tool_name": "execute_code", "content": "héllo 🐍"})
    return [first, list(client.chat("fake", messages, tools=[TOOL], think=True, stream=True))]


@step
def streamed_in_every_coding():
    models = ("fake-gzip", "fake-deflate-shreds", "fake-shreds", "fake-br")
    return [list(client.chat(model, user("go"), tools=[TOOL], stream=True)) for model in models]


@step
async def async_streamed():
    client = ollama.AsyncClient(host=url("ollama"))
    return [line async for line in await client.chat("fake", user("go"), tools=[TOOL], stream=True)]


@step
async def left_early():
    client = ollama.AsyncClient(host=url("ollama"))
    stream = await client.chat("fake-slow", user("go"), stream=True)
    seen = [await anext(stream), await anext(stream)]
    await stream.aclose()
    return seen


@step
def errors():
    raised = []
    for model in ("fake-400", "fake-404", "fake-500"):
        raised += drained(client.chat(model, user("go"), stream=True))
        try:
            client.chat(model, user("go"))
        except ollama.ResponseError as error:
            raised.append(error)
    return raised


@step
def error_in_the_stream():
    return drained(client.chat("fake-error", user("go"), stream=True))


@step
def connection_lost_in_the_stream():
    return drained(client.chat("fake-cut", user("go"), stream=True))


@step
def generated():
    return [client.generate("fake", "Once"), list(client.generate("fake", "Once", stream=True))]


@step
def others():
    return [client.list(), client.embed("fake", ["one", "zwei 🐍"])]
