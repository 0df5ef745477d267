"""Responses with the openai client: sync and async, streamed, over WebSocket; and Realtime."""

from __future__ import annotations

import openai
from record import KEY, NAME, drained, headers, prompt, step, url

TOOL = {
    "type": "function",
    "name": "execute_code",
    "description": "Runs Python.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"code": {"type": "string"}}},
}
CUSTOM = {"type": "custom", "name": "execute_code", "description": "Runs Python."}
client = openai.OpenAI(base_url=f"{url('openai')}/v1", api_key=KEY, max_retries=0)


def asynchronous() -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url('openai')}/v1", api_key=KEY, max_retries=0)


def result(call: object, kind: str = "function_call_output") -> list[dict]:
    return [{"type": kind, "call_id": call.call_id, "output": "héllo 🐍"}]


@step
def plain():
    raw = client.responses.with_raw_response.create(model="fake", input="Grüße 🐍", reasoning={"summary": "auto"})
    return [headers(raw.headers), raw.parse()]


@step
def tool_called():
    return client.responses.create(model="fake-br", input="compute", tools=[TOOL])


@step
def conversation():
    """Streamed, and continued by ``previous_response_id`` alone."""
    options = {"model": "fake", "tools": [TOOL], "stream": True}
    first = list(client.responses.create(input=prompt("responses"), reasoning={"summary": "auto"}, **options))
    done = first[-1].response
    again = client.responses.create(input=result(done.output[-1]), previous_response_id=done.id, **options)
    return [first, list(again)]


@step
def custom_tool_conversation():
    """Streamed, and continued by sending all of it again."""
    options = {"model": "fake-gzip-shreds", "tools": [CUSTOM], "stream": True}
    said = [{"role": "user", "content": prompt("custom")}]
    first = list(client.responses.create(input=said, **options))
    output = [item.model_dump(exclude_none=True) for item in first[-1].response.output]
    history = said + output + result(first[-1].response.output[-1], "custom_tool_call_output")
    return [first, list(client.responses.create(input=history, **options))]


@step
async def async_streamed():
    async with asynchronous() as client:
        stream = await client.responses.create(model="fake-zstd", input="go", tools=[TOOL], stream=True)
        return [event async for event in stream]


@step
def stream_helper():
    with client.responses.stream(model="fake", input="go", tools=[TOOL]) as stream:
        return [[event.type for event in stream], stream.get_final_response()]


@step
def streaming_response():
    with client.responses.with_streaming_response.create(model="fake", input="go", stream=True) as response:
        return [response.status_code, headers(response.headers), b"".join(response.iter_bytes())]


@step
def left_early():
    stream = client.responses.create(model="fake-slow", input="go", tools=[TOOL], stream=True)
    seen = [next(stream) for _ in range(3)]
    stream.close()
    return seen


@step
def errors():
    raised = []
    for model in ("fake-400", "fake-429", "fake-500"):
        try:
            client.responses.create(model=model, input="go", stream=True)
        except openai.APIStatusError as error:
            raised.append(error)
    return raised


@step
def error_in_the_stream():
    return drained(client.responses.create(model="fake-error", input="go", tools=[TOOL], stream=True))


@step
def socket_conversation():
    events = []
    with client.responses.connect() as connection:
        connection.response.create(model="fake", tools=[TOOL], input=prompt("responses socket"))
        done = _until_completed(connection, events).response
        again = result(done.output[-1])
        connection.response.create(model="fake", tools=[TOOL], input=again, previous_response_id=done.id)
        _until_completed(connection, events)
    return events


@step
def socket_error():
    with client.responses.connect() as connection:
        connection.response.create(model="fake-429", input="too much")
        return connection.recv()


def _until_completed(connection, events: list):
    while True:
        events.append(connection.recv())
        if events[-1].type == "response.completed":
            return events[-1]


@step
async def realtime_conversation():
    events = []
    tool = {key: value for key, value in TOOL.items() if key != "strict"}
    async with asynchronous() as client, client.realtime.connect(model=f"fake-{NAME}") as connection:
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"], "tools": [tool]})
        message = {"type": "input_text", "text": prompt("realtime")}
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": [message]})
        for turn in range(2):
            await connection.response.create()
            async for event in connection:
                events.append(event)
                if event.type == "response.done":
                    break
            if turn == 0:
                await connection.conversation.item.create(item=result(event.response.output[-1])[0])
    return events
