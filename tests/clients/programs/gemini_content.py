"""generateContent with the google-genai client: sync and async, streamed, function calls, errors; and the JSON array form."""

from __future__ import annotations

import json
import re
import urllib.request

from google import genai
from google.genai import types
from record import KEY, drained, prompt, step, url

FUNCTION = types.FunctionDeclaration(
    name="execute_code",
    description="Runs Python.",
    parameters_json_schema={"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
)
TOOLS = types.GenerateContentConfig(
    tools=[types.Tool(function_declarations=[FUNCTION])],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)
THINKING = TOOLS.model_copy(update={"thinking_config": types.ThinkingConfig(include_thoughts=True)})
client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=url("gemini")))


def user(text: str) -> types.Content:
    return types.Content(role="user", parts=[types.Part(text=text)])


@step
def plain():
    return client.models.generate_content(model="fake", contents="Grüße 🐍")


@step
def every_coding():
    models = ("fake-gzip", "fake-br", "fake-zstd", "fake-deflate", "fake-identity")
    return [client.models.generate_content(model=model, contents="hello") for model in models]


@step
def conversation():
    """Streamed, with thoughts, a function call, and its result."""
    contents = [user(prompt("content"))]
    first = list(client.models.generate_content_stream(model="fake", contents=contents, config=THINKING))
    parts = [part for chunk in first for part in chunk.candidates[0].content.parts if not part.thought]
    called = next(part.function_call for part in parts if part.function_call)
    contents.append(types.Content(role="model", parts=parts))
    result = types.FunctionResponse(name=called.name, id=called.id, response={"output": "héllo 🐍"})
    contents.append(types.Content(role="user", parts=[types.Part(function_response=result)]))
    return [first, list(client.models.generate_content_stream(model="fake", contents=contents, config=THINKING))]


def raw(protocol: str, query: str, **more: object) -> list:
    """A conversation in forms that the API has and this client does not use: an array, arguments in parts, snake_case."""
    declaration = {"name": "execute_code", "description": "Runs Python.", "parameters": {"type": "OBJECT"}}
    contents: list[dict] = [{"role": "user", "parts": [{"text": prompt(protocol)}]}]
    body = {"contents": contents, "tools": [{"function_declarations": [declaration]}], **more}
    seen = []
    for _ in range(2):
        request = urllib.request.Request(
            f"{url('gemini')}/v1beta/models/fake:streamGenerateContent{query}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "x-goog-api-key": KEY},
        )
        with urllib.request.urlopen(request) as answer:
            said = answer.read()
            seen.append([answer.status, answer.getheaders(), said])
        text = "".join(json.loads(one) for one in re.findall(r'"text": ?("(?:[^"\\]|\\.)*")', said.decode()))
        which = {"name": "execute_code", "id": "".join(re.findall(r"fc-\w+", said.decode()))}
        call = {"functionCall": {**which, "args": {"code": "whatever it was"}}}
        result = {"functionResponse": {**which, "response": {"output": "héllo 🐍"}}}
        contents += [{"role": "model", "parts": [{"text": text}, call]}, {"role": "user", "parts": [result]}]
    return seen


@step
def array_conversation():
    return raw("array", "")


@step
def partial_arguments_conversation():
    calling = {"function_calling_config": {"mode": "AUTO", "stream_function_call_arguments": True}}
    return raw("partial", "?alt=sse", tool_config=calling)


@step
def streamed_in_every_coding():
    models = ("fake-gzip", "fake-br-shreds", "fake-zstd", "fake-deflate-shreds", "fake-shreds")
    stream = client.models.generate_content_stream
    return [drained(stream(model=model, contents="go", config=TOOLS)) for model in models]


@step
async def async_streamed():
    stream = await client.aio.models.generate_content_stream(model="fake", contents="go", config=TOOLS)
    return [chunk async for chunk in stream]


@step
async def left_early():
    stream = await client.aio.models.generate_content_stream(model="fake-slow", contents="go")
    seen = [await anext(stream), await anext(stream)]
    await stream.aclose()
    await client.aio.aclose()
    return seen


@step
def errors():
    raised = []
    for model in ("fake-400", "fake-429", "fake-500", "fake-503"):
        try:
            client.models.generate_content(model=model, contents="go")
        except genai.errors.APIError as error:
            raised.append(error)
        raised += drained(client.models.generate_content_stream(model=model, contents="go"))
    return raised


@step
def wrong_key():
    wrong = genai.Client(api_key="sk-wrong", http_options=types.HttpOptions(base_url=url("gemini")))
    return wrong.models.generate_content(model="fake", contents="go")


@step
def error_in_the_stream():
    return drained(client.models.generate_content_stream(model="fake-error", contents="go"))


@step
def connection_lost_in_the_stream():
    return drained(client.models.generate_content_stream(model="fake-cut", contents="go"))


@step
def others():
    counted = client.models.count_tokens(model="fake", contents="how many?")
    embedded = client.models.embed_content(model="fake", contents=["one", "zwei 🐍"])
    return [counted, embedded, list(client.models.list())]
