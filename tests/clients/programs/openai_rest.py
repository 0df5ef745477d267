"""What passes through unread with the openai client: embeddings, models, uploads, binary answers, unknown paths."""

from __future__ import annotations

import io

import openai
from record import KEY, headers, step, url

client = openai.OpenAI(base_url=f"{url('openai')}/v1", api_key=KEY, max_retries=0)
BINARY = bytes(range(256)) * 999


@step
def embeddings():
    return [
        client.embeddings.create(model="fake", input=["one", "zwei 🐍"], encoding_format=f) for f in ("float", "base64")
    ]


@step
def models():
    return list(client.models.list())


@step
def upload():
    return client.files.create(file=("daten 1.bin", io.BytesIO(BINARY)), purpose="user_data")


@step
async def upload_async():
    async with openai.AsyncOpenAI(base_url=f"{url('openai')}/v1", api_key=KEY) as client:
        return await client.files.create(file=("b.bin", BINARY[:1000]), purpose="user_data")


@step
def download():
    return client.files.content("file-fake").read()


@step
def speech():
    with client.audio.speech.with_streaming_response.create(model="fake", voice="alloy", input="Hallo") as response:
        return [headers(response.headers), b"".join(response.iter_bytes(1000))]


@step
def unknown_path():
    return client.post("/nothing/here?a=1&b=%2F%20x", cast_to=object, body={"x": 1})


@step
def extra_headers_and_query():
    return client.models.with_raw_response.list(
        extra_headers={"X-Mixed-Case": "a, b; c=1", "baggage": "k=v"}, extra_query={"after": "ä/b c"}
    ).text
